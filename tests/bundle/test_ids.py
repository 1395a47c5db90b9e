import subprocess
import sys

import numpy as np
import pytest
import xxhash

from bundle import ids
from bundle.ids import MISSING_ID, id64, id64_column, mix, type32


def test_known_hashes_never_change() -> None:
    # XXH3-64 with seed 0 as published; a change here orphans every stored behaviour and every vocabulary.
    assert id64("") == 0x2D06800538D394C2
    assert id64("a") == 0xE6C632B61E964E1F
    assert id64("é") == xxhash.xxh3_64_intdigest("é".encode())


def test_type_is_the_first_four_bytes_of_the_hash() -> None:
    assert type32("click") == int.from_bytes(id64("click").to_bytes(8, "little")[:4], "little")


def test_column_equals_single_hashes_and_none_is_missing() -> None:
    column = id64_column(["a", None, "b", "a", ""])
    assert column.dtype == np.uint64
    assert column.tolist() == [id64("a"), MISSING_ID, id64("b"), id64("a"), id64("")]
    assert id64_column(np.array(["x", "y"])).tolist() == [id64("x"), id64("y")]


@pytest.mark.parametrize("distinct", [1, 3, 300, 6000])
def test_long_columns_equal_single_hashes(distinct: int) -> None:
    texts: list[str | None] = [f"é{number * 7919 % distinct}" for number in range(6000)]
    assert id64_column(texts).tolist() == [id64(str(text)) for text in texts]
    texts[5] = texts[-1] = None
    assert id64_column(texts).tolist() == [MISSING_ID if text is None else id64(text) for text in texts]
    with pytest.raises(ValueError, match="surrogates"):
        id64_column([*texts[:5], "\ud800", *texts[6:]])


def test_what_is_remembered_of_a_column_is_bounded_and_right() -> None:
    for start in range(0, 40_000, 4000):
        texts: list[str | None] = [f"r{start + number % 4000}" for number in range(12_000)]
        for _ in range(2):  # the second time from memory
            assert id64_column(texts).tolist() == [id64(str(text)) for text in texts]
    texts[7] = None
    assert id64_column(texts).tolist() == [MISSING_ID if text is None else id64(text) for text in texts]
    with pytest.raises(ValueError, match="text"):
        id64_column([*texts, ["r1"]])  # type: ignore[list-item]
    assert len(ids._KNOWN) <= ids._MOST_KNOWN + 1


@pytest.mark.parametrize("value", [1, 1.5, True, b"x"])
def test_only_text_is_an_id(value: object) -> None:
    with pytest.raises(ValueError, match="text"):
        id64_column(["a", value])  # type: ignore[list-item]


def test_numbers_and_lone_surrogates_are_refused() -> None:
    with pytest.raises(ValueError, match="text"):
        id64_column(np.array([1, 2]))
    with pytest.raises(ValueError, match="surrogates"):
        id64("\ud800")


def test_mix_depends_on_seed_and_spreads() -> None:
    ids = id64_column([str(i) for i in range(20_000)])
    buckets = mix(ids, 0) % np.uint64(16)
    assert not np.array_equal(buckets, mix(ids, 1) % np.uint64(16))
    counts = np.bincount(buckets.astype(int), minlength=16)
    assert counts.min() > 20_000 / 16 * 0.9
    assert mix(np.array([0, 1], dtype=np.uint64), 0).tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]


def test_the_seam_needs_no_framework() -> None:
    modules = "bundle.loading, bundle.writing, bundle.store, bundle.request, bundle.encode, bundle.fitting"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    heavy = {"torch", "fastapi", "polars", "pandas", "onnxruntime", "sklearn", "service", "training", "models"}
    assert not heavy & set(done.stdout.split())
