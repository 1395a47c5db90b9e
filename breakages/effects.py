"""Breakages of what answers for treatments, and of networks with several tasks."""

from __future__ import annotations

from typing import Final

from breakages.breakage import Breakage

EFFECT_BREAKAGES: Final[tuple[Breakage, ...]] = (
    Breakage(
        "effects have the other sign",
        "bundle/effects.py",
        "return np.asarray(potential[..., 1:] - potential[..., :1])",
        "return np.asarray(potential[..., :1] - potential[..., 1:])",
        ("tests/bundle/test_effects.py::test_effects_are_the_difference_itself",),
    ),
    Breakage(
        "a violated overlap is only weak",
        "bundle/effects.py",
        "VIOLATED_BELOW: Final = 0.01",
        "VIOLATED_BELOW: Final = 0.0001",
        ("tests/bundle/test_effects.py::test_overlap_limits",),
    ),
    Breakage(
        "intervals forget the user's own weight",
        "bundle/conformal.py",
        "wanted = level * (reached[-1] + own)",
        "wanted = level * reached[-1]",
        ("tests/bundle/test_conformal.py::test_width_is_the_weighted_quantile_with_the_users_own_weight_at_infinity",),
    ),
    Breakage(
        "effect intervals spend the error twice",
        "bundle/conformal.py",
        "self.interval(1 - (1 - level) / 2, outcomes, propensity)",
        "self.interval(level, outcomes, propensity)",
        ("tests/bundle/test_conformal.py::test_effect_intervals_give_each_outcome_half_of_the_error",),
    ),
    Breakage(
        "a budget is overspent by rounding",
        "service/core/allocation.py",
        "while len(chosen) and math.fsum(cost[chosen].tolist()) > total:",
        "while len(chosen) and math.fsum(cost[chosen].tolist()) > 2 * total:",
        ("tests/service/test_allocation.py::test_running_sums_that_round_down_do_not_overspend",),
    ),
    Breakage(
        "the entropy is counted in nats",
        "models/uplift/propensity_dropout.py",
        "entropy = nats * math.log(2.0) / (",
        "entropy = nats * math.log(2.0) ** 2 / (",
        ("tests/models/test_uplift_dcn_pd.py::test_drop_probability_by_hand",),
    ),
    Breakage(
        "the density of a dose is not normalised",
        "models/uplift/dose_density.py",
        "return heights / (heights * self.widths).sum(-1, keepdim=True)",
        "return heights",
        ("tests/models/test_uplift_dose_layers.py::test_the_density_integrates_to_one_for_every_user",),
    ),
    Breakage(
        "a frozen head moves",
        "training/uplift/weights.py",
        "parameter.requires_grad_(id(parameter) in own)",
        "parameter.requires_grad_(True)",
        ("tests/training/test_uplift_fit.py::test_the_network_is_left_ready_and_its_flags_as_they_were",),
    ),
    Breakage(
        "the last weights stay instead of the best",
        "training/uplift/fit.py",
        "if self.kept is not None:\n            self.weights.put_back(self.kept)",
        "if self.kept is not None:\n            pass",
        ("tests/training/test_uplift_fit.py::test_patience_ends_the_stage_and_the_best_weights_come_back",),
    ),
    Breakage(
        "row weights do not count in effects",
        "training/objectives/factual.py",
        "return weighted_mean(losses, rows.weight)",
        "return weighted_mean(losses, torch.ones_like(rows.weight))",
        ("tests/training/test_uplift_objectives.py::test_a_weight_of_two_is_the_row_twice_and_of_zero_not_at_all",),
    ),
    Breakage(
        "a conversion needs no click",
        "training/objectives/entire_space.py",
        "log_p = functional.logsigmoid(click) + functional.logsigmoid(conversion)",
        "log_p = functional.logsigmoid(conversion)",
        ("tests/training/test_task_losses.py::test_the_entire_space_loss_equals_its_formula",),
    ),
)
