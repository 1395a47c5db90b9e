"""Everything a training needs before its first step: folder, schema, encoded rows."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bundle.behaviours import Behaviours
from bundle.encode import Encoder
from bundle.fitting import FittedSchema, fit
from training.batches import Batches, Targets
from training.config import TrainingConfig
from training.datasets import Dataset, Part, load_dataset
from training.encoded import EncodedPart, encode_part, targets_of
from training.environments import Environments, environments_of
from training.errors import DataError, RunError
from training.negatives import History, NegativeSampler
from training.network import network_config
from training.run import RunFolder, RunIndex
from training.teaching import Teaching, teaching_of

LIBRARIES: Final = ("ctrlift", "torch", "accelerate", "numpy", "polars", "scikit-learn", "onnx", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Prepared:
    """The material of one training.

    Attributes:
        dataset: where it came from.
        fitted: the schema fitted on the training rows.
        options: the network's complete configuration.
        batches: the training rows.
        train: the training rows as one part; ``batches`` slices these.
        teaching: what each output is taught.
        valid: the validation rows. There is no test part here: the loop must not be able to read it.
        environments: of the training rows, where [invariance] names a column.
    """

    dataset: Dataset
    fitted: FittedSchema
    options: dict[str, Any]
    batches: Batches
    train: EncodedPart
    valid: EncodedPart
    teaching: Teaching
    environments: Environments | None = None


def open_run(config: TrainingConfig, path: Path, resume: bool, config_text: str | None) -> RunFolder:
    """A fresh folder, or the one to go on with.

    A run that was killed before its first checkpoint is begun again.

    Raises:
        RunError: if the folder holds a run and ``resume`` is not asked for, holds none and it is, or holds the run
            of another configuration.
    """
    if not resume:
        return RunFolder.create(path, config.resolved(), config_text)
    run = RunFolder(path)
    if not run.config_file.exists():
        raise RunError(f"{path} holds no run to resume")
    # The number of threads is the machine's business and may differ; everything else makes another run of it.
    difference = first_difference(run.config(), config.resolved(), ignored=("train.threads",))
    if difference is not None:
        raise RunError(f"{path} was trained with another configuration: {difference} differs")
    # Before the checkpoint is looked for: a run of seconds may have finished without one.
    if run.index_file.exists() and run.index().state == "finished":
        raise RunError(f"{path} has finished: there is nothing to resume")
    if not run.last_checkpoint.exists():
        run.index_file.unlink(missing_ok=True)
        return RunFolder.create(path, config.resolved(), config_text)
    return run


def first_difference(first: Any, second: Any, ignored: tuple[str, ...] = (), at: str = "") -> str | None:
    """Path of the first key at which two nested mappings differ, or None."""
    if at in ignored:
        return None
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted({*first, *second}):
            missing = object()
            found = first_difference(
                first.get(key, missing), second.get(key, missing), ignored, f"{at}.{key}" if at else str(key)
            )
            if found is not None:
                return found
        return None
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return None if list(first) == list(second) else at
    return None if first == second else at


def fitted_dataset(config: TrainingConfig, run: RunFolder) -> tuple[Dataset, FittedSchema]:
    """Load the rows; fit the schema on the training rows, or read what the run fitted.

    Raises:
        DataError: if the data are wrong.
        RunError: if a resumed run was trained on other data.
    """
    dataset = load_dataset(config)
    if run.last_checkpoint.exists():
        if run.index().data_fingerprint != dataset.fingerprint:
            raise RunError(f"{run.path} was trained on other data: the fingerprint of {dataset.name} differs")
        return dataset, FittedSchema.load(run.schema_dir)
    fitted = fit(config.features, dataset.fit_columns())
    run.schema_dir.mkdir(parents=True, exist_ok=True)
    fitted.save(run.schema_dir)
    return dataset, fitted


def prepare(config: TrainingConfig, run: RunFolder) -> Prepared:
    """Load the rows, fit the schema on the training rows (or read what the run fitted), encode each column once.

    Raises:
        DataError: if the data are wrong.
        RunError: if a resumed run was trained on other data.
    """
    dataset, fitted = fitted_dataset(config, run)
    options = network_config(config, fitted)
    encoder = Encoder(fitted)
    settings = config.train
    rates = config.sampling.rates(config.tasks)
    part = dataset.training_part(config.sampling, settings.seed)
    environments = training_environments(config, part, rates)
    if environments is not None:
        part = part.take(environments.rows)
    teaching = teaching_of(config, part)
    train = encode_part(encoder, part, config.tasks, rates)
    batches = Batches(
        rows=train.rows,
        lengths=train.lengths,
        targets=smoothed(teaching.targets(part, rates), settings.label_smoothing),
        batch_size=settings.batch_size,
        seed=settings.seed,
        by_length=settings.group_by_length,
        emptied=encoder.encode(part.without_history().rows) if settings.sequence_dropout > 0 else None,
        lost_share=settings.sequence_dropout,
        sampler=build_sampler(options, fitted, part.rows.behaviours),
        auxiliary_share=settings.auxiliary_share,
        environments=None if environments is None else environments.codes,
    )
    valid = encode_part(encoder, dataset.part("valid"), config.tasks, rates)
    return Prepared(
        dataset=dataset,
        fitted=fitted,
        options=options,
        batches=batches,
        train=train,
        valid=valid,
        teaching=teaching,
        environments=environments,
    )


def training_environments(config: TrainingConfig, part: Part, rates: Mapping[str, float]) -> Environments | None:
    """The environments of the training rows, or None where training knows none.

    Raises:
        DataError: if the rows do not hold the column, or too few environments can be used.
    """
    if config.invariance is None:
        return None
    column = config.invariance.column
    if part.environment is None:
        raise DataError(f"invariance.column: the rows have no column {column!r}")
    targets = targets_of(part, config.tasks, rates)
    return environments_of(part.environment, targets.labels, targets.weights, column)


def smoothed(targets: Targets, share: float) -> Targets:
    """Labels moved towards one half by a share of the way."""
    if share == 0:
        return targets
    return replace(targets, labels=targets.labels * np.float32(1 - share) + np.float32(share / 2))


def build_sampler(options: Mapping[str, Any], fitted: FittedSchema, behaviours: Behaviours) -> NegativeSampler | None:
    """The sampler of the auxiliary loss, or None where the network's options want none.

    Drawn are the items whose id the vocabulary knows: an item that training has never seen would only teach the
    network that the unseen vector is a negative.
    """
    fields = options["layout"]["behaviour_ids"]
    if not options.get("use_negsampling", False) or not fields:
        return None
    columns, derived = fitted.items.behaviour_columns(np.arange(len(fitted.items), dtype=np.int64))
    if not derived.any():
        return None
    first = int(np.flatnonzero(derived)[0])
    streams = np.zeros(len(derived), dtype=np.int64)
    for field in fields:
        streams[field["column"] : field["column"] + field["width"]] = field["stream"]
    return NegativeSampler(
        history=History.from_log(fitted.items.rows(behaviours.events["item"]), behaviours.start, behaviours.stop),
        population=np.flatnonzero(columns[:, first] != 1).astype(np.int64),
        columns=columns,
        derived=derived,
        streams=streams,
    )


def library_versions() -> dict[str, str]:
    """Versions of what the numbers depend on; a library that is not installed cannot have had a part in them."""
    versions: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def write_first_index(
    run: RunFolder, config: TrainingConfig, dataset: Dataset, rows: dict[str, int], parameters: int
) -> None:
    """The run's index as soon as everything it names is known."""
    run.write_index(
        RunIndex(
            bundle_name=config.features.bundle.name,
            network=config.model.network,
            tasks=config.tasks,
            seed=config.train.seed,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            run_id=run.path.resolve().name,
            dataset=dataset.name,
            data_fingerprint=dataset.fingerprint,
            rows=rows,
            window=dataset.window,
            libraries=library_versions(),
            machine={
                "platform": platform.platform(),
                "python": platform.python_version(),
                "processor": platform.machine(),
                "torch_threads": str(torch.get_num_threads()),
            },
            parameters=parameters,
        )
    )
