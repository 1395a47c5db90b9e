"""The literal table of what trains each uplift network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from training.objectives import dcn_pd, dragonnet, drnet, meta_learners, tarnet, vcnet
from training.objectives.dcn_pd import DCNPDSettings
from training.objectives.dragonnet import DragonNetSettings
from training.objectives.drnet import DRNetSettings
from training.objectives.meta_learners import DRLearnerSettings, LearnerSettings, XLearnerSettings
from training.objectives.tarnet import CFRSettings, TARNetSettings
from training.objectives.vcnet import VCNetSettings
from training.uplift.plan import Plan


@dataclass(frozen=True, slots=True)
class ObjectiveEntry:
    """One network's training.

    Attributes:
        settings: what ``[objective]`` may say.
        plan: from the network, its settings and the training rows to the plan.
    """

    settings: type[BaseModel]
    plan: Callable[..., Plan]


OBJECTIVES: Final[Mapping[str, ObjectiveEntry]] = {
    "cfr": ObjectiveEntry(CFRSettings, tarnet.plan),
    "dcn_pd": ObjectiveEntry(DCNPDSettings, dcn_pd.plan),
    "dr_learner": ObjectiveEntry(DRLearnerSettings, meta_learners.plan_dr),
    "dragonnet": ObjectiveEntry(DragonNetSettings, dragonnet.plan),
    "drnet": ObjectiveEntry(DRNetSettings, drnet.plan),
    "s_learner": ObjectiveEntry(LearnerSettings, meta_learners.plan_s),
    "t_learner": ObjectiveEntry(LearnerSettings, meta_learners.plan_t),
    "tarnet": ObjectiveEntry(TARNetSettings, tarnet.plan),
    "vcnet": ObjectiveEntry(VCNetSettings, vcnet.plan),
    "x_learner": ObjectiveEntry(XLearnerSettings, meta_learners.plan_x),
}
