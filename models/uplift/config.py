"""The options that all uplift networks share."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from models.inputs import InputLayout
from models.uplift.inputs import OutcomeKind, output_names


@dataclass(frozen=True, kw_only=True, slots=True)
class UpliftConfig:
    """What every uplift network is told about its data.

    Attributes:
        layout: the input tensors; it has no candidate fields.
        treatments: names of the K arms, the control first.
        outcome: ``binary`` networks return logits, ``continuous`` ones standardised values.
        embedding_std: of the initial embeddings.

    Raises:
        ValueError: if there are fewer than two different arms, the outcome is unknown, or the layout has candidates.
    """

    layout: InputLayout
    treatments: tuple[str, ...] = ("control", "treated")
    outcome: OutcomeKind = "continuous"
    embedding_std: float = 0.05

    def __post_init__(self) -> None:
        """Check the values; lists become tuples, so that a configuration read from JSON equals the one written."""
        for entry in fields(self):
            if isinstance(getattr(self, entry.name), list):
                object.__setattr__(self, entry.name, tuple(getattr(self, entry.name)))
        if len(self.treatments) < 2 or len(set(self.treatments)) != len(self.treatments):
            raise ValueError(f"treatments must be at least two different names, got {self.treatments}")
        output_names(self.outcome, doses=False)
        if self.layout.candidate_ids or self.layout.candidate_numbers:
            raise ValueError("layout must not have candidate fields: an uplift network answers for users")
        if not (self.layout.user_ids or self.layout.user_numbers or self.layout.behaviour_ids):
            raise ValueError("layout must have at least one user or behaviour field")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, InputLayout):
                values[entry.name] = value.to_dict()
            else:
                values[entry.name] = list(value) if isinstance(value, tuple) else value
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``.

        Raises:
            ValueError: naming the key that is unknown, missing or holds something unfit.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
        if "layout" not in values:
            raise ValueError("missing key 'layout'")
        arguments: dict[str, Any] = dict(values)
        if not isinstance(arguments["layout"], InputLayout):
            arguments["layout"] = InputLayout.from_dict(arguments["layout"])
        return cls(**arguments)
