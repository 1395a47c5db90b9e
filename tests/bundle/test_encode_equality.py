"""The promise of the seam: one row alone, the same row in a batch, and a request give the same arrays."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.behaviours import Behaviours, records
from bundle.columns import Rows
from bundle.encode import EncodedRows, Encoder
from bundle.fitting import fit
from bundle.schema import FeatureSchema
from tests.bundle.samples import FEATURES, GROUP, declaration, fit_columns, random_rows

NEEDED = ("item_id", "genre", "price")  # other features refer to these


def schemas() -> st.SearchStrategy[FeatureSchema]:
    optional = [feature for feature in FEATURES if feature["name"] not in NEEDED]
    needed = [feature for feature in FEATURES if feature["name"] in NEEDED]

    def build(chosen: list[dict[str, Any]], order: Any, grouped: bool) -> FeatureSchema:
        features = [*needed, *chosen]
        order.shuffle(features)
        names = {feature["name"] for feature in features}
        group = [GROUP] if grouped and {"h_item", "h_genre", "h_value"} <= names else []
        return FeatureSchema.from_toml(declaration(features, group=group))

    subsets = st.lists(st.sampled_from(optional), unique_by=lambda f: f["name"], max_size=len(optional))
    everything = st.just(optional)
    return st.builds(build, everything | subsets, st.randoms(use_true_random=False), st.booleans())


def lone(rows: Rows, row: int) -> Rows:
    """One row whose log holds its own behaviours and nothing else: what the online side sees."""
    history = rows.behaviours
    own = history.events[history.start[row] : history.stop[row]].copy()
    alone = rows.take(np.array([row]))
    return Rows(alone.time, alone.items, Behaviours.from_events([own]), alone.user, alone.candidate)


def assert_same_row(single: dict[str, np.ndarray], batch: dict[str, np.ndarray], row: int) -> None:
    steps = single["behaviour_mask"].shape[1]
    for name, array in single.items():
        expected = batch[name][row]
        if name.startswith("behaviour"):
            assert not expected[steps:].any(), f"{name}: padding is not zero"
            expected = expected[:steps]
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array[0], expected, err_msg=name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas(), st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4))
def test_single_rows_equal_one_batch(schema: FeatureSchema, seed: int, users: int, candidates: int) -> None:
    encoder = Encoder(fit(schema, fit_columns(schema, seed)))
    rows = random_rows(schema, np.random.default_rng(seed), users, candidates)
    batch = encoder.encode(rows).take()
    for row in range(users):
        assert_same_row(encoder.encode(lone(rows, row)).take(), batch, row)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas(), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_a_future_behaviour_changes_nothing(schema: FeatureSchema, seed: int, delay: int) -> None:
    rng = np.random.default_rng(seed)
    encoder = Encoder(fit(schema, fit_columns(schema, seed)))
    rows = random_rows(schema, rng, 4, 2)
    planted = []
    for row in range(4):
        own = rows.behaviours.events[rows.behaviours.start[row] : rows.behaviours.stop[row]]
        past = own[own["ts"] < rows.time[row]]
        # The worst leak there is: the candidate itself, at the row's own second or later, with its label as value.
        leak = records(rows.items[row][:1], [rows.time[row] + delay], ["click"], [5.0])
        planted.append(np.concatenate([past, leak]))
    leaking = Rows(rows.time, rows.items, Behaviours.from_events(planted), rows.user, rows.candidate)
    clean, leaked = encoder.encode(rows), encoder.encode(leaking)
    for name, array in clean.take().items():
        np.testing.assert_array_equal(array, leaked.take()[name], err_msg=name)
    assert leaked.visible.behaviours.lengths.tolist() == clean.visible.behaviours.lengths.tolist()


def test_fitting_does_not_see_the_future() -> None:
    schema = FeatureSchema.from_toml(declaration(group=[GROUP]))
    columns = fit_columns(schema, 1)
    rows = columns.rows
    events = rows.behaviours.events.copy()
    late = int(rows.time.max()) + 1
    # Every history goes on after its row: unseen items, other values, another type.
    future = records([f"future-{i}" for i in range(5)], np.arange(5) + late, ["future"] * 5, [1e6] * 5)
    parts = [events[s:e] for s, e in zip(rows.behaviours.start, rows.behaviours.stop, strict=True)]
    longer = Behaviours.from_events([np.concatenate([part, future]) for part in parts])
    whole = Behaviours.from_events(parts)
    plain = fit(schema, _with(columns, rows, whole))
    leaking = fit(schema, _with(columns, rows, longer))
    assert plain.schema_hash == leaking.schema_hash


def _with(columns: Any, rows: Rows, history: Behaviours) -> Any:
    return type(columns)(
        Rows(rows.time, rows.items, history, rows.user, rows.candidate), columns.item_ids, columns.item_columns
    )


def test_take_gathers_rows_and_trims() -> None:
    schema = FeatureSchema.from_toml(declaration(group=[GROUP]))
    encoder = Encoder(fit(schema, fit_columns(schema)))
    encoded = encoder.encode(random_rows(schema, np.random.default_rng(5), 30, 2))
    everything = encoded.take()
    order = np.array([7, 3, 7])
    some = encoded.take(order)
    longest = int(encoded.lengths[order].max(initial=1))
    assert some["behaviour_mask"].shape[1] == max(1, longest)
    assert encoded.take(order, trim=False)["behaviour_mask"].shape[1] == 3
    for name, array in some.items():
        expected = everything[name][order]
        if name.startswith("behaviour"):
            expected = expected[:, : array.shape[1]]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    rows = encoded.behaviour_item_rows(order)
    assert rows.shape == some["behaviour_mask"].shape[:2]
    assert np.all(rows[~some["behaviour_mask"][..., 0]] == -1)


@pytest.mark.parametrize("features", [FEATURES[:8], ({"name": "item_id", "side": "candidate", "kind": "id"},)])
def test_without_sequences_there_is_one_masked_step(features: Any) -> None:
    schema = FeatureSchema.from_toml(declaration(features))
    encoder = Encoder(fit(schema, fit_columns(schema)))
    rows = random_rows(schema, np.random.default_rng(0), 3, 2)
    arrays = encoder.encode(rows).take()
    assert arrays["behaviour_ids"].shape == (3, 1, 0)
    assert arrays["behaviour_mask"].shape == (3, 1, 1)
    assert not arrays["behaviour_mask"].any()


def test_shapes_dtypes_and_order_of_the_inputs() -> None:
    schema = FeatureSchema.from_toml(declaration(group=[GROUP]))
    fitted = fit(schema, fit_columns(schema))
    layout = fitted.input_layout(8)
    arrays = Encoder(fitted).encode(random_rows(schema, np.random.default_rng(0), 4, 3)).take()
    assert list(arrays) == [
        "user_ids",
        "user_numbers",
        "candidate_ids",
        "candidate_numbers",
        "behaviour_ids",
        "behaviour_numbers",
        "behaviour_mask",
    ]
    for side, lead in (("user", (4,)), ("candidate", (4, 3))):
        width = sum(field["width"] for field in layout[f"{side}_ids"])
        assert arrays[f"{side}_ids"].shape == (*lead, width)
        assert arrays[f"{side}_ids"].dtype == np.int64
        assert arrays[f"{side}_numbers"].shape == (*lead, len(layout[f"{side}_numbers"]))
        assert arrays[f"{side}_numbers"].dtype == np.float32
    steps = arrays["behaviour_mask"].shape[1]
    assert arrays["behaviour_mask"].shape == (4, steps, layout["streams"])
    assert arrays["behaviour_ids"].shape == (4, steps, sum(f["width"] for f in layout["behaviour_ids"]))
    for field in [*layout["user_ids"], *layout["candidate_ids"], *layout["behaviour_ids"]]:
        side = next(s for s in ("user", "candidate", "behaviour") if field in layout[f"{s}_ids"])
        columns = arrays[f"{side}_ids"][..., field["column"] : field["column"] + field["width"]]
        assert columns.max(initial=0) < fitted.tables()[field["table"]]


def test_an_empty_batch_is_fine() -> None:
    schema = FeatureSchema.from_toml(declaration(group=[GROUP]))
    encoder = Encoder(fit(schema, fit_columns(schema)))
    rows = random_rows(schema, np.random.default_rng(0), 3, 2).take(np.array([], dtype=np.int64))
    arrays = encoder.encode(rows).take()
    assert arrays["candidate_ids"].shape[:2] == (0, 2)
    assert arrays["behaviour_mask"].shape[:2] == (0, 1)
    empty: EncodedRows = encoder.encode(rows)
    assert len(empty) == 0


def test_histories_are_slices_and_not_copies() -> None:
    schema = FeatureSchema.from_toml(declaration(group=[GROUP]))
    encoder = Encoder(fit(schema, fit_columns(schema)))
    log = records(["a", "b"] * 500, np.arange(1000) + 1.0, None, np.arange(1000) % 5)
    users = 4000
    rows = random_rows(schema, np.random.default_rng(0), users, 1)
    late = np.full(users, 5000.0)
    whole = Behaviours(log, np.zeros(users, dtype=np.int64), np.full(users, 1000, dtype=np.int64))
    rows = Rows(late, rows.items, whole, rows.user, rows.candidate)
    tracemalloc.start()
    try:
        encoder.encode(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 4,000 rows x 1,000 behaviours x 20 bytes would be 80 MB; the walk over them is cut into chunks.
    assert peak < 50e6
