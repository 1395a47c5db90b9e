"""Checkpoints: one file, replaced atomically, loaded without unpickling code.

A file is what ``torch.save`` writes for tensors and plain values, and is only ever read with ``weights_only=True``.
The order of rows, the drawn negatives and the dropped histories are functions of (seed, epoch, batch): see
``training.batches``. Their state is therefore the position that the checkpoint holds; torch's generators (dropout) and
Python's and NumPy's global ones, which a network or a library might use, are saved beside it.
"""

from __future__ import annotations

import io
import random
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from training.errors import RunError
from training.run import write_bytes

CHECKPOINT_SCHEMA: Final = 1


@dataclass(slots=True)
class Position:
    """Where a run stands, and what it must remember of the way there.

    Attributes:
        epoch: the epoch in progress, from 0.
        batch: batches of this epoch already stepped.
        step: optimiser steps since the start.
        rows: rows stepped in this epoch.
        loss_sum: sum over these rows of their batch's loss.
        auxiliary_sum: the same of the auxiliary loss.
        best: best value of the monitored metric, larger is better; None before the first validation.
        best_step: the step that reached it.
        stale: validations since then.
        finished: no step is left: every epoch was run, or patience ran out.
        seconds: spent in the loop so far.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rows: int = 0
    loss_sum: float = 0.0
    auxiliary_sum: float = 0.0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    seconds: float = 0.0


def save_checkpoint(path: Path, parts: dict[str, Any], position: Position) -> None:
    """Write the state dicts in ``parts``, the position and every generator's state.

    A kill at any instant leaves either the previous file or this one.
    """
    write_state(path, {**parts, "position": asdict(position), "generators": generator_states()})


def write_state(path: Path, state: dict[str, Any]) -> None:
    """``torch.save`` through a temporary sibling, fsynced and renamed."""
    buffer = io.BytesIO()
    torch.save({"schema": CHECKPOINT_SCHEMA, **state}, buffer)
    write_bytes(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """Read what ``write_state`` wrote.

    Raises:
        RunError: if the file is absent, torn, holds anything but tensors and plain values, or is of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist: the run wrote no checkpoint") from error
    # Damaged bytes make the restricted unpickler fail in any way at all: IndexError, KeyError, RuntimeError and more.
    except Exception as error:
        raise RunError(f"{path} is not a readable checkpoint: {first_line(error)}") from error
    if not isinstance(state, dict) or state.get("schema") != CHECKPOINT_SCHEMA:
        raise RunError(f"{path} is not a checkpoint of schema version {CHECKPOINT_SCHEMA}")
    return state


def first_line(error: BaseException) -> str:
    """An error in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def position_of(state: dict[str, Any]) -> Position:
    """The position in a checkpoint; keys of a newer minor version are ignored."""
    known = {f.name for f in fields(Position)}
    return Position(**{key: value for key, value in state["position"].items() if key in known})


def generator_states() -> dict[str, Any]:
    """States of torch's, NumPy's and Python's global generators as tensors and plain values."""
    numpy_state = np.random.get_state(legacy=False)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "keys": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "place": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "python": list(random.getstate()[1]),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """Put back what ``generator_states`` took."""
    torch.set_rng_state(states["torch"])
    numpy_state = states["numpy"]
    keys = numpy_state["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, numpy_state["place"], numpy_state["has_gauss"], numpy_state["gauss"]))
    random.setstate((3, tuple(states["python"]), None))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
