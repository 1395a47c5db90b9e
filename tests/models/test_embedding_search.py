"""The search for embedding widths: what is found, and that pruning changes no score."""

from dataclasses import replace

import pytest
import torch

from models.catalog import CATALOG
from models.ctr import DIENModel, DINModel
from models.ctr.fields import Inputs
from models.ctr.network import SequenceModel
from models.ctr.search import EmbeddingSearch
from tests.graph.cases import dien, din
from tests.models.examples import lively, random_inputs


def searching(**options: object) -> SequenceModel:
    model = lively(DINModel, din("sum", nas=EmbeddingSearch(**options)))
    assert isinstance(model, SequenceModel)
    return model


def choose(model: SequenceModel, table: str, choice: int) -> None:
    search = model.frame.reader.search
    assert search is not None
    with torch.no_grad():
        search.layer.alpha[search.layer.segment_names.index(table)][choice] += 5.0


@pytest.mark.parametrize("share", ["left", "diff"])
def test_pruned_tables_are_narrow_and_give_the_same_logits(share: str) -> None:
    model = searching(sizes={"item": (1, 2, 4), "genre": (2, 4)}, share=share)
    assert model.selected_sizes() == {"item": 4, "genre": 4}  # an untrained search takes the whole table
    choose(model, "item", 1)
    choose(model, "genre", 0)
    assert model.selected_sizes() == {"item": 2, "genre": 2}
    inputs = random_inputs(model.config.layout, 3, 4, 5)
    with torch.no_grad():
        before = model(*inputs)
        after = model.finalize()(*inputs)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    item, genre, kind, job = (table.weight.shape[1] for table in model.frame.reader.embedding.tables)
    assert (genre, kind, job) == (2, 2, 3)
    assert item == (2 if share == "left" else 1)  # ``diff`` keeps what the wider choice adds alone
    assert model.selected_sizes() == {}
    assert not any("search" in name for name in model.state_dict())


def test_a_dropped_table_keeps_one_column_of_zeros() -> None:
    model = searching(allow_drop=True)
    assert model.selected_sizes() == {"item": 4, "genre": 4}
    choose(model, "item", 0)
    inputs = list(random_inputs(model.config.layout, 3, 4, 5))
    with torch.no_grad():
        before = model(*inputs)
        after = model.finalize()(*inputs)
        inputs[2] = inputs[2].clone()
        inputs[2][..., 0] = 7
        torch.testing.assert_close(model(*inputs), after)  # which item it is matters no more
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert model.frame.reader.embedding.tables[0].weight.shape[1] == 1


def test_soft_weights_are_folded_into_the_table() -> None:
    model = searching(sizes={"item": (2, 4)}, gradient="none")
    inputs = random_inputs(model.config.layout, 3, 4, 5)
    with torch.no_grad():
        before = model(*inputs)
        torch.testing.assert_close(model.finalize()(*inputs), before, rtol=0, atol=1e-6)


def test_finalize_without_a_search_changes_nothing() -> None:
    model = lively(DINModel, CATALOG["din"].tiny())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert isinstance(model, SequenceModel)
    assert all(torch.equal(value, state[name]) for name, value in model.finalize().state_dict().items())


def test_negatives_are_read_with_the_widths_of_the_positives() -> None:
    torch.manual_seed(0)
    config = dien("AUGRU", "mlp", use_negsampling=True, nas=EmbeddingSearch(sizes={"item": (1, 4), "genre": (1, 4)}))
    model = DIENModel(config).train()
    inputs = random_inputs(config.layout, 4, 1, 5)
    reader = model.frame.reader
    seen: list[torch.Tensor] = []
    for _ in range(20):
        vectors = reader(Inputs(*inputs))
        again = reader.behaviours(inputs[4], vectors.scales)
        torch.testing.assert_close(again[0], vectors.behaviours[0])
        seen.append(vectors.scales[0])
    assert len({tuple(scale.tolist()) for scale in seen}) == 2  # both widths were drawn


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": {"itm": (2, 4)}}, "nas.sizes: table must be one of .*, got 'itm'"),
        ({"sizes": {"item": (2, 3)}}, "nas.sizes.item must increase from at least 1 to the table's width 4"),
        ({"sizes": {"item": (4, 2)}}, "nas.sizes.item must increase"),
        ({"sizes": {"item": ()}}, "nas.sizes.item must increase"),
        ({"share": "none"}, "share must be one of left, diff; got 'none'"),
        ({"gradient": "soft"}, "weight_grad_mode must be one of"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ],
)
def test_mistakes_name_the_argument(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        searching(**options)


def test_narrow_tables_are_not_searched() -> None:
    layout = CATALOG["din"].tiny().layout
    small = replace(layout, tables=tuple(replace(table, dim=3) for table in layout.tables))
    with pytest.raises(ValueError, match="at least one table must have 4 columns"):
        DINModel(din("sum", layout=small, nas=EmbeddingSearch()))
