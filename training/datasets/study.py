"""Studies of treatment effects known by name: one frame of observed columns, each with its role."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.config import TrainingConfig
from training.config_text import suggestion
from training.datasets.cells import Cells, Kind
from training.datasets.files import declared_cells
from training.datasets.split import SplitCodes
from training.datasets.tables import Tables, Truth, declared_columns, separators
from training.errors import ConfigError, DataError, DataUnavailable

_ENDINGS: Final = ("", ".gz")


@dataclass(frozen=True, slots=True)
class Study:
    """What was observed, and apart from it what is known of outcomes that did not happen.

    Attributes:
        name: of the data set.
        folder: where it was read from.
        rows: the observed columns; nothing counterfactual is among them.
        unit: the column that names a person.
        treatments, doses, outcomes, covariates, weights: columns by role. What happened after the treatment is no
            covariate.
        split: of the rows, or None to split them as [data.split] says.
        truth: what evaluation may know besides.
        notes: what was left out, as counts.
    """

    name: str
    folder: Path
    rows: pl.DataFrame
    unit: str
    treatments: tuple[str, ...]
    outcomes: tuple[str, ...]
    covariates: tuple[str, ...]
    doses: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    split: SplitCodes | None = None
    truth: Truth | None = None
    notes: Mapping[str, int] = field(default_factory=dict)


Reader = Callable[[Path, int | None], Study]


def loader(read: Reader) -> Callable[[Path, TrainingConfig], Tables]:
    """A loader of the registry: reads the replication that [data] asks for and ties it to the declaration.

    A file that is not what its name says becomes a `DataError` with the folder.
    """

    def load(folder: Path, config: TrainingConfig) -> Tables:
        try:
            study = read(folder, config.data.replication)
        except (pl.exceptions.PolarsError, KeyError, ValueError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{folder}: the files are not those of {config.data.dataset}: {reason}") from error
        return study_tables(study, config)

    return load


def study_tables(study: Study, config: TrainingConfig) -> Tables:
    """The columns of a study that the declaration names.

    Raises:
        ConfigError: if the declaration has no treatments, or uses a column in a role that it does not have.
        DataError: if a cell does not fit its column.
    """
    features = config.features
    if features.treatment is None:
        raise ConfigError(f"key treatment: {study.name} is a study of treatments, and the configuration declares none")
    if features.ids.user != study.unit:
        raise ConfigError(f"key ids.user: {study.name} calls this column {study.unit!r}")
    wanted = declared_columns(features)
    covariates = {**wanted["user"], **wanted["row"]}
    for key, names, allowed in (
        ("treatment.column", [features.treatment.column], study.treatments),
        ("treatment.dose", [features.treatment.dose], study.doses),
        ("label", features.label.values(), study.outcomes),
        ("weight", features.weight.values(), study.weights),
        ("feature", covariates, study.covariates),
    ):
        for name in names:
            if name is not None and name not in allowed:
                hint = suggestion(name, allowed) if allowed else ", there is none"
                raise ConfigError(f"key {key}: {study.name} has no column {name!r} in this role{hint}")
    columns, _, required = declared_cells(config)
    columns.pop(config.data.split.column or "", None)
    kinds: dict[str, Kind] = {**covariates, **columns}
    absent = sorted(set(kinds) - set(study.rows.columns))
    if absent:
        raise ConfigError(f"{study.name} has no column {absent[0]!r}{suggestion(absent[0], study.rows.columns)}")
    seps = separators(features)
    rows = [
        Cells(str(study.folder), name, sep=seps.get(name), nullable=name not in required).convert(
            study.rows[name], kind
        )
        for name, kind in kinds.items()
    ]
    return Tables(
        name=study.name,
        rows=pl.DataFrame(rows),
        split=study.split,
        files={"rows": f"{study.folder} ({study.name})"},
        truth=study.truth,
        notes=study.notes,
    )


def numbered(rows: pl.DataFrame, column: str = "unit") -> pl.DataFrame:
    """The rows with their number, counted from 1, as the text that names a person."""
    return rows.with_columns(pl.int_range(1, len(rows) + 1).cast(pl.String).alias(column))


def shuffled_split(rows: int, train: int, seed: int) -> SplitCodes:
    """Codes (N,) where the first `train` rows of a seeded shuffle train and the rest test."""
    codes = np.full(rows, 2, dtype=np.int8)
    codes[np.random.default_rng(seed).permutation(rows)[:train]] = 0
    return codes


def outcomes_by_arm(rows: pl.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    """Columns of one arm each, side by side (N, K)."""
    return rows.select(pl.col(*columns).cast(pl.Float64)).to_numpy()


def found(folder: Path, name: str) -> Path | None:
    """A file of a folder, as it is or gzipped."""
    return next((path for end in _ENDINGS if (path := folder / f"{name}{end}").is_file()), None)


def found_csv(folder: Path, name: str, study: str) -> pl.DataFrame:
    """A CSV file of a folder, as it is or gzipped.

    Raises:
        DataUnavailable: if the folder lacks it.
        DataError: if it cannot be read.
    """
    path = found(folder, name)
    if path is None:
        raise DataUnavailable(f"{folder} lacks {name} of {study}")
    try:
        return pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def found_arrays(folder: Path, name: str, study: str) -> dict[str, NDArray[np.float64]]:
    """The arrays of an npz file of a folder, as float64.

    Raises:
        DataUnavailable: if the folder lacks it.
        DataError: if it cannot be read.
    """
    path = folder / name
    if not path.is_file():
        raise DataUnavailable(f"{folder} lacks {name} of {study}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key].astype(np.float64) for key in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def replication_of(given: int | None, known: range, study: str) -> int:
    """The replication asked for; the first one by default.

    Raises:
        ConfigError: if the study does not have it.
    """
    number = known[0] if given is None else given
    if number not in known:
        raise ConfigError(f"key data.replication: {study} has {known[0]} to {known[-1]}, got {number}")
    return number
