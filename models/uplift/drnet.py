"""DRNet: a shared base, layers of each treatment, and a head for every stratum of its dose."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.mlp import HiddenLayers
from models.uplift.dose_strata import DoseStrata, StrataDense
from models.uplift.dosed_config import DosedConfig
from models.uplift.heads import NoPropensity, PropensityHead
from models.uplift.propensity_dropout import MaskedLayers, check_dropout, drop_probability
from models.uplift.users import UserEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class DRNetConfig(DosedConfig):
    """Options of ``DRNet``.

    Attributes:
        base_layers: widths of the layers that all treatments share.
        treatment_layers: widths of each treatment's own layers; may be empty.
        head_layers: widths of the hidden layers of each stratum's head; may be empty.
        strata: E, of equal width on each treatment's scaled doses.
        activation: of the hidden layers.
        propensity_layers: hidden layers of the propensity network; none makes it a logistic regression.
        propensity_dropout: drop in the base while training, by the propensity of the received treatment (+PD).
        gamma, entropy_base: of that dropout, as in DCN-PD.

    Raises:
        ValueError: if a number is outside its range, or dropout is asked for where there is no propensity.
    """

    density: ClassVar[bool] = False

    base_layers: tuple[int, ...] = (64, 64)
    treatment_layers: tuple[int, ...] = (64,)
    head_layers: tuple[int, ...] = (32,)
    strata: int = 5
    activation: str = "elu"
    propensity_layers: tuple[int, ...] = ()
    propensity_dropout: bool = False
    gamma: float = 1.0
    entropy_base: float = 2.0

    def __post_init__(self) -> None:
        """Check the values; the layers check their widths."""
        DosedConfig.__post_init__(self)
        check_dropout(self.gamma, self.entropy_base)
        if self.propensity_dropout and self.propensity == "none":
            raise ValueError("propensity_dropout must be off with a reference_dose: there is no propensity")


class DRNet(nn.Module):
    """Dose response network: the dose chooses the head, and is an input of its every layer.

    The curve jumps where the head changes; ``jump_sizes`` says how far. A stratum that no training row of the
    treatment fell into is answered by the head of the nearest that has rows (``answer_from``), never by initial
    weights.

    Source: Schwab et al. 2020, arXiv:1902.00981. Differs from it: the heads are one batched product; treatments without
    a dose are answered as at dose 0; a propensity network of its own.

    Letters: H arms with heads, E strata. Inputs and outputs as ``models.uplift.inputs`` has them. State: encoder.*,
    base.*, treatment.{h}.*, heads.{i}.*, answering (H, E), propensity_encoder.*, propensity.*.
    """

    dosed: Tensor
    answering: Tensor

    def __init__(self, config: DRNetConfig) -> None:
        super().__init__()
        self.config = config
        self.treatments = len(config.treatments)
        self.reference = -1.0 if config.reference_dose is None else config.reference_dose
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.base = MaskedLayers(self.encoder.width, config.base_layers, config.activation)
        arms = self.treatments if config.reference_dose is None else 1
        width = self.base.out_features
        self.treatment = nn.ModuleList(
            HiddenLayers(width, config.treatment_layers, activation=config.activation)
            if config.treatment_layers
            else nn.Identity()
            for _ in range(arms)
        )
        self.strata = DoseStrata(config.strata)
        widths = [config.treatment_layers[-1] if config.treatment_layers else width, *config.head_layers, 1]
        self.heads = nn.ModuleList(StrataDense(arms, config.strata, a, b) for a, b in itertools.pairwise(widths))
        self.act = advanced_activations.get(config.activation, widths[-2]) or advanced_activations.identity()
        self.propensity_encoder = UserEncoder(config.layout, config.embedding_std)
        self.propensity: nn.Module = NoPropensity(self.treatments)
        if config.propensity == "estimated":
            width = self.propensity_encoder.width
            self.propensity = PropensityHead(width, self.treatments, config.propensity_layers, config.activation)
        self.register_buffer("answering", torch.arange(config.strata).repeat(arms, 1))
        dosed = [float(name in config.dosed) for name in config.treatments]
        self.register_buffer("dosed", torch.tensor(dosed), persistent=False)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
        doses: Tensor,
        dose_grid: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outcomes (U, K) at the doses, propensity logits (U, K), curves (U, K, G)."""
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        own = self.propensity_encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        represented = self._represent(self.base(users))
        if self.reference >= 0.0:
            control = self._along(represented, torch.full_like(dose_grid[:1], self.reference).unsqueeze(0))
            treated = self._at(represented, doses[:, 1:].t())
            outcome = torch.cat([control.squeeze(-1), treated], 0).t()
            curve = self._along(represented, dose_grid.unsqueeze(0))
            curve = torch.cat([control.expand(-1, -1, curve.size(2)), curve], 0)
        else:
            outcome = self._at(represented, (doses * self.dosed).t()).t()
            curve = self._along(represented, self.dosed.unsqueeze(-1) * dose_grid)
        return outcome, self.propensity(own), curve.transpose(0, 1)

    @torch.jit.unused
    def received_outcome(self, inputs: Sequence[Tensor], treatment: Tensor, dose: Tensor) -> tuple[Tensor, Tensor]:
        """What the objective needs of B rows: the five input tensors, treatment (B,), scaled dose (B,).

        Returns:
            Outcome of the received treatment at its dose (B,), and the base's output (B, D).
        """
        users = self.encoder(*inputs)
        base = self.base(users)
        if self.config.propensity_dropout and self.training:
            with torch.no_grad():
                chances = torch.softmax(self.propensity(self.propensity_encoder(*inputs)), -1)
                own = chances.gather(1, treatment.unsqueeze(1))
                pair = torch.cat([own, 1.0 - own], 1)
                drop = drop_probability(pair, self.config.gamma, self.config.entropy_base)
            base = self.base.masked(users, drop, torch.rand(users.size(0), self.base.noise_width))
        if self.reference >= 0.0:
            # A control row is one of the treatment at the reference dose.
            dose = torch.where(treatment > 0, dose, torch.full_like(dose, self.reference))
            return self._at(self._represent(base), dose.unsqueeze(0)).squeeze(0), base
        doses = dose * self.dosed[treatment]
        outcome = self._at(self._represent(base), doses.expand(self.treatments, -1))
        return outcome.gather(0, treatment.unsqueeze(0)).squeeze(0), base

    @torch.jit.unused
    def propensity_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """(B, K), of the five input tensors."""
        logits: Tensor = self.propensity(self.propensity_encoder(*inputs))
        return logits

    @torch.jit.unused
    def answer_from(self, rows: Tensor) -> None:
        """Let every stratum without training rows be answered by the nearest with rows, the lower of two equally near.

        Args:
            rows: (K, E) training rows of each treatment and stratum; a treatment without any keeps its own heads.
        """
        order = torch.arange(self.strata.strata)
        counted = rows[1:] if self.reference >= 0.0 else rows
        for arm in range(counted.size(0)):
            distance = (order.unsqueeze(1) - order).abs().float()
            distance[:, counted[arm] == 0] = torch.inf
            nearest = torch.where(counted[arm].sum() > 0, distance.argmin(1), order)
            self.answering[arm] = nearest

    @torch.jit.unused
    def jump_sizes(self, inputs: Sequence[Tensor]) -> Tensor:
        """Mean over the users of |upper head - lower head| at each inner edge, on the scale of the graph.

        Returns:
            (K, E - 1); 0 for treatments without a dose.
        """
        with torch.no_grad():
            represented = self._represent(self.base(self.encoder(*inputs)))
            users = represented.size(2)
            jumps = []
            for lower, edge in enumerate(self.strata.edges):
                every = self._every(represented, edge.expand(represented.size(0), users))
                upper_head, lower_head = self.answering[:, lower + 1], self.answering[:, lower]
                arms = torch.arange(represented.size(0))
                jumps.append((every[arms, upper_head] - every[arms, lower_head]).abs().mean(-1))
            found = torch.stack(jumps, 1) if jumps else torch.zeros(represented.size(0), 0)
        if self.reference >= 0.0:
            found = torch.cat([torch.zeros_like(found), found], 0)
        return found * self.dosed.unsqueeze(1)

    def _represent(self, base: Tensor) -> Tensor:
        """Each treatment's own layers: base (U, D); returns (H, 1, U, D')."""
        own: list[Tensor] = []
        for layers in self.treatment:
            own.append(layers(base))
        return torch.stack(own, 0).unsqueeze(1)

    def _every(self, represented: Tensor, s: Tensor) -> Tensor:
        """Every stratum's answer at doses s (H, U); returns (H, E, U)."""
        x = represented
        for i, head in enumerate(self.heads):
            x = head(x if i == 0 else self.act(x), s)
        return x.squeeze(-1)

    def _at(self, represented: Tensor, s: Tensor) -> Tensor:
        """Outcomes at the users' own doses s (H, U); returns (H, U)."""
        stratum = self.answering.gather(1, self.strata(s))
        return self._every(represented, s).gather(1, stratum.unsqueeze(1)).squeeze(1)

    def _along(self, represented: Tensor, s: Tensor) -> Tensor:
        """Outcomes along a grid s (H, G); returns (H, U, G)."""
        first = torch.arange(s.size(0), device=s.device).unsqueeze(1) * self.strata.strata
        rows = self.answering.gather(1, self.strata(s)) + first
        x = represented
        for i, head in enumerate(self.heads):
            x = head.first_along(x, s, rows) if i == 0 else head.along(self.act(x), s, rows)  # type: ignore[operator]
        return x.squeeze(-1).transpose(1, 2)
