"""DSIN's parts against slow forms of themselves, and its refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.catalog import CATALOG, tiny_layout
from models.ctr.dsin import DSINConfig, DSINModel, SessionOptions
from models.ctr.sessions import BidirectionalLSTM, SessionCut, SessionInterest
from models.inputs import IdField, NumberField
from tests.models.examples import lively, random_inputs


def slow_cut(steps: Tensor, gaps: Tensor, real: Tensor, cut: SessionCut) -> tuple[Tensor, Tensor]:
    """One user after the other, one step after the other."""
    users, _, width = steps.shape
    found = torch.zeros(users, cut.sessions, cut.length, width)
    inside = torch.zeros(users, cut.sessions, cut.length, dtype=torch.bool)
    for user in range(users):
        sessions: list[list[Tensor]] = []
        for step in range(steps.size(1)):
            if not real[user, step]:
                continue
            if not sessions or gaps[user, step] > cut.gap_seconds:
                sessions.append([])
            sessions[-1].append(steps[user, step])
        newest = sessions[-cut.sessions :]
        for place, session in enumerate(newest, start=cut.sessions - len(newest)):
            for index, step_vector in enumerate(session[-cut.length :]):
                found[user, place, index] = step_vector
                inside[user, place, index] = True
    return found, inside


@pytest.mark.parametrize(("sessions", "length"), [(1, 1), (2, 3), (5, 10)])
def test_sessions_are_those_of_a_loop_over_steps(sessions: int, length: int) -> None:
    generator = torch.Generator().manual_seed(1)
    steps = torch.randn(40, 17, 3, generator=generator)
    gaps = torch.rand(40, 17, generator=generator) * 2
    real = torch.rand(40, 17, generator=generator) < torch.rand(40, 1, generator=generator)  # empty to full, with holes
    cut = SessionCut(sessions, length, 1.4)
    expected = slow_cut(steps, gaps, real, cut)
    actual = cut(steps, gaps, real)
    assert torch.equal(actual[1], expected[1])
    assert torch.equal(actual[0], expected[0])


def test_a_session_begins_after_the_limit_and_the_newest_comes_last() -> None:
    gaps = torch.tensor([[9e9, 60.0, 1800.0, 1801.0, 5.0, 4000.0]])
    steps = torch.arange(1.0, 7.0).view(1, 6, 1)
    found, inside = SessionCut(4, 2, 1800.0)(steps, gaps, torch.ones(1, 6, dtype=torch.bool))
    # Sessions 1 2 3 | 4 5 | 6, of which the newest two steps are kept; the fourth place stays empty.
    assert found[..., 0].tolist() == [[[0, 0], [2, 3], [4, 5], [6, 0]]]
    assert inside.tolist() == [[[False, False], [True, True], [True, True], [True, False]]]


def test_lstm_is_torchs_in_both_directions() -> None:
    torch.manual_seed(0)
    ours = BidirectionalLSTM(3, 4).double()
    theirs = torch.nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()

    def as_torch(weights: Tensor) -> Tensor:
        enters, stays, leaves, cell = weights.chunk(4, -1)  # torch has the cell before the output gate
        return torch.cat([enters, stays, cell, leaves], -1)

    with torch.no_grad():
        for place, suffix in enumerate(("", "_reverse")):
            getattr(theirs, f"weight_ih_l0{suffix}").copy_(as_torch(ours.weight_ih[place]).t())
            getattr(theirs, f"weight_hh_l0{suffix}").copy_(as_torch(ours.weight_hh[place]).t())
            getattr(theirs, f"bias_ih_l0{suffix}").copy_(as_torch(ours.bias[place, 0]))
            getattr(theirs, f"bias_hh_l0{suffix}").zero_()
        sequence = torch.randn(6, 5, 3).double()
        expected, _ = theirs(sequence)
        torch.testing.assert_close(ours(sequence, torch.ones(6, 5, dtype=torch.bool)), expected)
        # Empty sessions in front leave the rest as if they were not there, whatever they hold.
        late = torch.cat([torch.full((6, 2, 3), torch.nan).double(), sequence], 1)
        real = torch.ones(6, 7, dtype=torch.bool)
        real[:, :2] = False
        torch.testing.assert_close(ours(late, real)[:, 2:], expected)
        assert ours(sequence, torch.zeros(6, 5, dtype=torch.bool)).abs().max() == 0


def test_session_interest_is_that_of_a_loop_over_sessions_and_heads() -> None:
    torch.manual_seed(2)
    layer = SessionInterest(2, 3, 4, heads=2).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.7)
    state = {name: value.numpy() for name, value in layer.state_dict().items()}
    steps = np.random.default_rng(3).normal(size=(2, 2, 3, 4))
    real = np.array([[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0]]], dtype=bool)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = (x - x.mean()) / np.sqrt(x.var() + 1e-6)
        return np.asarray(centred * state[f"{name}.gamma"] + state[f"{name}.beta"])

    expected = np.zeros((2, 2, 4))
    for user, session in np.ndindex(2, 2):
        here = np.flatnonzero(real[user, session])
        x = steps[user, session] + state["session"][session] + state["position"] + state["unit"]
        query, value = (x @ state[f"{n}.kernel"] + state[f"{n}.bias"] for n in ("query", "value"))
        key = x @ state["key.kernel"]
        for step in here:
            heads = []
            for part in (slice(0, 2), slice(2, 4)):
                scores = np.exp(key[here, part] @ query[step, part] / np.sqrt(2))
                heads.append(scores / scores.sum() @ value[here, part])
            attended = np.concatenate(heads) @ state["joined.kernel"] + state["joined.bias"]
            y = norm(x[step] + attended, "norm")
            inner = np.maximum(y @ state["inner.kernel"] + state["inner.bias"], 0)
            z = norm(y + inner @ state["outer.kernel"] + state["outer.bias"], "last_norm")
            expected[user, session] += z / len(here)
    actual = layer(torch.from_numpy(steps), torch.from_numpy(real)).detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_the_users_part_is_computed_once_a_user_and_gaps_matter() -> None:
    config = CATALOG["dsin"].tiny()
    model = lively(DSINModel, config)
    seen: list[int] = []
    model.get_submodule("groups.0.interest").register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].size(0)))
    inputs = list(random_inputs(config.layout, 3, 5, 6, lengths=[6, 6, 6]))
    with torch.no_grad():
        inputs[5] = torch.zeros_like(inputs[5])
        one_session = model(*inputs)
        inputs[5][:, 3] = 0.6  # above gap_seconds = 0.5
        two_sessions = model(*inputs)
    assert seen == [3, 3]
    assert (one_session - two_sessions).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gap": "hist_type"}, "gap must be one of the behaviour numbers"),
        ({"gap": ""}, "gap must name a behaviour number"),
        ({"heads": 3}, "heads must divide the query's width 8, got 3"),
        ({"sessions": 0}, "sessions, length and heads must be positive"),
        ({"gap_seconds": 0.0}, "must be positive, got 0.0"),
    ],
)
def test_mistakes_name_the_argument(changes: dict[str, object], message: str) -> None:
    plain = CATALOG["dsin"].tiny().to_dict()
    plain["session"] |= changes
    with pytest.raises(ValueError, match=message):
        DSINModel(DSINConfig.from_dict(plain))


def test_gap_of_another_stream_and_no_group_are_refused() -> None:
    config = CATALOG["dsin"].tiny()
    layout = replace(tiny_layout(), behaviour_numbers=(NumberField(name="hist_value", column=0, stream=1),), streams=2)
    with pytest.raises(ValueError, match="same stream"):
        DSINModel(replace(config, layout=layout))
    with pytest.raises(ValueError, match="attention_groups must name at least one group"):
        replace(config, attention_groups=())
    with pytest.raises(ValueError, match="missing key 'session'"):
        DSINConfig.from_dict({"layout": layout.to_dict()})
    assert isinstance(config.session, SessionOptions)
    assert isinstance(layout.user_ids[0], IdField)
