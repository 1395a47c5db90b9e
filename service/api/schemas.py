"""The shapes of requests and replies. Requests are strict: a number is not a text, and unknown fields are errors."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

LAST_SECOND = 2**32 - 1
FLOAT32_MAX = 3.4028234663852886e38

# The longest id in bytes is a setting; api/ids.py checks it.
Id = Annotated[str, Field(min_length=1, description="An id is text; write numbers as text too.")]
Text = str
Second = Annotated[float, Field(ge=0, le=LAST_SECOND, allow_inf_nan=False, description="Seconds since 1970-01-01 UTC.")]
Number = Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX, allow_inf_nan=False)]
# What a feature may be is the bundle's to say; it names the value by its pointer.
FeatureValue = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "number", "null"]},
                {"type": "array", "items": {"type": ["string", "number", "null"]}},
            ],
            "description": "A text or a list of texts for an id, a finite number for a number, null for missing.",
        }
    ),
]


class Strict(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """Base of all replies."""

    model_config = ConfigDict(extra="forbid")


class BehaviourIn(Strict):
    """One behaviour inside a /score request."""

    item_id: Id
    ts: Second
    type: Text | None = None
    value: Number | None = None


class ScoreRequest(Strict):
    """One user and a slate of candidates."""

    candidates: list[Id] = Field(min_length=1, description="Item ids; the reply's columns are in this order.")
    user_id: Id | None = Field(None, description="May be absent where behaviours are given.")
    context: dict[str, FeatureValue] = Field(default_factory=dict, description="Features of side context.")
    user_features: dict[str, FeatureValue] = Field(
        default_factory=dict, description="Features of side user; they override what is stored."
    )
    candidate_features: dict[str, list[FeatureValue]] = Field(
        default_factory=dict,
        description="Columns of side candidate, one value a candidate; they override the bundle's.",
    )
    behaviours: list[BehaviourIn] | None = Field(
        None, description="The history, oldest first; if given, the store is not read."
    )
    ts: Second | None = Field(
        None, description="The request's time, default now; behaviours at or after it are ignored."
    )
    raw: bool = Field(False, description="Also return the graph's logits.")
    model: Text | None = Field(None, description="name, name@version or name@alias; default: the default route.")


class ModelRef(Reply):
    """Which version answered."""

    name: str
    version: str


class BehavioursOut(Reply):
    """Where the history came from and how much of it was used."""

    source: Literal["request", "store", "cache", "empty"]
    length: int
    age_ms: int | None = Field(None, description="Age of the copy, with source cache only.")


class ScoreReply(Reply):
    """Probabilities by task, aligned with the candidates."""

    request_id: str
    model: ModelRef
    scores: dict[str, list[Annotated[float, Field(ge=0, le=1)]]] = Field(
        description="p<task> -> one probability a candidate."
    )
    logits: dict[str, list[float]] | None = Field(None, description="The graph's logits by task, with raw only.")
    behaviours: BehavioursOut
    degraded: list[str] = Field(description="Why the answer is less than it could be; empty: it is not.")
    warnings: list[str]


class EventIn(Strict):
    """One behaviour to store."""

    user_id: Id
    item_id: Id
    ts: Second
    type: Text | None = None
    value: Number | None = None


class BehavioursRequest(Strict):
    """Behaviours to append; sending the same ones again changes nothing."""

    events: list[EventIn] = Field(min_length=1)


class UserIn(Strict):
    """Features of one user."""

    user_id: Id
    features: dict[str, FeatureValue]


class UsersRequest(Strict):
    """User features to store; they replace what is stored for these users."""

    users: list[UserIn] = Field(min_length=1)


class WriteReply(Reply):
    """What a write did."""

    accepted: int
    duplicates: int


class DeleteReply(Reply):
    """Whether there was anything to delete."""

    deleted: bool


class VersionOut(Reply):
    """One version in the model store."""

    version: str
    state: Literal["serving", "refused", "available"]
    default: bool = Field(description="Answers requests that name the model without a version.")
    reason: str | None = Field(None, description="Why it was refused, a stable code.")
    detail: str | None = None
    network: str | None = None
    tasks: list[str] | None = None
    created: str | None = None
    metrics: dict[str, JsonValue] | None = None


class ModelOut(Reply):
    """One model name."""

    name: str
    kind: str | None
    aliases: dict[str, str]
    versions: list[VersionOut]


class ModelsReply(Reply):
    """All models of the store."""

    models: list[ModelOut]
    routes: dict[str, str | None]


class HealthReply(Reply):
    """The process is alive."""

    status: Literal["ok"]


class RefusedOut(Reply):
    """A version that is in the store and was refused."""

    model: str
    version: str
    reason: str


class ReadyReply(Reply):
    """Whether the service should get traffic, and what it looked at."""

    status: Literal["ready", "degraded", "not_ready"]
    checks: dict[str, str]
    serving: dict[str, list[str]]
    refused: list[RefusedOut]
    hint: str | None = Field(None, description="What to do, while the model store is empty.")


class ProblemItem(Reply):
    """One fault of a request."""

    pointer: str
    code: str
    detail: str


class ProblemDocument(Reply):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[ProblemItem] | None = None
