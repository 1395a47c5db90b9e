"""The tensors that every CTR network takes, and what their columns mean.

Users x candidates: the user side is (U, ...), the candidate side (U, C, ...), behaviours are (U, T, ...), right padded,
oldest first. All seven tensors are always given, in the order of ``INPUT_NAMES``; some may have no columns.

    user_ids           (U, Fu)     int64      ids of user and context fields
    user_numbers       (U, Nu)     float32
    candidate_ids      (U, C, Fc)  int64
    candidate_numbers  (U, C, Nc)  float32
    behaviour_ids      (U, T, Fb)  int64
    behaviour_numbers  (U, T, Nb)  float32
    behaviour_mask     (U, T, S)   bool       one column a stream: the behaviours that pass one filter

A network returns logits (U, C, K), one column a task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

INPUT_NAMES: Final = (
    "user_ids",
    "user_numbers",
    "candidate_ids",
    "candidate_numbers",
    "behaviour_ids",
    "behaviour_numbers",
    "behaviour_mask",
)
OUTPUT_NAMES: Final = ("logits",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """An embedding table: id 0 is padding (a zero vector without gradient), 1 unseen, real ids start at 2.

    Raises:
        ValueError: if there is no room for padding and unseen, or ``dim`` is not positive.
    """

    name: str
    rows: int
    dim: int

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.rows < 2:
            raise ValueError(f"table {self.name!r}: rows must be at least 2 (padding and unseen), got {self.rows}")
        if self.dim < 1:
            raise ValueError(f"table {self.name!r}: dim must be at least 1, got {self.dim}")


@dataclass(frozen=True, kw_only=True, slots=True)
class IdField:
    """A field of ids in columns [column, column + width) of its side's id tensor.

    A field wider than one column is multi-valued: its embedding is the mean over the ids that are not padding.
    ``stream`` names the column of ``behaviour_mask`` that says where a behaviour field is real.

    Raises:
        ValueError: if a position is negative or ``width`` is not positive.
    """

    name: str
    table: str
    column: int
    width: int = 1
    stream: int = 0

    def __post_init__(self) -> None:
        """Check the positions."""
        if self.column < 0 or self.width < 1 or self.stream < 0:
            raise ValueError(
                f"field {self.name!r}: column and stream must not be negative and width must be at least 1, "
                f"got column {self.column}, stream {self.stream}, width {self.width}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberField:
    """A number in one column of its side's number tensor; ``stream`` as in ``IdField``.

    Raises:
        ValueError: if a position is negative.
    """

    name: str
    column: int
    stream: int = 0

    def __post_init__(self) -> None:
        """Check the positions."""
        if self.column < 0 or self.stream < 0:
            raise ValueError(
                f"field {self.name!r}: column and stream must not be negative, got {self.column} and {self.stream}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class InputLayout:
    """What stands where in the seven tensors. User fields include those of the context.

    Raises:
        ValueError: if a name is used twice on one side, or a field names a table or a stream that does not exist.
    """

    tables: tuple[Table, ...] = ()
    user_ids: tuple[IdField, ...] = ()
    user_numbers: tuple[NumberField, ...] = ()
    candidate_ids: tuple[IdField, ...] = ()
    candidate_numbers: tuple[NumberField, ...] = ()
    behaviour_ids: tuple[IdField, ...] = ()
    behaviour_numbers: tuple[NumberField, ...] = ()
    streams: int = 1

    def __post_init__(self) -> None:
        """Check that names and references fit."""
        if self.streams < 1:
            raise ValueError(f"streams must be at least 1, got {self.streams}")
        _check_unique("tables", (table.name for table in self.tables))
        tables = {table.name for table in self.tables}
        for side in ("user", "candidate", "behaviour"):
            ids: tuple[IdField, ...] = getattr(self, f"{side}_ids")
            numbers: tuple[NumberField, ...] = getattr(self, f"{side}_numbers")
            entries: tuple[IdField | NumberField, ...] = (*ids, *numbers)
            _check_unique(f"{side} fields", (entry.name for entry in entries))
            for field in ids:
                if field.table not in tables:
                    raise ValueError(
                        f"field {field.name!r}: table must be one of {sorted(tables)}, got {field.table!r}"
                    )
        behaviours: tuple[IdField | NumberField, ...] = (*self.behaviour_ids, *self.behaviour_numbers)
        for behaviour in behaviours:
            if behaviour.stream >= self.streams:
                raise ValueError(
                    f"field {behaviour.name!r}: stream must be below streams = {self.streams}, got {behaviour.stream}"
                )

    def widths(self) -> dict[str, int]:
        """Columns of each input tensor, by name in the order of ``INPUT_NAMES``."""
        return {
            "user_ids": _id_width(self.user_ids),
            "user_numbers": _number_width(self.user_numbers),
            "candidate_ids": _id_width(self.candidate_ids),
            "candidate_numbers": _number_width(self.candidate_numbers),
            "behaviour_ids": _id_width(self.behaviour_ids),
            "behaviour_numbers": _number_width(self.behaviour_numbers),
            "behaviour_mask": self.streams,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = {name: [asdict(entry) for entry in getattr(self, name)] for name in _FIELD_TYPES}
        values["streams"] = self.streams
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InputLayout":
        """Inverse of ``to_dict``.

        Raises:
            ValueError: naming the key that is unknown, missing or of the wrong type.
        """
        unknown = set(values) - {*_FIELD_TYPES, "streams"}
        if unknown:
            raise ValueError(f"layout: unknown key {sorted(unknown)[0]!r}")
        arguments: dict[str, Any] = {
            name: tuple(
                _build(kind, entry, f"layout.{name}.{index}") for index, entry in enumerate(values.get(name, ()))
            )
            for name, kind in _FIELD_TYPES.items()
        }
        return cls(**arguments, streams=int(values.get("streams", 1)))


_FIELD_TYPES: Final[Mapping[str, type[Table] | type[IdField] | type[NumberField]]] = {
    "tables": Table,
    "user_ids": IdField,
    "user_numbers": NumberField,
    "candidate_ids": IdField,
    "candidate_numbers": NumberField,
    "behaviour_ids": IdField,
    "behaviour_numbers": NumberField,
}


def _build(kind: type[Any], entry: Any, where: str) -> Any:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} must be a mapping, got {entry!r}")
    try:
        return kind(**entry)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what}: names must differ, got {name!r} twice")
        seen.add(name)


def _id_width(entries: Sequence[IdField]) -> int:
    return max((entry.column + entry.width for entry in entries), default=0)


def _number_width(entries: Sequence[NumberField]) -> int:
    return max((entry.column + 1 for entry in entries), default=0)
