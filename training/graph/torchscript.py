"""Eager network to TorchScript; the only file of training that touches ``torch.jit``."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from training.graph.upstream_noise import silenced


def export_torchscript(model: nn.Module, path: Path | str) -> None:
    """Write a network as TorchScript, scripted (not traced), so that it takes any number of users, candidates, steps.

    Args:
        model: takes tensors and returns one, or a tuple of them; left as it was.
        path: of the file.
    """
    # Freezing needs evaluation mode, and turns weights into constants: on a copy.
    ready = copy.deepcopy(model).eval()
    with silenced():
        scripted = torch.jit.freeze(torch.jit.script(ready))
        torch.jit.save(scripted, str(path))


def load_torchscript(source: Path | bytes) -> Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]:
    """Read back what ``export_torchscript`` wrote, to compare it with the network it came from.

    Args:
        source: the file, or its content where it has been verified already.
    """
    with silenced():
        graph: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]] = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(source) if isinstance(source, bytes) else str(source), map_location="cpu"
        ).eval()
    return graph
