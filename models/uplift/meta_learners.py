"""S-, T-, X- and DR-learner: plain regressions over the users' vectors, the references of every report."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.layers.dense import Dense
from models.layers.mlp import HiddenLayers
from models.uplift.learners import (
    EffectLearnerConfig,
    LearnerConfig,
    UserRegression,
    composed_outcomes,
    propensity_network,
)
from models.uplift.users import UserEncoder


class LearnerOutputs(NamedTuple):
    """What the losses of S- and T-learner see.

    Shapes: outcome, propensity_logits (U, K).
    """

    outcome: Tensor
    propensity_logits: Tensor


class XLearnerOutputs(NamedTuple):
    """What the X-learner's losses see.

    Shapes: outcome, propensity_logits (U, K); of_treated, of_controls (U, K - 1): the effects as learned from the
    treated rows and from the control's.
    """

    outcome: Tensor
    propensity_logits: Tensor
    of_treated: Tensor
    of_controls: Tensor


class DRLearnerOutputs(NamedTuple):
    """What the DR-learner's losses see.

    Shapes: outcome, propensity_logits (E, U, K), one of each a fold; effects (U, K - 1).
    """

    outcome: Tensor
    propensity_logits: Tensor
    effects: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DRLearnerConfig(EffectLearnerConfig):
    """Options of ``DRLearner``.

    Attributes:
        folds: sets of outcome and propensity networks; each is trained without the rows that it scores. 1 scores the
            rows it was trained on.

    Raises:
        ValueError: if ``folds`` is not positive, and as ``EffectLearnerConfig``.
    """

    folds: int = 2

    def __post_init__(self) -> None:
        """Check the number of folds and the rest."""
        LearnerConfig.__post_init__(self)
        if self.folds < 1:
            raise ValueError(f"folds must be at least 1, got {self.folds}")


class SLearner(nn.Module):
    """One regression in which the treatment is a feature like any other.

    Source: Kuenzel et al. 2019, arXiv:1706.03461. Differs from it: the share of the first layer that reads the user is
    computed once, not once a treatment.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K).

    Raises:
        ValueError: if the config has no hidden layers: without them every user would have the same effect.
    """

    def __init__(self, config: LearnerConfig) -> None:
        super().__init__()
        if not config.hidden_layers:
            raise ValueError("hidden_layers of an S-learner must name at least one layer, got none")
        self.config = config
        self.arms = len(config.treatments)
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.hidden = HiddenLayers(
            self.encoder.width + self.arms, config.hidden_layers, config.dropout, activation=config.activation
        )
        self.output = Dense(config.hidden_layers[-1], 1)
        self.propensity = propensity_network(config)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes and propensity logits."""
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        kernel, bias = self.hidden.first_affine()
        width = users.size(-1)
        of_user = torch.matmul(users, kernel[:width]) + bias
        # A one-hot treatment times a kernel is a row of it: (U, 1, H) + (K, H).
        hidden = self.hidden.after_first_affine(of_user.unsqueeze(1) + kernel[width:])
        outcome = self.output(hidden)[..., 0]
        logits = self.propensity(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return outcome, logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> LearnerOutputs:
        """What the losses see."""
        outcome, logits = self(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return LearnerOutputs(outcome, logits)


class TLearner(nn.Module):
    """A regression for every treatment, sharing nothing.

    Source: Kuenzel et al. 2019, arXiv:1706.03461. Differs from it: nothing for two treatments.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K).
    """

    def __init__(self, config: LearnerConfig) -> None:
        super().__init__()
        self.config = config
        self.outcomes = nn.ModuleList(UserRegression(config, config.hidden_layers) for _ in config.treatments)
        self.propensity = propensity_network(config)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes and propensity logits."""
        values: list[Tensor] = []
        for network in self.outcomes:
            values.append(network(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask))
        logits = self.propensity(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return torch.cat(values, -1), logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> LearnerOutputs:
        """What the losses see."""
        outcome, logits = self(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return LearnerOutputs(outcome, logits)


class XLearner(nn.Module):
    """Effects regressed on imputed ones, from the treated rows and from the control's, averaged by the propensity.

    tau_k = s tau_k^controls + (1 - s) tau_k^treated with s = P(k | x, k or control); the control's outcome is its
    regression, every other one is that plus the effect.

    Source: Kuenzel et al. 2019, arXiv:1706.03461. Differs from it: K treatments, each against the control.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K).
    """

    def __init__(self, config: EffectLearnerConfig) -> None:
        super().__init__()
        self.config = config
        self.outcomes = nn.ModuleList(UserRegression(config, config.hidden_layers) for _ in config.treatments)
        self.of_treated = nn.ModuleList(UserRegression(config, config.effect_layers) for _ in config.treatments[1:])
        self.of_controls = nn.ModuleList(UserRegression(config, config.effect_layers) for _ in config.treatments[1:])
        self.propensity = propensity_network(config)
        self.binary = config.outcome == "binary"

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes and propensity logits."""
        found = self.training_outputs(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        logits = found.propensity_logits
        share = torch.sigmoid(logits[:, 1:] - logits[:, :1])
        effects = share * found.of_controls + (1.0 - share) * found.of_treated
        return composed_outcomes(found.outcome[:, :1], effects, self.binary), logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> XLearnerOutputs:
        """What the losses see."""
        values: list[Tensor] = []
        for network in self.outcomes:
            values.append(network(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask))
        treated: list[Tensor] = []
        for network in self.of_treated:
            treated.append(network(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask))
        controls: list[Tensor] = []
        for network in self.of_controls:
            controls.append(network(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask))
        logits = self.propensity(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return XLearnerOutputs(torch.cat(values, -1), logits, torch.cat(treated, -1), torch.cat(controls, -1))


class DRLearner(nn.Module):
    """Effects regressed on doubly robust scores of cross-fitted outcome and propensity networks.

    The control's outcome and the propensities are the folds' means, every other outcome is the control's plus the
    effect.

    Source: Kennedy 2023, arXiv:2004.14497. Differs from it: K treatments, each against the control.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K).
    """

    def __init__(self, config: DRLearnerConfig) -> None:
        super().__init__()
        self.config = config
        # Same network a fold: outcomes and the propensity are those of a T-learner.
        self.folds = nn.ModuleList(TLearner(config) for _ in range(config.folds))
        self.effects = nn.ModuleList(UserRegression(config, config.effect_layers) for _ in config.treatments[1:])
        self.binary = config.outcome == "binary"

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes and propensity logits."""
        found = self.training_outputs(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        control = found.outcome.mean(0)[:, :1]
        return composed_outcomes(control, found.effects, self.binary), found.propensity_logits.mean(0)

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> DRLearnerOutputs:
        """What the losses see."""
        outcomes: list[Tensor] = []
        logits: list[Tensor] = []
        for fold in self.folds:
            found = fold(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
            outcomes.append(found[0])
            logits.append(found[1])
        effects: list[Tensor] = []
        for network in self.effects:
            effects.append(network(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask))
        return DRLearnerOutputs(torch.stack(outcomes), torch.stack(logits), torch.cat(effects, -1))
