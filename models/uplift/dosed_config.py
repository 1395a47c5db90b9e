"""What networks with continuous doses are told beside the options of every uplift network."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from models.uplift.config import UpliftConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DosedConfig(UpliftConfig):
    """Which treatments have a dose, and what the control means where nobody went without one.

    Attributes:
        dosed: treatments with a dose; none named means all but the control. The others are answered as at dose 0.
        reference_dose: data in which every row has a dose of the one treatment: the scaled dose whose outcome is the
            control's. There is no propensity then.

    Raises:
        ValueError: also if ``dosed`` names the control or a stranger, or a reference dose is outside [0, 1] or meets
            other than one treatment, which must be dosed.
    """

    doses: ClassVar[bool] = True

    dosed: tuple[str, ...] = ()
    reference_dose: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        UpliftConfig.__post_init__(self)
        if not self.dosed:
            object.__setattr__(self, "dosed", self.treatments[1:])
        for name in self.dosed:
            if name not in self.treatments[1:]:
                raise ValueError(f"dosed must name treatments among {self.treatments[1:]}, got {name!r}")
        if self.reference_dose is not None:
            if not 0.0 <= self.reference_dose <= 1.0:
                raise ValueError(f"reference_dose must be scaled to [0, 1], got {self.reference_dose}")
            if len(self.treatments) != 2:
                raise ValueError(f"reference_dose must come with the control and one treatment, got {self.treatments}")

    @property
    def propensity(self) -> Literal["estimated", "none"]:
        """Whether the propensity logits mean anything."""
        return "estimated" if self.reference_dose is None else "none"
