"""A run of treatment effects opened again, for evaluation and export."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from bundle.encode import Encoder
from bundle.fitting import FittedSchema
from training.config import TrainingConfig
from training.datasets import Dataset, Part, load_dataset
from training.errors import RunError
from training.run import RunFolder
from training.uplift.encoding import Int64, Scales, scales_of
from training.uplift.network import NetworkPlan, network_plan, trained_uplift_network
from training.uplift.predict import Predictor
from training.uplift.preparation import halves, labelled_part
from training.uplift.support import DoseSupport, arm_rows, dose_supports


@dataclass(frozen=True, slots=True)
class TrainedUplift:
    """A finished run.

    Attributes:
        encoder: of the fitted schema.
        scales: of the training rows.
        plan: which network, with complete options.
        network: with its kept weights, in eval mode.
        rows: training rows of each arm, (K,).
        doses: by arm, which doses the training rows support; only where the network takes doses.
    """

    run: RunFolder
    config: TrainingConfig
    dataset: Dataset
    fitted: FittedSchema
    encoder: Encoder
    scales: Scales
    plan: NetworkPlan
    network: nn.Module
    rows: Int64
    doses: dict[str, DoseSupport]

    @property
    def predictor(self) -> Predictor:
        """Asks the network."""
        defaults = np.zeros(len(self.scales.arms))
        for number, arm in enumerate(self.scales.arms):
            if arm in self.doses:
                defaults[number] = self.scales.scaled(arm, np.array([self.doses[arm].default]))[0]
        return Predictor(self.network, self.scales.outcome, defaults)

    def calibration_part(self) -> Part:
        """The half of the validation rows that nothing in training looked at."""
        part = labelled_part(self.dataset, "valid")
        return part.take(halves(part.treatment, self.config.train.seed)[1])


def open_trained_uplift(folder: RunFolder, config: TrainingConfig) -> TrainedUplift:
    """Load everything of a finished run.

    Raises:
        RunError: if the run cannot be read, has no kept weights, or its data have changed.
    """
    index = folder.index()
    if not folder.best_checkpoint.exists():
        raise RunError(f"{folder.path} has no weights yet: the run is {index.state} and was never finished")
    dataset = load_dataset(config)
    if dataset.fingerprint != index.data_fingerprint:
        raise RunError(f"{folder.path} was trained on other data: the fingerprint of {dataset.name} differs")
    fitted = FittedSchema.load(folder.schema_dir)
    scales = scales_of(dataset)
    plan = network_plan(config, fitted, scales)
    network = trained_uplift_network(folder, plan)
    train = labelled_part(dataset, "train")
    return TrainedUplift(
        run=folder,
        config=config,
        dataset=dataset,
        fitted=fitted,
        encoder=Encoder(fitted),
        scales=scales,
        plan=plan,
        network=network,
        rows=arm_rows(train, len(scales.arms)),
        doses=dose_supports(train, scales, plan) if plan.doses else {},
    )
