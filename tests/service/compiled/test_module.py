"""The part of the compiled library that Python imports: what it refuses, and that it leaves nothing behind."""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pytest

from bundle.correct import Correction
from service.compiled import build as building
from service.compiled import library
from service.compiled.build import build
from service.compiled.head import HeadReader
from service.compiled.reply import ReplyWriter
from service.compiled.slate import SlateReader
from service.compiled.slate_encoding import SlateEncoder
from service.compiling import BuildFailed
from tests.bundle.samples import fitted_shop
from tests.service.compiled import heads
from tests.service.compiled.slates import LIMITS, WHOLE

_ROUNDS: Final = 300
_FEW: Final = 30  # objects that Python itself may keep


def _reading(path: Path) -> list[Callable[[], Any]]:
    reader, slates = HeadReader(heads.PATHS, path), SlateReader(path)
    good = heads.request(b"x-api-key: k", b"traceparent: " + heads.TRACE)
    body = json.dumps(WHOLE).encode()
    return [
        lambda: reader.read(good),
        lambda: reader.read(heads.request()),
        lambda: reader.read(good[:40]),
        lambda: reader.awaits(good[:-3]),
        lambda: slates.read(body, LIMITS),
        lambda: slates.read(body[:-9], LIMITS),
    ]


def _answering(path: Path) -> list[Callable[[], Any]]:
    encoder, body = SlateEncoder(fitted_shop(), path), b'{"candidates": ["1", "unheard of"], "user_id": "nobody"}'
    slate = SlateReader(path).read(body, LIMITS)
    assert slate is not None
    writer = ReplyWriter(Correction(), ("ctr", "cvr"), "m", "1", path)
    ones, wide = np.ones((1, 9, 2), dtype=np.float32), np.ones((1, 9, 4), dtype=np.float32)
    encoded = encoder.encode(slate, None, None, 10, 110.0)
    assert encoded is not None
    assert encoded.unseen
    assert encoded.missing
    return [
        lambda: encoder.encode(slate, None, None, 10, 110.0),
        lambda: encoder.encode(slate, b"torn", b"{}", 10, 110.0),
        lambda: writer.write(ones, "id", "store", 3, (), True, False),
        lambda: writer.write(wide[:, :, ::2], "id", "store", 3, ("age",), False, True),
        lambda: writer.write(wide, "id", "store", 3, (), True, False),
        lambda: writer.write(ones, "ü", "store", 3, (), True, False),
    ]


@pytest.mark.parametrize("made", [_reading, _answering], ids=["reading", "answering"])
def test_no_call_leaves_an_object_behind(
    compiled_library: Path, made: Callable[[Path], list[Callable[[], Any]]]
) -> None:
    calls = made(compiled_library)

    def objects(rounds: int) -> tuple[int, int]:
        for _ in range(rounds):
            for call in calls:
                call()
        gc.collect()
        return sys.getallocatedblocks(), sys.getrefcount(None)

    objects(3)
    blocks, nones = objects(3)
    more_blocks, more_nones = objects(_ROUNDS)
    assert abs(more_blocks - blocks) < _FEW
    assert abs(more_nones - nones) < _FEW


def test_arrays_outlive_what_they_were_made_of(compiled_library: Path) -> None:
    encode = SlateEncoder(fitted_shop(), compiled_library).encode
    slate = SlateReader(compiled_library).read(b'{"candidates": ["1", "2"], "user_id": "1"}', LIMITS)
    assert slate is not None
    first, again = encode(slate, None, None, 10, 110.0), encode(slate, None, None, 10, 110.0)
    assert first is not None
    assert again is not None
    kept = {name: array.copy() for name, array in first.inputs.items()}
    arrays = dict(first.inputs)
    del first, slate, encode
    gc.collect()
    for name, array in again.inputs.items():
        array.fill(1)
        np.testing.assert_array_equal(arrays[name], kept[name])


def test_arguments_of_another_type_are_refused(compiled_library: Path) -> None:
    reader, slates = HeadReader(heads.PATHS, compiled_library), SlateReader(compiled_library)
    encoder = SlateEncoder(fitted_shop(), compiled_library)
    writer = ReplyWriter(Correction(), ("ctr",), "m", "1", compiled_library)
    slate = slates.read(b'{"candidates": ["1"], "user_id": "1"}', LIMITS)
    ones = np.ones((1, 1, 1), dtype=np.float32)
    given: list[tuple[Any, tuple[Any, ...]]] = [
        (reader.read, ("text",)),
        (reader.read, ()),
        (reader.awaits, (bytearray(b"x"),)),
        (slates.read, ("{}", LIMITS)),
        (slates.read, (b"{}", (1, "2"))),
        (encoder.encode, ((None,) * 7, None, None, 1, 1.0)),
        (encoder.encode, (slate, "text", None, 1, 1.0)),
        (encoder.encode, (slate, None, None, "1", 1.0)),
        (writer.write, ([1.0], "id", "store", 0, (), True, False)),
        (writer.write, (ones, b"id", "store", 0, (), True, False)),
        (writer.write, (ones, "id", "store", 0, [], True, False)),
        (writer.write, (ones, "id", "store", 0, (), True)),
    ]
    for function, arguments in given:
        with pytest.raises(TypeError):
            function(*arguments)


def test_a_library_of_another_python_is_refused(compiled_library: Path, tmp_path: Path) -> None:
    other = tmp_path / "_compiled.so"
    other.write_bytes(compiled_library.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "library_digest", lambda: "another")
        with pytest.raises(library.CompiledUnavailable, match="from other source or for another Python"):
            HeadReader(heads.PATHS, other)


def test_without_headers_of_python_nothing_is_built(
    compiler: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cast(Any, building).sysconfig, "get_path", lambda _: str(tmp_path / "include"))
    with pytest.raises(BuildFailed, match="Python's headers are not installed"):
        build(tmp_path / "_compiled.so")
    assert not list(tmp_path.glob("*.so"))
