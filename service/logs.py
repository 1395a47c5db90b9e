"""Log lines: one JSON object each, with the request id, never with a feature or a raw user id."""

import logging
import logging.config
import sys
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from service.settings import LogSettings

log = structlog.get_logger("service.request")

# Request id and trace id of the request that this task serves.
REQUEST: Final[ContextVar[tuple[str, str] | None]] = ContextVar("request", default=None)
_REQUEST_LINES: "Final[list[RequestLines]]" = []  # one, where lines are JSON and of this level


def configure(settings: LogSettings, worker: int | None = None) -> None:
    """Send our lines and those of libraries (uvicorn, redis) through the same processors to standard output.

    Args:
        settings: Format and level.
        worker: Number of this process among several, which every line then says.
    """
    level = getattr(logging, settings.level.upper())
    first: list[Processor] = [
        _of_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", key="time"),
        _without_exception_text,
    ]
    if worker is not None:
        first.append(_of_worker(worker))
    last: Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=first,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    quick = settings.format == "json" and level <= logging.INFO
    _REQUEST_LINES[:] = [RequestLines(handler, worker)] if quick else []


def log_request(route: str, method: str, status: int, ms: float) -> None:
    """The line of an answer, a warning from status 500 on.

    Args:
        route: The pattern of its path.
        method: One of HTTP's, or ``other``.
        status: Of the answer.
        ms: Milliseconds that it took.
    """
    if status >= 500:
        log.warning("request", route=route, method=method, status=status, ms=ms)
    elif _REQUEST_LINES:
        _REQUEST_LINES[0].write(route, method, status, ms)
    else:
        log.info("request", route=route, method=method, status=status, ms=ms)


class RequestLines:
    """Writes what ``log.info("request", ...)`` would, a twentieth of the time: every answer has such a line.

    Args:
        handler: Where all other lines go.
        worker: See ``configure``.
    """

    def __init__(self, handler: "logging.StreamHandler[TextIO]", worker: int | None) -> None:
        self._handler = handler
        self._end = "}\n" if worker is None else f',"worker":{worker}}}\n'

    def write(self, route: str, method: str, status: int, ms: float) -> None:
        """One line; none of its texts needs to be escaped."""
        request_id, trace_id = REQUEST.get() or ("", "")
        now = datetime.now(UTC).isoformat()[:-6]
        line = (
            f'{{"route":"{route}","method":"{method}","status":{status},"ms":{ms},"event":"request",'
            f'"request_id":"{request_id}","trace_id":"{trace_id}","level":"info","time":"{now}Z"{self._end}'
        )
        handler = self._handler
        with handler.lock or nullcontext():
            try:
                handler.stream.write(line)
                handler.stream.flush()
            except (OSError, ValueError):  # a full disk or a closed pipe is no reason to fail a request
                return


def _to_json(event: EventDict, default: Any = None, **_options: Any) -> str:
    return orjson.dumps(event, default=default or repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _of_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Say which request a line belongs to."""
    found = REQUEST.get()
    if found is not None:
        event.setdefault("request_id", found[0])
        event.setdefault("trace_id", found[1])
    return event


def _of_worker(number: int) -> Processor:
    def add(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["worker"] = number
        return event

    return add


def _without_exception_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Keep where and of which type an exception was; its text may hold a feature's value."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["at"] = _frames(error)
    return event


def _frames(error: BaseException) -> list[str]:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{trace.tb_frame.f_globals.get('__name__', '?')}.{code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return frames[-8:]
