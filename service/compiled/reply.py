"""A plain reply to /score, written by compiled code from the graph's logits: no object is made of any candidate."""

import ctypes
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from bundle.correct import Calibrator, Correction, Isotonic, Platt, TaskCorrection, Temperature, logit
from service.compiled.head import Head
from service.compiled.library import compiled_module

_FACTORS: Final = ("ctr", "cvr")
_PRODUCT: Final = "ctcvr"


class _Piece(ctypes.Structure):
    """``ReplyPiece`` of reply.cpp."""

    _fields_ = (("start", ctypes.c_char_p), ("length", ctypes.c_int64))


class _Task(ctypes.Structure):
    """``ReplyTask`` of reply.cpp."""

    _fields_ = (
        *((name, _Piece) for name in ("probabilities", "logits")),
        *((name, ctypes.c_double) for name in ("log_rate", "serve_prior", "train_prior")),
        *((name, ctypes.c_double) for name in ("slope", "offset", "temperature")),
        *(("knots", ctypes.c_int64), ("from_", ctypes.c_void_p), ("to", ctypes.c_void_p)),
    )


class _Form(ctypes.Structure):
    """``ReplyForm`` of reply.cpp."""

    _fields_ = (
        *(("tasks", ctypes.c_void_p), ("count", ctypes.c_int64)),
        *(("ctr", ctypes.c_int64), ("cvr", ctypes.c_int64), ("product", _Piece)),
    )


class Unsupported(ValueError):
    """Replies of this model cannot be written here; the message says why in one sentence."""


class Written(NamedTuple):
    """A reply: its JSON, and the mean probability of each of its tasks, in their order there."""

    body: bytes
    means: tuple[float, ...]


class ReplyWriter:
    """Writes the replies of one version of a model, for one thread.

    Args:
        correction: From logits to probabilities.
        tasks: (K,) of the graph, in the order of its logits.
        model: Its name.
        version: Its version.
        path: Of the library; by default where ``build`` puts it.

    Attributes:
        probabilities: The tasks of a reply, the product of two of them included where it is one more.
        write: The reply; None where the logits are of another form than the model's, or one is no finite number, or the
            id would need escapes. It takes (1, C, K) logits of the graph, the id of the request, the source of the
            behaviours, how many of them were used, features that nobody gave, whether the logits are wanted, and
            whether the history was lost.

    Raises:
        CompiledUnavailable: It was not built, cannot be opened, or was built from other source.
        Unsupported: A task is there twice, or there is none.
    """

    write: Callable[[NDArray[np.float32], str, str, int, tuple[str, ...], bool, bool], Written | None]

    def __init__(
        self, correction: Correction, tasks: Sequence[str], model: str, version: str, path: Path | None = None
    ) -> None:
        if not tasks or len(set(tasks)) < len(tasks):
            raise Unsupported(f"a reply needs tasks of different names, got {list(tasks)}")
        make = compiled_module(path).reply_writer
        forms = [_Described(correction, tasks, without_history) for without_history in (False, True)]
        self.probabilities = (*tasks, _PRODUCT) if forms[0].has_product else tuple(tasks)
        addresses = [ctypes.addressof(form.form) for form in forms]
        named = orjson.dumps({"name": model, "version": version})
        self.write = make(*addresses, forms[0].texts_bytes, forms, named, Written, _warnings)


@lru_cache(maxsize=256)
def _warnings(missing: tuple[str, ...]) -> str:
    return orjson.dumps([f"missing_feature:{name}" for name in missing]).decode()


class _Described:
    """What reply.cpp is told of a model.

    Args:
        correction: From logits to probabilities.
        tasks: (K,) of the graph.
        without_history: Whether it is for requests whose history was lost.

    Attributes:
        form: For the compiled function; lives as long as this object.
        has_product: Whether a reply has one more task.
        texts_bytes: Room for whatever a reply says besides its facts and its numbers.
    """

    def __init__(self, correction: Correction, tasks: Sequence[str], without_history: bool) -> None:
        self.has_product = set(_FACTORS) <= set(tasks) and _PRODUCT not in tasks
        self._tasks = (_Task * len(tasks))()
        self._held: list[object] = []
        for place, (task, told) in enumerate(zip(tasks, self._tasks, strict=True)):
            told.probabilities = _opening(b',"scores":{' if place == 0 else b",", f"p{task}")
            told.logits = _opening(b',"logits":{' if place == 0 else b",", task)
            settings = correction.tasks.get(task, TaskCorrection())
            self._shift(told, settings, sampled=correction.mode == "serving")
            lost = settings.calibrator_without_history
            self._calibrate(told, lost if without_history and lost is not None else settings.calibrator)
        ctr, cvr = (tasks.index(task) if self.has_product else -1 for task in _FACTORS)
        self.form = _Form(ctypes.addressof(self._tasks), len(tasks), ctr, cvr, _opening(b",", f"p{_PRODUCT}"))
        pieces = [piece for told in self._tasks for piece in (told.probabilities, told.logits)]
        self.texts_bytes = sum(piece.length for piece in (*pieces, self.form.product)) + len("}}}")

    @staticmethod
    def _shift(told: _Task, settings: TaskCorrection, *, sampled: bool) -> None:
        told.log_rate = float(np.log(settings.rate)) if sampled else 0.0
        if settings.train_prior is not None and settings.serve_prior is not None:
            told.serve_prior = float(logit(settings.serve_prior))
            told.train_prior = float(logit(settings.train_prior))

    def _calibrate(self, told: _Task, calibrator: Calibrator) -> None:
        told.slope = told.temperature = 1.0
        if isinstance(calibrator, Platt):
            told.slope, told.offset = calibrator.a, calibrator.b
        elif isinstance(calibrator, Temperature):
            told.temperature = calibrator.temperature
        elif isinstance(calibrator, Isotonic):
            told.knots = len(calibrator.x_knots)
            for name, knots in (("from_", calibrator.x_knots), ("to", calibrator.y_knots)):
                column = (ctypes.c_double * len(knots))(*knots)
                self._held.append(column)
                setattr(told, name, ctypes.addressof(column))


def _opening(before: bytes, name: str) -> _Piece:
    """What stands before the numbers of a member."""
    text = before + orjson.dumps(name) + b":["
    return _Piece(text, len(text))


class ResponseHeads:
    """Puts the head before the body of good replies on connections that stay open."""

    def __init__(self) -> None:
        self._default: Sequence[tuple[bytes, bytes]] | None = None
        self._opening = b""

    def put_before(self, body: bytes, default_headers: Sequence[tuple[bytes, bytes]], head: Head) -> bytes:
        """One reply as it goes over the wire.

        Args:
            body: JSON.
            default_headers: Of the server; another object each time they change, which is once a second.
            head: Of the request.
        """
        if self._default is not default_headers:
            self._default = default_headers
            self._opening = b"".join((b"HTTP/1.1 200 OK\r\n", *(b"%b: %b\r\n" % header for header in default_headers)))
        own = (
            f"content-length: {len(body)}\r\ncontent-type: application/json\r\n"
            f"x-request-id: {head.request_id}\r\ntraceparent: {head.traceparent}\r\n\r\n"
        )
        return b"".join((self._opening, own.encode(), body))
