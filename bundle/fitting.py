"""Fitting a declaration to training rows: vocabularies, scalers, the item table. Written beside the graph."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bundle.arrays import read_npz, write_npz
from bundle.columns import Column, Rows
from bundle.errors import SchemaError
from bundle.fitted_checks import check_fitted
from bundle.items import ItemTable, MatchColumn
from bundle.layout import Layout, layout_of
from bundle.request_plan import RequestPlan
from bundle.scalers import Scaler
from bundle.schema import FeatureSchema
from bundle.schema_checks import table_encoders
from bundle.streams import behaviour_fields
from bundle.tables import IdTable

SCHEMA_FILE = "schema.json"
VOCAB_FILE = "vocab.npz"
ITEMS_FILE = "items.npz"


@dataclass(frozen=True, slots=True)
class FitColumns:
    """What fitting sees: training rows and the item table, before encoding.

    Attributes:
        rows: training rows only, with the histories that they may see.
        item_ids: (I,) uint64, distinct; every item that may be scored, not only those of the training rows.
        item_columns: by feature, (I,) or (I, W), made by `bundle.columns.raw_column`.
    """

    rows: Rows
    item_ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64))
    item_columns: Mapping[str, Column] = field(default_factory=dict)


@dataclass(frozen=True)
class FittedSchema:
    """A declaration with everything learned from training rows; enough to encode any row.

    Attributes:
        vocabularies: by table, sorted uint64; only tables with a vocabulary.
        scalers: by feature, for every number, number sequence and history feature.
    """

    schema: FeatureSchema
    vocabularies: Mapping[str, NDArray[np.uint64]]
    scalers: Mapping[str, Scaler]
    items: ItemTable

    @cached_property
    def layout(self) -> Layout:
        """Which feature lies in which input column."""
        return layout_of(self.schema)

    @cached_property
    def request_plan(self) -> RequestPlan:
        """What a request may give."""
        return RequestPlan.of(self.schema)

    @cached_property
    def id_tables(self) -> dict[str, IdTable]:
        """The lookup of each table."""
        return id_tables(self.schema, self.vocabularies)

    def tables(self) -> dict[str, int]:
        """Rows of each embedding table, padding (0) and unseen (1) included."""
        return {name: table.rows for name, table in self.id_tables.items()}

    def input_layout(self, embedding_size: int) -> dict[str, Any]:
        """Tables and columns as plain JSON, for the network's input configuration.

        Args:
            embedding_size: width of the tables that [tables] does not give a `dim`.
        """
        options = self.schema.tables
        dims = {name: option.dim for name, option in options.items() if option.dim is not None}
        layout = self.layout
        return {
            "tables": [
                {"name": name, "rows": rows, "dim": dims.get(name, embedding_size)}
                for name, rows in self.tables().items()
            ],
            "user_ids": [f.to_dict() for f in layout.user_ids],
            "user_numbers": [f.to_dict() for f in layout.user_numbers],
            "candidate_ids": [f.to_dict() for f in layout.candidate_ids],
            "candidate_numbers": [f.to_dict() for f in layout.candidate_numbers],
            "behaviour_ids": [f.to_dict() for f in layout.behaviour_ids],
            "behaviour_numbers": [f.to_dict() for f in layout.behaviour_numbers],
            "streams": layout.masks,
        }

    @cached_property
    def schema_hash(self) -> str:
        """SHA-256 over the declaration and everything fitted: equal hashes encode equally."""
        digest = hashlib.sha256(json.dumps(self._declared(), sort_keys=True).encode())
        for arrays in (self.vocabularies, self._item_arrays()):
            for name in sorted(arrays):
                digest.update(f"{name}:{arrays[name].dtype}:{arrays[name].shape}".encode())
                digest.update(np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write schema.json, vocab.npz and items.npz into an existing folder."""
        text = json.dumps(self._declared() | {"schema_hash": self.schema_hash}, indent=1, allow_nan=False)
        (folder / SCHEMA_FILE).write_text(text + "\n", encoding="utf-8")
        write_npz(folder / VOCAB_FILE, self.vocabularies)
        write_npz(folder / ITEMS_FILE, self._item_arrays())

    @classmethod
    def load(cls, folder: Path, *, mapped: bool = False) -> Self:
        """Read what `save` wrote.

        Args:
            folder: of the files.
            mapped: share the pages of vocabularies and items with other processes; see `read_npz`.

        Raises:
            SchemaError: if the files do not belong together or are damaged.
        """
        data = _read_json(folder / SCHEMA_FILE)
        try:
            schema = FeatureSchema.from_toml(data["schema"])
            scalers = {name: Scaler.from_json(entry) for name, entry in data["scalers"].items()}
            arrays = read_npz(folder / ITEMS_FILE, mapped=mapped)
            items = _item_table(arrays, behaviour_fields(schema))
            fitted = cls(schema, read_npz(folder / VOCAB_FILE, mapped=mapped), scalers, items)
            check_fitted(schema, fitted.id_tables, fitted.vocabularies, scalers, items)
            expected = data["schema_hash"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"{SCHEMA_FILE}: damaged ({type(error).__name__}: {error})") from error
        if fitted.schema_hash != expected:
            raise SchemaError(f"{SCHEMA_FILE}: its hash does not fit the vocabularies and items beside it")
        return fitted

    def _declared(self) -> dict[str, Any]:
        return {
            "format": 1,
            "schema": self.schema.to_json(),
            "scalers": {name: self.scalers[name].to_json() for name in sorted(self.scalers)},
        }

    def _item_arrays(self) -> dict[str, NDArray[Any]]:
        items = self.items
        out: dict[str, NDArray[Any]] = {"ids": items.ids}
        out |= {f"id.{name}": column for name, column in items.id_columns.items()}
        out |= {f"number.{name}": column for name, column in items.number_columns.items()}
        return out | {f"match.{name}": match.values for name, match in items.matches.items()}


def id_tables(schema: FeatureSchema, vocabularies: Mapping[str, NDArray[np.uint64]]) -> dict[str, IdTable]:
    """The lookup of each table of a schema."""
    empty = np.empty(0, dtype=np.uint64)
    return {
        name: IdTable(name, encoder, vocabularies.get(name, empty)) for name, encoder in table_encoders(schema).items()
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SchemaError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise SchemaError(f"{path.name}: is not an object")
    return data


def _item_table(arrays: Mapping[str, NDArray[Any]], behaviour_fields: tuple[tuple[str, int], ...]) -> ItemTable:
    def part(prefix: str) -> dict[str, NDArray[Any]]:
        return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}

    matches = {name: MatchColumn(values) for name, values in part("match.").items()}
    return ItemTable(arrays["ids"], part("id."), part("number."), matches, behaviour_fields)


def fit(schema: FeatureSchema, columns: FitColumns) -> FittedSchema:
    """Fit vocabularies, scalers and the item table to training rows.

    Raises:
        FeatureError: if a column that the declaration needs is absent or has another type.
    """
    from bundle.fit_steps import fit_items, fit_scalers, fit_vocabularies, training_view  # they need FitColumns

    view = training_view(schema, columns)
    vocabularies = fit_vocabularies(schema, view)
    tables = id_tables(schema, vocabularies)
    items = fit_items(schema, view.items, tables)
    return FittedSchema(schema, vocabularies, fit_scalers(schema, view, items), items)
