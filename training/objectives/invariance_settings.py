"""[invariance]: which objective, over which environments, and when its penalty comes in. Needs no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Objective = Literal["erm", "irm", "vrex", "groupdro"]


class InvarianceSection(BaseModel):
    """Training across environments, which a column of the rows names (a day, a traffic source, a campaign).

    `objective`: erm is the mean of the environments' risks and nothing else; irm and vrex add a penalty; groupdro
    weighs the worst environments most.

    The penalty's weight is 0 for the first `warm_start` steps, 1 for the next `anneal_iters`, then `lambda_max`. A
    warm start there must be: near zero weights the penalty of irm is as small as at the solution, and training that
    begins there ends with a network that predicts nothing.

    `group_step` is the step size of groupdro's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    column: Annotated[str, Field(min_length=1)]
    objective: Objective = "irm"
    lambda_max: Annotated[float, Field(gt=0)] = 100.0
    warm_start: Annotated[int, Field(ge=1)] = 100
    anneal_iters: Annotated[int, Field(ge=0)] = 100
    group_step: Annotated[float, Field(gt=0)] = 0.01

    @property
    def has_penalty(self) -> bool:
        """Whether the objective adds a penalty to the risks."""
        return self.objective in ("irm", "vrex")

    @property
    def first_step(self) -> int:
        """The step, from 0, with which the objective is in full force: every one before it only prepares."""
        if self.has_penalty:
            return self.warm_start + self.anneal_iters
        return self.warm_start if self.objective == "groupdro" else 0

    def penalty_weight(self, step: int) -> float:
        """Lambda at a step, from 0; for groupdro 0 during the warm start, then 1. A pure function of the step."""
        if self.objective == "erm" or step < self.warm_start:
            return 0.0
        return self.lambda_max if self.has_penalty and step >= self.first_step else 1.0
