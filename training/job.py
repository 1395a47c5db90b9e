"""What the training loop of the click networks holds: built at the start, saved, and restored."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import nn

from training.checkpoint import Position, position_of, read_state, restore_generators, save_checkpoint
from training.config import TrainingConfig
from training.errors import ConfigError
from training.invariance import Invariance, build_invariance
from training.network import TrainingForward, build_network, load_weights, table_weights
from training.objectives.weighting import TaskWeighting, build_weighting, shared_parameters
from training.optimisation import AveragedWeights, build_optimizer, parameter_groups
from training.preparation import Prepared
from training.run import RunFolder


@dataclass(slots=True)
class Job:
    """What the loop holds.

    Attributes:
        network: the bare network; ``forward`` wraps it for the devices in use.
        average: exponential average of the weights, or None.
        evaluated: a second copy of the network that carries the weights to be validated and kept.
        weighting: how the tasks' losses become one.
        shared: parameters at which the tasks' gradients are compared, where the weighting asks for them.
        invariance: the objective over environments, where the configuration has one.
    """

    config: TrainingConfig
    run: RunFolder
    data: Prepared
    accelerator: Accelerator
    network: nn.Module
    forward: nn.Module
    optimizer: Any
    average: AveragedWeights | None
    evaluated: nn.Module
    weighting: TaskWeighting
    shared: list[nn.Parameter]
    position: Position
    invariance: Invariance | None = None


def build_job(config: TrainingConfig, run: RunFolder, data: Prepared) -> Job:
    """Network, optimiser and average at their start.

    Raises:
        ConfigError: if the network or its weight decay does not fit the data's declaration, or the weighting of the
            tasks does not fit the network.
    """
    settings = config.train
    accelerator = Accelerator(
        cpu=settings.device == "cpu", mixed_precision="bf16" if settings.mixed_precision else "no"
    )
    network = build_network(config.model.network, data.options)
    try:
        tables = table_weights(network, data.options)
        groups = parameter_groups(network, tables, settings.weight_decay, settings.learning_rate_scale)
    except ValueError as error:
        raise ConfigError(f"train.{error}") from error
    weighting, shared = build_task_weighting(config, data, network, accelerator.num_processes)
    if learned := list(weighting.parameters()):
        groups.append({"params": learned, "weight_decay": 0.0, "rate_scale": 1.0, "name": "task weights"})
    optimizer = build_optimizer(settings.optimizer, groups, settings.learning_rate)
    average = AveragedWeights(network, settings.ema_decay) if settings.ema_decay > 0 else None
    evaluated = copy.deepcopy(network).to(accelerator.device)
    forward, optimizer = accelerator.prepare(TrainingForward(network), optimizer)
    return Job(
        config=config,
        run=run,
        data=data,
        accelerator=accelerator,
        network=network,
        forward=forward,
        optimizer=optimizer,
        average=average,
        evaluated=evaluated,
        weighting=weighting.to(accelerator.device),
        shared=shared,
        position=Position(),
        invariance=build_invariance(config, data.environments, data.batches.per_epoch, accelerator.num_processes),
    )


def build_task_weighting(
    config: TrainingConfig, data: Prepared, network: nn.Module, processes: int
) -> tuple[TaskWeighting, list[nn.Parameter]]:
    """How the tasks' losses are added, and the shared parameters that it looks at.

    Raises:
        ConfigError: if learned weights do not fit the network or the rest of the configuration.
    """
    settings, teaching = config.train, data.teaching
    weighting = build_weighting(settings.task_weighting, teaching.tasks, teaching.taught, settings.task_weights)
    if settings.task_weighting == "fixed":
        return weighting, []
    key = f"train.task_weighting = {settings.task_weighting!r}"
    if config.invariance is not None:
        raise ConfigError(f"{key} and [invariance] exclude each other: its objective adds the tasks by itself")
    if processes > 1:
        raise ConfigError(f"{key} needs one process: weights learned in several would drift apart")
    shared = shared_parameters(network) if settings.task_weighting == "gradnorm" else []
    if settings.task_weighting == "gradnorm" and not shared:
        raise ConfigError(f"{key} compares gradients at shared layers, and this network has none")
    return weighting, shared


def save(job: Job) -> None:
    """Write the checkpoint that ``resume`` starts from."""
    if not job.accelerator.is_main_process:
        return
    parts = {"network": job.network.state_dict(), "optimizer": job.optimizer.state_dict()}
    parts["weighting"] = job.weighting.state_dict()
    if job.average is not None:
        parts["average"] = job.average.state_dict()
    if job.invariance is not None:
        parts["invariance"] = job.invariance.state_dict()
    save_checkpoint(job.run.last_checkpoint, parts, job.position)


def restore(job: Job) -> None:
    """Go back to the last checkpoint; what was logged after it is forgotten, for it will be logged again."""
    state = read_state(job.run.last_checkpoint)
    load_weights(job.network, state["network"])
    job.optimizer.load_state_dict(state["optimizer"])
    job.weighting.load_state_dict(state["weighting"])
    if job.average is not None:
        job.average.load_state_dict(state["average"])
    if job.invariance is not None:
        job.invariance.load_state_dict(state["invariance"])
    job.position = position_of(state)
    job.run.rewind_history(job.position.step)
    restore_generators(state["generators"])
