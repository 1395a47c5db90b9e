"""The service's settings: one typed object, given to ``create_app``.

A value is taken from the first of: a command line flag, the environment (``CTRLIFT_<SECTION>__<KEY>``), a TOML file
(``--config`` or ``CTRLIFT_CONFIG``), the default. A key that does not exist is an error wherever it stands.
"""

import os
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)

from service.errors import SettingsError

PREFIX = "CTRLIFT_"
STORE_SCHEMES = frozenset(
    {"embedded", "memory", "redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "rediss+cluster"}
)
CONFIG_VARIABLE = "CTRLIFT_CONFIG"
# pydantic-settings asks a classmethod for its sources, so the file of one load_settings call travels beside the call.
_CONFIG_FILE: ContextVar[Path | None] = ContextVar("config_file", default=None)
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ModelSpec = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}(@[A-Za-z0-9.+_-]{1,128})?$")]


class Section(BaseModel):
    """A section of the settings: unknown keys are errors, values do not change after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """Where the server listens and how it stops."""

    host: str = Field("127.0.0.1", description="Address to listen on; without keys only a loopback address is taken.")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=64, description="Server processes; all share one store and one model folder.")
    worker_silent_s: Seconds = Field(
        10.0, description="With several workers: seconds without a sign of life before one is ended and started anew."
    )
    keep_alive_s: int = Field(30, ge=1, description="Seconds an idle connection is kept open.")
    read_timeout_s: Seconds = Field(5.0, description="Seconds a client has to send its whole body.")
    drain_s: int = Field(10, ge=0, description="Seconds that requests in flight get to finish after SIGTERM.")
    max_body_bytes: Positive = Field(8 * 1024 * 1024, description="Longest body in bytes, announced or chunked.")


class LimitSettings(Section):
    """What one request may ask for, and how many may be at work."""

    candidates: int = Field(1000, ge=1, le=100_000, description="Most candidates in one /score request.")
    users: int = Field(1000, ge=1, le=100_000, description="Most users in one /uplift or /users request.")
    events: int = Field(1000, ge=1, le=100_000, description="Most events in one /behaviours request.")
    behaviours: int = Field(1000, ge=1, le=100_000, description="Most behaviours given inside one /score request.")
    id_bytes: int = Field(256, ge=1, le=4096, description="Longest user, item or type id in UTF-8 bytes.")
    json_depth: int = Field(16, ge=2, le=100, description="Deepest nesting of a JSON body.")
    header_bytes: Positive = Field(16 * 1024, description="Longest sum of all header names and values in bytes.")
    uri_bytes: Positive = Field(8 * 1024, description="Longest path and query string in bytes.")
    concurrency: Positive = Field(256, description="Requests worked on at the same time in one process.")
    queue: int = Field(512, ge=0, description="Requests that may wait for a place; further ones get 503.")
    deadline_ms: Positive = Field(1000, description="Longest time for one answer; X-Request-Deadline-Ms may lower it.")


class AuthSettings(Section):
    """Who may call."""

    mode: Literal["keys", "off"] = Field(
        "keys", description="keys: API keys where any are configured, else loopback only; off: no keys on any address."
    )
    keys: SecretStr | None = Field(
        None, description="API keys as JSON text, the same list as in the keys file; meant for the environment."
    )
    keys_file: Path | None = Field(None, description="JSON file of API keys, read again when it changes.")
    reread_s: Seconds = Field(1.0, description="Seconds between two looks at the keys file.")


class ModelSettings(Section):
    """Which bundles are served and by which engine."""

    dir: Path = Field(Path("bundles"), description="The model store: a folder of <name>/<version>/ bundles.")
    poll_s: Seconds = Field(2.0, description="Seconds between two looks for new versions and aliases.")
    engine: Literal["onnx", "torchscript"] = Field(
        "onnx", description="The graph format to run; torchscript needs torch."
    )
    kernel: Literal["auto", "off"] = Field(
        "auto", description="auto: compiled attention and recurrence where they are built and agree; off: never."
    )
    keep: int = Field(2, ge=1, le=100, description="Newest versions of each name that are kept loaded.")
    preload: tuple[ModelSpec, ...] = Field((), description="Further name@version or name@alias to keep loaded.")
    required: tuple[str, ...] = Field((), description="Names that must be warm before /readyz says 200; none: any one.")
    warmup_runs: int = Field(
        3, ge=0, le=1000, description="Runs of the golden requests before a version takes traffic."
    )
    max_bytes: Positive = Field(4 * 1024**3, description="Largest bundle in bytes that is opened.")


class RouteSettings(Section):
    """Which model answers when a request names none."""

    score: ModelSpec | None = Field(None, description="Model of /score; unset: the only one of kind ctr.")
    uplift: ModelSpec | None = Field(None, description="Model of /uplift; unset: the only one of kind uplift.")
    campaigns: dict[str, ModelSpec] = Field(default_factory=dict, description="Model of each campaign of /uplift.")


class BreakerSettings(Section):
    """When the store is left alone for a while."""

    failures: Positive = Field(5, description="Failures in a row that open the breaker.")
    ratio: float = Field(0.5, gt=0, le=1, description="Share of failed calls in the window that opens it.")
    min_calls: Positive = Field(20, description="Calls the window must hold before the share counts.")
    window_s: Seconds = Field(5.0, description="Length of the window in seconds.")
    open_s: Seconds = Field(1.0, description="Seconds until one probe is let through.")


class StoreSettings(Section):
    """The behaviour store."""

    url: str = Field(
        "embedded://",
        description=(
            "embedded:// (a private Valkey server; embedded:///folder keeps its data there), redis://, rediss://, "
            "unix://, redis+sentinel://host:port,host:port/service, redis+cluster://host:port, or memory://."
        ),
    )
    prefix: str = Field(
        "ctrlift1",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="First part of every key; its number is the record format's, never a model's.",
    )
    max_events: int = Field(1000, ge=1, le=100_000, description="Newest behaviours kept for each user.")
    expire_days: float = Field(30, gt=0, description="Days after its last write that a user's data expires.")
    connect_timeout_ms: float = Field(20, gt=0, description="Time for a new connection.")
    timeout_ms: float = Field(8, gt=0, description="Time for one command.")
    timeout_us_per_key: float = Field(20, ge=0, description="Further microseconds for every key of the command.")
    write_timeout_ms: float = Field(500, gt=0, description="Time for one write of behaviours or user features.")
    pool_size: Positive = Field(
        64, description="Most connections in one process to a store behind TLS, Sentinel or Cluster; others need three."
    )
    pool_wait_ms: float = Field(2, gt=0, description="Longest wait for a free one of these.")
    cache_ttl_s: float = Field(300, ge=0, description="Oldest copy in seconds used while the store is away; 0: none.")
    cache_users: int = Field(10_000, ge=0, description="Users whose last read is kept in the process for that.")
    wiped_hold_s: float = Field(3600, ge=0, description="Seconds that empty answers are flagged after a wiped store.")
    maxmemory_mb: Positive = Field(1024, description="Memory limit of the embedded server; least used keys go first.")
    breaker: BreakerSettings = Field(default_factory=BreakerSettings, description="The circuit breaker of reads.")

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in STORE_SCHEMES:
            raise ValueError(f"the address must begin with one of {', '.join(sorted(STORE_SCHEMES))} and ://")
        return url


class ValidationSettings(Section):
    """How strictly requests are read."""

    extra: Literal["forbid", "ignore"] = Field(
        "forbid",
        description="Feature names the bundle does not know: forbid answers 422, ignore drops them with a warning.",
    )


class ReadySettings(Section):
    """What /readyz asks for."""

    require_store: bool = Field(False, description="Answer 503 while the behaviour store is away.")


class LogSettings(Section):
    """What is logged."""

    format: Literal["json", "console"] = Field("json", description="One JSON object a line, or lines for people.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")
    requests: bool = Field(True, description="One line for each request; errors are logged either way.")


class ThreadSettings(Section):
    """Threads of the engine."""

    intra: int = Field(1, ge=1, le=256, description="Threads inside one run of a graph.")
    inter: int = Field(1, ge=1, le=256, description="Graph nodes run side by side.")
    engine: int = Field(
        2, ge=1, le=256, description="Graph runs at the same time in one process; 1 if not set and workers are several."
    )
    loop_ms: float = Field(
        2.0,
        ge=0,
        le=1000,
        description="Runs that are expected to be shorter happen on the event loop if threads.engine is 1; 0: none.",
    )


class Settings(BaseSettings):
    """All settings of ``ctrlift serve``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    server: ServerSettings = Field(default_factory=ServerSettings, description=ServerSettings.__doc__)
    limits: LimitSettings = Field(default_factory=LimitSettings, description=LimitSettings.__doc__)
    auth: AuthSettings = Field(default_factory=AuthSettings, description=AuthSettings.__doc__)
    models: ModelSettings = Field(default_factory=ModelSettings, description=ModelSettings.__doc__)
    routes: RouteSettings = Field(default_factory=RouteSettings, description=RouteSettings.__doc__)
    store: StoreSettings = Field(default_factory=StoreSettings, description=StoreSettings.__doc__)
    validation: ValidationSettings = Field(default_factory=ValidationSettings, description=ValidationSettings.__doc__)
    ready: ReadySettings = Field(default_factory=ReadySettings, description=ReadySettings.__doc__)
    log: LogSettings = Field(default_factory=LogSettings, description=LogSettings.__doc__)
    threads: ThreadSettings = Field(default_factory=ThreadSettings, description=ThreadSettings.__doc__)

    @model_validator(mode="after")
    def _loopback_without_keys(self) -> "Settings":
        open_to_all = self.auth.mode == "keys" and self.auth.keys is None and self.auth.keys_file is None
        if open_to_all and self.server.host not in LOOPBACK:
            raise ValueError(
                "server.host is not a loopback address and no API keys are configured: set auth.keys_file or "
                "auth.keys, or say auth.mode = 'off' if anybody who reaches the port may call"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the TOML file that CTRLIFT_CONFIG names."""
        del dotenv_settings, file_secret_settings  # two more places to look in would be two more places to be wrong
        toml = TomlConfigSettingsSource(settings_cls, _CONFIG_FILE.get())
        return init_settings, env_settings, toml


def load_settings(
    config_file: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Settings:
    """Read the settings from flags, the environment and a TOML file.

    Args:
        config_file: The TOML file; None: the one that ``CTRLIFT_CONFIG`` names, if any.
        overrides: Values of flags by section and key.

    Raises:
        SettingsError: A file cannot be read, a key is unknown or a value does not fit; one sentence that names the key.
    """
    _check_environment(os.environ)
    named = config_file or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None and not named.is_file():
        raise SettingsError(f"the configuration file {named} does not exist")
    token = _CONFIG_FILE.set(named)
    try:
        flags: dict[str, Any] = {section: dict(values) for section, values in (overrides or {}).items()}
        return Settings(**flags)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error
    except (SourceError, ValueError, OSError) as error:
        raise SettingsError(f"the settings cannot be read: {error}") from error
    finally:
        _CONFIG_FILE.reset(token)


def _check_environment(environment: Mapping[str, str]) -> None:
    """Refuse variables that look like settings and are none; pydantic-settings would silently pass over them."""
    sections = {name.upper() for name in Settings.model_fields}
    for name in environment:
        rest = name.upper().removeprefix(PREFIX)
        if rest == name.upper():
            continue
        section, separator, _ = rest.partition("__")
        if separator and section not in sections:
            raise SettingsError(f"{name}: there is no section {section.lower()} in the settings")
        if not separator and rest.split("_")[0] in sections:
            raise SettingsError(f"{name}: write two underscores between section and key, {PREFIX}<SECTION>__<KEY>")


def _sentence(error: ValidationError) -> str:
    """All faults in one sentence, by key and without the values: one of them may be a key."""
    parts = []
    for fault in error.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        message = "there is no such key" if fault["type"] == "extra_forbidden" else fault["msg"]
        message = message.removeprefix("Value error, ")
        parts.append(f"{key}: {message}" if key else message)
    return "; ".join(parts)


def described(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, tuple[object, str]]:
    """Every setting as dotted key -> (default, description); docs/service.md is compared with this."""
    found: dict[str, tuple[object, str]] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            found |= described(annotation, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = (field.get_default(call_default_factory=True), field.description or "")
    return found
