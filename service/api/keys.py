"""API keys: who calls, and what that key may do.

The list is JSON, in ``auth.keys_file`` or ``auth.keys``::

    [{"id": "shop", "sha256": "<64 hex digits of the key's SHA-256>", "scopes": ["score", "read"]}]

Only digests are stored. Two entries may share an id, so that a key can be changed without a gap.
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import structlog

from service.errors import BadKey, NoKey, ScopeMissing, SettingsError
from service.settings import AuthSettings

log = structlog.get_logger(__name__)

Scope = Literal["score", "uplift", "write", "read"]
SCOPES: frozenset[str] = frozenset({"score", "uplift", "write", "read", "feedback", "admin"})
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Key:
    """One live key."""

    id: str
    digest: bytes
    scopes: frozenset[str]


class Keys:
    """Checks the key of a request against all configured ones.

    Args:
        settings: Where the keys are.
        clock: Seconds that never go back; a test brings its own.

    Raises:
        SettingsError: The list cannot be used.
    """

    def __init__(self, settings: AuthSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self.needed = settings.mode == "keys" and (settings.keys is not None or settings.keys_file is not None)
        self._given = parse_keys(settings.keys.get_secret_value()) if settings.keys is not None else ()
        self._filed: tuple[Key, ...] = ()
        self._seen: tuple[int, int] | None = None
        self._look_at = 0.0
        if settings.keys_file is not None:
            self._read_file(first=True)

    def check(self, headers: Mapping[str, str], scope: Scope) -> str | None:
        """The id of the caller's key, None where no keys are needed.

        Args:
            headers: Of the request, by lower-case name.
            scope: What the caller wants to do.

        Raises:
            NoKey: There is no key in the request.
            BadKey: It is none of ours.
            ScopeMissing: It may not do this.
        """
        if not self.needed:
            return None
        self._look_for_changes()
        given = _key_of(headers)
        if given is None:
            raise NoKey("Send an API key as 'Authorization: Bearer <key>' or as 'X-Api-Key: <key>'.")
        digest = hashlib.sha256(given).digest()
        found: Key | None = None
        for key in (*self._given, *self._filed):
            # All are compared, so that the time says nothing about which one was near.
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise BadKey("The API key is not known.")
        if scope not in found.scopes and "admin" not in found.scopes:
            raise ScopeMissing(f"This API key lacks the scope {scope}.")
        return found.id

    def _look_for_changes(self) -> None:
        if self._settings.keys_file is not None and self._clock() >= self._look_at:
            self._read_file(first=False)

    def _read_file(self, *, first: bool) -> None:
        path = self._settings.keys_file
        if path is None:
            return
        self._look_at = self._clock() + self._settings.reread_s
        try:
            stat = path.stat()
            state = (stat.st_mtime_ns, stat.st_size)
            if state == self._seen:
                return
            self._filed = parse_keys(path.read_text(encoding="utf-8"))
            self._seen = state
        except (OSError, UnicodeDecodeError, SettingsError) as error:
            if first:
                raise SettingsError(f"auth.keys_file cannot be used: {error}") from error
            # A half-written file must neither lock everybody out nor let anybody in: the last good list stays.
            log.warning("keys_file_unusable", error=type(error).__name__)


def parse_keys(text: str) -> tuple[Key, ...]:
    """Read the JSON list of keys.

    Raises:
        SettingsError: It is not such a list; the sentence names the entry.
    """
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise SettingsError("the list of API keys is not JSON") from error
    if not isinstance(entries, list) or not entries:
        raise SettingsError("the list of API keys must be a JSON array with at least one entry")
    return tuple(_parse_key(number, entry) for number, entry in enumerate(entries))


def _parse_key(number: int, entry: object) -> Key:
    if not isinstance(entry, dict) or set(entry) != {"id", "sha256", "scopes"}:
        raise SettingsError(f"API key {number}: an object of id, sha256 and scopes was expected")
    digest, scopes = entry["sha256"], entry["scopes"]
    if not isinstance(entry["id"], str) or not entry["id"]:
        raise SettingsError(f"API key {number}: id must be a text")
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        raise SettingsError(f"API key {number}: sha256 must be 64 lower case hex digits")
    if not isinstance(scopes, list) or not scopes or not all(isinstance(scope, str) for scope in scopes):
        raise SettingsError(f"API key {number}: scopes must be a list of texts")
    unknown = sorted(set(scopes) - SCOPES)
    if unknown:
        raise SettingsError(f"API key {number}: unknown scopes {unknown}; known are {sorted(SCOPES)}")
    return Key(entry["id"], bytes.fromhex(digest), frozenset(scopes))


def _key_of(headers: Mapping[str, str]) -> bytes | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip().encode()
    header = headers.get("x-api-key")
    return header.encode() if header else None
