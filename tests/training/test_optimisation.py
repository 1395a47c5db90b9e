"""Parameter groups, schedules and the average of the weights."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from training.optimisation import (
    AveragedWeights,
    build_optimizer,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({"item": nn.Embedding(5, 3, padding_idx=0), "genre": nn.Embedding(4, 3)})
        self.dense = nn.Linear(3, 2)
        self.alpha = nn.Parameter(torch.ones(2))
        self.norm = nn.BatchNorm1d(2)


def group_names(network: Small, decay: dict[str, float]) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{group['name']}={group['weight_decay']}": {names[id(member)] for member in group["params"]}
        for group in parameter_groups(network, weights(network), decay)
    }


def weights(network: Small) -> dict[str, list[nn.Parameter]]:
    return {name: list(table.parameters()) for name, table in network.tables.items()}


def test_tables_decay_by_their_own_rate_and_vectors_never() -> None:
    assert group_names(Small(), {"item": 0.05, "default": 0.01}) == {
        "item=0.05": {"tables.item.weight"},
        "genre=0.01": {"tables.genre.weight"},
        "default=0.01": {"dense.weight"},
        "vectors=0.0": {"dense.bias", "alpha", "norm.weight", "norm.bias"},
    }


def test_every_parameter_is_in_exactly_one_group() -> None:
    network = Small()
    members = [p for group in parameter_groups(network, weights(network), {"genre": 0.1}) for p in group["params"]]
    assert len(members) == len({id(p) for p in members}) == len(list(network.parameters()))


def test_a_decay_for_an_unknown_table_names_the_tables() -> None:
    with pytest.raises(
        ValueError, match=r"weight_decay: 'itme' is not a table of the network, expected one of \['genre', 'item'\]"
    ):
        parameter_groups(Small(), weights(Small()), {"itme": 0.1})


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_padding_row_stays_zero_under_weight_decay_and_averaging(name: str) -> None:
    torch.manual_seed(0)
    network = Small()
    optimizer = build_optimizer(name, parameter_groups(network, weights(network), {"item": 0.5}), 0.1)
    average = AveragedWeights(network, 0.9)
    for _ in range(5):
        loss = network.tables["item"](torch.tensor([0, 1, 2])).sum() ** 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(network)
    for weight in (network.tables["item"].weight, average.values["tables.item.weight"]):
        assert torch.equal(weight[0], torch.zeros(3))
        assert torch.all(weight[1] != 0)


def test_a_table_may_learn_faster_than_the_rest() -> None:
    network = Small()
    optimizer = build_optimizer("sgd", parameter_groups(network, weights(network), {}, {"item": 4.0}), 0.1)
    set_learning_rate(optimizer, 0.01)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"item": 0.04, "genre": 0.01, "default": 0.01, "vectors": 0.01}
    with pytest.raises(ValueError, match="learning_rate_scale: 'films' is not a table"):
        parameter_groups(network, weights(network), {}, {"films": 2.0})


def test_one_cycle_rises_to_one_and_falls_to_almost_nothing() -> None:
    factors = [learning_rate_factor("one_cycle", step, 100, 0.3) for step in range(101)]
    assert factors[0] == pytest.approx(0.04)
    assert factors[30] == 1.0
    assert max(factors) == 1.0
    assert all(a < b for a, b in itertools.pairwise(factors[:31]))
    assert all(a > b for a, b in itertools.pairwise(factors[30:]))
    assert factors[100] == pytest.approx(1e-4)


def test_constant_and_cosine() -> None:
    assert {learning_rate_factor("constant", step, 10, 0.0) for step in range(11)} == {1.0}
    assert learning_rate_factor("constant", 0, 10, 0.5) == pytest.approx(1 / 6)
    assert learning_rate_factor("cosine", 5, 10, 0.0) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 10, 10, 0.0) == pytest.approx(0.0)


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    average = AveragedWeights(network, 0.5)
    expected = 1.0
    for step, value in enumerate([3.0, -1.0, 2.0], start=1):
        with torch.no_grad():
            network.weight.fill_(value)
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert float(average.values["weight"]) == pytest.approx(expected)
    assert math.isfinite(expected)
