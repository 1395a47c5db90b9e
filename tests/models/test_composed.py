"""Networks composed of blocks by name: against slow forms, against the networks they stand for, and their refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.catalog import CATALOG
from models.ctr import CTRConfig, CTRModel, DIENModel, DINModel
from models.ctr.co_action import CANGroup, CANOptions
from models.ctr.crossing import BilinearPairs, Crossing
from models.ctr.crossing_options import CROSSINGS
from models.ctr.dmr import DMRGroup, DMROptions
from models.layers.history import HistoryPooling
from tests.graph.cases import ALL_CROSSINGS, composed, dien, din, features_only
from tests.models.examples import lively, random_inputs


def plain(**options: Any) -> dict[str, Any]:
    return {**CATALOG["ctr"].tiny().to_dict(), **options}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence": ["dinn"]}, "sequence: 'dinn' is not a block; known are can, dien, din, dmr, dsin, pooling"),
        ({"crossing": ["dcm"]}, "crossing: 'dcm' is not a block; known are all_int, autoint, bilinear, cdot, cin, dcn"),
        ({"crossing": "dcn"}, "crossing must be a list of names or a mapping"),
        ({"crossing": ["dcn", "dcn"]}, "crossing must name a block once"),
        ({"crossing": {"dcn": 3}}, "crossing.dcn must be a mapping of options, got 3"),
        ({"crossing": {"dcn": {"layer": 3}}}, "crossing.dcn: .*layer"),
        (
            {"crossing": {"dcn": {"type": "cube"}}},
            "crossing.dcn: type must be one of vector, matrix, mixed; got 'cube'",
        ),
        ({"crossing": {"dcn": {"dropout": 1.0}}}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"crossing": {"cin": {"layers": []}}}, "crossing.cin: layers must name at least one layer"),
        ({"crossing": {"autoint": {"layers": 0}}}, "crossing.autoint: layers must be at least 1, got 0"),
        ({"crossing": {"senet": {"reduction": 0}}}, "reduction must be at least 1, got 0"),
        ({"crossing": {"bilinear": {"product": "sum"}}}, "product must be one of dot, multiply; got 'sum'"),
        ({"crossing": {"group_int": {"product": "sum"}}}, "product must be one of dot, multiply; got 'sum'"),
        ({"crossing": {"all_int": {"compressed": 0}}}, "compressed must be at least 1, got 0"),
        ({"crossing": {"cdot": {"projected": 0}}}, "projected must be at least 1, got 0"),
        ({"cross_dim": 0}, "cross_dim must be at least 1, got 0"),
        ({"sequence": {"din": {"mode": "max"}}}, "sequence.din: mode must be one of sum, softmax; got 'max'"),
        ({"sequence": {"pooling": {"mode": "last"}}}, "mode must be one of"),
        ({"sequence": {"dmr": {"length": 0}}}, "length and score_width must be at least 1, got 0"),
        ({"sequence": {"can": {"layers": 0}}}, "width and layers must be at least 1, got 8 and 0"),
        ({"sequence": ["dsin"]}, "sequence.dsin: .*gap"),
        ({"use_negsampling": True}, "use_negsampling needs the sequence block 'dien'"),
        ({"top": "tree"}, "top: 'tree' is not known; known are mlp, mmoe, shared_bottom, snr"),
        ({"nas": {"size": {}}}, "nas: .*size"),
    ],
)
def test_mistakes_name_the_argument(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CTRConfig.from_dict(plain(**options))


def test_blocks_that_find_no_fields_say_so() -> None:
    with pytest.raises(ValueError, match="group_int needs fields of the user and of the candidate"):
        CTRModel(composed(layout=features_only("user"), attention_groups=[], crossing=["group_int"]))
    with pytest.raises(ValueError, match="at least one user or candidate feature"):
        CTRModel(composed(layout=features_only(), attention_groups=[]))
    with pytest.raises(ValueError, match="crossing needs at least one field"):
        CTRModel(composed(layout=features_only(), attention_groups=[], crossing=["cin"]))
    with pytest.raises(ValueError, match="bilinear needs at least 2 fields, got 1"):
        BilinearPairs(1, 4, "dot")


@pytest.mark.parametrize("name", ["din-sum", "din-softmax", "dien"])
def test_a_composed_network_of_one_block_is_the_network_itself(name: str) -> None:
    config = dien("AUGRU", "bilinear", use_negsampling=True) if name == "dien" else din(name.removeprefix("din-"))
    model = lively(DIENModel if name == "dien" else DINModel, config)
    block: dict[str, Any] = {"dien": {}} if name == "dien" else {"din": {"mode": name.removeprefix("din-")}}
    options = {key: value for key, value in config.to_dict().items() if key != "attention_mode"}
    twin = CTRModel(CTRConfig.from_dict({**options, "sequence": block})).eval()
    twin.load_state_dict(model.state_dict())
    inputs = random_inputs(config.layout, 3, 4, 5)
    negatives = random_inputs(config.layout, 3, 4, 5, seed=7)[4]
    assert torch.equal(twin(*inputs), model(*inputs))
    for ours, theirs in zip(
        twin.training_outputs(*inputs, negatives), model.training_outputs(*inputs, negatives), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_pooling_is_history_pooling_of_every_pair() -> None:
    by_block = lively(CTRModel, composed(sequence={"pooling": {"mode": "recent", "half_life": 2.0}}))
    pooled = tuple(
        HistoryPooling(history=history, mode="recent", candidate=candidate, half_life=2.0)
        for candidate, history in (("item", "hist_item"), ("genres", "hist_genres"))
    )
    twin = CTRModel(replace(composed(), history_pooling=pooled)).eval()
    twin.load_state_dict(by_block.state_dict())
    inputs = random_inputs(by_block.config.layout, 3, 4, 5)
    assert torch.equal(twin(*inputs), by_block(*inputs))


def group_inputs(config: CTRConfig) -> tuple[list[Tensor], list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    layout = config.layout
    dims = {table.name: table.dim for table in layout.tables}
    candidates = [draw(3, 4, dims[field.table]) for field in layout.candidate_ids]
    behaviours = [draw(3, 6, dims[field.table]) for field in layout.behaviour_ids] + [draw(3, 6, 1)]
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]]).bool().unsqueeze(-1)
    return candidates, behaviours, mask


def test_dmr_sums_the_newest_steps_with_positions_from_the_newest() -> None:
    config = composed()
    torch.manual_seed(0)
    group = DMRGroup(config.layout, config.attention_groups[0], DMROptions(length=4, score_width=3))
    candidates, behaviours, mask = group_inputs(config)
    found, _ = group(candidates, behaviours, mask)
    query = group.fields.query(candidates)
    steps = group.fields.keys(behaviours) + group.extras(group.fields.extras(behaviours))
    for user in range(3):
        real = [step for step in range(6) if mask[user, step, 0]][::-1][:4]
        for candidate in range(4):
            target, newest = query[user, candidate : candidate + 1], steps[user : user + 1, real]
            expected = group.relevance(target, newest) if real else group.relevance.linear(torch.zeros(1, 8)) * target
            torch.testing.assert_close(found[user, candidate], expected[0])


def test_can_sends_every_step_through_the_candidates_network() -> None:
    config = composed()
    torch.manual_seed(0)
    group = CANGroup(config.layout, config.attention_groups[0], CANOptions(width=3, layers=2, activation="tanh"))
    candidates, behaviours, mask = group_inputs(config)
    found, _ = group(candidates, behaviours, mask)
    query, keys = group.fields(candidates, behaviours)
    steps, networks = group.steps(keys), group.network(query)
    for user, candidate in np.ndindex(3, 4):
        total = torch.zeros(3)
        for step in range(6):
            if mask[user, step, 0]:
                x = steps[user, step]
                for weights in networks[user, candidate].view(2, 12):
                    x = torch.tanh(x @ weights[:9].view(3, 3) + weights[9:])
                total = total + x
        torch.testing.assert_close(found[user, candidate], total / max(1, int(mask[user].sum())))


@pytest.mark.parametrize("product", ["dot", "multiply"])
def test_bilinear_products_are_those_of_a_loop_over_pairs(product: str) -> None:
    torch.manual_seed(0)
    layer = BilinearPairs(4, 3, product)
    fields = torch.randn(5, 4, 3)
    pairs = [(fields[:, i] @ layer.map.kernel) * fields[:, j] for i in range(4) for j in range(i + 1, 4)]
    expected = torch.stack([pair.sum(1) for pair in pairs], 1) if product == "dot" else torch.cat(pairs, 1)
    torch.testing.assert_close(layer(fields), expected)


def test_crossing_works_on_the_fields_of_each_candidate() -> None:
    torch.manual_seed(0)
    options = {name: CROSSINGS[name](**values) for name, values in ALL_CROSSINGS.items()}
    crossing = Crossing(options, ([3, 2], [4, 0]), (1, 2), 3, 0.5).eval()
    of_user, of_candidate = [torch.randn(2, 3), torch.randn(2, 2)], [torch.randn(2, 5, 4), torch.randn(2, 5, 0)]
    numbers = torch.randn(2, 1), torch.randn(2, 5, 2)
    user = torch.cat([*of_user, numbers[0]], 1)
    candidate = torch.cat([*of_candidate, numbers[1]], 2)
    found = crossing(of_user, of_candidate, *numbers, user, candidate)
    assert found.shape == (2, 5, crossing.width)
    stack = crossing.fields
    assert stack is not None
    vectors = stack.number_vectors
    assert vectors is not None
    for u, c in np.ndindex(2, 5):
        fields = torch.stack(
            [
                of_user[0][u],  # of the right width already
                of_user[1][u] @ stack.user_maps[1].kernel,
                numbers[0][u, 0] * vectors[0],
                of_candidate[0][u, c] @ stack.candidate_maps[0].kernel,
                numbers[1][u, c, 0] * vectors[1],
                numbers[1][u, c, 1] * vectors[2],
            ]
        ).unsqueeze(0)
        joined = torch.cat([user[u], candidate[u, c]]).unsqueeze(0)
        layers = {name: block.layer for name, block in zip(options, crossing.blocks, strict=True)}
        expected = [
            layers["dcn"](joined),
            layers["cin"](fields),
            layers["autoint"](fields),
            layers["senet"](fields).flatten(1),
            layers["bilinear"](fields),
            layers["group_int"](list(fields[:, :3].unbind(1)), list(fields[:, 3:].unbind(1))),
            layers["all_int"](fields),
            layers["cdot"](fields),
        ]
        torch.testing.assert_close(found[u, c], torch.cat([part.reshape(-1) for part in expected]))


def test_dcn_alone_needs_no_fields() -> None:
    crossing = Crossing({"dcn": CROSSINGS["dcn"]()}, ([3], [4]), (0, 1), 5, 0.5)
    assert crossing.fields is None
    assert crossing.width == 8


@pytest.mark.parametrize("sides", [("user",), ("candidate",), ("user", "candidate")])
def test_without_candidate_columns_all_candidates_of_a_user_are_alike(sides: tuple[str, ...]) -> None:
    config = composed(layout=features_only(*sides), attention_groups=[], wide=True, input_norm=True, crossing=["dcn"])
    logits = lively(CTRModel, config)(*random_inputs(config.layout, 3, 4, 2))
    assert logits.shape == (3, 4, 1)
    alike = bool((logits - logits[:, :1]).abs().max() < 1e-6)
    assert alike == (sides == ("user",))
