"""The frame of an Arrow IPC stream, looked at before the Arrow library decodes anything of it.

A stream announces lengths, of its messages and of the buffers inside, and may say one thing many times by pointing to
it. Here every length is held against the bytes that came, and whatever can stand for more than those bytes is refused:
compression, dictionaries, nested types, buffers and texts that share bytes. What passes decodes into about as much
memory as it takes itself. The layout is that of Arrow's Message.fbs and Schema.fbs.
"""

import struct
from typing import Final

from service.api.flat_table import FlatTable
from service.api.problems import invalid
from service.errors import BadRequest, Problem

MARK: Final = b"\xff\xff\xff\xff"
END: Final = MARK + bytes(4)
MOST_COLUMNS: Final = 1024
_SCHEMA, _RECORDS = 1, 3  # kinds of message that a stream without dictionaries has
_MESSAGE_KIND, _MESSAGE_HEADER, _MESSAGE_BODY, _MESSAGE_PAIRS = 1, 2, 3, 4
_SCHEMA_FIELDS, _SCHEMA_PAIRS = 1, 2
_FIELD_NAME, _FIELD_TYPE, _FIELD_DICTIONARY, _FIELD_CHILDREN, _FIELD_PAIRS = 0, 2, 4, 5, 6
_BATCH_ROWS, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3
_KEY, _VALUE = 0, 1
_TEXTS: Final = frozenset({5, 20})
_PLAIN: Final = frozenset({1, 2, 3, 6, *_TEXTS})  # null, whole and floating-point numbers, truth values, texts
# A list may hold texts only: one of nulls, or of a fixed size, can be long without taking any bytes.
_LISTS: Final = frozenset({12, 21})


def check_stream(raw: bytes, most_rows: int) -> int:
    """The number of rows of a stream that is safe to decode.

    Args:
        raw: One Arrow IPC stream, from its schema to its end mark.
        most_rows: Nothing is looked at once there are more rows; there may be as many batches.

    Raises:
        BadRequest: It is cut off, has bytes behind its end, is compressed, uses dictionaries, or says something of
            itself that is not so.
        InvalidFeatures: A column is of a type that has no JSON form.
    """
    data = memoryview(raw)
    rows = messages = at = 0
    try:
        while not raw.startswith(END, at):
            kind, header, size, at = _message(data, at)
            if (kind == _SCHEMA) != (messages == 0):
                raise BadRequest("The Arrow stream must be one schema and then record batches.")
            if kind == _SCHEMA:
                _check_schema(header, len(raw))
            else:
                rows += _rows_of_batch(kind, header, size)
            messages += 1
            if max(rows, messages - 1) > most_rows:
                return max(rows, messages - 1)
    except (struct.error, UnicodeDecodeError) as error:
        raise BadRequest("The body is not a whole Arrow stream.") from error
    if at + len(END) != len(raw) or messages == 0:
        raise BadRequest("The body must be one Arrow stream, from its schema to its end mark.")
    return rows


def _message(data: memoryview, at: int) -> tuple[int, FlatTable, int, int]:
    """Kind, header and length of the body of the message at a place, and where the next one stands."""
    mark, length = struct.unpack_from("<4si", data, at)
    start = at + 8
    if mark != MARK or not 0 < length <= len(data) - start:
        raise BadRequest("The body is not a whole Arrow stream.")
    message = FlatTable.root(data[start : start + length])
    size = message.number("<q", _MESSAGE_BODY)
    if not 0 <= size <= len(data) - start - length:
        raise BadRequest("The body is not a whole Arrow stream.")
    _check_texts(_pairs(message, _MESSAGE_PAIRS), length)
    return message.number("<B", _MESSAGE_KIND), message.table(_MESSAGE_HEADER), size, start + length + size


def _check_schema(schema: FlatTable, size: int) -> None:
    fields = schema.tables(_SCHEMA_FIELDS, MOST_COLUMNS)
    names = [field.text(_FIELD_NAME) for field in fields]
    texts = _pairs(schema, _SCHEMA_PAIRS) + sum(map(len, names))
    problems = []
    for field, name in zip(fields, names, strict=True):
        texts += _pairs(field, _FIELD_PAIRS)
        if not _is_plain(field):
            pointer = "/candidates" if name == b"item_id" else f"/candidate_features/{_escaped(name.decode())}"
            problems.append(Problem(pointer, "schema", "must be a column of texts, numbers or lists of texts"))
    _check_texts(texts, size)
    if problems:
        raise invalid(problems)


def _is_plain(field: FlatTable) -> bool:
    """Whether a column holds no more than its bytes say and has a JSON form."""
    kind = field.number("<B", _FIELD_TYPE)
    children = field.tables(_FIELD_CHILDREN, 1)
    if field.has(_FIELD_DICTIONARY):
        return False
    if kind not in _LISTS:
        return kind in _PLAIN and not children
    return all(
        child.number("<B", _FIELD_TYPE) in _TEXTS
        and not child.has(_FIELD_DICTIONARY)
        and not child.tables(_FIELD_CHILDREN, 0)
        and not _pairs(child, _FIELD_PAIRS)
        and len(child.text(_FIELD_NAME)) < MOST_COLUMNS
        for child in children
    ) and bool(children)


def _rows_of_batch(kind: int, batch: FlatTable, size: int) -> int:
    """The rows of a record batch whose body has so many bytes."""
    if kind != _RECORDS:
        raise BadRequest("The Arrow stream may hold plain record batches only: no dictionaries, no tensors.")
    if batch.has(_BATCH_COMPRESSION):
        raise BadRequest("The Arrow stream must not be compressed.")
    end = 0
    for offset, length in batch.pairs(_BATCH_BUFFERS):
        # Side by side: many columns that point to the same bytes would be many times those bytes.
        if length and (length < 0 or offset < end or offset + length > size):
            raise BadRequest("The buffers of an Arrow record batch overlap or lie outside of it.")
        end = max(end, offset + length)
    rows = batch.number("<q", _BATCH_ROWS)
    if rows < 0:
        raise BadRequest("An Arrow record batch has less than no rows.")
    return rows


def _pairs(table: FlatTable, field: int) -> int:
    """Bytes of the keys and values of a table's own metadata."""
    return sum(len(pair.text(_KEY)) + len(pair.text(_VALUE)) for pair in table.tables(field, MOST_COLUMNS))


def _check_texts(texts: int, size: int) -> None:
    if texts > size:
        raise BadRequest("The texts of an Arrow message share their bytes.")


def _escaped(name: str) -> str:
    """A name as one step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
