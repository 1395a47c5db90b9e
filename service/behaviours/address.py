"""Addresses of a single server that is reached without TLS: redis://host:port/db and unix:///path?db=n."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from service.errors import SettingsError

_DEFAULT_PORT = 6379
_OPTIONS = {"db", "username", "password"}


@dataclass(frozen=True, slots=True)
class Address:
    """One server; ``path`` is a Unix socket, and then host and port mean nothing."""

    host: str = "localhost"
    port: int = _DEFAULT_PORT
    path: str | None = None
    username: str | None = None
    password: str | None = None
    db: int = 0


def plain_address(url: str) -> Address | None:
    """The address, or None for what only the library speaks: TLS, Sentinel, Cluster, or an option of its own.

    Raises:
        SettingsError: The port or the number of the database is not one.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if parts.scheme not in {"redis", "unix"} or options.keys() - _OPTIONS:
        return None
    local = parts.scheme == "unix"
    try:
        port = parts.port if parts.port is not None else _DEFAULT_PORT
    except ValueError as error:
        raise SettingsError(f"store.url: {error}") from error
    numbered = None if local else parts.path.strip("/")
    username, password = parts.username or options.get("username"), parts.password or options.get("password")
    return Address(
        host=parts.hostname or "localhost",
        port=port,
        path=unquote(parts.path) if local else None,
        username=unquote(username) if username else None,
        password=unquote(password) if password else None,
        db=_database(options.get("db") or numbered or "0"),
    )


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise SettingsError(f"store.url: the database must be a number, not {text!r}")
    return int(text)
