"""The quickest way of this machine to write objects of one shape."""

from functools import cache

from service.compiled.answers import AnswerWriter
from service.compiled.columns import ObjectColumns
from service.compiled.library import CompiledUnavailable
from service.compiled.padded import PaddedWriter
from service.compiled.rows import RowWriter


@cache
def answer_writer() -> AnswerWriter | None:
    """Who writes plain answers, if anybody does."""
    try:
        return AnswerWriter()
    except CompiledUnavailable:
        return None


def between(head: bytes, objects: ObjectColumns, tail: bytes) -> memoryview:
    """Objects with commas between them, a text before and one behind them all."""
    return _writer().between(head, objects, tail)


@cache
def _writer() -> RowWriter | PaddedWriter:
    try:
        return RowWriter()
    except CompiledUnavailable:
        return PaddedWriter()
