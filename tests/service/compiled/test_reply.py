"""The compiled writer of replies against the ordinary way from logits to JSON."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle.correct import Correction, Isotonic, Platt, TaskCorrection, Temperature
from service.api.hot import ok
from service.api.identity import identifying
from service.api.scoring import reply_of
from service.behaviours.histories import History
from service.compiled.head import Head
from service.compiled.library import CompiledUnavailable
from service.compiled.reply import ReplyWriter, ResponseHeads, Unsupported
from service.core.scorer import Answer
from service.core.version import Prepared, Ran, ServedVersion
from service.hot_protocol import reply_bytes
from service.metrics import Metrics
from tests.service import tiny_bundle
from tests.service.compiled.replies import TASKS, correction, logits

ID = "01a20343-7d6b-7aee-a896-d90674d183e4"
PLAIN = Correction()


def ordinary(
    correction: Correction, tasks: tuple[str, ...], drawn: NDArray[np.float32], raw: bool, lost: bool
) -> tuple[Any, list[float]]:
    """The reply of the ordinary way as Python values, and the means that it counts."""
    manifest = SimpleNamespace(name="movies", version="1.0.0", tasks=tasks, correction=correction)
    bundle = SimpleNamespace(manifest=manifest, encoder=None, fitted=tiny_bundle.fitted())
    version = ServedVersion(cast(Any, bundle), cast(Any, None))
    encoded = SimpleNamespace(lengths=np.array([7]), unseen={}, missing=("age", 'ci"ty'))
    scored = version.finish(Prepared(cast(Any, encoded), {}, 0.0), Ran(drawn, 0.0), without_history=lost)
    warnings = [f"missing_feature:{name}" for name in scored.missing]
    answer = Answer("movies", "1.0.0", tasks, scored, History("store"), [], warnings)
    container = cast(Any, SimpleNamespace(metrics=Metrics()))
    means = [float(values.sum()) / values.size for values in scored.probabilities.values()]
    return json.loads(reply_of(container, ID, answer, raw=raw)), means


def check_same(ours: bytes, theirs: Any, *, absolute: float) -> None:
    said = json.loads(ours)
    assert list(said) == list(theirs)
    assert list(said["scores"]) == list(theirs["scores"])
    for name, expected in theirs["scores"].items():
        assert all(type(value) is float for value in said["scores"][name])
        np.testing.assert_allclose(said["scores"][name], expected, rtol=1e-15, atol=absolute)
    assert repr(said.get("logits")) == repr(theirs.get("logits"))  # to the bit, the order and the sign of nought
    for name in ("scores", "logits"):
        said.pop(name, None)
        theirs.pop(name, None)
    assert repr(said) == repr(theirs)


@pytest.mark.parametrize("seed", range(3))
def test_replies_are_those_of_the_ordinary_way(compiled_library: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        tasks = rng.choice(TASKS)
        corrected = correction(rng, tasks)
        writer = ReplyWriter(corrected, tasks, "movies", "1.0.0", compiled_library)
        # Where a curve is steep, the last bit of what goes into it is worth more than one of what comes out.
        curved = any(
            isinstance(one, Isotonic)
            for task in corrected.tasks.values()
            for one in (task.calibrator, task.calibrator_without_history)
        )
        for candidates in rng.sample([1, 2, 7, 100], 2):
            drawn, raw, lost = logits(rng, candidates, len(tasks)), rng.random() < 0.5, rng.random() < 0.5
            written = writer.write(drawn, ID, "store", 7, ("age", 'ci"ty'), raw, lost)
            assert written is not None
            expected, means = ordinary(corrected, tasks, drawn, raw, lost)
            assert writer.probabilities == tuple(name[1:] for name in expected["scores"])
            check_same(written.body, expected, absolute=1e-12 if curved else 0.0)
            np.testing.assert_allclose(written.means, means, rtol=1e-12, atol=1e-12 if curved else 0.0)


def test_the_product_is_taken_of_corrected_factors(compiled_library: Path) -> None:
    told = Correction(mode="serving", tasks={"ctr": TaskCorrection(rate=0.5)})
    writer = ReplyWriter(told, ("ctr", "cvr"), "m", "1", compiled_library)
    written = writer.write(np.zeros((1, 1, 2), dtype=np.float32), ID, "store", 0, (), False, False)
    assert written is not None
    ctr = 0.5 / (0.5 + 1.0)
    scores = json.loads(written.body)["scores"]
    assert list(scores) == ["pctr", "pcvr", "pctcvr"]
    assert [value for (value,) in scores.values()] == pytest.approx([ctr, 0.5, ctr / 2])
    assert written.means == pytest.approx((ctr, 0.5, ctr / 2))


def test_a_slate_of_a_thousand(compiled_library: Path) -> None:
    told = Correction(tasks={"ctr": TaskCorrection(calibrator=Platt(a=1.2, b=-0.1))})
    writer = ReplyWriter(told, ("ctr", "cvr"), "movies", "1.0.0", compiled_library)
    drawn = logits(random.Random(0), 1000, 2)
    small = writer.write(drawn[:, :1], ID, "store", 7, (), False, False)
    large = writer.write(drawn, ID, "store", 7, ("age", 'ci"ty'), True, False)
    assert small is not None
    assert large is not None
    check_same(large.body, ordinary(told, ("ctr", "cvr"), drawn, True, False)[0], absolute=0.0)


def test_logits_need_not_lie_side_by_side(compiled_library: Path) -> None:
    writer = ReplyWriter(PLAIN, ("ctr", "cvr"), "m", "1", compiled_library)
    drawn = logits(random.Random(1), 9, 2)
    apart = np.zeros((1, 18, 4), dtype=np.float32)[:, ::2, ::2]
    apart[...] = drawn
    assert writer.write(apart, ID, "s", 0, (), True, True) == writer.write(drawn, ID, "s", 0, (), True, True)


@pytest.mark.parametrize("task", range(2))
@pytest.mark.parametrize("candidate", [0, 4])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_is_left_to_the_ordinary_way(
    compiled_library: Path, value: float, candidate: int, task: int
) -> None:
    writer = ReplyWriter(PLAIN, ("ctr", "cvr"), "m", "1", compiled_library)
    drawn = np.zeros((1, 5, 2), dtype=np.float32)
    assert writer.write(drawn, ID, "store", 0, (), False, False) is not None
    drawn[0, candidate, task] = value
    assert writer.write(drawn, ID, "store", 0, (), False, False) is None


@pytest.mark.parametrize("request_id", ['a"', "a\\", "a\n", "a\x7f", "ü", '","model":"'])
def test_an_id_that_json_writes_otherwise_is_left_to_the_ordinary_way(compiled_library: Path, request_id: str) -> None:
    writer = ReplyWriter(PLAIN, ("ctr",), "m", "1", compiled_library)
    ones = np.ones((1, 1, 1), dtype=np.float32)
    assert writer.write(ones, "a.B-_9", "store", 0, (), False, False) is not None
    assert writer.write(ones, request_id, "store", 0, (), False, False) is None


@pytest.mark.parametrize(
    "drawn",
    [
        np.zeros((2, 5, 1), dtype=np.float32),
        np.zeros((1, 0, 1), dtype=np.float32),
        np.zeros((1, 5, 2), dtype=np.float32),
        np.zeros((1, 5, 1)),
    ],
    ids=["two users", "no candidate", "another task", "float64"],
)
def test_logits_of_another_form_are_left_to_the_ordinary_way(compiled_library: Path, drawn: Any) -> None:
    assert ReplyWriter(PLAIN, ("ctr",), "m", "1", compiled_library).write(drawn, ID, "s", 0, (), True, False) is None


def test_numbers_are_as_short_as_they_can_be(compiled_library: Path) -> None:
    writer = ReplyWriter(PLAIN, ("ctr",), "m", "1", compiled_library)
    written = writer.write(logits(random.Random(2), 500, 1), ID, "store", 0, (), True, False)
    assert written is not None
    texts = [text for array in re.findall(rb"\[([^]\[\"]+)\]", written.body) for text in array.decode().split(",")]
    assert len(texts) == 1000
    assert all(len(text) <= len(repr(float(text))) for text in texts)


def test_the_calibrator_for_lost_histories_is_used_only_then(compiled_library: Path) -> None:
    told = TaskCorrection(calibrator=Temperature(temperature=2), calibrator_without_history=Platt(a=1, b=1))
    writer = ReplyWriter(Correction(tasks={"ctr": told}), ("ctr",), "m", "1", compiled_library)
    ones = np.ones((1, 1, 1), dtype=np.float32)
    means = [writer.write(ones, ID, "store", 0, (), False, lost) for lost in (False, True)]
    assert [one.means[0] for one in means if one] == pytest.approx([1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-2.0))])


@pytest.mark.parametrize("tasks", [(), ("ctr", "ctr")], ids=["none", "the same twice"])
def test_tasks_must_be_told_apart(compiled_library: Path, tasks: tuple[str, ...]) -> None:
    with pytest.raises(Unsupported, match="different names"):
        ReplyWriter(PLAIN, tasks, "m", "1", compiled_library)


def test_without_a_library_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CompiledUnavailable, match="was not built"):
        ReplyWriter(PLAIN, ("ctr",), "m", "1", tmp_path / "none.so")


@pytest.mark.parametrize("default", [[], [(b"date", b"now")], [(b"date", b"now"), (b"server", b"x")]], ids=len)
def test_the_head_of_a_reply_is_that_of_the_connection(default: list[tuple[bytes, bytes]]) -> None:
    head = Head("/score", b"", 0, 6, ID, "0" * 32, "00-" + "1" * 32 + "-" + "2" * 16 + "-01", {})
    reply = ok("application/json", b"body", identifying(head.request_id, head.traceparent))
    assert ResponseHeads().put_before(b"body", default, head) == reply_bytes(reply, default, keep_alive=True)


def test_under_the_sanitizers(run_sanitized: Callable[[str], None]) -> None:
    run_sanitized("tests.service.compiled.replies")
