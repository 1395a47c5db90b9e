"""Every error the service raises on purpose, with its HTTP status beside it.

The tree::

    ServiceError
    ├── BadRequest            400  bad_json, bad_header
    ├── NoKey / BadKey        401  no_key, bad_key
    ├── ScopeMissing          403  scope_missing
    ├── UnknownModel          404  model_unknown
    │   └── UnknownVersion    404  version_unknown
    ├── UnknownCampaign       404  campaign_not_found
    ├── BodyTooLarge          413  body_too_large
    ├── UriTooLong            414  uri_too_long
    ├── WrongContentType      415  content_type
    ├── InvalidFeatures       422  schema, not_finite, too_many_items, ...
    ├── HeadersTooLarge       431  headers_too_large
    ├── InferenceFailed       500  inference_failed
    ├── Overloaded            503  overloaded
    │   ├── NotReady          503  model_not_ready
    │   ├── Draining          503  draining
    │   └── StoreUnavailable  503  store_unavailable
    └── DeadlineExceeded      504  deadline_exceeded
    SettingsError             (never over HTTP: the settings are wrong, the service does not start)

``service.api.problems`` turns them into RFC 9457 documents, in one place. Messages never hold a feature's value or a
path of the machine: they go to the client.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

# What a client is told of an error that nobody foresaw.
CRASHED: Final = "The service failed; its log has the details under this request id."


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a request: where (a JSON pointer), which kind (a code), and a sentence."""

    pointer: str
    code: str
    detail: str


class SettingsError(Exception):
    """The settings cannot be used; the message is one sentence that names the key."""


class ServiceError(Exception):
    """An answer that is a problem document.

    Args:
        detail: One sentence for the client: what was wrong, what was expected, what came.
        problems: The single faults, where the request has more than one place to be wrong at.
    """

    status = 500
    code = "internal"
    title = "Internal error"
    retry_after_s: int | None = None

    def __init__(self, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems)


class BadRequest(ServiceError):
    """The request cannot be read: broken JSON or a broken header."""

    status = 400
    code = "bad_json"
    title = "The request cannot be read"


class BadHeader(BadRequest):
    """A header has a value that cannot be used."""

    code = "bad_header"


class NoKey(ServiceError):
    """Keys are configured and the request brought none."""

    status = 401
    code = "no_key"
    title = "An API key is needed"


class BadKey(NoKey):
    """The key of the request is not one of the configured ones."""

    code = "bad_key"


class ScopeMissing(ServiceError):
    """The key is known but may not do this."""

    status = 403
    code = "scope_missing"
    title = "The API key lacks a scope"


class UnknownModel(ServiceError):
    """No model of that name (or none of that kind) is served."""

    status = 404
    code = "model_unknown"
    title = "Unknown model"


class UnknownVersion(UnknownModel):
    """The model is served, that version or alias of it is not."""

    code = "version_unknown"


class UnknownCampaign(ServiceError):
    """``routes.campaigns`` has no such entry, or no model of kind uplift is served for it."""

    status = 404
    code = "campaign_not_found"
    title = "Unknown campaign"


class BodyTooLarge(ServiceError):
    """The body is longer than ``server.max_body_bytes``, announced or counted while it came in."""

    status = 413
    code = "body_too_large"
    title = "The body is too large"


class UriTooLong(ServiceError):
    """The request line is longer than ``limits.uri_bytes``."""

    status = 414
    code = "uri_too_long"
    title = "The URI is too long"


class WrongContentType(ServiceError):
    """The body is not uncompressed JSON."""

    status = 415
    code = "content_type"
    title = "JSON is expected"


class InvalidFeatures(ServiceError):
    """The JSON is well formed and something in it is not what the service or the bundle declares."""

    status = 422
    code = "schema"
    title = "The request does not fit its schema"

    def __init__(self, detail: str, problems: Sequence[Problem] = (), code: str = "schema") -> None:
        super().__init__(detail, problems)
        self.code = code

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """One error out of single faults, at least one; its code is the faults' own where they agree."""
        found = list(problems)
        codes = {problem.code for problem in found}
        first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        detail = f"{first.pointer or 'the body'}: {first.detail}{more}"
        return cls(detail, found, codes.pop() if len(codes) == 1 else "schema")


class HeadersTooLarge(ServiceError):
    """The headers together are longer than ``limits.header_bytes``."""

    status = 431
    code = "headers_too_large"
    title = "The headers are too large"


class InferenceFailed(ServiceError):
    """The graph failed on inputs that had passed validation."""

    status = 500
    code = "inference_failed"
    title = "Inference failed"


class Overloaded(ServiceError):
    """The queue is full, or waiting in it would outlast the deadline."""

    status = 503
    code = "overloaded"
    title = "Too many requests at once"
    retry_after_s = 1


class NotReady(Overloaded):
    """No version of the model is warm yet."""

    code = "model_not_ready"
    title = "No model is ready"
    retry_after_s = 2


class Draining(Overloaded):
    """The server was told to stop and takes no new work."""

    code = "draining"
    title = "The server is stopping"


class StoreUnavailable(Overloaded):
    """A write needs the behaviour store, and it does not answer; nothing was acknowledged."""

    code = "store_unavailable"
    title = "The behaviour store is not reachable"


class DeadlineExceeded(ServiceError):
    """The answer was not ready within the request's deadline."""

    status = 504
    code = "deadline_exceeded"
    title = "The deadline has passed"
