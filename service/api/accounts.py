"""What is written down of every answer, whoever gave it: metrics and a line in the log; and how long a head may be."""

from typing import Final

from service.errors import HeadersTooLarge, UriTooLong
from service.logs import log_request
from service.metrics import Metrics
from service.settings import LimitSettings

# Asked every few seconds by whatever watches the service; their lines would bury the others.
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Accounts:
    """Writes down answers.

    Args:
        limits: Longest headers and URI.
        metrics: Rate, errors and duration by route.
        log_requests: Whether answers below 500 get a line.
    """

    def __init__(self, limits: LimitSettings, metrics: Metrics, *, log_requests: bool) -> None:
        self._limits = limits
        self._metrics = metrics
        self._log_requests = log_requests

    def check_sizes(self, header_bytes: int, uri_bytes: int) -> None:
        """Refuse a request whose head is too long.

        Raises:
            ServiceError: 414 or 431.
        """
        if header_bytes > self._limits.header_bytes:
            raise HeadersTooLarge(f"All headers together may take {self._limits.header_bytes} bytes.")
        if uri_bytes > self._limits.uri_bytes:
            raise UriTooLong(f"Path and query may take {self._limits.uri_bytes} bytes.")

    def close(self, route: str, method: str, status: int, seconds: float) -> None:
        """Write an answer down.

        Args:
            route: The pattern of its path.
            method: As the client sent it.
            status: 0 where none was sent.
            seconds: From the head of the request to the answer.
        """
        method = method if method in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if status >= 500 or (self._log_requests and route not in _PROBES):
            log_request(route, method, status, round(seconds * 1e3, 2))
