"""The shapes of /uplift; see ``service.api.schemas``."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from service.api.schemas import FeatureValue, Id, ModelRef, Number, Reply, Strict, Text

MAX_TREATMENTS = 64
NotNegative = Annotated[Number, Field(ge=0)]
Level = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, description="Share of cases that it should hold.")]
Method = Literal["mc_dropout", "ensemble", "conformal"]


class UpliftUser(Strict):
    """One user of a campaign."""

    user_id: Id
    features: dict[str, FeatureValue] = Field(
        default_factory=dict, description="Features of side user or context; they override what is stored."
    )


class Interval(Strict):
    """The level of an interval, and how it is made."""

    level: Level
    method: Method | None = Field(None, description="Absent: the best that the model has.")


def _level_alone(value: Any) -> Any:
    """A bare level means an interval of that level."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not 0 < value < 1:
        raise ValueError("a level between 0 and 1 was expected, or an object with level and method")
    return Interval(level=value)


_INTERVAL_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {
            "type": "object",
            "properties": {
                "level": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                "method": {"anyOf": [{"enum": ["mc_dropout", "ensemble", "conformal"]}, {"type": "null"}]},
            },
            "required": ["level"],
            "additionalProperties": False,
        },
    ]
}
IntervalIn = Annotated[Interval, BeforeValidator(_level_alone), WithJsonSchema(_INTERVAL_SCHEMA)]


class TreatmentCost(Strict):
    """Cost of one treatment: base plus dose times per_dose."""

    base: NotNegative = 0
    per_dose: NotNegative = 0


class Budget(Strict):
    """What a campaign may spend."""

    total: NotNegative
    costs: dict[str, TreatmentCost] = Field(description="By treatment; one that is not named costs nothing.")
    value_per_outcome: Number = Field(1, description="What one unit of the outcome is worth, in units of the cost.")


class UpliftOptions(Strict):
    """What is asked about the users."""

    treatments: list[Text] | None = Field(
        None, min_length=1, max_length=MAX_TREATMENTS, description="Default: all of the model."
    )
    doses: dict[str, Number] | None = Field(
        None, description="By treatment, in its own unit; default: the model's own dose."
    )
    dose_grid: Annotated[int, Field(ge=2, le=201)] | None = Field(
        None, description="Points of the dose-response curves; absent: none are sent."
    )
    interval: IntervalIn | None = Field(None, description="A level, or a level and a method.")
    budget: Budget | None = Field(None, description="With it `recommended` is the allocation.")
    allow_extrapolation: bool = Field(
        False, description="Recommend also what hardly anybody like the user was ever given."
    )
    campaign: Text | None = Field(None, description="Picks routes.campaigns.<name>.")
    model: Text | None = Field(None, description="name, name@version or name@alias; default: the default route.")


class UpliftRequest(UpliftOptions):
    """Users whose treatment effects are asked for."""

    users: list[UpliftUser] = Field(min_length=1)


Known = float | None


class CurveOut(Reply):
    """Outcomes along doses; `supported` says where training saw enough of them."""

    dose: list[float]
    outcome: list[Known]
    supported: list[bool]


class RecommendedOut(Reply):
    """What is best for a user, or what the budget gives them; the control is a treatment too."""

    treatment: str
    dose: float | None
    expected_gain: float = Field(description="Value of the outcome won, less the cost; 0 for the control.")


class UpliftUserOut(Reply):
    """One user's answers; null where nothing is known."""

    user_id: str
    outcomes: dict[str, Known] = Field(description="Expected outcome by treatment, the control among them.")
    effects: dict[str, Known] = Field(description="Exactly outcomes[treatment] - outcomes[control].")
    intervals: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)] | None] | None = Field(
        None, description="Of the effects; only where an interval was asked for."
    )
    propensity: dict[str, Known] | None = Field(
        description="Estimated share of users like this one who got each treatment; null: not estimated."
    )
    overlap: dict[str, Literal["ok", "weak", "violated", "unknown"]]
    dose_response: dict[str, CurveOut] | None = Field(
        None, description="With dose_grid along the grid, else with doses at the doses asked."
    )
    recommended: RecommendedOut | None
    warnings: list[str]


class BudgetOut(Reply):
    """What the allocation spends and brings."""

    spent: float
    expected_gain: float
    shadow_price: float = Field(description="Gain that one more unit of money would bring.")
    treated: int


class UpliftReply(Reply):
    """Effects by user, in the order of the request."""

    request_id: str
    model: ModelRef
    users: list[UpliftUserOut]
    budget: BudgetOut | None = Field(None, description="Only with a budget.")
    degraded: list[str] = Field(description="Why the answer is less than it could be; empty: it is not.")
    warnings: list[str] = Field(description="What concerns all users.")
