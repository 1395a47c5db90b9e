"""Rows, items, users and behaviours from Parquet or CSV files, as the [data] section names them.

Files are scanned lazily and only the columns that the declaration needs are read. CSV cells are read as text, so that
an id such as 007 stays what it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from training.config import DataSection, TrainingConfig
from training.config_text import suggestion
from training.datasets.cells import Cells, Kind
from training.datasets.split import SPLITS, split_by_column
from training.datasets.tables import RowLists, Tables, declared_columns, separators
from training.errors import DataError

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


class TableFile:
    """One Parquet or CSV file: its column names, and checked columns of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._scan = _scan(path)
        try:
            self.columns = self._scan.collect_schema().names()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from error

    def require(self, column: str, purpose: str) -> None:
        """Refuse a file that lacks a column.

        Raises:
            DataError: naming the file, the column, what it is for and the nearest one that is there.
        """
        if column not in self.columns:
            raise DataError(f"{self.path}: there is no column {column!r} ({purpose}){suggestion(column, self.columns)}")

    def read(self, columns: Mapping[str, Kind], cells: Mapping[str, Cells]) -> pl.DataFrame:
        """Some columns, each converted to its kind.

        Raises:
            DataError: naming the file, the column and the row of the first cell that does not fit.
        """
        try:
            frame = self._scan.select(list(columns)).collect()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from error
        default = Cells(str(self.path), "")
        converted = []
        for name, kind in columns.items():
            cell = cells.get(name, Cells(default.file, name))
            converted.append(cell.convert(frame[name], kind))
        return pl.DataFrame(converted)


def _scan(path: Path) -> pl.LazyFrame:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst", ".brotli")]
    suffix = suffixes[-1] if suffixes else ""
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    try:
        if suffix in (".parquet", ".pq"):
            return pl.scan_parquet(path)
        if suffix in _SEPARATORS:
            return pl.scan_csv(path, separator=_SEPARATORS[suffix], infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    raise DataError(f"{path}: the name must end in .parquet, .csv or .tsv (compressed CSV: .csv.gz)")


def load_files(config: TrainingConfig) -> Tables:
    """The tables that [data] names.

    Raises:
        DataError: naming the file, the column and the row of what does not fit.
    """
    files = {
        table: TableFile(config.file(path))
        for table in ("rows", "items", "users", "events")
        if (path := getattr(config.data, table)) is not None
    }
    wanted = declared_columns(config.features)
    items = _entities(config, files, "items", config.features.ids.item or "", wanted["item"])
    users = _entities(config, files, "users", config.features.ids.user, wanted["user"])
    row_columns = dict(wanted["row"])
    for table, frame, columns in (("items", items, wanted["item"]), ("users", users, wanted["user"])):
        for name, kind in columns.items():
            if frame is None or name not in frame.columns:
                beside = f" and neither has {files[table].path}" if table in files else ""
                files["rows"].require(name, f"a feature{beside}")
                row_columns[name] = kind
    rows = _rows(config, files["rows"], row_columns)
    split = None
    if config.data.split.column is not None:
        where = f"{files['rows'].path}, column {config.data.split.column!r}"
        needed = SPLITS if config.features.treatment is None else ("train", "test")
        split = split_by_column(rows[config.data.split.column].to_list(), where, needed)
    return Tables(
        name=files["rows"].path.name,
        rows=rows,
        items=items,
        users=users,
        events=_events(config, files["events"]) if "events" in files else None,
        lists=_row_lists(config.data),
        split=split,
        files={table: str(file.path) for table, file in files.items()},
    )


def _cells(config: TrainingConfig, file: TableFile, required: set[str]) -> dict[str, Cells]:
    seps = separators(config.features)
    history = config.data.history
    if history is not None:
        lists = (history.item, history.time, history.type, history.value)
        seps |= {name: history.sep for name in lists if name is not None}
    return {
        name: Cells(
            str(file.path), name, sep=seps.get(name), time_unit=config.data.time_unit, nullable=name not in required
        )
        for name in file.columns
    }


def _entities(
    config: TrainingConfig, files: Mapping[str, TableFile], table: str, key: str, wanted: Mapping[str, Kind]
) -> pl.DataFrame | None:
    """Items or users: their id and the declared columns that their file has."""
    file = files.get(table)
    if file is None:
        return None
    file.require(key, "the id")
    columns: dict[str, Kind] = {key: "id"}
    columns.update({name: kind for name, kind in wanted.items() if name in file.columns})
    frame = file.read(columns, _cells(config, file, {key}))
    twice = frame[key].is_duplicated().arg_true()
    if len(twice):
        row = int(twice[1])
        raise DataError(f"{file.path}, column {key!r}, row {row + 1}: {frame[key][row]!r} is listed twice")
    return frame


def _rows(config: TrainingConfig, file: TableFile, features: Mapping[str, Kind]) -> pl.DataFrame:
    columns, purposes, required = declared_cells(config)
    lists = _row_lists(config.data)
    if lists is not None:
        columns |= _list_kinds(lists)
        purposes |= dict.fromkeys(_list_kinds(lists), "data.history")
    for name, purpose in purposes.items():
        file.require(name, purpose)
    for name, kind in features.items():
        file.require(name, "a feature")
        columns.setdefault(name, kind)
    frame = file.read(columns, _cells(config, file, required))
    if not len(frame):
        raise DataError(f"{file.path}: there are no rows")
    return frame


def declared_cells(config: TrainingConfig) -> tuple[dict[str, Kind], dict[str, str], set[str]]:
    """Columns of the rows that are no features: their kinds, the keys that name them, and those without empty cells."""
    schema, split = config.features, config.data.split
    treatment = schema.treatment
    entries: list[tuple[str, str | None, Kind, bool]] = [
        ("ids.user", schema.ids.user, "id", True),
        # Where treatments are declared, the item is a column of the behaviours only.
        ("ids.item", schema.ids.item if treatment is None else None, "id", True),
        ("ids.time", schema.ids.time, "time", True),
        ("ids.group", schema.ids.group, "id", False),
    ]
    # With several tasks an empty label means that the task has none for the row.
    label: Kind = "label" if treatment is None or treatment.outcome == "binary" else "outcome"
    entries += [(f"label.{task}", name, label, len(schema.label) == 1) for task, name in schema.label.items()]
    entries += [(f"weight.{task}", name, "weight", True) for task, name in schema.weight.items()]
    if treatment is not None:
        entries.append(("treatment.column", treatment.column, "arm", treatment.other_values == "refuse"))
        entries.append(("treatment.dose", treatment.dose, "number", False))
    entries.append(("data.split.column", split.column, "text", False))
    entries.append(("invariance.column", environment_column(config), "text", False))
    columns: dict[str, Kind] = {}
    purposes: dict[str, str] = {}
    for key, name, kind, _ in entries:
        if name is not None:
            columns.setdefault(name, kind)
            purposes.setdefault(name, key)
    return columns, purposes, {name for _, name, _, full in entries if full and name is not None}


def environment_column(config: TrainingConfig) -> str | None:
    """The column of the rows that [invariance] names."""
    return None if config.invariance is None else config.invariance.column


def _row_lists(data: DataSection) -> RowLists | None:
    history = data.history
    return None if history is None else RowLists(history.item, history.time, history.type, history.value)


def _list_kinds(lists: RowLists) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {lists.item: "id_list", lists.time: "time_list"}
    if lists.type is not None:
        kinds[lists.type] = "text_list"
    if lists.value is not None:
        kinds[lists.value] = "number_list"
    return kinds


def _events(config: TrainingConfig, file: TableFile) -> pl.DataFrame:
    """The log of behaviours, its columns named as EVENT_COLUMNS."""
    user, item, time = config.features.ids.user, config.features.item_column, config.features.time_column
    names = {"user": user, "item": item, "ts": time}
    kinds: dict[str, Kind] = {user: "id", item: "id", time: "time"}
    if config.data.event_type is not None:
        names["type"], kinds[config.data.event_type] = config.data.event_type, "id"
    if config.data.event_value is not None:
        names["value"], kinds[config.data.event_value] = config.data.event_value, "number"
    for field, column in names.items():
        file.require(column, f"the {field} of a behaviour")
    frame = file.read(kinds, _cells(config, file, {user, item, time}))
    return frame.select(pl.col(column).alias(field) for field, column in names.items())
