"""Census-Income: people of two survey years, and two labels that have nothing to do with clicks.

`income` is 1 above 50,000 dollars a year, `never_married` 1 for those; neither is a feature, nor is the weight of the
survey. The rows have no items and no time: every row is about the one item `survey`, at time 0.

Sums of money are also given as levels, intervals with fixed bounds, so that a network can embed them: 0 is one of its
own. A client that asks for a score sends the same levels.
"""

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from training.config import TrainingConfig
from training.config_text import suggestion
from training.datasets.split import SplitCodes
from training.datasets.study import found
from training.datasets.tables import Tables, declared_columns
from training.errors import ConfigError, DataError, DataUnavailable

NAME: Final = "census-income"
FILE: Final = "census_income_part.csv"
COLUMNS: Final = (
    "person", "age", "class_of_worker", "industry", "occupation", "education", "wage_per_hour", "enrolled",
    "marital_status", "major_industry", "major_occupation", "race", "hispanic_origin", "sex", "union_member",
    "unemployment_reason", "employment", "capital_gains", "capital_losses", "dividends", "tax_filer",
    "region_before", "state_before", "household_detail", "household", "survey_weight", "msa_change",
    "region_change", "region_move", "same_house", "sunbelt", "persons_for_employer", "parents_present",
    "country_of_father", "country_of_mother", "country", "citizenship", "self_employed", "veterans_form",
    "veterans_benefits", "weeks_worked", "year", "income_class",
)  # fmt: skip
NUMBERS: Final = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "dividends", "persons_for_employer", "weeks_worked",
)  # fmt: skip
# Bounds of levels, round numbers near sixteenths of the training rows that are not 0.
BOUNDS: Final = {
    "wage_per_hour": (0, 400, 500, 600, 750, 900, 1050, 1250, 1500, 2000),
    "capital_gains": (0, 1500, 2500, 3200, 4000, 5000, 7000, 7500, 9000, 14000, 15000, 20000, 50000),
    "capital_losses": (0, 1450, 1600, 1700, 1800, 1890, 1950, 2100, 2300),
    "dividends": (0, 10, 40, 90, 150, 250, 400, 600, 1000, 1500, 2500, 5000, 10000),
}
LEVELS: Final = (*(f"{name}_level" for name in BOUNDS), "age_level", "weeks_level")
LABELS: Final = ("income", "never_married")
_IDS: Final = {"user": "person", "item": "item", "time": "ts"}
_HIDDEN: Final = ("person", "income_class", "marital_status", "survey_weight")


def complete(folder: Path) -> bool:
    """Whether a folder holds the rows."""
    return found(folder, FILE) is not None


def load(folder: Path, config: TrainingConfig) -> Tables:
    """Rows with the columns that the declaration names, split by the row's number in the original file.

    Of its last digit, 0 to 5 train, 6 and 7 validate, 8 tests; rows with a 9 are left out.

    Raises:
        ConfigError: if the declaration names a column that the rows do not have in its role.
        DataError: if the file cannot be read.
    """
    rows = read_rows(folder)
    features = config.features
    for role, column in _IDS.items():
        if getattr(features.ids, role) != column:
            raise ConfigError(f"key ids.{role}: {NAME} calls this column {column!r}")
    wanted = declared_columns(features)
    names = [name for place in ("user", "item", "row") for name in wanted[place]]
    allowed = [name for name in rows.columns if name not in (*_HIDDEN, *LABELS, *_IDS.values())]
    roles: list[tuple[str, Sequence[str]]] = [(name, allowed) for name in names]
    roles += [(name, LABELS) for name in features.label.values()]
    roles += [(name, ("survey_weight",)) for name in features.weight.values()]
    for name, known in roles:
        if name not in known:
            raise ConfigError(f"{NAME} has no column {name!r} in this role{suggestion(name, known)}")
    kept = [*_IDS.values(), *features.label.values(), *features.weight.values(), *names]
    return Tables(
        name=NAME,
        rows=rows.select(*dict.fromkeys(kept)),
        split=split_of(rows),
        files={"rows": str(found(folder, FILE))},
    )


def split_of(rows: pl.DataFrame) -> SplitCodes:
    """Codes (N,) by the last digit of the row's number in the original file."""
    digit = rows["person"].cast(pl.Int64).to_numpy() % 10
    return np.select([digit < 6, digit < 8], [0, 1], default=2).astype(np.int8)


def read_rows(folder: Path) -> pl.DataFrame:
    """All rows but those left out, with labels, levels and ids.

    Raises:
        DataUnavailable: if the folder lacks the file.
        DataError: if the file cannot be read.
    """
    path = found(folder, FILE)
    if path is None:
        raise DataUnavailable(f"{folder} lacks {FILE} of {NAME}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        cells = [[cell.strip() for cell in line.split(",")] for line in content.decode().splitlines()]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    wrong = next((number for number, row in enumerate(cells) if len(row) != len(COLUMNS)), None)
    if wrong is not None:
        raise DataError(f"{path}, row {wrong + 1}: holds {len(cells[wrong])} cells instead of {len(COLUMNS)}")
    try:
        rows = pl.DataFrame(cells, schema=dict.fromkeys(COLUMNS, pl.String), orient="row").with_columns(
            pl.col(*NUMBERS, "survey_weight").cast(pl.Float64), pl.col("person").cast(pl.Int64)
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: a number cannot be read: {error}") from error
    return rows.filter(pl.col("person") % 10 != 9).with_columns(
        *(_level(name, bounds).alias(f"{name}_level") for name, bounds in BOUNDS.items()),
        pl.col("age").cast(pl.Int64).cast(pl.String).alias("age_level"),
        pl.col("weeks_worked").cast(pl.Int64).cast(pl.String).alias("weeks_level"),
        pl.col("person").cast(pl.String),
        pl.lit("survey").alias("item"),
        pl.lit(0.0).alias("ts"),
        (pl.col("income_class").str.strip_chars(" .") == "50000+").cast(pl.Float64).alias("income"),
        (pl.col("marital_status") == "Never married").cast(pl.Float64).alias("never_married"),
    )


def _level(name: str, bounds: Sequence[int]) -> pl.Expr:
    """The interval that a number falls into; a bound belongs to the lower one."""
    above = pl.sum_horizontal((pl.col(name) > bound).cast(pl.Int64) for bound in bounds)
    return pl.format("level {}", above)
