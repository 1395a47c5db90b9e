"""The quickest way of this machine to write objects of one shape."""

from functools import cache

from service.text.columns import ObjectColumns
from service.text.library import TextUnavailable
from service.text.padded import PaddedWriter
from service.text.rows import RowWriter


def between(head: bytes, objects: ObjectColumns, tail: bytes) -> bytes:
    """Objects with commas between them, a text before and one behind them all."""
    return _writer().between(head, objects.parts, objects.count, tail)


@cache
def _writer() -> RowWriter | PaddedWriter:
    try:
        return RowWriter()
    except TextUnavailable:
        return PaddedWriter()
