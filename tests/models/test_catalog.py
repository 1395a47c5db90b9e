"""Every network of the catalogue against every promise."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.catalog import CATALOG
from models.inputs import INPUT_NAMES, InputLayout
from tests.graph.cases import CASES
from tests.models.examples import lively, random_inputs
from training.graph.upstream_noise import silenced

NETWORKS = sorted(CASES)
# The softmax of an attention does not see a shift of its scores.
WITHOUT_GRADIENT = ("attention.fc.bias",)


def network(name: str) -> tuple[Any, nn.Module]:
    build, config = CASES[name]
    return config, lively(build, config)


def padded(inputs: tuple[Tensor, ...], columns: int) -> tuple[Tensor, ...]:
    """Twenty more steps that are not real; their numbers are not zero."""
    ids, numbers, mask = inputs[4:]
    more = (ids.shape[0], columns)
    return (
        *inputs[:4],
        torch.cat([ids, torch.zeros(*more, ids.shape[2], dtype=ids.dtype)], 1),
        torch.cat([numbers, torch.full((*more, numbers.shape[2]), 1e3)], 1),
        torch.cat([mask, torch.zeros(*more, mask.shape[2], dtype=torch.bool)], 1),
    )


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_tiny_configs_round_trip_and_name_the_bad_key(name: str) -> None:
    entry = CATALOG[name]
    config = entry.tiny()
    values = json.loads(json.dumps(config.to_dict()))
    assert entry.config.from_dict(values) == config
    for change, key in (
        ({"no_such": 1}, "no_such"),
        ({"tasks": []}, "tasks"),
        ({"tasks": "ctr"}, "tasks"),
        ({"mlp_dropout": 1.5}, "mlp_dropout"),
        ({"history_pooling": [{"history": "nowhere"}]}, "history_pooling"),
        ({"fold_in": [{"histry": "hist_item"}]}, "histry"),
        ({"attention_groups": [{"name": "g", "pairs": [{"ad": "item"}]}]}, "pos_hist"),
        ({"layout": {"tables": [{"name": "item", "rows": 1, "dim": 4}]}}, "rows"),
    ):
        with pytest.raises(ValueError, match=key):
            entry.config.from_dict({**values, **change})


@pytest.mark.parametrize("name", NETWORKS)
def test_configs_of_every_option_round_trip(name: str) -> None:
    config = CASES[name][1]
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert InputLayout.from_dict(json.loads(json.dumps(config.layout.to_dict()))) == config.layout


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("users", "candidates", "steps"), [(1, 1, 1), (1, 4, 3), (3, 2, 5), (0, 2, 3), (2, 3, 0)])
def test_logits_have_one_column_a_task(name: str, users: int, candidates: int, steps: int) -> None:
    config, model = network(name)
    inputs = random_inputs(config.layout, users, candidates, steps)
    for training in (False, True):
        logits = model.train(training)(*inputs)
        assert logits.shape == (users, candidates, len(config.tasks))
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()


def read_tables(config: Any) -> set[str]:
    """Tables that the network looks into: a history field without attention, pooling or fold-in is not read."""
    layout = config.layout
    names = {field for group in config.attention_groups for field in group.histories}
    if set(getattr(config, "sequence", ["its own"])) != {"pooling"}:
        names |= {field for group in config.attention_groups for field in group.extras}
    if not getattr(config, "sequence", ["its own"]):
        names = set()
    names |= {entry.history for entry in (*config.history_pooling, *config.fold_in)}
    fields = (*layout.user_ids, *layout.candidate_ids, *(f for f in layout.behaviour_ids if f.name in names))
    return {field.table for field in fields}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_parameter(name: str) -> None:
    config, model = network(name)
    inputs = random_inputs(config.layout, 12, 2, 6, seed=4)
    logits, auxiliary = model.train().training_outputs(*inputs, random_inputs(config.layout, 12, 2, 6, seed=5)[4])
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    ((logits * weights).sum() + auxiliary).backward()
    read = read_tables(config)
    unread = {f"tables.{i}.weight" for i, table in enumerate(config.layout.tables) if table.name not in read}
    for key, parameter in model.named_parameters():
        if key.removeprefix("frame.reader.embedding.") in unread:
            assert parameter.grad is None, key
            continue
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0 or key.endswith(WITHOUT_GRADIENT), key


@pytest.mark.parametrize("name", NETWORKS)
def test_network_overfits_eight_rows(name: str) -> None:
    build, config = CASES[name]
    torch.manual_seed(0)
    model = build(replace(config, embedding_dropout=0.0)).train()
    inputs = random_inputs(config.layout, 8, 1, 6, seed=2, lengths=[6, 5, 4, 3, 2, 1, 6, 0])
    labels = torch.tensor([0.0, 1, 1, 0, 1, 0, 0, 1]).view(8, 1, 1).expand(-1, -1, len(config.tasks))
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(80):
        logits, _ = model.training_outputs(*inputs, inputs[4])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05


@pytest.mark.parametrize("name", NETWORKS)
def test_same_seed_same_weights_and_state_survives(name: str) -> None:
    build, config = CASES[name]
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(build(config))
    first, second, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    models[2].load_state_dict(first)
    inputs = random_inputs(config.layout, 2, 3, 4)
    assert torch.equal(models[2].eval()(*inputs), models[0].eval()(*inputs))


@pytest.mark.parametrize("name", NETWORKS)
def test_users_and_candidates_alone_equal_those_in_a_batch(name: str) -> None:
    config, model = network(name)
    inputs = random_inputs(config.layout, 3, 5, 6)
    with torch.no_grad():
        whole = model(*inputs)
        for user in range(3):
            row = [tensor[user : user + 1] for tensor in inputs]
            torch.testing.assert_close(model(*row), whole[user : user + 1], rtol=0, atol=1e-6)
            row[2], row[3] = row[2][:, 4:], row[3][:, 4:]
            torch.testing.assert_close(model(*row), whole[user : user + 1, 4:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_twenty_padding_columns_change_no_score_and_no_statistic(name: str, training: bool) -> None:
    config, model = network(name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inputs = random_inputs(config.layout, 6, 1, 5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    plain = model.train(training)(*inputs)
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(before)
    torch.manual_seed(0)
    torch.testing.assert_close(model(*padded(inputs, 20)), plain, rtol=0, atol=1e-6)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, statistics[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_scripted_network_trains_too(name: str) -> None:
    config, model = network(name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with silenced():
        scripted = torch.jit.script(model.train())
    inputs = random_inputs(config.layout, 4, 3, 5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    expected = model(*inputs)
    model.load_state_dict(before)
    torch.manual_seed(0)
    torch.testing.assert_close(scripted(*inputs), expected, rtol=1e-4, atol=1e-5)


def test_auxiliary_loss_needs_negatives_and_ignores_padding() -> None:
    config, model = network("dien-augru-bilinear")
    inputs = random_inputs(config.layout, 4, 1, 6)
    negatives = random_inputs(config.layout, 4, 1, 6, seed=9)[4]
    with pytest.raises(ValueError, match="negative_behaviour_ids must be given"):
        model.training_outputs(*inputs)
    logits, loss = model.training_outputs(*inputs, negatives)
    torch.testing.assert_close(logits, model(*inputs))
    spoiled = negatives.clone()
    spoiled[~inputs[6][..., 0]] = 1
    torch.testing.assert_close(model.training_outputs(*inputs, spoiled)[1], loss)
    assert float(loss.detach()) > 0


def test_layout_gives_the_widths_of_all_inputs() -> None:
    widths = CATALOG["dien"].tiny().layout.widths()
    assert tuple(widths) == INPUT_NAMES
    assert list(widths.values()) == [1, 2, 3, 1, 4, 1, 1]
