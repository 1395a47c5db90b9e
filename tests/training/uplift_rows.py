"""Rows of users with numbers alone, for the tests of uplift objectives."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models.catalog import UPLIFT_CATALOG
from models.inputs import InputLayout, NumberField
from training.uplift.rows import UpliftRows


def number_layout(columns: int) -> InputLayout:
    return InputLayout(user_numbers=tuple(NumberField(name=f"x{i}", column=i) for i in range(columns)))


def rows_of(numbers: Tensor, treatment: Tensor, outcome: Tensor, weight: Tensor | None = None) -> UpliftRows:
    """Rows whose users have numbers and nothing else."""
    count = len(treatment)
    return UpliftRows(
        inputs=(
            torch.zeros(count, 0, dtype=torch.int64),
            numbers.float(),
            torch.zeros(count, 0, 0, dtype=torch.int64),
            torch.zeros(count, 0, 0),
            torch.zeros(count, 0, 1, dtype=torch.bool),
        ),
        treatment=treatment.long(),
        dose=torch.zeros(count),
        outcome=outcome.float(),
        weight=torch.ones(count) if weight is None else weight,
        environment=torch.zeros(count, dtype=torch.int64),
    )


def random_rows(count: int, columns: int = 3, arms: int = 3, seed: int = 0, binary: bool = False) -> UpliftRows:
    generator = torch.Generator().manual_seed(seed)
    outcome = torch.randn(count, generator=generator)
    return rows_of(
        torch.randn(count, columns, generator=generator),
        torch.randint(0, arms, (count,), generator=generator),
        (outcome > 0).float() if binary else outcome,
        torch.rand(count, generator=generator) + 0.5,
    )


def small_network(name: str, columns: int = 3, arms: int = 3, **options: Any) -> Any:
    """A network of the catalogue in its small form over ``columns`` numbers, always with the same weights."""
    entry = UPLIFT_CATALOG[name]
    names = ("control", "letter", "call")[:arms]
    config = replace(entry.tiny(), layout=number_layout(columns), treatments=names, **options)
    torch.manual_seed(0)
    return entry.model(config)
