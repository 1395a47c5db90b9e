"""JSON written from columns says exactly what was put in, whoever writes it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.compiled.columns import ObjectColumns, Piece, strings
from service.compiled.padded import PaddedWriter
from service.compiled.rows import RowWriter

FLOATS = st.floats(allow_infinity=False)
SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Writer = RowWriter | PaddedWriter


@pytest.fixture(params=["compiled", "padded"])
def writer(request: pytest.FixtureRequest) -> Writer:
    return PaddedWriter() if request.param == "padded" else RowWriter(request.getfixturevalue("compiled_library"))


def said(writer: Writer, columns: ObjectColumns) -> object:
    return json.loads(bytes(writer.between(b"[", columns, b"]")))


@SHARED
@given(rows=st.lists(st.lists(FLOATS, min_size=3, max_size=3), min_size=1, max_size=20))
def test_numbers_come_back_to_the_last_bit(writer: Writer, rows: list[list[float]]) -> None:
    matrix = np.array(rows)
    columns = ObjectColumns(len(rows))
    columns.text(b"{")
    columns.members((b'"a"', b'"b"'), matrix[:, :2])
    columns.text(b',"c":')
    columns.series(matrix[:, 1:])
    columns.text(b"}")
    plain = [[None if math.isnan(value) else value for value in row] for row in rows]
    assert said(writer, columns) == [{"a": a, "b": b, "c": [b, c]} for a, b, c in plain]


@pytest.mark.parametrize("number", [-2.2250738585072014e-308, -1.7976931348623157e308, 5e-324, 1e22, 0.1, 5.0, -0.0])
def test_one_number_alone_is_its_shortest_text(writer: Writer, number: float) -> None:
    columns = ObjectColumns(1)
    columns.number(np.array([number]))
    written = bytes(writer.between(b"", columns, b"")).decode().rstrip()  # where the last comma would stand
    assert float(written) == number
    assert math.copysign(1, float(written)) == math.copysign(1, number)
    assert type(json.loads(written)) is float
    assert len(written) <= len(repr(number))


@SHARED
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20))
def test_texts_come_back(writer: Writer, texts: list[str]) -> None:
    columns = ObjectColumns(len(texts))
    columns.piece(strings(texts))
    assert said(writer, columns) == texts


def test_objects_of_one_shape(writer: Writer) -> None:
    body = '["a","東京",""]'.encode()
    known = np.array([True, False, True])
    columns = ObjectColumns(3)
    columns.text(b"{")
    columns.members((b'"x"', b'"y"'), np.asfortranarray([[1.0, 0.25], [np.nan, -3.0], [1e-7, 0.1]]))
    columns.text(b',"z":')
    columns.choice(np.array([0, 1, 0]), [b"null", b'{"long": "' + b"abcd" * 40 + b'"}'])
    columns.either(known, b',"w":', b"")
    columns.number(np.array([0.5, 7.0, np.nan]), known)
    columns.text(b',"id":')
    columns.piece(Piece(body, np.array([1, 5, 14], dtype=np.int32), np.array([4, 13, 16], dtype=np.int32)))
    columns.text(b"}")
    assert said(writer, columns) == [
        {"x": 1.0, "y": 0.25, "z": None, "w": 0.5, "id": "a"},
        {"x": None, "y": -3.0, "z": {"long": "abcd" * 40}, "id": "東京"},
        {"x": 1e-7, "y": 0.1, "z": None, "w": None, "id": ""},
    ]


def test_both_write_the_same_values(compiled_library: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 3)) * 10.0 ** rng.integers(-20, 20, (500, 3))
    columns = ObjectColumns(500)
    columns.text(b"{")
    columns.members((b'"x"', b'"y"', b'"z"'), values)
    columns.text(b"}")
    compiled = said(RowWriter(compiled_library), columns)
    assert compiled == said(PaddedWriter(), columns) == [dict(zip("xyz", row, strict=True)) for row in values.tolist()]
