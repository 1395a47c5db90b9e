"""Attention GRUs against plain loops, torch's GRU and hand-made cases."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.layers import AIGRU, GRU, AGRUCell, create_ta, dynamic_rnn_with_attention, static_rnn_with_attention
from models.layers.attention_gru import AttentionGRU
from tests.models import references
from training.graph.upstream_noise import silenced

HOLES = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()


def cell_of(kind: str, seed: int = 0, **options: object) -> AGRUCell:
    torch.manual_seed(seed)
    cell = AGRUCell(3, 5, kind, **options).double()
    with torch.no_grad():
        for bias in (cell.bias_ih, cell.bias_hh):
            bias.normal_(0.0, 0.5)
    return cell


def sequence(rows: int = 4, steps: int = 6, width: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, steps, width, dtype=torch.float64, generator=generator)
    return x, torch.rand(rows, steps, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("kind", ["AGRU", "AUGRU"])
def test_attention_gru_equals_a_loop_in_numpy(kind: str) -> None:
    cell, (x, scores) = cell_of(kind), sequence()
    start = torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5)
    outputs, final = dynamic_rnn_with_attention(cell, x, scores, init_state=start, mask=HOLES)
    weights = {name: value.detach().numpy() for name, value in cell.named_parameters()}
    states = references.attention_gru(weights, x.numpy(), scores.numpy(), HOLES.numpy(), start.numpy(), kind)
    np.testing.assert_allclose(outputs.detach().numpy(), states * HOLES.numpy()[..., None], atol=1e-12)
    np.testing.assert_allclose(final.detach().numpy(), states[:, -1], atol=1e-12)
    torch.testing.assert_close(final[3], start[3], rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"reset_after": False}, {"activation": "relu"}])
@pytest.mark.parametrize("kind", ["AGRU", "AUGRU"])
def test_dynamic_static_and_scripted_runs_agree(kind: str, options: dict[str, object]) -> None:
    cell, (x, scores) = cell_of(kind, **options), sequence()

    class Runner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor, scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            outputs, final = self.cell.run(x, scores, None, mask)
            return outputs, final, self.cell.run_to_end(x, scores, None, mask)

    with silenced():
        scripted = torch.jit.script(Runner())
    expected = static_rnn_with_attention(cell, x, scores, mask=HOLES)
    for actual in (dynamic_rnn_with_attention(cell, x, scores, mask=HOLES), scripted(x, scores, HOLES)[:2]):
        torch.testing.assert_close(actual[0], expected[0])
        torch.testing.assert_close(actual[1], expected[1])
    torch.testing.assert_close(scripted(x, scores, HOLES)[2], expected[1])


@pytest.mark.parametrize("kind", ["AGRU", "AUGRU"])
def test_hand_written_gradient_is_the_numerical_one(kind: str) -> None:
    torch.manual_seed(0)
    blocks, users, candidates, steps, width = (3 if kind == "AUGRU" else 2), 2, 3, 4, 2
    shapes = [(steps, blocks * width, users), (blocks * width, width), (width,), (steps, users, candidates)]
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    start = torch.randn(width, users, candidates, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(AttentionGRU.apply, (*inputs, start))


def test_gradients_of_a_masked_run_equal_those_of_the_plain_loop() -> None:
    cell, (x, scores) = cell_of("AUGRU"), sequence()
    x.requires_grad_()
    scores.requires_grad_()
    weights = torch.randn(4, 6, 5, dtype=torch.float64)
    leaves = [x, scores, *cell.parameters()]
    gradients = []
    for run in (dynamic_rnn_with_attention, static_rnn_with_attention):
        outputs, final = run(cell, x, scores, mask=HOLES)
        gradients.append(torch.autograd.grad((outputs * weights).sum() + final.square().sum(), leaves))
    for fast, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, plain)


def test_augru_with_attention_one_is_torchs_gru() -> None:
    cell, (x, _) = cell_of("AUGRU"), sequence()
    torch_gru = nn.GRU(3, 5, batch_first=True).double()
    with torch.no_grad():
        for own, theirs in (
            (cell.weight_ih, torch_gru.weight_ih_l0),
            (cell.weight_hh, torch_gru.weight_hh_l0),
            (cell.bias_ih, torch_gru.bias_ih_l0),
            (cell.bias_hh, torch_gru.bias_hh_l0),
        ):
            reset, kept, proposed = theirs.chunk(3)
            own.copy_(torch.cat([-kept, reset, proposed]))
    outputs, final = cell.run(x, torch.ones(4, 6, dtype=torch.float64))
    expected, last = torch_gru(x)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(final, last[0])
    state = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(cell(x[:, 0], state), torch_gru(x[:, :1], state.unsqueeze(0))[1][0])


@pytest.mark.parametrize("kind", ["AGRU", "AUGRU"])
def test_attention_zero_leaves_the_state_exactly(kind: str) -> None:
    cell, (x, scores) = cell_of(kind), sequence()
    state = torch.randn(4, 5, dtype=torch.float64)
    assert torch.equal(cell(x[:, 0], state, torch.zeros(4, 1, dtype=torch.float64)), state)
    assert torch.equal(cell.run(x, torch.zeros_like(scores), state)[1], state)


def test_gru_equals_torchs_on_right_padding_and_carries_over_holes() -> None:
    torch.manual_seed(0)
    own, torch_gru = GRU(3, 5).double(), nn.GRU(3, 5, batch_first=True).double()
    own.load_state_dict(torch_gru.state_dict())
    x, _ = sequence()
    torch.testing.assert_close(own(x), torch_gru(x)[0])
    for row in range(4):
        kept = x[row][HOLES[row]]
        states = own(x, HOLES)[row]
        if len(kept):
            torch.testing.assert_close(states[HOLES[row]], torch_gru(kept.unsqueeze(0))[0][0])
            torch.testing.assert_close(states[-1], torch_gru(kept.unsqueeze(0))[0][0, -1])
        else:
            assert torch.equal(states, torch.zeros_like(states))


@pytest.mark.parametrize("build", [lambda: cell_of("AUGRU"), lambda: cell_of("AGRU"), lambda: AIGRU(3, 5).double()])
def test_candidates_sharing_a_history_equal_tiled_rows(build: object) -> None:
    layer = build()
    run = layer.run if isinstance(layer, AGRUCell) else lambda x, a, _, mask: layer(x, a, mask)
    x, _ = sequence()
    scores = torch.rand(4, 7, 6, dtype=torch.float64)
    outputs, final = run(x, scores, None, HOLES)
    assert outputs.shape == (4, 7, 6, 5)
    tiled_outputs, tiled_final = run(
        x.repeat_interleave(7, 0), scores.flatten(0, 1), None, HOLES.repeat_interleave(7, 0)
    )
    torch.testing.assert_close(outputs.flatten(0, 1), tiled_outputs)
    torch.testing.assert_close(final.flatten(0, 1), tiled_final)


@pytest.mark.parametrize("kind", ["AGRU", "AUGRU", "AIGRU"])
def test_what_padding_holds_never_matters(kind: str) -> None:
    layer = AIGRU(3, 5).double() if kind == "AIGRU" else cell_of(kind)
    run = layer if kind == "AIGRU" else lambda x, a, m: layer.run(x, a, None, m)
    x, scores = sequence()
    spoiled, spoiled_scores = x.clone(), scores.clone()
    spoiled[~HOLES] = float("nan")
    spoiled_scores[~HOLES] = 1e9
    for expected, actual in zip(run(x, scores, HOLES), run(spoiled, spoiled_scores, HOLES), strict=True):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize(("rows", "steps"), [(0, 6), (1, 6), (4, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["AGRU", "AUGRU", "AIGRU"])
def test_empty_batches_and_histories(kind: str, rows: int, steps: int) -> None:
    layer = AIGRU(3, 5) if kind == "AIGRU" else AGRUCell(3, 5, kind)
    x, scores = torch.randn(rows, steps, 3), torch.rand(rows, steps)
    outputs, final = layer(x, scores) if kind == "AIGRU" else layer.run(x, scores)
    assert outputs.shape == (rows, steps, 5)
    assert final.shape == (rows, 5)
    (outputs.sum() + final.sum()).backward() if outputs.requires_grad else None


def test_errors_name_what_was_wrong() -> None:
    with pytest.raises(ValueError, match="att_type must be one of AGRU, AUGRU; got 'GRU'"):
        AGRUCell(3, 5, "GRU")
    with pytest.raises(ValueError, match="att_score must be given for AGRU"):
        AGRUCell(3, 5)(torch.zeros(2, 3), torch.zeros(2, 5))
    with pytest.raises(TypeError, match="cell must be an AGRUCell, got GRUCell"):
        dynamic_rnn_with_attention(nn.GRUCell(3, 5), torch.zeros(2, 4, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="T = 4"):
        AGRUCell(3, 5).run(torch.zeros(2, 4, 3), torch.zeros(2, 5))


def test_tensor_array_is_written_once() -> None:
    array = create_ta("states", 2, torch.float32).unstack(torch.arange(4.0).view(2, 2))
    assert torch.equal(array.stack(), torch.arange(4.0).view(2, 2))
    assert torch.equal(array.read(1), torch.tensor([2.0, 3.0]))
    with pytest.raises(ValueError, match="already written"):
        array.write(0, torch.zeros(2))
    with pytest.raises(ValueError, match="was not written"):
        create_ta("states", 2, torch.float32).read(0)
