"""What every working route passes: key, drain, deadline, place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from service.api.keys import Keys, Scope
from service.core.admission import Admission
from service.errors import BadHeader, DeadlineExceeded
from service.metrics import Metrics
from service.settings import LimitSettings

DEADLINE_HEADER = "X-Request-Deadline-Ms"


class Gate:
    """Lets a request in, or says why not.

    Args:
        keys: Who may call.
        admission: How many at once.
        limits: The longest deadline.
        metrics: Time spent waiting.
    """

    def __init__(self, keys: Keys, admission: Admission, limits: LimitSettings, metrics: Metrics) -> None:
        self._keys = keys
        self._admission = admission
        self._limits = limits
        self._wait = metrics.stages["wait"]

    def check(self, request: Request, scope: Scope) -> None:
        """Only the key; for routes that do no work."""
        self._keys.check(request, scope)

    @asynccontextmanager
    async def enter(self, request: Request, scope: Scope) -> AsyncIterator[None]:
        """Hold a place while the block runs, and end it at the deadline.

        Raises:
            ServiceError: 400, 401, 403, 503 or 504.
        """
        self._keys.check(request, scope)
        seconds = self._deadline_s(request)
        try:
            async with asyncio.timeout(seconds) as timer, self._admission.place(seconds) as waited:
                self._wait.observe(waited)
                yield
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise DeadlineExceeded(f"The answer was not ready within {seconds * 1e3:.0f} ms.") from error

    def _deadline_s(self, request: Request) -> float:
        given = request.headers.get(DEADLINE_HEADER)
        if given is None:
            return self._limits.deadline_ms / 1e3
        if not (given.isascii() and given.isdigit()) or len(given) > 9 or int(given) == 0:
            raise BadHeader(f"{DEADLINE_HEADER} must be a positive whole number of milliseconds.")
        return min(int(given), self._limits.deadline_ms) / 1e3
