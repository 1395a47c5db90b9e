"""VCNet: outcomes whose weights vary with the dose, with functional targeted regularisation."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.mlp import HiddenLayers
from models.uplift.dose_density import DoseDensity
from models.uplift.dosed_config import DosedConfig
from models.uplift.heads import NoPropensity, PropensityHead
from models.uplift.users import UserEncoder
from models.uplift.varying_coefficients import BSplineBasis, TruncatedPowerBasis, VaryingDense

BASES: Final[Mapping[str, type[BSplineBasis] | type[TruncatedPowerBasis]]] = {
    "b_spline": BSplineBasis,
    "truncated_power": TruncatedPowerBasis,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class VCNetConfig(DosedConfig):
    """Options of VCNet.

    Attributes:
        trunk_layers: widths of the layers that do not know the dose.
        head_layers: widths of the hidden layers with varying coefficients.
        activation: of the hidden layers.
        degree: of the splines in the dose, at least 1; the curve has ``degree`` - 1 continuous derivatives.
        knots: of the splines, inside (0, 1), rising.
        basis: ``b_spline``, or the paper's ``truncated_power``, which spans the same splines but trains badly.
        dose_input: the dose is also an input of every layer of the head.
        density_bins: intervals of the piecewise linear density.
        targeting_degree, targeting_knots: of the curve epsilon(s) of the targeted regularisation.

    Raises:
        ValueError: if a width is not positive or the basis unknown, and as ``DosedConfig``; the bases check the knots.
    """

    density: ClassVar[bool] = True

    trunk_layers: tuple[int, ...] = (50, 50)
    head_layers: tuple[int, ...] = (50,)
    activation: str = "relu"
    degree: int = 2
    knots: tuple[float, ...] = (1 / 3, 2 / 3)
    basis: str = "b_spline"
    dose_input: bool = True
    density_bins: int = 10
    targeting_degree: int = 2
    targeting_knots: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))

    def __post_init__(self) -> None:
        """Check the widths; the modules check the rest."""
        DosedConfig.__post_init__(self)
        if self.basis not in BASES:
            raise ValueError(f"basis must be one of {', '.join(BASES)}; got {self.basis!r}")
        if not self.trunk_layers or min(*self.trunk_layers, *self.head_layers, 1) < 1:
            raise ValueError(
                f"trunk_layers must not be empty and widths be positive, got {self.trunk_layers} and {self.head_layers}"
            )


class VCNetOutputs(NamedTuple):
    """What training sees, one column a treatment; doses as given for each.

    Attributes:
        outcome: (B, K), scale of the graph.
        propensity_logits: (B, K).
        density: (B, K), of the dose given user and treatment; 1 where the treatment has no dose.
        targeting: (B, K), epsilon of each treatment at its dose.
    """

    outcome: Tensor
    propensity_logits: Tensor
    density: Tensor
    targeting: Tensor


class TargetingCurve(nn.Module):
    """epsilon_k(s), a spline an arm that starts at 0: the fluctuation of the targeted regularisation.

    Shapes: s (U, K); returns (U, K). State: weight (K, L).
    """

    def __init__(self, arms: int, degree: int, knots: Sequence[float]) -> None:
        super().__init__()
        self.basis = TruncatedPowerBasis(degree, knots)
        self.weight = nn.Parameter(torch.zeros(arms, self.basis.size))

    def forward(self, s: Tensor) -> Tensor:
        """The curve at the doses."""
        values: Tensor = (self.basis(s) * self.weight).sum(-1)
        return values


class VaryingHead(nn.Module):
    """Layers with varying coefficients on the trunk, one stack an arm.

    Letters: H arms, U users, P doses a user, G grid points, D width. State: layers.{i}.kernel, layers.{i}.shift.
    """

    def __init__(self, config: VCNetConfig, arms: int) -> None:
        super().__init__()
        basis = BASES[config.basis](config.degree, config.knots)
        self.basis = basis
        widths = [config.trunk_layers[-1], *config.head_layers, 1]
        self.layers = nn.ModuleList(
            VaryingDense(arms, fan_in, width, basis.size, config.dose_input)
            for fan_in, width in itertools.pairwise(widths)
        )
        self.act = advanced_activations.get(config.activation, widths[-2]) or advanced_activations.identity()

    def forward(self, trunk: Tensor, s: Tensor) -> Tensor:
        """Outcomes at the users' own doses: trunk (U, D), s (H, U, P); returns (H, U, P)."""
        basis = self.basis(s)
        x = trunk
        for i, layer in enumerate(self.layers):
            x = layer.of_users(x, s, basis) if i == 0 else layer.of_points(self.act(x), s, basis)  # type: ignore[operator]
        return x.squeeze(-1)

    def along(self, trunk: Tensor, s: Tensor) -> Tensor:
        """Outcomes along a grid: trunk (U, D), s (H, G); returns (H, U, G)."""
        basis = self.basis(s)
        x = trunk
        for i, layer in enumerate(self.layers):
            if i == 0:
                x = layer.of_users_along(x, s, basis)  # type: ignore[operator]
            else:
                x = layer.of_points_along(self.act(x), s, basis)  # type: ignore[operator]
        return x.squeeze(-1)


class VCNet(nn.Module):
    """Varying coefficient network: the head's weights are splines of the dose, so the curve is continuous.

        z = trunk(x),  mu_k(s, x) = head_k(z; theta_k(s)),  pi(s | x, k) piecewise linear on z,  P(k | x) = softmax(W z)

    Source: Nie et al. 2021, arXiv:2103.07861. Differs from it: K treatments, each with splines, density and epsilon of
    its own, beside treatments without a dose (theta constant); a propensity of the treatment; the density integrates
    to one.

    The curve does not depend on the trunk's rows being repeated: the trunk and the product of the first layer are
    made once a user. Inputs and outputs as ``models.uplift.inputs`` has them, with ``dose_density``.
    State: encoder.*, trunk.*, head.*, density.*, propensity.*, targeting.*.
    """

    dosed: Tensor

    def __init__(self, config: VCNetConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.trunk = HiddenLayers(self.encoder.width, config.trunk_layers, activation=config.activation)
        self.treatments = len(config.treatments)
        self.reference = -1.0 if config.reference_dose is None else config.reference_dose
        arms = self.treatments if config.reference_dose is None else 1
        self.head = VaryingHead(config, arms)
        self.density = DoseDensity(self.trunk.out_features, self.treatments, config.density_bins)
        self.propensity: nn.Module = NoPropensity(self.treatments)
        if config.propensity == "estimated":
            self.propensity = PropensityHead(self.trunk.out_features, self.treatments, (), config.activation)
        self.targeting = TargetingCurve(self.treatments, config.targeting_degree, config.targeting_knots)
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Outcomes (U, K) at the doses, propensity logits (U, K), curves (U, K, G), densities (U, K, G)."""
        trunk = self.trunk(self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask))
        outcome = self._outcome(trunk, doses)
        curve = self._curve(trunk, outcome, dose_grid)
        return outcome, self.propensity(trunk), curve, self._density_along(trunk, dose_grid)

    @torch.jit.unused
    def training_outputs(self, inputs: Sequence[Tensor], doses: Tensor) -> VCNetOutputs:
        """What the objective needs: the five input tensors, doses (B, K)."""
        trunk = self.trunk(self.encoder(*inputs))
        s = doses * self.dosed
        density = self.density.at(self.density(trunk), s)
        return VCNetOutputs(
            outcome=self._outcome(trunk, doses),
            propensity_logits=self.propensity(trunk),
            density=torch.where(self.dosed > 0, density, torch.ones_like(density)),
            targeting=self.targeting(s),
        )

    def _outcome(self, trunk: Tensor, doses: Tensor) -> Tensor:
        s = doses * self.dosed
        if self.reference >= 0.0:
            # One head answers both: the control is that head at the reference dose.
            both = torch.stack([torch.full_like(s[:, 1], self.reference), s[:, 1]], -1)
            values: Tensor = self.head(trunk, both.unsqueeze(0)).squeeze(0)
        else:
            values = self.head(trunk, s.t().unsqueeze(-1)).squeeze(-1).t()
        return values

    def _curve(self, trunk: Tensor, outcome: Tensor, grid: Tensor) -> Tensor:
        if self.reference >= 0.0:
            treated = self.head.along(trunk, grid.unsqueeze(0)).squeeze(0)
            return torch.stack([outcome[:, :1].expand_as(treated), treated], 1)
        return self.head.along(trunk, self.dosed.unsqueeze(-1) * grid).transpose(0, 1)

    def _density_along(self, trunk: Tensor, grid: Tensor) -> Tensor:
        density = self.density.along(self.density(trunk), grid)
        return torch.where(self.dosed.unsqueeze(-1) > 0, density, torch.ones_like(density))

    @torch.jit.unused
    def average_curve(self, inputs: Sequence[Tensor], grid: Tensor, floor: float = 0.01) -> Tensor:
        """The targeted estimate of the average curve on the outcome's scale: mean_u [mu_k(s, u) + eps_k(s) / density].

        The density is that of (k, s) given the user. Probabilities for a binary outcome, else standardised values.

        Source: Nie et al. 2021, section 4. Differs from it: the density is clipped from below at ``floor``.

        Args:
            inputs: the five input tensors of U users.
            grid: (G,) scaled doses.
            floor: smallest density that is divided by.

        Returns:
            (K, G).
        """
        with torch.no_grad():
            doses = torch.zeros(inputs[1].size(0), self.treatments)
            _, logits, curve, density = self(*inputs, doses, grid)
            joint = density
            if self.config.propensity == "estimated":
                joint = density * torch.softmax(logits, -1).unsqueeze(-1)
            values = torch.sigmoid(curve) if self.config.outcome == "binary" else curve
            s = grid.unsqueeze(-1) * self.dosed
            epsilon = self.targeting(s).t()
            average: Tensor = (values + epsilon / joint.clamp_min(floor)).mean(0)
            return average
