"""Training a network of treatment effects into a run folder: prepare, plan, fit, keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.utils import set_seed
from pydantic import BaseModel, ValidationError
from torch import nn

from bundle.correct import sigmoid
from models.uplift.ensemble import Ensemble
from training.checkpoint import read_state, write_state
from training.config import TrainingConfig
from training.config_text import first_problem
from training.errors import ConfigError, Interrupted
from training.interrupts import StopRequests
from training.null_predictor import refuse_null_predictor
from training.objectives.catalog import OBJECTIVES
from training.objectives.ensemble import ensemble_plan
from training.objectives.invariance_uplift import invariant_plan
from training.preparation import open_run, write_first_index
from training.progress import TrainingProgress, open_progress
from training.run import RunFolder, write_json
from training.threads import torch_threads
from training.uplift.fit import fit_plan
from training.uplift.network import build_uplift_network, uplift_entry
from training.uplift.oracle import wants_truth, with_truth
from training.uplift.plan import Plan
from training.uplift.preparation import PreparedUplift, prepare_uplift
from training.uplift.report import write_uplift_plots
from training.uplift.rows import UpliftRows
from training.uplift.standing import FitReport, State

# A checkpoint takes longer to write than a small epoch to run; a run that is killed repeats at most this much.
_LEAST_SECONDS: Final = 2.0


def train_uplift(
    config: TrainingConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
    config_text: str | None = None,
) -> RunFolder:
    """Train a network of treatment effects and leave a run folder.

    Args:
        config: the whole configuration, of kind uplift.
        run_dir: a fresh folder, or with ``resume`` one that holds a run of the same configuration and data.
        resume: go on from the last checkpoint; a run that was killed ends with the weights it would have had.
        progress: True for a bar, False for plain lines, None for a bar where standard error is a terminal.
        config_text: the configuration file as it was, kept beside the resolved one.

    Raises:
        ConfigError, DataError: if the configuration or the data are wrong.
        RunError: if the folder holds another run, or nothing to resume.
        Interrupted: after Ctrl-C or SIGTERM at the end of the epoch in progress, with the checkpoint written.
        Diverged: if a loss is not a finite number.
        NullPredictor: if training across environments ended with a network that predicts nothing.
    """
    run = open_run(config, run_dir, resume, config_text)
    with torch_threads(config.train.threads):
        set_seed(config.train.seed)
        data, network, plan = begin(config, run)
        if not run.last_checkpoint.exists():
            rows = {"train": len(data.train), "valid": len(data.watched)}
            write_first_index(run, config, data.dataset, rows, sum(p.numel() for p in network.parameters()))
        epochs = sum(stage.epochs for stage in plan.stages)
        with StopRequests() as stops, open_progress(progress, epochs, 0) as shown:
            run.set_state("running")
            for warning in data.warnings:
                shown.note(warning)
            report = fit_plan(
                network,
                plan,
                data.train,
                data.watched,
                seed=config.train.seed,
                log=Logbook(run, plan, shown),
                checkpoint=RunCheckpoint(run, stops, config.train.checkpoint_every),
            )
        if config.invariance is not None and config.invariance.objective != "erm":
            check_predictor(network, data)
    finish(run, network, report, data)
    return run


def begin(config: TrainingConfig, run: RunFolder) -> tuple[PreparedUplift, nn.Module, Plan]:
    """The rows, the network with its first weights, and what will be done with both."""
    settings = objective_settings(config)
    data = prepare_uplift(config, run)
    if wants_truth(settings):
        data = with_truth(data)
    network = build_uplift_network(data.network)
    return data, network, objective_plan(config, settings, network, data.train)


def objective_settings(config: TrainingConfig) -> BaseModel:
    """What [objective] says, with the defaults of the network's objective.

    Raises:
        ConfigError: naming the network, or the key, that is unknown or out of its range.
    """
    name = config.model.network
    uplift_entry(name)
    entry = OBJECTIVES[name]
    try:
        return entry.settings.model_validate(config.objective)
    except ValidationError as error:
        raise ConfigError(f"[objective] for network {name!r}: {first_problem(error, entry.settings)}") from error


def objective_plan(config: TrainingConfig, settings: BaseModel, network: nn.Module, train: UpliftRows) -> Plan:
    """The plan of [objective], of every member where there are several, across environments where these are named.

    Raises:
        ConfigError: if [objective] or [invariance] does not fit the network or the rows.
    """
    name = config.model.network
    entry = OBJECTIVES[name]
    try:
        if isinstance(network, Ensemble):
            plan = ensemble_plan(network, entry.plan, settings, train)
        else:
            plan = entry.plan(network, settings, train)
    except ValueError as error:
        raise ConfigError(f"[objective] for network {name!r}: {error}") from error
    if config.invariance is None:
        return plan
    try:
        return invariant_plan(network, plan, config.invariance, train)
    except ValueError as error:
        raise ConfigError(f"[invariance] for network {name!r}: {error}") from error


class Logbook:
    """Writes what a fit says to ``metrics.jsonl``, and shows it."""

    def __init__(self, run: RunFolder, plan: Plan, shown: TrainingProgress) -> None:
        self._run = run
        self._shown = shown
        before = 0
        self._epochs_before: dict[str, int] = {}
        for stage in plan.stages:
            self._epochs_before[stage.name] = before
            before += stage.epochs

    def __call__(self, line: Mapping[str, Any]) -> None:
        """One line of the fit."""
        self._run.append_history(line)
        if line["kind"] == "epoch":
            self._shown.step(self._epochs_before[line["stage"]] + line["epoch"], line["rows"], line["loss"])
        elif line["kind"] == "stage":
            best = (
                "" if line["best"] is None else f", validation loss {line['best']:.4f} after epoch {line['best_epoch']}"
            )
            self._shown.note(f"stage {line['name']}: {line['epochs']} epochs{best}")


class RunCheckpoint:
    """The run's ``last.pt``: written between epochs, and before an interrupted run ends.

    Args:
        run: whose checkpoint it is.
        stops: asked after every epoch.
        every: steps between two checkpoints; 0 is after every epoch, unless the last one is only seconds old.
    """

    def __init__(self, run: RunFolder, stops: StopRequests, every: int) -> None:
        self._run, self._stops, self._every = run, stops, every
        self._step, self._time = 0, time.monotonic()

    def restore(self) -> State | None:
        """The state to go on from; what was logged after it is forgotten, for it will be logged again."""
        if not self._run.last_checkpoint.exists():
            return None
        held = read_state(self._run.last_checkpoint)
        self._step = int(held["step"])
        self._run.rewind_history(self._step)
        state: State = held["fit"]
        return state

    def save(self, step: int, state: Callable[[], State]) -> None:
        """Write the state where it is time to, or where somebody asked to stop.

        Raises:
            Interrupted: after writing, if a stop was requested.
        """
        stop = self._stops.requested
        due = step - self._step >= self._every if self._every else time.monotonic() - self._time >= _LEAST_SECONDS
        if not (stop or due):
            return
        write_state(self._run.last_checkpoint, {"step": step, "fit": state()})
        self._step, self._time = step, time.monotonic()
        if stop:
            self._run.set_state("interrupted")
            raise Interrupted(self._run.last_checkpoint, step)


def check_predictor(network: nn.Module, data: PreparedUplift) -> None:
    """Refuse weights from a training across environments if they predict nothing.

    Raises:
        NullPredictor: naming the outcome.
    """
    rows, scale = data.train, data.scales.outcome
    with torch.no_grad():
        outcome = network(*rows.inputs)[0].gather(1, rows.treatment[:, None])[:, 0].double().numpy()
    predictions = sigmoid(outcome) if scale.kind == "binary" else outcome
    refuse_null_predictor(rows.outcome.numpy(), predictions, rows.weight.numpy(), scale.kind, scale.name)


def finish(run: RunFolder, network: nn.Module, report: FitReport, data: PreparedUplift) -> None:
    """Keep the weights, and write the summary and the plots."""
    write_state(run.best_checkpoint, {"network": network.state_dict(), "step": report.steps})
    rows = sum(line["rows"] for line in run.history() if line["kind"] == "epoch")
    write_json(
        run.metrics_file,
        {
            "best": {"valid": {stage.name: stage.best for stage in report.stages if stage.best is not None}},
            "stages": [asdict(stage) for stage in report.stages],
            "epochs": sum(stage.epochs for stage in report.stages),
            "steps": report.steps,
            "seconds": round(report.seconds, 3),
            "rows_per_second": round(rows / max(report.seconds, 1e-9), 1),
            "warnings": list(data.warnings),
        },
    )
    write_uplift_plots(run)
    run.set_state("finished")
