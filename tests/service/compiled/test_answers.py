"""Plain answers worked out and written by compiled code: what the ordinary way works out and writes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bundle import effects
from bundle.treatment import ArmSupport, OutcomeScale, UpliftPart
from service.api import uplift_reply
from service.compiled.answers import AnswerWriter
from service.compiled.columns import strings
from service.compiled.treating import Asking, PlainTreater
from service.core import question
from service.core.estimates import Network
from service.core.question import Asked, Question
from service.core.treated import Prepared, Treated
from service.core.treating import treat_prepared
from service.core.uplift_version import UpliftVersion, arms_without_rows
from service.core.uplifter import UpliftAnswer

Outputs = dict[str, NDArray[np.float32]]
ARMS = ("none", "mail", "a letter", "call.2", "v" * 40)
BINARY = OutcomeScale(name="bought", kind="binary")
SPEND = OutcomeScale(name="bought", kind="continuous", mean=20.0, sd=7.0)


class FixedEngine:
    """Returns what it was made with."""

    def __init__(self, outputs: Outputs) -> None:
        self.inputs: dict[str, str] = {}
        self._outputs = outputs

    def run(self, _inputs: object) -> NDArray[np.float32]:
        raise NotImplementedError

    def outputs(self, _inputs: object) -> Outputs:
        return self._outputs

    def close(self) -> None: ...


def part_of(outcome: OutcomeScale, *, estimated: bool) -> UpliftPart:
    return UpliftPart(
        treatments=ARMS,
        outcome=outcome,
        propensity="estimated" if estimated else "none",
        arms={arm: ArmSupport(rows=1000) for arm in ARMS},
    )


class Version:
    """As much of an uplift version as answers are made of."""

    name, version = "campaign", "1.0.0"

    def __init__(self, part: UpliftPart, outputs: Outputs, treater: PlainTreater | None) -> None:
        self.part, self.treater = part, treater
        self.network = Network(part, FixedEngine(outputs), None)
        self.empty_arms = arms_without_rows(part)


def outputs_of(part: UpliftPart, users: int, seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    shape = (users, len(ARMS))
    # Some propensities are below one in a hundred, and some outcomes saturate.
    found = (rng.normal(size=shape) * rng.choice([1.0, 30.0], shape), rng.normal(size=shape) * 3)
    return {name: values.astype(np.float32) for name, values in zip(part.outputs, found, strict=True)}


def treated(
    part: UpliftPart, outputs: Outputs, asked: Asked, path: Path | None, lost: NDArray[np.bool_] | None = None
) -> Treated:
    version = Version(part, outputs, None if path is None else PlainTreater(part.outcome, path))
    users = len(next(iter(outputs.values())))
    inputs = {"user_ids": np.zeros((users, 1), dtype=np.int64)}
    notes = {"missing_feature:age": np.arange(users) % 3 == 1} if users > 2 else {}
    return treat_prepared(_whole(version), Prepared((), inputs, notes, lost, {}, 0.0), asked)


def _whole(version: Version) -> UpliftVersion:
    return version  # type: ignore[return-value]  # the rest of one is not looked at


def same(mine: Treated, its: Treated) -> None:
    assert mine.plain is not None
    assert its.plain is None
    for name in ("outcomes", "effects", "propensity", "overlap"):
        left, right = getattr(mine, name), getattr(its, name)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_allclose(left, right, rtol=1e-14, atol=1e-15, err_msg=name)
    np.testing.assert_array_equal(mine.recommended.arm, its.recommended.arm)
    np.testing.assert_allclose(mine.recommended.gain, its.recommended.gain, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(mine.recommended.dose, its.recommended.dose)
    assert (mine.warnings, mine.notes.keys(), mine.curves) == (its.warnings, its.notes.keys(), its.curves)
    for name, flags in mine.notes.items():
        np.testing.assert_array_equal(flags, its.notes[name])
    assert mine.tally._replace(effects=()) == its.tally._replace(effects=())
    np.testing.assert_allclose(
        np.array(mine.tally.effects, dtype=float), np.array(its.tally.effects, dtype=float), rtol=1e-12
    )
    # Exactly the difference, as the reply promises.
    np.testing.assert_array_equal(mine.effects, mine.outcomes[:, 1:] - mine.outcomes[:, :1])


@pytest.mark.parametrize("users", [1, 2, 500])
@pytest.mark.parametrize("outcome", [BINARY, SPEND], ids=["binary", "continuous"])
@pytest.mark.parametrize("estimated", [True, False])
@pytest.mark.parametrize(
    "asking", [Question(), Question(treatments=(ARMS[3], ARMS[1])), Question(allow_extrapolation=True)]
)
def test_answers_are_the_ordinary_ones(
    compiled_library: Path, users: int, outcome: OutcomeScale, estimated: bool, asking: Question
) -> None:
    part = part_of(outcome, estimated=estimated)
    outputs, asked = outputs_of(part, users), question.check(asking, part)
    for lost in (None, np.arange(users) % 2 == 0):
        same(treated(part, outputs, asked, compiled_library, lost), treated(part, outputs, asked, None, lost))


@pytest.mark.parametrize("output", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_worked_out_in_the_ordinary_way(compiled_library: Path, output: int, value: float) -> None:
    part = part_of(BINARY, estimated=True)
    outputs, asked = outputs_of(part, 4), question.check(Question(), part)
    outputs[part.outputs[output]][2] = value
    found = treated(part, outputs, asked, compiled_library)
    assert found.plain is None
    np.testing.assert_array_equal(found.outcomes, treated(part, outputs, asked, None).outcomes)


def test_no_more_arms_than_there_is_room_for(compiled_library: Path) -> None:
    asking = Asking(np.array([0, 1]), extrapolates=False, lost=None)
    for arms, answered in ((64, True), (65, False)):
        logits = np.zeros((1, arms), dtype=np.float32)
        assert (PlainTreater(BINARY, compiled_library).answers(logits, logits, asking) is not None) == answered


def test_ties_go_to_the_control_and_to_what_was_named_first(compiled_library: Path) -> None:
    logits = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 0]], dtype=np.float32)
    asking = Asking(np.array([0, 2, 1]), extrapolates=False, lost=None)
    found = PlainTreater(BINARY, compiled_library).answers(logits, np.zeros_like(logits), asking)
    assert found is not None
    assert found.arm.tolist() == [0, 1, 0]
    assert (found.arm_counts, found.overlap_counts) == ([0, 2, 1, 0], [6, 0, 0, 0])
    assert found.overlap.tolist() == [[effects.OK] * 2] * 3


# --- as JSON ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [1, 3, 400])
@pytest.mark.parametrize("estimated", [True, False])
@pytest.mark.parametrize("notes", [0, 1, 3, 6])
def test_plain_replies_are_written_like_all_others(
    compiled_library: Path, monkeypatch: pytest.MonkeyPatch, users: int, estimated: bool, notes: int
) -> None:
    part = part_of(BINARY, estimated=estimated)
    asked = question.check(Question(), part)
    lost = np.arange(users) % 5 == 4
    found = treated(part, outputs_of(part, users), asked, compiled_library, lost)
    assert found.plain is not None
    flags = np.random.default_rng(1).random((notes, users)) < 0.4
    said = {f'note "{place}"': each for place, each in enumerate(flags)}
    ids = [f"user {place} ü" + "x" * (place % 50) for place in range(users)]
    writer = AnswerWriter(compiled_library)
    monkeypatch.setattr(uplift_reply, "answer_writer", lambda: writer)

    def text(answers: Treated) -> str:
        whole = UpliftAnswer("campaign", "1.0.0", ARMS[0], answers, ["stale"], [])
        return bytes(uplift_reply.to_bytes("r1", whole, strings(ids))).decode()

    plain, other = replace(found, notes=said), replace(found, notes=said, plain=None)
    assert json.loads(text(plain)) == json.loads(text(other))
    listed = json.loads(text(plain))["users"]
    assert [user["user_id"] for user in listed] == ids
    assert [user["recommended"] is None for user in listed] == (found.recommended.arm < 0).tolist()


def test_under_the_sanitizers(run_sanitized: Callable[[str], None]) -> None:
    run_sanitized("tests.service.compiled.uplifts")
