"""Studies of real people whose treatment was drawn by lot, or was in a part of the rows."""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from training.datasets.sources import Wheel
from training.datasets.study import Study, found, found_csv, numbered, replication_of, shuffled_split
from training.datasets.tables import Truth
from training.errors import DataError, DataUnavailable

THORNTON: Final = "thornton"
NSW: Final = "nsw"
CAI: Final = "cai-insurance"
HILLSTROM: Final = "hillstrom"
JOBS: Final = "jobs"

_CAUSALDATA: Final = "causaldata==0.1.4"
THORNTON_WHEEL: Final = Wheel(
    requirement=_CAUSALDATA,
    files={
        "causaldata/thornton_hiv/thornton_hiv.dta": "add8c0410f44f0561257c0024e768c3036b1183aa58299e47a80a24d17ba4b62"
    },
)
NSW_WHEEL: Final = Wheel(
    requirement=_CAUSALDATA,
    files={
        "causaldata/nsw_mixtape/nsw_mixtape.dta": "e4a64e4436c2c178f47d6c82a371d20f1596b82b44862ce24bf13c71ac797339"
    },
)
CAI_WHEEL: Final = Wheel(
    requirement=_CAUSALDATA,
    files={"causaldata/social_insure/Cai_2015.csv": "406fa993a612e5786b181a703bb90d20b7eb5c509f0a83b7a522b73307cf7f06"},
)
_JOBS_SEEDS: Final = range(5)
_HILLSTROM_COVARIATES: Final = (
    "recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel",
)  # fmt: skip


def read_thornton(folder: Path, replication: int | None) -> Study:
    """Thornton 2008: cash for fetching the result of an HIV test, between 0 and 3 dollars, drawn by lot in Malawi.

    `person` is the row's number in the file. Rows without the outcome `got` or the amount `tinc` are left out.
    """
    replication_of(replication, range(1), THORNTON)
    given = numbered(_stata(folder, "thornton_hiv.dta", THORNTON), "person")
    rows = given.drop_nulls(["got", "tinc"]).with_columns(pl.col("any", "got", "hiv2004", "villnum").cast(pl.Int64))
    return Study(
        name=THORNTON,
        folder=folder,
        rows=rows,
        unit="person",
        treatments=("any",),
        doses=("tinc",),
        outcomes=("got",),
        covariates=("age", "distvct", "hiv2004", "villnum"),
        split=shuffled_split(len(rows), round(0.8 * len(rows)), 0),
        notes={"people without an outcome or an amount, left out": len(given) - len(rows)},
    )


def thornton_complete(folder: Path) -> bool:
    """Whether a folder holds Thornton's data."""
    return (folder / "thornton_hiv.dta").is_file()


def read_nsw(folder: Path, replication: int | None) -> Study:
    """LaLonde's experiment in the sample of Dehejia and Wahba: job training drawn by lot, earnings in 1978."""
    replication_of(replication, range(1), NSW)
    rows = numbered(_stata(folder, "nsw_mixtape.dta", NSW))
    return Study(
        name=NSW,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("treat",),
        outcomes=("re78",),
        covariates=("age", "educ", "black", "hisp", "marr", "nodegree", "re74", "re75"),
    )


def nsw_complete(folder: Path) -> bool:
    """Whether a folder holds the experiment."""
    return (folder / "nsw_mixtape.dta").is_file()


def read_cai(folder: Path, replication: int | None) -> Study:
    """Cai, De Janvry and Sadoulet 2015: farmers in an intensive or a plain session, and who bought insurance."""
    replication_of(replication, range(1), CAI)
    rows = numbered(found_csv(folder, "Cai_2015.csv", CAI))
    return Study(
        name=CAI,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("intensive", "default"),
        outcomes=("takeup_survey",),
        covariates=tuple(n for n in rows.columns if n not in ("unit", "intensive", "default", "takeup_survey")),
    )


def cai_complete(folder: Path) -> bool:
    """Whether a folder holds the experiment."""
    return found(folder, "Cai_2015.csv") is not None


def read_hillstrom(folder: Path, replication: int | None) -> Study:
    """Hillstrom's e-mail challenge: an e-mail on men's or women's goods, or none, drawn by lot.

    `segment` has three values; a declaration with two arms merges two of them or leaves one out. Rows that the file
    calls train and val are trained on, the others test.
    """
    replication_of(replication, range(1), HILLSTROM)
    rows = found_csv(folder, "hillstrom_public.csv", HILLSTROM)
    wrong = rows.filter(~pl.col("split").is_in(["train", "val", "test"]))
    if len(wrong):
        raise DataError(f"{folder}: column 'split' must hold train, val or test, got {wrong['split'][0]!r}")
    return Study(
        name=HILLSTROM,
        folder=folder,
        rows=rows,
        unit="row",
        treatments=("segment",),
        outcomes=("visit", "conversion", "spend"),
        covariates=_HILLSTROM_COVARIATES,
        split=np.where((rows["split"] == "test").to_numpy(), np.int8(2), np.int8(0)),
    )


def hillstrom_complete(folder: Path) -> bool:
    """Whether a folder holds the e-mail challenge."""
    return found(folder, "hillstrom_public.csv") is not None


def read_jobs(folder: Path, replication: int | None) -> Study:
    """LaLonde's experiment joined with people who were not in it; `replication` is the seed of the split.

    Column `e`, 1 in the experiment and 0 outside of it, can weigh rows and is no covariate. The truth says the same:
    policies are judged on the randomised rows alone.
    """
    seed = replication_of(replication, _JOBS_SEEDS, JOBS)
    given = found_csv(folder, "jobs_dw.csv", JOBS)
    given = pl.concat([given.filter(pl.col("split") == "train"), given.filter(pl.col("split") != "train")])
    covariates = tuple(name for name in given.columns if name.startswith("x"))
    rows = numbered(given).select("unit", "t", "y", "e", *covariates)
    return Study(
        name=JOBS,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("t",),
        outcomes=("y",),
        covariates=covariates,
        weights=("e",),
        split=shuffled_split(len(rows), round(0.8 * len(rows)), seed),
        truth=Truth({"randomised": (given["e"] == 1).to_numpy()}),
    )


def jobs_complete(folder: Path) -> bool:
    """Whether a folder holds the joined rows."""
    return found(folder, "jobs_dw.csv") is not None


def _stata(folder: Path, name: str, study: str) -> pl.DataFrame:
    """A Stata file as a frame, missing values as nulls."""
    from pandas import read_stata  # only these files need it

    path = folder / name
    if not path.is_file():
        raise DataUnavailable(f"{folder} lacks {name} of {study}")
    try:
        frame = read_stata(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    columns = (pl.Series(str(column), frame[column].to_numpy()) for column in frame.columns)
    return pl.DataFrame([_as_printed(column) for column in columns])


def _as_printed(column: pl.Series) -> pl.Series:
    """Missing values as nulls; short floats as the decimal number they print as, 2.8368 and not 2.8368000984."""
    if column.dtype == pl.Float32:
        column = column.cast(pl.String).cast(pl.Float64)
    return column.fill_nan(None) if column.dtype.is_float() else column
