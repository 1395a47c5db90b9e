"""Random inputs and networks for the tests of models and graphs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.inputs import IdField, InputLayout


def random_inputs(
    layout: InputLayout, users: int, candidates: int, steps: int, seed: int = 0, lengths: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    """The seven tensors: histories right padded, a random length each unless given."""
    generator = torch.Generator().manual_seed(seed)
    rows = {table.name: table.rows for table in layout.tables}
    widths = layout.widths()

    def ids(fields: Sequence[IdField], width: int, *lead: int) -> Tensor:
        packed = torch.zeros(*lead, width, dtype=torch.int64)
        for field in fields:
            lowest = 1 if field.width == 1 else 0  # a multi-valued field may have fewer values than columns
            values = torch.randint(lowest, rows[field.table], (*lead, field.width), generator=generator)
            packed[..., field.column : field.column + field.width] = values
        return packed

    def numbers(width: int, *lead: int) -> Tensor:
        return torch.randn(*lead, width, generator=generator)

    drawn = torch.randint(0, steps + 1, (users, layout.streams), generator=generator)
    if lengths is not None:
        drawn = torch.tensor(lengths).unsqueeze(1).expand(-1, layout.streams)
    mask = torch.arange(steps).view(1, -1, 1) < drawn.unsqueeze(1)
    behaviours = ids(layout.behaviour_ids, widths["behaviour_ids"], users, steps)
    for field in layout.behaviour_ids:
        behaviours[..., field.column : field.column + field.width] *= mask[..., field.stream].unsqueeze(-1)
    return (
        ids(layout.user_ids, widths["user_ids"], users),
        numbers(widths["user_numbers"], users),
        ids(layout.candidate_ids, widths["candidate_ids"], users, candidates),
        numbers(widths["candidate_numbers"], users, candidates),
        behaviours,
        numbers(widths["behaviour_numbers"], users, steps),
        mask,
    )


def lively(build: Any, config: Any, seed: int = 0) -> nn.Module:
    """A network in evaluation mode whose every parameter is random and whose logits vary by about one."""
    torch.manual_seed(seed)
    model: nn.Module = build(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "bias_ih", "bias_hh", "alpha", "intercept")):
                parameter.normal_(0.1, 0.2)
            if "tables" in name:
                parameter.normal_(0.0, 0.7)
                parameter[0].zero_()
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        spread = model(*random_inputs(config.layout, 20, 10, 6, seed=1)).std(dim=(0, 1))
        for kernel, share in zip(_heads(model), _shares(model, spread), strict=True):
            kernel.mul_(1.0 / share)
    return model


def _heads(model: nn.Module) -> list[nn.Parameter]:
    """The last kernels: one for all tasks, or one a task."""
    tower = model.get_submodule("frame.tower")
    names = [name for name, _ in tower.named_modules() if name.split(".")[-1] == "head"]
    return [tower.get_submodule(name).get_parameter("kernel") for name in names]


def _shares(model: nn.Module, spread: Tensor) -> Sequence[Tensor]:
    heads = _heads(model)
    return [spread] if len(heads) == 1 else list(spread)
