"""What a bundle says about its treatments: scales of outcome and doses, how well each arm is known, what is beside it.

Everything is in the units of the data; the graph works with doses scaled to [0, 1] and outcomes as its output names
say. Letters: U users, K treatments (the control first), M samples, W noise columns.
"""

from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bundle.schema import ArmName

Interval = tuple[float, float]
OUTCOME_SCALES: Final = {"binary": "logits", "continuous": "standardised"}
DENSITY: Final = "dose_density"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OutcomeScale(_Part):
    """The outcome: logits of a binary one, or (outcome - mean) / sd of a continuous one."""

    name: str = Field(min_length=1)
    kind: Literal["binary", "continuous"]
    mean: float = 0.0
    sd: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _binary_is_not_scaled(self) -> Self:
        if self.kind == "binary" and (self.mean, self.sd) != (0.0, 1.0):
            raise ValueError("a binary outcome has logits and neither mean nor sd")
        return self


class DoseScale(_Part):
    """The doses of one arm, in their own unit.

    Attributes:
        low, high: what 0 and 1 mean to the graph.
        supported: intervals with enough training rows, ascending and apart.
        edges: inner borders at which the curve may jump, ascending; none where it is smooth.
        smooth: the curve is continuous.
        default: the dose that is meant where nobody says one, such as the median of the training rows.
    """

    low: float
    high: float
    default: float | None = None
    unit: str | None = None
    supported: tuple[Interval, ...] = ()
    edges: tuple[float, ...] = ()
    smooth: bool = True

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.default is not None and not self.low <= self.default <= self.high:
            raise ValueError(f"default {self.default:g} must lie between low and high")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("edges must increase strictly")
        if any(not self.low < edge < self.high for edge in self.edges):
            raise ValueError("edges must lie between low and high")
        borders = [border for interval in self.supported for border in interval]
        if any(low > high for low, high in pairwise(borders)):
            raise ValueError("supported intervals must be ascending and apart")
        if borders and not (self.low <= borders[0] and borders[-1] <= self.high):
            raise ValueError("supported intervals must lie between low and high")
        return self


class ArmSupport(_Part):
    """Training rows of one arm; with `low_support` its outcomes are known badly."""

    rows: int = Field(ge=0)
    low_support: bool = False


class Samples(_Part):
    """The second graph: M outcome samples (M, U, K) on the graph's scale, whose spread gives intervals.

    `mc_dropout` takes one more input, uniform noise (M, U, W) in [0, 1) drawn with `seed`.
    """

    method: Literal["mc_dropout", "ensemble"]
    count: int = Field(ge=2, le=10_000)
    noise_width: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**64)

    @model_validator(mode="after")
    def _noise_where_it_is_used(self) -> Self:
        if (self.noise_width > 0) != (self.method == "mc_dropout"):
            raise ValueError("noise_width must be positive with mc_dropout and 0 with ensemble")
        return self


class UpliftPart(_Part):
    """The part of the manifest that bundles of kind uplift have.

    Attributes:
        treatments: the K arms in the order of the graph's columns, the control first.
        doses: by treatment, for those that have a dose.
        reference_dose: the dose that the control stands for, where nobody went untreated.
        propensity: whether the graph estimates who was treated, or gives a constant.
        propensity_clip: bounds of the propensity where something is divided by it.
        arms: by treatment, all of them.
        samples: of the second graph, or None where there is none.
        conformal: whether the bundle holds the residuals that conformal intervals are made of.
    """

    treatments: tuple[ArmName, ...] = Field(min_length=2)
    outcome: OutcomeScale
    doses: dict[ArmName, DoseScale] = Field(default_factory=dict)
    reference_dose: float | None = None
    propensity: Literal["estimated", "none"]
    propensity_clip: Interval = (0.01, 0.99)
    arms: dict[ArmName, ArmSupport]
    samples: Samples | None = None
    conformal: bool = False

    @field_validator("propensity_clip")
    @classmethod
    def _inside_one(cls, value: Interval) -> Interval:
        if not 0 < value[0] < value[1] < 1:
            raise ValueError("must be two probabilities, the smaller one first")
        return value

    @model_validator(mode="after")
    def _of_known_treatments(self) -> Self:
        if len(set(self.treatments)) != len(self.treatments):
            raise ValueError("treatments: one is listed twice")
        if set(self.arms) != set(self.treatments):
            raise ValueError("arms: must have exactly one entry for each treatment")
        unknown = sorted(set(self.doses) - set(self.treatments[1:]))
        if unknown:
            raise ValueError(f"doses: {unknown} are no treatments that can have a dose")
        if self.reference_dose is not None and not self.doses:
            raise ValueError("reference_dose: no treatment has a dose")
        return self

    @property
    def control(self) -> str:
        """The arm that effects are measured against."""
        return self.treatments[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that every graph of this kind has, in order; `DENSITY` may follow a curve."""
        scale = OUTCOME_SCALES[self.outcome.kind]
        names = (f"outcome_{scale}", "propensity_logits")
        return (*names, f"curve_{scale}") if self.doses else names
