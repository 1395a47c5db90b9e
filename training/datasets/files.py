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
from training.datasets.split import split_by_column
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
    items = _entities(config, files, "items", config.features.ids.item, wanted["item"])
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
        split = split_by_column(rows[config.data.split.column].to_list(), where)
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
    schema = config.features
    columns: dict[str, Kind] = {schema.ids.user: "id", schema.ids.item: "id", schema.ids.time: "time"}
    purposes = {schema.ids.user: "ids.user", schema.ids.item: "ids.item", schema.ids.time: "ids.time"}
    required = set(columns)
    if schema.ids.group is not None:
        columns.setdefault(schema.ids.group, "id")
        purposes.setdefault(schema.ids.group, "ids.group")
    for task, column in schema.label.items():
        columns[column], purposes[column] = "label", f"label.{task}"
    for task, column in schema.weight.items():
        columns[column], purposes[column] = "weight", f"weight.{task}"
        required.add(column)
    if len(schema.label) == 1:  # with several tasks an empty label means that the task has none for the row
        required |= set(schema.label.values())
    if config.data.split.column is not None:
        columns[config.data.split.column], purposes[config.data.split.column] = "text", "data.split.column"
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
    ids = config.features.ids
    names = {"user": ids.user, "item": ids.item, "ts": ids.time}
    kinds: dict[str, Kind] = {ids.user: "id", ids.item: "id", ids.time: "time"}
    if config.data.event_type is not None:
        names["type"], kinds[config.data.event_type] = config.data.event_type, "id"
    if config.data.event_value is not None:
        names["value"], kinds[config.data.event_value] = config.data.event_value, "number"
    for field, column in names.items():
        file.require(column, f"the {field} of a behaviour")
    frame = file.read(kinds, _cells(config, file, {ids.user, ids.item, ids.time}))
    return frame.select(pl.col(column).alias(field) for field, column in names.items())
