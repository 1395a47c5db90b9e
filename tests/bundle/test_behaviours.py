import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bundle.behaviours import FORMAT_BYTE, MAX_EVENTS, RECORD, Behaviours, pack, records, unpack, unpack_rows
from bundle.errors import CorruptRecord
from bundle.ids import id64, type32

DOCUMENT = Path(__file__).parents[2] / "docs" / "behaviour-records.md"


def sample(count: int = 3) -> np.ndarray:
    return records([str(i) for i in range(count)], np.arange(count) + 10.0, ["click"] * count, np.arange(count) / 2)


def test_record_is_twenty_packed_bytes() -> None:
    assert RECORD.itemsize == 20
    assert [RECORD.fields[name][1] for name in ("item", "ts", "type", "value")] == [0, 8, 12, 16]  # type: ignore[index]


def test_round_trip_keeps_every_bit() -> None:
    events = records(["a", "b"], [5, 5.9], ["click", None], [np.nan, -2.5])
    again = unpack(pack(events))
    assert again.tobytes() == events.tobytes()
    assert again["ts"].tolist() == [5, 5]
    assert again["type"].tolist() == [type32("click"), 0]
    assert unpack(pack(sample(0))).shape == (0,)


def test_the_documented_example_is_what_we_write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    block = re.search(r"```hex\n(.*?)```", text, re.DOTALL)
    assert block is not None
    data = bytes.fromhex("".join(line.split("#")[0] for line in block[1].splitlines()))
    events = unpack(data)
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `?(\w+)`? \| ([\d.]+|none) \|$", text, re.MULTILINE)
    assert len(rows) == len(events) == 2
    for event, (item, ts, kind, value) in zip(events, rows, strict=True):
        assert event["item"] == id64(item)
        assert event["ts"] == int(ts)
        assert event["type"] == (0 if kind == "none" else type32(kind))
        assert np.isnan(event["value"]) if value == "none" else event["value"] == float(value)
    assert pack(events) == data


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_random_blobs_raise_only_corrupt_record(blob: bytes) -> None:
    for data in (blob, bytes([FORMAT_BYTE]) + blob):
        try:
            events = unpack(data)
        except CorruptRecord:
            continue
        assert events.dtype == RECORD
        assert np.all(np.diff(events["ts"].astype(np.int64)) >= 0)
        assert not np.isinf(events["value"]).any()


def test_every_truncation_is_corrupt_or_shorter() -> None:
    data = pack(sample(5))
    for length in range(len(data)):
        if length % 20 == 1:
            assert len(unpack(data[:length])) == length // 20
        else:
            with pytest.raises(CorruptRecord):
                unpack(data[:length])


def test_wrong_format_order_item_and_value_are_corrupt() -> None:
    good = sample(2)
    with pytest.raises(CorruptRecord, match="format byte"):
        unpack(bytes([FORMAT_BYTE + 1]) + good.tobytes())
    with pytest.raises(CorruptRecord, match="oldest first"):
        unpack(bytes([FORMAT_BYTE]) + good[::-1].tobytes())
    for name, value, message in (("value", np.inf, "infinite"), ("item", 0, "no item")):
        bad = good.copy()
        bad[name][1] = value
        with pytest.raises(CorruptRecord, match=message):
            unpack(bytes([FORMAT_BYTE]) + bad.tobytes())


def test_a_huge_value_is_cut_to_the_newest_before_anything_is_copied() -> None:
    events = np.zeros(200_000, dtype=RECORD)
    events["item"] = 7
    events["ts"] = np.arange(200_000)
    events["ts"][0] = 99  # disorder far before the part that is used
    data = bytes([FORMAT_BYTE]) + events.tobytes()
    newest = unpack(data)
    assert len(newest) == MAX_EVENTS
    assert newest["ts"][-1] == 199_999
    assert len(newest.base) == newest.nbytes  # a view of the value would keep its 4 MB alive


_values = st.none() | st.one_of(
    st.binary(max_size=70),
    st.builds(
        lambda rows: bytes([FORMAT_BYTE]) + np.array(rows, dtype=RECORD).tobytes(),
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 5), st.just(0), st.sampled_from([1.0, np.nan, np.inf])),
            max_size=4,
        ),
    ),
    st.builds(lambda count: pack(sample(count)), st.integers(0, 6)),
)


@settings(max_examples=300, deadline=None)
@given(values=st.lists(_values, max_size=6), max_events=st.integers(1, 5))
def test_many_values_unpack_as_each_does_alone(values: list[bytes | None], max_events: int) -> None:
    found, corrupt = unpack_rows(values, max_events)
    assert len(found) == len(values)
    for row, value in enumerate(values):
        events = found.events[found.start[row] : found.stop[row]]
        try:
            expected = b"" if value is None else unpack(value, max_events).tobytes()
        except CorruptRecord:
            assert row in corrupt
            expected = b""
        else:
            assert row not in corrupt
        assert events.tobytes() == expected


def test_pack_refuses_disorder_and_foreign_dtypes() -> None:
    with pytest.raises(ValueError, match="oldest first"):
        pack(sample(3)[::-1])
    with pytest.raises(ValueError, match="records"):
        pack(np.zeros(3))


@pytest.mark.parametrize("ts", [-1.0, 2.0**32, np.nan, np.inf])
def test_times_outside_the_format_are_refused(ts: float) -> None:
    with pytest.raises(ValueError, match="time"):
        records(["a"], [ts])


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_values_that_float32_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        records(["a"], [1], None, [value])


def test_before_is_strictly_earlier_in_whole_seconds() -> None:
    log = records(list("abcd"), [10, 11, 11, 12])
    history = Behaviours(log, np.zeros(5, dtype=np.int64), np.full(5, 4, dtype=np.int64))
    times = np.array([9.0, 11.0, 11.99, 12.0, 1e12])
    assert history.before(times).lengths.tolist() == [0, 1, 1, 3, 4]
    alone = [history.take(slice(row, row + 1)).before(times[row : row + 1]) for row in range(5)]
    assert [int(one.lengths[0]) for one in alone] == [0, 1, 1, 3, 4]  # a lone request is cut in a way of its own


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_before_and_where_equal_a_plain_loop(data: st.DataObject) -> None:
    times = [sorted(data.draw(st.lists(st.integers(0, 20), max_size=9))) for _ in range(3)]
    logs = [records(["i"] * len(t), np.array(t, dtype=float)) for t in times]
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=8)))
    ts = np.array(data.draw(st.lists(st.floats(-1, 22), min_size=len(owner), max_size=len(owner))))
    history = Behaviours.from_events(logs).take(owner)
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(history.events), max_size=len(history.events))), bool
    )
    marked = history.events.copy()
    marked["value"] = keep
    cut = Behaviours(marked, history.start, history.stop).before(ts).where(keep)
    for row, (user, limit) in enumerate(zip(owner, ts, strict=True)):
        first = sum(len(log) for log in logs[:user])
        expected = [t for place, t in enumerate(times[user]) if t < np.floor(limit) and keep[first + place]]
        assert cut.events[cut.start[row] : cut.stop[row]]["ts"].tolist() == expected


def test_slices_must_lie_in_the_log() -> None:
    log = sample(2)
    for start, stop in (([0], [3]), ([-1], [1]), ([2], [1])):
        with pytest.raises(ValueError, match="slice"):
            Behaviours(log, np.array(start), np.array(stop))
