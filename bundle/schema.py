"""Feature declarations: what a TOML file may say about columns, sides, encoders, attention groups and treatments.

docs/schema.md is the reference of every key. Checks that span several declarations are in schema_checks.py and
treatment_checks.py.
"""

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from bundle.errors import SchemaError
from bundle.schema_messages import first_sentence

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]{0,127}$")]
NumberScale = Literal["standardise", "quantile", "log", "none"]
Side = Literal["user", "context", "candidate"]
ArmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,127}$")]
DERIVED: Final = ("type", "value", "age", "gap")  # what a sequence can read from a behaviour besides its item


class Declaration(BaseModel):
    """Base of every declaration: unknown keys are errors, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class VocabEncoder(Declaration):
    """Ids seen at least `min_count` times in training get a row each; the rest is unseen."""

    type: Literal["vocab"] = "vocab"
    min_count: int = Field(default=1, ge=1)


class HashEncoder(Declaration):
    """Every id falls into one of `buckets` rows; nothing is stored and nothing is unseen."""

    type: Literal["hash"]
    buckets: int = Field(ge=1, le=2**31 - 3)
    seed: int = Field(default=0, ge=0, lt=2**64)


class BucketEncoder(Declaration):
    """A number becomes the id of the interval it falls into; a value on a boundary belongs to the upper one."""

    type: Literal["bucket"]
    boundaries: tuple[float, ...] = Field(min_length=1)

    @field_validator("boundaries")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in pairwise(value)):
            raise ValueError("must increase strictly")
        return value


class NumberEncoder(Declaration):
    """How a number is scaled with statistics of the training rows."""

    type: NumberScale


IdEncoder = Annotated[VocabEncoder | HashEncoder, Field(discriminator="type")]
TableEncoder = VocabEncoder | HashEncoder | BucketEncoder
SequenceEncoder = VocabEncoder | HashEncoder | BucketEncoder | NumberEncoder
STANDARDISE: Final = NumberEncoder(type="standardise")


class Where(Declaration):
    """Which behaviours count: by value, by type, or both. A behaviour without a value fails a value bound."""

    min_value: float | None = None
    max_value: float | None = None
    types: tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min_value is None and self.max_value is None and self.types is None:
            raise ValueError("needs min_value, max_value or types")
        if self.min_value is not None and self.max_value is not None and self.min_value > self.max_value:
            raise ValueError("min_value must not exceed max_value")
        return self


class IdFeature(Declaration):
    """A categorical column; with `max_values` > 1 each value holds several ids."""

    name: Name
    kind: Literal["id"]
    side: Side
    encoder: IdEncoder | None = None
    table: Name | None = None
    max_values: int = Field(default=1, ge=1, le=256)
    sep: str | None = Field(default=None, min_length=1)
    per_row: bool = False


class NumberFeature(Declaration):
    """A numeric column; missing values become the training mean."""

    name: Name
    kind: Literal["number"]
    side: Side
    encoder: NumberEncoder = STANDARDISE
    missing_flag: bool = False
    per_row: bool = False
    max_values: Literal[1] = Field(default=1, exclude=True)
    sep: None = Field(default=None, exclude=True)


class SequenceFeature(Declaration):
    """One field of the newest `max_len` behaviours, oldest first."""

    name: Name
    kind: Literal["sequence"]
    side: Literal["user"] = "user"
    of: Name
    encoder: Annotated[SequenceEncoder, Field(discriminator="type")] | None = None
    table: Name | None = None
    max_len: int = Field(ge=1, le=1000)
    where: Where | None = None
    sep: str | None = Field(default=None, min_length=1)
    missing_flag: bool = False


class HistoryFeature(Declaration):
    """A number computed from all stored behaviours before the row; with `match` one for each candidate."""

    name: Name
    kind: Literal["history"]
    stat: Literal["count", "mean", "std", "last_k_mean", "decayed_mean", "seconds_since", "per_hour", "share"]
    side: Side | None = None
    where: Where | None = None
    match: Name | None = None
    k: int | None = Field(default=None, ge=1, le=1000)
    half_life_days: float | None = Field(default=None, gt=0)
    encoder: NumberEncoder = STANDARDISE
    missing_flag: bool = False

    @model_validator(mode="after")
    def _arguments_of_the_stat(self) -> Self:
        for key, stat in (("k", "last_k_mean"), ("half_life_days", "decayed_mean")):
            given = getattr(self, key) is not None
            if given != (self.stat == stat):
                raise ValueError(f"key {key} is needed with stat {stat!r}, and only there")
        if self.match is None and self.stat == "share":
            raise ValueError("stat 'share' needs the key match")
        if self.match is not None and self.stat not in ("count", "share", "mean"):
            raise ValueError(f"key match allows the stats count, share and mean, not {self.stat!r}")
        expected = "user" if self.match is None else "candidate"
        if self.side not in (None, expected):
            raise ValueError(f"key side must be {expected!r} (or absent)")
        return self


Feature = Annotated[IdFeature | NumberFeature | SequenceFeature | HistoryFeature, Field(discriminator="kind")]


class Pair(Declaration):
    """A candidate feature and the sequence of the same field in the history."""

    candidate: Name
    history: Name


class Group(Declaration):
    """An attention group: its pairs side by side, plus `extras`, sequences without a candidate counterpart."""

    name: Name
    pairs: tuple[Pair, ...] = Field(min_length=1)
    gru: Literal["GRU", "AIGRU", "AGRU", "AUGRU"] = "AUGRU"
    extras: tuple[Name, ...] = ()


class Ids(Declaration):
    """The columns that identify a row. `item` and `time` may be absent where treatments are declared."""

    user: Name
    item: Name | None = None
    time: Name | None = None
    group: Name | None = None


def _cell_texts(value: object) -> object:
    """One text, or a whole number as its decimal text, stands for a list of one."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    return [str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else cell for cell in listed]


class Treatment(Declaration):
    """What was done to each row, and the kind of its outcome.

    Attributes:
        column: says the arm of each row.
        arms: names of the K arms as they are served, the control first.
        values: the cells of the column that mean an arm; an arm that is left out is written as its own name.
        other_values: rows with a cell that means no arm are an error, or are left out.
        outcome: a binary outcome is 0 or 1; a continuous one any number.
        dose: column of the dose in its own units.
        dose_arms: arms with a dose; all but the control where it is left out.
        dose_range: lowest and highest dose; those of each arm's training rows where it is left out.
        reference_dose: the dose that the control stands for, where nobody went untreated.
        allow_missing_arms: train although an arm has no rows.
        semi_synthetic: the data come with counterfactual outcomes, and objectives that need them may be chosen.
    """

    column: Name
    arms: tuple[ArmName, ...] = Field(min_length=2, max_length=1000)
    values: dict[ArmName, Annotated[tuple[str, ...], BeforeValidator(_cell_texts)]] = Field(default_factory=dict)
    other_values: Literal["refuse", "drop"] = "refuse"
    outcome: Literal["binary", "continuous"]
    dose: Name | None = None
    dose_arms: tuple[ArmName, ...] | None = Field(default=None, min_length=1)
    dose_unit: str | None = Field(default=None, min_length=1)
    dose_range: tuple[float, float] | None = None
    reference_dose: float | None = None
    allow_missing_arms: bool = False
    semi_synthetic: bool = False

    @property
    def control(self) -> str:
        """The arm that effects are measured against."""
        return self.arms[0]

    @property
    def dosed(self) -> tuple[str, ...]:
        """The arms that have a dose, in the order of the arms."""
        if self.dose is None:
            return ()
        return tuple(arm for arm in self.arms[1:] if self.dose_arms is None or arm in self.dose_arms)

    @property
    def cells(self) -> dict[str, int]:
        """Number of the arm that each text of the column means."""
        return {text: place for place, arm in enumerate(self.arms) for text in self.values.get(arm, (arm,))}


class TableOptions(Declaration):
    """Options of one embedding table."""

    dim: int | None = Field(default=None, ge=1)


BUNDLE_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class BundleInfo(Declaration):
    """How the exported bundle is called."""

    name: Annotated[str, StringConstraints(pattern=BUNDLE_NAME)]


class FeatureSchema(Declaration):
    """Everything a data set declares about its columns.

    `label` and `weight` map a task to a column; `tables` holds options by table name. With a `treatment` the one label
    is the outcome, and there are no candidates.
    """

    label: dict[Name, Name] = Field(min_length=1)
    ids: Ids
    treatment: Treatment | None = None
    weight: dict[Name, Name] = Field(default_factory=dict)
    feature: tuple[Feature, ...] = Field(min_length=1)
    group: tuple[Group, ...] = ()
    tables: dict[Name, TableOptions] = Field(default_factory=dict)
    bundle: BundleInfo

    @classmethod
    def from_toml(cls, mapping: Mapping[str, Any]) -> Self:
        """Read and check the parsed TOML of a data part.

        Raises:
            SchemaError: one sentence naming the key, for unknown keys too.
        """
        from bundle.schema_checks import check_schema  # it needs the classes of this module

        try:
            schema = cls.model_validate(dict(mapping))
        except ValidationError as error:
            raise SchemaError(first_sentence(error, mapping, _known_keys())) from error
        check_schema(schema)
        return schema

    def to_json(self) -> dict[str, Any]:
        """A plain dict that `from_toml` reads back to an equal schema."""
        return self.model_dump(mode="json", exclude_none=True)

    def digest(self) -> str:
        """SHA-256 of the declaration, independent of key order in the file."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def kind(self) -> Literal["ctr", "uplift"]:
        """What is asked of the rows: the chance of a label, or the effect of a treatment."""
        return "ctr" if self.treatment is None else "uplift"

    @property
    def treatments(self) -> Treatment:
        """The declared treatment.

        Raises:
            SchemaError: if there is none.
        """
        if self.treatment is None:
            raise SchemaError("missing key treatment")
        return self.treatment

    @property
    def item_column(self) -> str:
        """The column of the item.

        Raises:
            SchemaError: if the declaration has none.
        """
        if self.ids.item is None:
            raise SchemaError("missing key ids.item")
        return self.ids.item

    @property
    def time_column(self) -> str:
        """The column of the rows' time.

        Raises:
            SchemaError: if the declaration has none.
        """
        if self.ids.time is None:
            raise SchemaError("missing key ids.time")
        return self.ids.time

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in the order of their labels."""
        return tuple(self.label)

    def named(self, name: str) -> Feature:
        """The feature of that name.

        Raises:
            SchemaError: if there is none.
        """
        for feature in self.feature:
            if feature.name == name:
                return feature
        raise SchemaError(f"there is no feature named {name!r}")

    def is_item_column(self, feature: Feature) -> bool:
        """Whether the values of a feature come from the item table rather than from each row."""
        return (
            isinstance(feature, (IdFeature, NumberFeature))
            and feature.side == "candidate"
            and not feature.per_row
            and feature.name != self.ids.item
        )

    def source_of(self, of: str) -> str:
        """What a sequence's `of` or a history's `match` reads: `item`, a derived field, or an item column's name."""
        return "item" if of == self.ids.item else of


def _known_keys() -> list[str]:
    """Every key that a declaration may hold, to propose one for a typing error."""
    parts: tuple[type[Declaration], ...] = (FeatureSchema, IdFeature, NumberFeature, SequenceFeature, HistoryFeature)
    parts += (Group, Pair, Ids, Where, VocabEncoder, HashEncoder, BucketEncoder, TableOptions, BundleInfo, Treatment)
    return sorted({key for part in parts for key in part.model_fields})
