"""The longest id, which is a setting and so cannot stand in the request models."""

from collections.abc import Iterable, Iterator, Sequence

from service.api.problems import invalid
from service.api.schemas import BehavioursRequest, ScoreRequest, UsersRequest
from service.errors import Problem

AnyRequest = ScoreRequest | BehavioursRequest | UsersRequest


def ids_fit(asked: AnyRequest, most: int) -> None:
    """Check every id of a request against ``limits.id_bytes``.

    Raises:
        InvalidFeatures: One is longer; the problems name it.
    """
    columns_fit(_columns(asked), most)


def columns_fit(columns: Iterable[tuple[str, Sequence[str | None]]], most: int) -> None:
    """Check columns of ids; ``{}`` in a column's pointer stands for the row.

    Raises:
        InvalidFeatures: See ``ids_fit``.
    """
    problems = [
        Problem(pointer, "schema", f"an id may take {most} bytes")
        for pointer, texts in columns
        for pointer in _too_long(pointer, texts, most)
    ]
    if problems:
        raise invalid(problems)


def _too_long(pointer: str, texts: Sequence[str | None], most: int) -> Iterator[str]:
    # A character takes at most four bytes, so almost no id has to be encoded to know that it fits.
    sure = most // 4
    if max(map(len, filter(None, texts)), default=0) <= sure:
        return
    for number, text in enumerate(texts):
        if text is not None and len(text) > sure and len(text.encode()) > most:
            yield pointer.format(number)


def _columns(asked: AnyRequest) -> Iterator[tuple[str, Sequence[str | None]]]:
    """Ids of a request as columns; ``{}`` in a pointer stands for the row."""
    if isinstance(asked, ScoreRequest):
        yield "/user_id", [asked.user_id]
        yield "/candidates/{}", asked.candidates
        past = asked.behaviours or ()
        yield "/behaviours/{}/item_id", [one.item_id for one in past]
        yield "/behaviours/{}/type", [one.type for one in past]
    elif isinstance(asked, BehavioursRequest):
        yield "/events/{}/user_id", [one.user_id for one in asked.events]
        yield "/events/{}/item_id", [one.item_id for one in asked.events]
        yield "/events/{}/type", [one.type for one in asked.events]
    else:
        yield "/users/{}/user_id", [one.user_id for one in asked.users]
