"""What ``[objective]`` may say for every uplift network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


class Schedule(BaseModel):
    """How long and how fast one stage learns.

    Attributes:
        optimizer: ``adam`` adds the weight decay to the gradient, ``adamw`` takes it off the weights.
        learning_rate, weight_decay: of every parameter of the stage.
        batch_size: rows a step; 0 is all rows at once.
        epochs: at most.
        patience: epochs without a better validation loss that are waited for; 0 waits for ever.
        schedule: ``plateau`` halves the learning rate when the validation loss stops falling.
        gradient_clip: largest norm of a step's gradient; 0 does not clip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    batch_size: NonNegativeInt = 128
    epochs: PositiveInt = 300
    patience: NonNegativeInt = 30
    schedule: Literal["constant", "plateau"] = "constant"
    gradient_clip: NonNegativeFloat = 0.0


class PropensitySchedule(Schedule):
    """The stage of a propensity network that stands beside the outcomes' one."""

    weight_decay: NonNegativeFloat = 1e-3
    epochs: PositiveInt = 100
    patience: NonNegativeInt = 10
