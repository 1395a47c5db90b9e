"""The errors of this package.

BundleError
├── SchemaError      a declaration (TOML) is wrong; names the key
├── FeatureError     data does not fit the declaration; carries one problem a value
├── CorruptRecord    a stored behaviour value cannot be decoded
├── NonFiniteLogits  a network returned NaN
├── UnknownModel     the store has no such name, version or alias
└── BundleRefused    a bundle on disk breaks a rule; `reason` is a stable code
"""

from collections.abc import Sequence
from dataclasses import dataclass


class BundleError(Exception):
    """Anything this package raises on purpose."""


class SchemaError(BundleError):
    """A feature declaration is wrong. The message is one sentence that names the key."""


@dataclass(frozen=True, slots=True)
class FeatureProblem:
    """One value that does not fit.

    `pointer` is a JSON pointer into the request (`/candidate_features/price/3`) or `/column` for a column of a file,
    `code` one of schema, not_finite, duplicate_item; `message` says what was expected and never repeats the value.
    """

    pointer: str
    code: str
    message: str


class FeatureError(BundleError):
    """Values that do not fit the declaration; `problems` lists each of them."""

    def __init__(self, problems: Sequence[FeatureProblem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(f"{problem.pointer}: {problem.message}" for problem in self.problems))


class CorruptRecord(BundleError):
    """A stored value is not a list of behaviour records."""


class NonFiniteLogits(BundleError):
    """A network returned NaN, which no correction can turn into a probability."""


class UnknownModel(BundleError):
    """The model store has no such name, version or alias."""


class BundleRefused(BundleError):
    """A bundle breaks a rule. `reason` is a stable code, the message names the file and the cause."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(f"{message} ({reason})")
