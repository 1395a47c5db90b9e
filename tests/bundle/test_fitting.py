import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.arrays import read_npz, write_npz
from bundle.behaviours import Behaviours, records
from bundle.columns import Rows, raw_column
from bundle.encode import Encoder
from bundle.errors import FeatureError, SchemaError
from bundle.fitting import FitColumns, FittedSchema, fit
from bundle.ids import id64_column
from bundle.scalers import Scaler
from bundle.schema import FeatureSchema
from tests.bundle.samples import ITEMS, declaration, fit_columns, fitted_shop, item_columns, random_rows

ITEM = {"name": "item_id", "side": "candidate", "kind": "id", "encoder": {"type": "vocab", "min_count": 2}}
HISTORY = {"name": "h", "kind": "sequence", "of": "item", "max_len": 2}


def vocabulary(features: list[dict[str, Any]], rows: Rows, table: str = "item_id") -> set[int]:
    schema = FeatureSchema.from_toml(declaration(features))
    columns = item_columns(schema)
    return set(fit(schema, FitColumns(rows, id64_column(list(ITEMS)), columns)).vocabularies[table].tolist())


def ids(*names: str) -> set[int]:
    return set(id64_column(list(names)).tolist())


def test_vocabulary_counts_candidates_and_each_shown_event_once() -> None:
    # One user, three rows into one log. b: candidate once + one event = 2. d: one event, seen by two rows = 1.
    log = records(["d", "b", "c", "e"], [10, 20, 30, 99])
    rows = Rows(
        np.array([25.0, 26.0, 50.0]),
        id64_column(["a", "a", "b"])[:, None],
        Behaviours(log, np.zeros(3, dtype=np.int64), np.full(3, 4, dtype=np.int64)),
    )
    assert vocabulary([ITEM, HISTORY], rows) == ids("a", "b")
    every = {**ITEM, "encoder": {"type": "vocab", "min_count": 1}}
    # e happens after every row: it must not be in the vocabulary.
    assert vocabulary([every, HISTORY], rows) == ids("a", "b", "c", "d")
    # A second sequence of the same table shows the same events: they still count once.
    assert vocabulary([ITEM, HISTORY, {**HISTORY, "name": "h2", "max_len": 9}], rows) == ids("a", "b")


def test_filters_and_length_decide_what_counts() -> None:
    log = records(["b", "c", "d", "e"], [1, 2, 3, 4], None, [5, 1, 5, 5])
    rows = Rows(np.array([9.0]), id64_column(["a"])[:, None], Behaviours.from_events([log]))
    every = {**ITEM, "encoder": {"type": "vocab"}}
    assert vocabulary([every, {**HISTORY, "where": {"min_value": 3}}], rows) == ids("a", "d", "e")


def test_item_columns_are_counted_by_use_and_not_by_listing() -> None:
    genre = {"name": "genre", "side": "candidate", "kind": "id", "max_values": 2, "sep": "|"}
    rows = Rows(np.array([9.0]), id64_column(["b"])[:, None], Behaviours.empty(1))
    assert vocabulary([ITEM, genre], rows, "genre") == ids("y")


def test_scalers_see_candidates_once_a_row() -> None:
    price = {"name": "price", "side": "candidate", "kind": "number"}
    schema = FeatureSchema.from_toml(declaration([ITEM, price]))
    items = id64_column(["a", "b", "b", "c"])[:, None]
    rows = Rows(np.full(4, 9.0), items, Behaviours.empty(4))
    scaler = fit(schema, FitColumns(rows, id64_column(list(ITEMS)), item_columns(schema))).scalers["price"]
    assert scaler.mean == pytest.approx((1 + 2.5 + 2.5) / 3)
    assert scaler.std == pytest.approx(np.std([1, 2.5, 2.5]))


@pytest.mark.parametrize("kind", ["standardise", "log", "quantile", "none"])
def test_scalers_handle_constants_ties_and_nothing(kind: Any) -> None:
    for values in (np.full(5, 3.0), np.array([]), np.full(4, np.nan), np.array([0.1] * 3)):
        scaler = Scaler.fit(kind, values, "x")
        out = scaler.encode(np.array([np.nan, 3.0, -1e300, 1e300]))
        assert np.isfinite(out).all()
        assert Scaler.from_json(json.loads(json.dumps(scaler.to_json()))).encode(np.array([2.0])) == scaler.encode(
            np.array([2.0])
        )


def test_quantiles_rank_and_ties_get_the_middle() -> None:
    scaler = Scaler.fit("quantile", np.arange(1001.0), "x")
    np.testing.assert_allclose(scaler.encode(np.array([0.0, 250.0, 1000.0, 2000.0])), [-0.5, -0.25, 0.5, 0.5])
    tied = Scaler.fit("quantile", np.array([0.0] * 50 + [1.0] * 50), "x")
    # Half of the ranks belong to 0 and half to 1; the quantiles between the two move the middle by .003.
    np.testing.assert_allclose(tied.encode(np.array([0.0, 1.0])), [-0.25, 0.25], atol=4e-3)


def test_log_is_signed_and_standardised() -> None:
    values = np.array([-10.0, 0.0, 5.0, 1000.0])
    logs = np.sign(values) * np.log1p(np.abs(values))
    given = values.copy()
    np.testing.assert_allclose(
        Scaler.fit("log", values, "x").encode(given), (logs - logs.mean()) / logs.std(), rtol=1e-6
    )
    np.testing.assert_array_equal(given, values, err_msg="encoding must not write into its input")


def test_values_too_large_to_average_are_an_error() -> None:
    with pytest.raises(FeatureError, match="too large"):
        Scaler.fit("standardise", np.array([1e308, 1.5e308]), "x")


def test_absent_and_mistyped_columns_are_named() -> None:
    schema = FeatureSchema.from_toml(declaration())
    good = fit_columns(schema)
    without = {name: column for name, column in good.item_columns.items() if name != "genre"}
    with pytest.raises(FeatureError, match=r"genre.*per_row"):
        fit(schema, replace(good, item_columns=without))
    rows = replace(good.rows, user=dict(good.rows.user) | {"age": good.rows.user["hour"]})
    with pytest.raises(FeatureError, match="/age: expected float64"):
        fit(schema, replace(good, rows=rows))
    with pytest.raises(FeatureError, match="listed twice"):
        fit(schema, replace(good, item_ids=id64_column(["a", "b", "c", "d", "a"])))
    with pytest.raises(FeatureError, match="has 5 rows"):
        fit(schema, replace(good, item_ids=id64_column(["a", "b"])))


def test_without_an_item_table_the_met_items_are_listed() -> None:
    schema = FeatureSchema.from_toml(declaration([ITEM, HISTORY]))
    log = records(["x", "y"], [1, 2])
    rows = Rows(np.array([9.0]), id64_column(["a"])[:, None], Behaviours.from_events([log]))
    assert set(fit(schema, FitColumns(rows)).items.ids.tolist()) == ids("a", "x", "y")


def test_save_and_load_encode_the_same(tmp_path: Path) -> None:
    fitted = fitted_shop()
    fitted.save(tmp_path)
    again = FittedSchema.load(tmp_path)
    assert again.schema_hash == fitted.schema_hash
    assert again.input_layout(8) == fitted.input_layout(8)
    rows = random_rows(fitted.schema, np.random.default_rng(3), 10, 3)
    expected = Encoder(fitted).encode(rows).take()
    for name, array in Encoder(again).encode(rows).take().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    other = tmp_path / "other"
    other.mkdir()
    again.save(other)
    for path in tmp_path.glob("*.*"):
        assert path.read_bytes() == (other / path.name).read_bytes(), "equal state gives equal bytes"


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    fitted = fitted_shop()
    fitted.save(tmp_path)
    others = {name: ids + np.uint64(1) for name, ids in fitted.vocabularies.items()}
    write_npz(tmp_path / "vocab.npz", others)
    with pytest.raises(SchemaError, match="hash"):
        FittedSchema.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 3}', "[" * 100_000])
def test_damaged_schema_files_are_refused(tmp_path: Path, text: str) -> None:
    fitted_shop().save(tmp_path)
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(SchemaError):
        FittedSchema.load(tmp_path)


def _changed(fitted: FittedSchema, **items: Any) -> FittedSchema:
    return replace(fitted, items=replace(fitted.items, **items))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, scalers={n: s for n, s in f.scalers.items() if n != "age"}), "scalers"),
        (lambda f: replace(f, vocabularies={n: v for n, v in f.vocabularies.items() if n != "genre"}), "vocabularies"),
        (lambda f: replace(f, vocabularies={n: v[::-1] for n, v in f.vocabularies.items()}), "not sorted"),
        (lambda f: replace(f, vocabularies={n: v[:1] for n, v in f.vocabularies.items()}), "outside its table"),
        (lambda f: replace(f, scalers=dict(f.scalers) | {"age": replace(f.scalers["age"], std=0.0)}), "deviation"),
        (lambda f: replace(f, scalers=dict(f.scalers) | {"age": replace(f.scalers["age"], kind="x")}), "kind"),
        (lambda f: _changed(f, ids=f.items.ids[::-1]), "not sorted"),
        (lambda f: _changed(f, ids=f.items.ids[:-1]), "type or shape"),
        (lambda f: _changed(f, number_columns={}), "number columns"),
        (lambda f: _changed(f, matches={}), "compared"),
        (lambda f: _changed(f, id_columns={n: c - 5 for n, c in f.items.id_columns.items()}), "outside its table"),
    ],
)
def test_incomplete_state_with_fitting_hashes_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    change(fitted_shop()).save(tmp_path)
    with pytest.raises(SchemaError, match=message):
        FittedSchema.load(tmp_path)


def test_damaged_array_headers_are_value_errors(tmp_path: Path) -> None:
    # numpy parses a header as Python source; a tokenizer's errors must not come out.
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(4.0))
    content = buffer.getvalue()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.integers(0, 100)] = rng.integers(0, 256)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("a.npy", bytes(damaged))
        try:
            read_npz(tmp_path / "a.npz")
        except ValueError:
            refused += 1
    assert refused > 400


def test_arrays_are_data_only(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(ValueError, match="Object arrays"):
        write_npz(path, {"x": np.array([object()])})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", b"\0" * 10_000_000)
    with pytest.raises(ValueError, match="compressed"):
        read_npz(path)
    write_npz(path, {"x": np.zeros(1000)})
    with pytest.raises(ValueError, match="larger"):
        read_npz(path, max_bytes=100)
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
        header += b" " * (118 - len(header) - 1) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="another size"):
        read_npz(path)
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "pickle.npy", "x.npy")
    with pytest.raises(ValueError, match="Python objects"):
        read_npz(path)


def test_raw_columns_name_the_row() -> None:
    schema = fitted_shop().schema
    number, single, several = (schema.named(name) for name in ("age", "hour", "tags"))
    for feature, values, pointer in (
        (number, [1, "2"], "/age/1"),
        (number, [True], "/age/0"),
        (number, [1.0, float("inf")], "/age/1"),
        (number, [10**400], "/age/0"),
        (single, ["a", 3], "/hour/1"),
        (single, ["a", ["b"]], "/hour/1"),
        (several, [["a", 1.5]], "/tags/0"),
    ):
        with pytest.raises(FeatureError) as caught:
            raw_column(feature, values)  # type: ignore[arg-type]
        assert caught.value.problems[0].pointer == pointer
