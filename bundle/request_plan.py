"""What a request may give to one declaration, worked out once: features by the part of the request they stand in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bundle.schema import FeatureSchema, IdFeature, NumberFeature

Given = IdFeature | NumberFeature


@dataclass(frozen=True)
class RequestPlan:
    """Features that requests give.

    Attributes:
        sides: side -> name -> feature, without the user's and the item's id, which have fields of their own.
        stored: user and context features by name: what the behaviour store may hold.
        numbers: the number features of user and context in declared order, as `Encoder` wants them side by side.
        numbers_of: side -> the names of its number features.
        hashes_user: whether any feature reads the user's id.
    """

    sides: Mapping[str, Mapping[str, Given]]
    stored: Mapping[str, Given]
    numbers: tuple[str, ...]
    numbers_of: Mapping[str, frozenset[str]]
    hashes_user: bool

    @classmethod
    def of(cls, schema: FeatureSchema) -> Self:
        """The plan of a checked schema."""
        plain = [f for f in schema.feature if isinstance(f, (IdFeature, NumberFeature))]
        own = [f for f in plain if f.name not in (schema.ids.user, schema.ids.item)]
        sides = {side: {f.name: f for f in own if f.side == side} for side in ("user", "context", "candidate")}
        return cls(
            sides=sides,
            stored=sides["user"] | sides["context"],
            numbers=tuple(f.name for f in plain if isinstance(f, NumberFeature) and f.side != "candidate"),
            numbers_of={
                side: frozenset(name for name, feature in features.items() if isinstance(feature, NumberFeature))
                for side, features in sides.items()
            },
            hashes_user=any(feature.name == schema.ids.user for feature in schema.feature),
        )
