"""The tensors of an uplift graph: encoded users, and the doses that are asked about on the graph's scale."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bundle.effects import scaled_doses
from bundle.encode import EncodedRows
from bundle.treatment import DoseScale, UpliftPart

USER_INPUTS: Final = ("user_ids", "user_numbers", "behaviour_ids", "behaviour_numbers", "behaviour_mask")


def graph_inputs(
    encoded: EncodedRows, part: UpliftPart, doses: Mapping[str, ArrayLike] | None = None, points: int = 2
) -> dict[str, NDArray[Any]]:
    """What the graph takes, in its order: the five tensors of U users, and with doses `doses` and `dose_grid` too.

    Args:
        encoded: the users.
        part: of the manifest.
        doses: by treatment, in its own unit: one for everybody or (U,); others get their default.
        points: of the grid, evenly from the lowest to the highest dose of each arm.

    Raises:
        ValueError: if a treatment has no dose, or there are fewer than two points.
    """
    inputs = encoded.take()
    given = {name: inputs[name] for name in USER_INPUTS}
    if not part.doses:
        if doses:
            raise ValueError(f"no treatment of this bundle has a dose, got {sorted(doses)}")
        return given
    return given | {"doses": dose_tensor(part, doses or {}, len(encoded)), "dose_grid": dose_grid(points)}


def dose_tensor(part: UpliftPart, doses: Mapping[str, ArrayLike], users: int) -> NDArray[np.float32]:
    """Doses (U, K) on the graph's scale [0, 1]; 0 for treatments without one.

    Raises:
        ValueError: if a treatment has no dose.
    """
    unknown = sorted(set(doses) - set(part.doses))
    if unknown:
        raise ValueError(f"{unknown[0]!r} has no dose; treatments with one are {', '.join(part.doses)}")
    out = np.zeros((users, len(part.treatments)))
    for treatment, scale in part.doses.items():
        asked = doses.get(treatment, default_dose(scale))
        out[:, part.treatments.index(treatment)] = scaled_doses(asked, scale)
    return np.clip(out, 0.0, 1.0).astype(np.float32)


def default_dose(scale: DoseScale) -> float:
    """The dose that is meant where nobody says one; the middle where the bundle does not know better."""
    return (scale.low + scale.high) / 2 if scale.default is None else scale.default


def dose_grid(points: int) -> NDArray[np.float32]:
    """Evenly spaced points (G,) from 0 to 1, on the graph's scale.

    Raises:
        ValueError: for fewer than two points.
    """
    if points < 2:
        raise ValueError(f"a grid needs at least 2 points, got {points}")
    return np.linspace(0.0, 1.0, points).astype(np.float32)
