"""The one objective that is taught what did not happen, for simulations that say so.

Nothing else outside evaluation asks a data set for its truth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel

from training.errors import ConfigError
from training.objectives.dcn_pd import OracleRows
from training.uplift.encoding import Float64, declared_treatment, labelled
from training.uplift.preparation import PreparedUplift

ORACLE: Final = "oracle_ite"


def wants_truth(settings: BaseModel) -> bool:
    """Whether the settings of an objective ask for every treatment's outcome."""
    return getattr(settings, "objective", None) == ORACLE


def with_truth(data: PreparedUplift) -> PreparedUplift:
    """The same material, its training rows with every treatment's outcome.

    Raises:
        ConfigError: if the data are not declared semi-synthetic, or do not tell.
    """
    if not declared_treatment(data.dataset).semi_synthetic:
        raise ConfigError(f"objective.objective: {ORACLE!r} needs data that say treatment.semi_synthetic = true")
    outcomes = _known_outcomes(data)
    scale = data.scales.outcome
    scaled = torch.from_numpy(((outcomes - scale.mean) / scale.sd).astype(np.float32))
    try:
        return replace(data, train=OracleRows.of(data.train, scaled, semi_synthetic=True))
    except ValueError as error:
        raise ConfigError(f"objective.objective: {error}") from error


def _known_outcomes(data: PreparedUplift) -> Float64:
    """Every arm's outcome for the training rows, (N, K): those drawn where they are known, else their means."""
    dataset = data.dataset
    part = dataset.part("train")
    kept = labelled(part, dataset.tasks[0])
    truth = dataset.truth("train")
    if "counterfactual" in truth and len(data.scales.arms) == 2:
        received = part.treatment[kept]
        rows = np.arange(len(kept))
        found = np.empty((len(kept), 2))
        found[rows, received] = part.labels[dataset.tasks[0]][kept]
        found[rows, 1 - received] = truth["counterfactual"][kept]
        return found
    for name in ("potential", "mu"):
        if name in truth:
            return np.asarray(truth[name][kept], dtype=np.float64)
    raise ConfigError(f"objective.objective: {ORACLE!r} needs every treatment's outcome, and {dataset.name} has none")
