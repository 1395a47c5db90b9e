"""Objects of one shape written side by side as JSON by numpy: no object is built for any of them.

A column's values stand in cells of one width, padded with spaces (JSON allows them between values), so a column is
copied into all objects at once. One object alone has no padding at all.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.compiled.columns import Members, Number, ObjectColumns, Piece, Series

Cells = NDArray[np.uint8]  # (U, w): one JSON value a row, in UTF-8, spaces behind it

_SPACE, _COMMA = b" ,"
_WIDEST: Final = len("-2.2250738585072014e-308")


class PaddedWriter:
    """Writes columns as objects."""

    def between(self, head: bytes, objects: ObjectColumns, tail: bytes) -> memoryview:
        """Objects with commas between them, a text before and one behind them all."""
        parts, count = objects.parts, objects.count
        cells_of = zip(parts, _cells(objects), strict=True)
        written = [part if isinstance(part, bytes) else cells for part, cells in cells_of]
        sized = [(part, len(part) if isinstance(part, bytes) else part.shape[1]) for part in written]
        template = b"".join(part if isinstance(part, bytes) else b" " * width for part, width in sized) + b","
        end = len(head) + count * len(template)
        out = np.empty(end + len(tail), dtype=np.uint8)
        out[: len(head)] = np.frombuffer(head, dtype=np.uint8)
        out[end:] = np.frombuffer(tail, dtype=np.uint8)
        rows = out[len(head) : end].reshape(count, -1)
        rows[:] = np.frombuffer(template, dtype=np.uint8)
        start = 0
        for part, width in sized:
            if not isinstance(part, bytes):
                rows[:, start : start + width] = part
            start += width
        out[end - 1] = _SPACE  # where the last object's comma stands
        return out.data


def _cells(objects: ObjectColumns) -> list[Cells]:
    """The cells of each part; of a text that all share, none."""
    columns = iter(_numbers(objects))
    found: list[Cells] = []
    for part in objects.parts:
        if isinstance(part, bytes):
            found.append(np.empty((0, 0), dtype=np.uint8))
        elif isinstance(part, Number):
            cells = next(columns)
            found.append(cells if part.known is None else np.where(part.known[:, None], cells, np.uint8(_SPACE)))
        elif isinstance(part, Members):
            found.append(_named(part, list(islice(columns, len(part.lengths)))))
        elif isinstance(part, Series):
            found.append(_arrays(list(islice(columns, part.width))))
        elif isinstance(part, Piece):
            found.append(_cut(part))
        else:
            found.append(np.asarray(_cut(part.pieces())[part.index]))
    return found


def _numbers(objects: ObjectColumns) -> list[Cells]:
    """Columns of the numbers of all parts."""
    # Some numbers more, so that behind the last one there is text enough for the widest cell.
    more = _WIDEST // len(b",0.0") + 1
    data = np.frombuffer(objects.number_text(more), dtype=np.uint8)
    ends = np.flatnonzero(data == _COMMA)[: 1 - more]
    if len(ends) == 0:
        return []
    starts = np.empty_like(ends)
    starts[:1] = 1
    np.add(ends[:-1], 1, out=starts[1:])
    lengths = (ends - starts).reshape(objects.count, -1)
    longest = lengths.max(axis=0)
    widest = int(longest.max())
    cells = _windows(data, widest)[starts].view(np.uint8)
    cells &= _behind(widest, 0, 255)[lengths.ravel()].view(np.uint8)
    cells |= _SPACE  # all letters, digits and signs of numbers and of null have this bit set
    rows = cells.reshape(*lengths.shape, widest)
    return [rows[:, place, :most] for place, most in enumerate(longest.tolist())]


def _arrays(columns: Sequence[Cells]) -> Cells:
    """Values (U, w) by column as one JSON array a row."""
    comma = np.full((len(columns[0]), 1), _COMMA, dtype=np.uint8)
    parts = [part for column in columns for part in (comma, column)]
    ends = [np.full_like(comma, letter) for letter in b"[]"]
    return np.concatenate([ends[0], *parts[1:], ends[1]], axis=1)


def _named(members: Members, columns: Sequence[Cells]) -> Cells:
    """Values (U, w) by column with the text of each before it."""
    rows, stops = len(columns[0]), np.cumsum(members.lengths).tolist()
    texts = [members.text[stop - length : stop] for stop, length in zip(stops, members.lengths.tolist(), strict=True)]
    same = [np.broadcast_to(np.frombuffer(text, dtype=np.uint8), (rows, len(text))) for text in texts]
    return np.concatenate([part for pair in zip(same, columns, strict=True) for part in pair], axis=1)


def _cut(piece: Piece) -> Cells:
    """Pieces of a text as cells of the longest one's width."""
    lengths = piece.stop - piece.start
    width = int(lengths.max(initial=0))
    if width == 0:
        return np.empty((len(lengths), 0), dtype=np.uint8)
    beyond = int(piece.start.max()) + width - len(piece.text)
    text = np.frombuffer(piece.text + b" " * beyond if beyond > 0 else piece.text, dtype=np.uint8)
    cells = _windows(text, width)[piece.start].view(np.uint8)
    cells &= _behind(width, 0, 255)[lengths].view(np.uint8)
    cells |= _behind(width, _SPACE, 0)[lengths].view(np.uint8)
    return np.asarray(cells.reshape(-1, width))


def _windows(text: NDArray[np.uint8], width: int) -> NDArray[np.void]:
    """The piece of a width that begins at each place: as one item, which is taken several times faster than a row."""
    kind: Any = f"V{width}"
    return np.ndarray((len(text) - width + 1,), dtype=kind, buffer=text, strides=(1,))


@lru_cache(maxsize=64)
def _behind(width: int, there: int, before: int) -> NDArray[np.void]:
    """Rows of a byte for each place of a cell, by the length of what stands in it, (width + 1,)."""
    behind = np.arange(width) >= np.arange(width + 1)[:, None]
    rows = np.where(behind, there, before).astype(np.uint8)
    return rows.view(f"V{width}").ravel()
