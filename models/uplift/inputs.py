"""The tensors that every uplift network takes and returns.

An uplift network sees the user side alone: there are no candidates, and every treatment is answered for every user.
Right padded histories, oldest first, as in ``models.inputs``. Letters: U users, K treatments (0 = control), G points of
a dose grid.

    user_ids           (U, Fu)     int64
    user_numbers       (U, Nu)     float32
    behaviour_ids      (U, T, Fb)  int64
    behaviour_numbers  (U, T, Nb)  float32
    behaviour_mask     (U, T, S)   bool

Networks with continuous doses take two more, both scaled to [0, 1]:

    doses              (U, K)      float32    the dose of each treatment; the control's is not looked at
    dose_grid          (G,)        float32    where the curves are wanted

Returned are, positionally:

    outcome            (U, K)      logits of a binary outcome, or a continuous one standardised
    propensity_logits  (U, K)      softmax gives the probability of each treatment
    curve              (U, K, G)   with doses: the outcome along the grid, the control's constant
    dose_density       (U, K, G)   networks that estimate it: density of the dose given user and treatment, integral 1
"""

from typing import Final, Literal

OutcomeKind = Literal["binary", "continuous"]

INPUT_NAMES: Final = ("user_ids", "user_numbers", "behaviour_ids", "behaviour_numbers", "behaviour_mask")
DOSE_INPUT_NAMES: Final = ("doses", "dose_grid")
_SCALES: Final = {"binary": "logits", "continuous": "standardised"}


def input_names(*, doses: bool) -> tuple[str, ...]:
    """Inputs of a graph, in order."""
    return (*INPUT_NAMES, *DOSE_INPUT_NAMES) if doses else INPUT_NAMES


def output_names(outcome: OutcomeKind, *, doses: bool, density: bool = False) -> tuple[str, ...]:
    """Outputs of a graph, in order; the name of an outcome says its scale.

    Raises:
        ValueError: if ``outcome`` is unknown.
    """
    if outcome not in _SCALES:
        raise ValueError(f"outcome must be one of {', '.join(_SCALES)}; got {outcome!r}")
    scale = _SCALES[outcome]
    names = [f"outcome_{scale}", "propensity_logits"]
    if doses:
        names.append(f"curve_{scale}")
    if density:
        names.append("dose_density")
    return tuple(names)
