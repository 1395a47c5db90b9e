"""The plain case of POST /score, from the bytes of a connection to those of the reply, by functions called in turn.

A coroutine route costs ten times what its steps cost alone: beside a graph that empties the caches, every object and
every function is dear. So here compiled code reads, encodes and writes, and what is left in Python hands over from one
step to the next. The meaning of a request is the ordinary route's (``service.api.scoring``): whatever is unusual, or
goes wrong on the way, is given back to it untouched and answered there.
"""

import asyncio
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol

import structlog

from service.api.accounts import Accounts
from service.api.fast_tally import FastTally
from service.api.gate import DEADLINE_HEADER
from service.api.hot import METHOD, VERSIONED, Reply, problem
from service.compiled.head import Head, HeadReader
from service.compiled.library import CompiledUnavailable
from service.compiled.slate import Slate, SlateLimits, SlateReader
from service.compiled.slate_encoding import EncodedSlate
from service.container import Container
from service.core.registry import Slot
from service.core.resolving import Slots
from service.core.version import Ran, ServedVersion
from service.errors import DeadlineExceeded, ServiceError
from service.logs import REQUEST, log_request

log = structlog.get_logger("service.request")

ROUTE: Final = "/score"
_MOST_AWAITED: Final = 1 << 17  # bytes; a longer body comes in many pieces, which uvicorn puts together better
_EARLY_S: Final = 1e-3  # uvloop's timers count whole milliseconds and round


class Connection(Protocol):
    """Where a request came from."""

    def answer(self, flight: "Flight", reply: Reply) -> None:
        """Send the reply to the request under way."""
        ...

    def answer_scores(self, flight: "Flight", body: bytes) -> None:
        """The same for scores as JSON."""
        ...

    def answer_ordinarily(self, flight: "Flight") -> None:
        """Let the ordinary route answer it."""
        ...


class Serving(NamedTuple):
    """A version that takes the fast path, and what it needs for it."""

    slot: Slot
    version: ServedVersion
    encode: Callable[..., EncodedSlate | None]
    run: Callable[..., Ran]
    write: Callable[..., Any]


class Flight:
    """A request on its way; ``Receiver`` of what its next step waits for, and to uvicorn's connection a cycle.

    Args:
        path: That it takes.
        connection: Where it came from.
        data: Its bytes.
        head: What stands before the body.
        slate: The body.
        serving: Who answers.

    Attributes:
        over: Nobody waits any more.
        step: What is done with the next outcome; None until the store has been asked.
        asked: When the request came, by ``perf_counter``.
        deadline: When it is given up, by the loop's clock.
        kept_s: ``LoopRuns.kept_s`` at that time.
        wait_s, behaviours_s, encode_s: Seconds for which others were served, until the store had answered, of encoding.
        encoded_at: When that was done.
        encoded: Slate and history as the graph takes them.
    """

    # What uvicorn's connection reads and writes; most requests leave it so.
    keep_alive = True
    body = b""
    more_body = False
    disconnected = False
    response_complete = False
    over = False
    step: "Callable[[Flight, Any], bool] | None" = None
    encoded: EncodedSlate
    deadline: float
    asked: float
    kept_s: float
    wait_s: float
    behaviours_s: float
    encode_s: float
    encoded_at: float

    def __init__(
        self, path: "FastPath", connection: Connection, data: bytes, head: Head, slate: Slate, serving: Serving
    ) -> None:
        self.path = path
        self.connection = connection
        self.data = data
        self.head = head
        self.slate = slate
        self.serving = serving

    def done(self) -> bool:
        """See ``Receiver``."""
        return self.over

    def set_result(self, result: Any, /) -> None:
        """Take the next step."""
        if not self.over:
            self.path.go_on(self, result)

    def set_exception(self, exception: BaseException, /) -> None:
        """Take the next step, which finds an exception in place of what it needs."""
        self.set_result(exception)

    def cancel(self) -> None:
        """The server stops: nobody answers any more."""
        self.over = True

    @property
    def message_event(self) -> "Flight":
        """Where uvicorn says that the connection is lost."""
        return self

    def set(self) -> None:
        """The connection is lost; the reply will find out."""


class FastPath:
    """Answers plain requests of one event loop.

    Args:
        container: The service.
        accounts: Where answers are written down.

    Raises:
        CompiledUnavailable: The compiled readers are not there.
    """

    def __init__(self, container: Container, accounts: Accounts) -> None:
        settings = container.settings
        paths = [path for path in (ROUTE, VERSIONED + ROUTE) if len(path) <= settings.limits.uri_bytes]
        self._heads = HeadReader(paths)
        self._read_slate = SlateReader().read
        self._limits = SlateLimits.of(settings.limits)
        self._most_events = settings.store.max_events
        self._most_bytes = settings.server.max_body_bytes
        self._most_header_bytes = settings.limits.header_bytes
        self._deadline_s = settings.limits.deadline_ms / 1e3
        self._late = DeadlineExceeded(f"The answer was not ready within {settings.limits.deadline_ms} ms.")
        self._gate = container.gate
        self._admission = container.admission
        self._registry = container.registry
        self._histories = container.histories
        self._runs = container.runs
        self._accounts = accounts
        self._landed = FastTally(container.metrics, ROUTE, METHOD).add
        self._log = settings.log.requests
        self._view: Slots | None = None
        self._serving: dict[str | None, Serving | None] = {}  # by model, of this view of the registry
        self._flying: dict[Flight, None] = {}  # oldest first, and so by deadline
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    def where_compiled(cls, container: Container, accounts: Accounts) -> "FastPath | None":
        """The fast path; None, and a line in the log, where there is no compiled code."""
        try:
            return cls(container, accounts)
        except CompiledUnavailable as error:
            log.info("no_fast_path", reason=str(error))
            return None

    # --- in ------------------------------------------------------------------------------------------------------

    def take(self, connection: Connection, data: bytes) -> Flight | None:
        """Begin to answer what a connection has sent; None, and nothing was done, if it is not a plain request.

        Args:
            connection: Gets the reply, or the request back, in a later turn of the loop.
            data: Everything that it has sent since its last request.
        """
        started = perf_counter()
        head = self._heads.read(data)
        if head is None or not self._lets_in(head):
            return None
        slate = self._read_slate(head.body, self._limits)
        if slate is None or slate.user_id is None:
            return None
        serving = self._serving.get(slate.model) if self._view is self._registry.view else None
        if serving is None and (serving := self._find(slate.model)) is None:
            return None
        if not serving.slot.acquire():
            return None
        if not self._admission.enter_at_once():
            serving.slot.release()
            return None
        flight = Flight(self, connection, data, head, slate, serving)
        flight.asked = started
        flight.kept_s = self._runs.kept_s
        if not self._histories.begin(slate.user_id, flight) or flight.over:
            self._let_go(flight)
            return None
        flight.step = self._encode
        flight.deadline = deadline = self._loop.time() + self._deadline_s
        self._flying[flight] = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look_at_deadlines)
        return flight

    def awaits(self, data: bytes) -> bool:
        """Whether this is a plain request whose body has not come as a whole."""
        return 0 < self._heads.awaits(data) <= _MOST_AWAITED

    def _lets_in(self, head: Head) -> bool:
        if len(head.body) > self._most_bytes or head.header_bytes > self._most_header_bytes:
            return False
        if self._gate.open and not head.others:
            return True
        try:
            self._gate.check(head.others, "score")
        except ServiceError:
            return False
        return DEADLINE_HEADER not in head.others

    def _find(self, model: str | None) -> Serving | None:
        """Who answers for a model, None if that is not for the fast path; remembered as long as nothing changes."""
        view = self._registry.view
        if self._view is not view:
            self._view, self._serving = view, {}
        try:
            slot = self._registry.hold(model, "ctr")
        except ServiceError:
            return None
        slot.release()
        version = slot.served
        if not isinstance(version, ServedVersion) or version.compiled is None:
            return None
        compiled = version.compiled
        found = Serving(slot, version, compiled.encoder.encode, version.run, compiled.reply.write)
        self._serving[model] = found
        return found

    # --- on the way ----------------------------------------------------------------------------------------------

    def go_on(self, flight: Flight, found: Any) -> None:
        """The next step of a request; where it gives up, or fails, the ordinary route begins anew."""
        if flight.step is None:
            flight.over = True  # the connection to the store broke as it was written to
            return
        try:
            if flight.step(flight, found):
                return
        except Exception:
            log.exception("fast_path_failed")
            if flight.over:
                return  # it was answered, and what failed came after that
        self._let_go(flight)
        flight.connection.answer_ordinarily(flight)

    def _encode(self, flight: Flight, reply: Any) -> bool:
        """The store has answered: slate and history to the graph's inputs, which then runs."""
        slate, came = flight.slate, perf_counter()
        # A reply that comes while the loop is kept by runs is no slow one.
        flight.wait_s = waited = self._runs.kept_s - flight.kept_s
        flight.behaviours_s = max(0.0, came - flight.asked - waited)
        found = self._histories.came(reply, flight.behaviours_s)
        if found is None:
            return False
        serving = flight.serving
        encoded = serving.encode(slate, found.sequence, found.features, self._most_events, time.time())
        if encoded is None:
            return False
        self._histories.keep(slate.user_id or "", found)
        flight.encoded = encoded
        flight.step = self._finish
        flight.encoded_at = now = perf_counter()
        flight.encode_s = now - came
        version = serving.version
        self._runs.submit(flight, version.run_time.expect(slate.candidates), serving.run, encoded.inputs)
        return True

    def _finish(self, flight: Flight, ran: Any) -> bool:
        """The graph has run: logits to the reply."""
        if not isinstance(ran, Ran):
            return False  # the ordinary route fails in the same way, and says so
        began, encoded, serving = perf_counter(), flight.encoded, flight.serving
        request_id, missing = flight.head.request_id, encoded.missing
        written = serving.write(ran.logits, request_id, "store", encoded.length, missing, flight.slate.raw, False)
        if written is None:
            return False
        self._let_go(flight)
        flight.connection.answer_scores(flight, written.body)
        ended = perf_counter()
        total = ended - flight.asked
        self._landed(
            (
                serving.version,
                total,
                flight.wait_s + max(0.0, began - flight.encoded_at - ran.seconds),
                flight.behaviours_s,
                flight.encode_s,
                ran.seconds,
                ended - began,
                encoded.unseen,
                written.means,
            )
        )
        if self._log:
            token = REQUEST.set((request_id, flight.head.trace_id))
            log_request(ROUTE, METHOD, 200, round(total * 1e3, 2))
            REQUEST.reset(token)
        return True

    # --- out -----------------------------------------------------------------------------------------------------

    def _let_go(self, flight: Flight) -> None:
        """Give back what the request holds; steps that come later find nobody waiting."""
        flight.over = True
        self._flying.pop(flight, None)
        self._admission.leave(perf_counter() - flight.asked)
        flight.serving.slot.release()

    def _look_at_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        soon = loop.time() + _EARLY_S
        for flight in list(self._flying):
            if flight.deadline > soon:
                break
            self._give_up(flight)
        oldest = next(iter(self._flying), None)
        self._timer = None if oldest is None else loop.call_at(oldest.deadline, self._look_at_deadlines)

    def _give_up(self, flight: Flight) -> None:
        self._let_go(flight)
        head = flight.head
        flight.connection.answer(flight, problem(self._late, head.request_id, head.traceparent))
        token = REQUEST.set((head.request_id, head.trace_id))
        self._accounts.close(ROUTE, METHOD, self._late.status, perf_counter() - flight.asked)
        REQUEST.reset(token)
