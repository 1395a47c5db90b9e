"""Single values of a request: what each may be, and problems as JSON pointers into the request."""

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from bundle.columns import id_problem, number_problem
from bundle.errors import FeatureProblem
from bundle.schema import IdFeature, NumberFeature

_LAST_SECOND: Final = 2**32
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
MAX_PROBLEMS: Final = 50  # enough to mend a request by; a slate of 1,000 wrong values needs no longer answer


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One behaviour as a request says it."""

    item_id: str
    ts: float
    type: str | None = None
    value: float | None = None


class BehaviourLike(Protocol):
    """What is read of a behaviour of a request."""

    @property
    def item_id(self) -> str:
        """Id of the item."""

    @property
    def ts(self) -> float:
        """Seconds."""

    @property
    def type(self) -> str | None:
        """Kind, such as click."""

    @property
    def value(self) -> float | None:
        """A rating, a dwell time."""


def escape(name: str) -> str:
    """A name as one step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def checked(
    feature: IdFeature | NumberFeature, value: Any, pointer: str, problems: list[FeatureProblem]
) -> tuple[Any] | None:
    """The value in a 1-tuple if it fits its feature (None is a missing value), else a problem."""
    if isinstance(feature, NumberFeature):
        problem = number_problem(pointer, value)
        if problem is None and value is not None and math.isnan(value):
            problem = FeatureProblem(pointer, "not_finite", "must be finite")
        found = [problem]
    elif feature.max_values > 1 and isinstance(value, (list, tuple)):
        found = [
            id_problem(f"{pointer}/{place}", member)
            if member is not None
            else FeatureProblem(f"{pointer}/{place}", "schema", "must be a string, got null")
            for place, member in enumerate(value)
        ]
    else:
        found = [id_problem(pointer, value)]
    real = [problem for problem in found if problem is not None]
    problems.extend(real)
    return None if real else (value,)


def is_time(value: object) -> bool:
    """Whether a value is a time in seconds that a record can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _LAST_SECOND


def behaviour_problems(pointer: str, behaviour: BehaviourLike) -> list[FeatureProblem]:
    """Everything that is wrong with one behaviour of a request."""
    found: list[FeatureProblem | None] = []
    item: object = behaviour.item_id  # a caller may build it from unchecked JSON
    if not isinstance(item, str):
        kind = type(item).__name__
        found.append(FeatureProblem(f"{pointer}/item_id", "schema", f"must be a string, got {kind}"))
    else:
        found.append(id_problem(f"{pointer}/item_id", item))
    if not is_time(behaviour.ts):
        found.append(FeatureProblem(f"{pointer}/ts", "schema", "must be seconds in [0, 2^32)"))
    found.append(id_problem(f"{pointer}/type", behaviour.type))
    value = behaviour.value
    problem = number_problem(f"{pointer}/value", value)
    if problem is None and value is not None and not abs(value) <= FLOAT32_MAX:
        problem = FeatureProblem(f"{pointer}/value", "not_finite", "must be finite in 32 bits")
    found.append(problem)
    return [problem for problem in found if problem is not None]
