"""The training loop of the click networks, top to bottom: batch, forward, loss, backward, step, log.

Networks of treatment effects are trained by a plan of stages: training/uplift/train.py.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor

from models.layers.logits import LogitCorrection
from training.batches import Batch
from training.checkpoint import Position, read_state, write_state
from training.config import TrainingConfig
from training.errors import Diverged, Interrupted
from training.health import collapsed_gates, health
from training.interrupts import StopRequests
from training.job import Job, build_job, restore, save
from training.network import load_weights
from training.objectives.click import with_auxiliary
from training.optimisation import AveragedWeights, learning_rate_factor, set_learning_rate
from training.preparation import open_run, prepare, write_first_index
from training.progress import TrainingProgress, open_progress
from training.report import write_run_plots
from training.run import RunFolder, finite, write_json
from training.threads import torch_threads
from training.uplift.train import train_uplift
from training.validation import monitored, note_result, validate

LOG_LINES_PER_EPOCH = 20


def train(
    config: TrainingConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    progress: bool | None = None,
    config_text: str | None = None,
) -> RunFolder:
    """Train a network and leave a run folder.

    Args:
        config: the whole configuration.
        run_dir: a fresh folder, or with ``resume`` one that holds a run of the same configuration and data.
        resume: go on from the last checkpoint; a run that was killed ends with the weights it would have had.
        progress: True for a bar, False for plain lines, None for a bar where standard error is a terminal.
        config_text: the configuration file as it was, kept beside the resolved one.

    Raises:
        ConfigError, DataError: if the configuration or the data are wrong.
        RunError: if the folder holds another run, or nothing to resume.
        Interrupted: after Ctrl-C or SIGTERM, with the checkpoint written.
        Diverged: if the loss is not a finite number.
        NullPredictor: if training across environments ended with a network that predicts nothing.
    """
    if config.features.kind == "uplift":
        return train_uplift(config, Path(run_dir), resume=resume, progress=progress, config_text=config_text)
    run = open_run(config, Path(run_dir), resume, config_text)
    with torch_threads(config.train.threads):
        set_seed(config.train.seed)
        data = prepare(config, run)
        job = build_job(config, run, data)
        if run.last_checkpoint.exists():
            restore(job)
        else:
            rows = {"train": len(data.batches.lengths), "valid": len(data.valid)}
            write_first_index(run, config, data.dataset, rows, sum(p.numel() for p in job.network.parameters()))
        total = config.train.epochs * data.batches.per_epoch
        with StopRequests() as stops, open_progress(progress, total, job.position.step) as shown:
            run.set_state("running")
            say_what_is_left_out(job, shown)
            run_epochs(job, stops, shown)
        check_predictor(job)
    finish(job)
    return run


def run_epochs(job: Job, stops: StopRequests, shown: TrainingProgress) -> None:
    """The loop. It only ever leaves with a whole state: finished, or saved and Interrupted."""
    settings, position, batches = job.config.train, job.position, job.data.batches
    total_steps = settings.epochs * batches.per_epoch
    log_every = 1 if job.invariance is not None else max(1, batches.per_epoch // LOG_LINES_PER_EPOCH)
    started = time.perf_counter() - position.seconds
    job.forward.train()
    while position.epoch < settings.epochs and not position.finished:
        order = batches.order(position.epoch)
        while position.batch < len(order) and not position.finished:
            rows = order[position.batch][job.accelerator.process_index :: job.accelerator.num_processes]
            batch = batches.build(rows, position.epoch, position.batch).to(job.accelerator.device)
            factor = learning_rate_factor(settings.schedule, position.step, total_steps, settings.warmup)
            set_learning_rate(job.optimizer, settings.learning_rate * factor)
            switch_objective(job)

            logits, auxiliary = job.forward(batch.inputs, batch.negatives)
            logits = sampled_logits(job, logits, batch)
            task_losses = job.data.teaching.losses(logits, batch.labels, batch.weights)
            loss = training_loss(job, logits, batch, task_losses, auxiliary)
            job.accelerator.backward(loss)
            if settings.gradient_clip > 0:
                job.accelerator.clip_grad_norm_(job.forward.parameters(), settings.gradient_clip)
            job.optimizer.step()
            job.optimizer.zero_grad(set_to_none=True)
            if job.average is not None:
                job.average.update(job.network)

            advance(position, task_losses, auxiliary, len(batch), started)
            shown.step(position.step, len(batch), position.loss_sum / position.rows)
            if position.step % log_every == 0:
                log_step(job, factor)
            end_of_epoch = position.batch == len(order)
            if end_of_epoch or is_due(position.step, settings.validate_every):
                check_validation(job, shown)
            if not end_of_epoch and (is_due(position.step, settings.checkpoint_every) or stops.requested):
                save(job)
            if stops.requested and not end_of_epoch:
                leave(job)
        start_next_epoch(position, settings.epochs)
        save(job)
        if stops.requested and not position.finished:
            leave(job)


def say_what_is_left_out(job: Job, shown: TrainingProgress) -> None:
    """Environments and tasks that cannot be trained on: at the terminal, and in the log of a fresh run."""
    notes = [*(job.invariance.environments.warnings if job.invariance is not None else ()), *job.data.teaching.notes]
    for note in notes:
        shown.note(note)
        if job.position.step == 0 and job.accelerator.is_main_process:
            job.run.append_history({"kind": "note", "step": 0, "text": note})


def sampled_logits(job: Job, logits: Tensor, batch: Batch) -> Tensor:
    """Logits of the rows as they were sampled: only in the training mode does the loss see a correction, (B, K)."""
    if job.config.sampling.mode != "training":
        return logits
    correction = LogitCorrection()
    columns = [correction(logits[:, k], batch.rates[:, k]) for k in range(logits.shape[1])]
    return torch.stack(columns, dim=1)


def training_loss(job: Job, logits: Tensor, batch: Batch, task_losses: Tensor, auxiliary: Tensor) -> Tensor:
    """What is minimised: the tasks' losses over the batch, or the objective over its environments; ()."""
    alpha = job.config.train.auxiliary_alpha
    if job.invariance is None:
        return with_auxiliary(job.weighting(task_losses, job.shared), auxiliary, alpha)
    weights = job.weighting.get_buffer("weights")
    return job.invariance.loss(logits, batch, weights, alpha * auxiliary, job.position.step)


def switch_objective(job: Job) -> None:
    """With the step at which the objective over environments is in full force, forget what was only preparation.

    The average of the weights and the best validation begin anew: a warm start often validates better on rows of the
    same environments, and its weights are not what was asked for.
    """
    position = job.position
    if job.invariance is None or not job.invariance.switches_at(position.step):
        return
    job.invariance.switch(job.optimizer)
    if job.average is not None:
        job.average = AveragedWeights(job.network, job.average.decay)
    position.best, position.best_step, position.stale = None, 0, 0


def advance(position: Position, task_losses: Tensor, auxiliary: Tensor, rows: int, started: float) -> None:
    """Take one step into the position.

    Raises:
        Diverged: if the loss is not finite.
    """
    loss, auxiliary_loss = float(task_losses.detach().sum()), float(auxiliary.detach())
    if not math.isfinite(loss + auxiliary_loss):
        raise Diverged(
            f"the loss is {loss} (auxiliary {auxiliary_loss}) at step {position.step + 1}: "
            "lower train.learning_rate or set train.gradient_clip"
        )
    position.step += 1
    position.batch += 1
    position.rows += rows
    position.loss_sum += loss * rows
    position.auxiliary_sum += auxiliary_loss * rows
    position.seconds = time.perf_counter() - started


def start_next_epoch(position: Position, epochs: int) -> None:
    """Move to the start of the next epoch."""
    position.epoch += 1
    position.batch = position.rows = 0
    position.loss_sum = position.auxiliary_sum = 0.0
    position.finished = position.finished or position.epoch >= epochs


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0 = never) happens now."""
    return every > 0 and step % every == 0


def check_validation(job: Job, shown: TrainingProgress) -> None:
    """Validate, keep the weights if they are the best so far, stop if patience has run out."""
    position, settings = job.position, job.config.train
    values = job.network.state_dict() if job.average is None else job.average.values
    load_weights(job.evaluated, values)
    found = validate(job.evaluated, job.data.valid, job.config.sampling)
    task = settings.monitor_task or job.data.teaching.first_task
    best = note_result(position, monitored(settings, found, task))
    line = {
        "kind": "validation",
        "step": position.step,
        "epoch": position.epoch,
        "loss": position.loss_sum / position.rows,
        "auxiliary": position.auxiliary_sum / position.rows,
        "valid": {task: {name: finite(value) for name, value in values.items()} for task, values in found.items()},
        "best": best,
        "seconds": round(position.seconds, 3),
        **health(job),
    }
    if job.accelerator.is_main_process:
        job.run.append_history(line)
        if best:
            write_state(job.run.best_checkpoint, {"network": job.evaluated.state_dict(), "step": position.step})
    for note in collapsed_gates(line):
        shown.note(note)
    shown.validated(position.epoch, position.step, position.loss_sum / position.rows, settings.monitor, found[task])
    prepared = job.invariance is None or job.invariance.in_force(position.step)
    if prepared and settings.patience > 0 and position.stale >= settings.patience:
        position.finished = True
        shown.note(f"stopped early: {settings.monitor} has not risen for {position.stale} validations")


def log_step(job: Job, factor: float) -> None:
    """One line about the epoch so far."""
    position = job.position
    if job.accelerator.is_main_process:
        job.run.append_history(
            {
                "kind": "step",
                "step": position.step,
                "epoch": position.epoch,
                "loss": position.loss_sum / position.rows,
                "auxiliary": position.auxiliary_sum / position.rows,
                "learning_rate": job.config.train.learning_rate * factor,
                "seconds": round(position.seconds, 3),
                **health(job),
                **(job.invariance.log_line() if job.invariance is not None else {}),
            }
        )


def leave(job: Job) -> None:
    """End an interrupted run whose checkpoint has just been written.

    Raises:
        Interrupted: always.
    """
    job.run.set_state("interrupted")
    raise Interrupted(job.run.last_checkpoint, job.position.step)


def check_predictor(job: Job) -> None:
    """Refuse the kept weights of a training across environments if they predict nothing.

    Raises:
        NullPredictor: naming the task.
    """
    if job.invariance is not None and job.accelerator.is_main_process:
        load_weights(job.evaluated, read_state(job.run.best_checkpoint)["network"])
        job.invariance.check(job.evaluated, job.data.train, job.config.sampling)


def finish(job: Job) -> None:
    """Write the summary and the plots of a run that has come to its end."""
    if not job.accelerator.is_main_process:
        return
    validations = [line for line in job.run.history() if line["kind"] == "validation"]
    best = next(line for line in validations if line["step"] == job.position.best_step)
    write_json(
        job.run.metrics_file,
        {
            "best": best,
            "epochs": validations[-1]["epoch"] + 1,
            "steps": job.position.step,
            "seconds": round(job.position.seconds, 3),
            "rows_per_second": round(
                len(job.data.batches.lengths)
                * job.position.step
                / job.data.batches.per_epoch
                / max(job.position.seconds, 1e-9),
                1,
            ),
            "position": {**asdict(job.position), "best": finite(job.position.best or 0.0)},
            "notes": [line["text"] for line in job.run.history() if line["kind"] == "note"],
            **health(job),
        },
    )
    write_run_plots(job.run)
    job.run.set_state("finished")
