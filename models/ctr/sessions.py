"""Sessions of a history: cutting it where a gap is long, and what DSIN computes from them.

Everything here depends on the user alone. Letters: S sessions, L steps of a session, D width, H heads.
"""

import torch
from torch import Tensor, nn

from models.layers.dense import Dense
from models.layers.masks import blank_padding, masked_softmax
from models.layers.normalization import LayerNorm
from models.layers.pooling import SequencePooling


def placed(sequence: Tensor, places: Tensor, count: int) -> Tensor:
    """Steps at new places.

    Args:
        sequence: (U, T, D).
        places: int64 (U, T), each in [0, count]; ``count`` drops a step, all others of a row differ.
        count: places that there are.

    Returns:
        (U, count, D), zero where no step went.
    """
    # One more place takes what is dropped.
    empty = torch.zeros([sequence.size(0), count + 1, sequence.size(2)], dtype=sequence.dtype, device=sequence.device)
    index = places.unsqueeze(-1).expand(-1, -1, sequence.size(2))
    return empty.scatter(1, index, sequence)[:, :count]


class SessionCut(nn.Module):
    """The newest sessions of a history, and of each its newest steps.

    A session begins where a real step's gap exceeds the limit. The newest session comes last; the steps of a session
    come first, oldest first.

    Shapes: steps (U, T, D), gaps (U, T) in seconds, real bool (U, T); returns (U, S, L, D), and bool (U, S, L).

    Args:
        sessions: S.
        length: L.
        gap_seconds: the limit.

    Raises:
        ValueError: if a number is not positive.
    """

    def __init__(self, sessions: int, length: int, gap_seconds: float) -> None:
        super().__init__()
        if sessions < 1 or length < 1 or not gap_seconds > 0:
            raise ValueError(
                f"sessions, length and gap_seconds must be positive, got {sessions}, {length} and {gap_seconds}"
            )
        self.sessions = sessions
        self.length = length
        self.gap_seconds = gap_seconds

    def forward(self, steps: Tensor, gaps: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The sessions, and which of their steps are real."""
        begins = (real & (gaps > self.gap_seconds)).to(torch.int64)
        # The history's first step may or may not begin one; counted from the newest, that makes no difference.
        since_newest = begins.sum(1, keepdim=True) - begins.cumsum(1)
        order = torch.arange(self.sessions, device=steps.device).view(1, -1, 1)  # the newest last
        member = (since_newest.unsqueeze(1) == self.sessions - 1 - order) & real.unsqueeze(1)  # (U, S, T)
        counted = member.to(torch.int64).cumsum(2)
        sizes = member.to(torch.int64).sum(2, keepdim=True)
        kept_sizes = sizes.clamp_max(self.length)
        kept = member & (sizes - counted < self.length)
        place = order * self.length + counted - 1 - (sizes - kept_sizes)
        nowhere = (~kept.any(1)).to(torch.int64) * (self.sessions * self.length)
        places = torch.where(kept, place, torch.zeros_like(place)).sum(1) + nowhere
        cut = placed(steps, places, self.sessions * self.length)
        inside = torch.arange(self.length, device=steps.device).view(1, 1, -1) < kept_sizes
        return cut.view(cut.size(0), self.sessions, self.length, cut.size(2)), inside


class SessionInterest(nn.Module):
    """What each session is about: self-attention over its steps, averaged.

    x = steps + session + position + unit (three learned vectors); y = norm(x + multi-head attention of x);
    z = norm(y + feed-forward of y); the mean of z over real steps. All sessions share the weights.

    Source: Feng et al. 2019, arXiv:1905.06482 (DSIN). Differs from it: sessions are numbered from the newest.

    Shapes: steps (U, S, L, D), real bool (U, S, L); returns (U, S, D), zeros for an empty session. State: session (S,
    1, 1), position (L, 1), unit (D,), query.*, key.*, value.*, joined.*, norm.*, inner.*, outer.*, last_norm.*.

    Args:
        sessions: S.
        length: L.
        width: D.
        heads: H, a divisor of D.

    Raises:
        ValueError: if ``heads`` does not divide the width.
    """

    def __init__(self, sessions: int, length: int, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads != 0:
            raise ValueError(f"heads must divide the query's width {width}, got {heads}")
        self.heads = heads
        self.session = nn.Parameter(torch.zeros(sessions, 1, 1))
        self.position = nn.Parameter(torch.zeros(length, 1))
        self.unit = nn.Parameter(torch.zeros(width))
        for vector in (self.session, self.position, self.unit):
            nn.init.normal_(vector, 0.0, 0.05)
        self.query = Dense(width, width)
        self.key = Dense(width, width, use_bias=False)  # the softmax does not see a shift of all scores
        self.value = Dense(width, width)
        self.joined = Dense(width, width)
        self.norm = LayerNorm(width)
        self.inner = Dense(width, 4 * width, "relu")
        self.outer = Dense(4 * width, width)
        self.last_norm = LayerNorm(width)
        self.mean = SequencePooling("avg")

    def forward(self, steps: Tensor, real: Tensor) -> Tensor:
        """One vector a session."""
        x = (steps + self.session + self.position + self.unit).flatten(0, 1)
        inside = real.flatten(0, 1)
        y = self.norm(x + self._attended(x, inside))
        z = self.last_norm(y + self.outer(self.inner(y)))
        pooled: Tensor = self.mean(z, inside)
        return pooled.view(steps.size(0), steps.size(1), steps.size(3))

    def _attended(self, x: Tensor, inside: Tensor) -> Tensor:
        queries, keys, values = self._heads(self.query(x)), self._heads(self.key(x)), self._heads(self.value(x))
        scores = torch.matmul(queries, keys.transpose(2, 3)) * (keys.size(3) ** -0.5)
        attention = masked_softmax(scores, inside.unsqueeze(1).unsqueeze(2))
        mixed: Tensor = self.joined(torch.matmul(attention, values).transpose(1, 2).flatten(2))
        return mixed

    def _heads(self, x: Tensor) -> Tensor:
        """(N, L, D) as (N, H, L, D / H)."""
        return x.view(x.size(0), x.size(1), self.heads, x.size(2) // self.heads).transpose(1, 2)


class BidirectionalLSTM(nn.Module):
    """An LSTM in either direction over a few steps; steps that are not real leave its state as it was.

    Both directions run as one batch, and the few steps are written out: no exporter freezes or loops anything.

    Source: Hochreiter & Schmidhuber 1997; Schuster & Paliwal 1997. Differs from them: nothing.

    Shapes: sequence (U, S, D), real bool (U, S); returns (U, S, 2 H), H the width of the state. State: weight_ih (2, D,
    4 H), weight_hh (2, H, 4 H), bias (2, 1, 4 H); gates in the order input, forget, output, cell.

    Args:
        input_size: D.
        hidden_size: H.

    Raises:
        ValueError: if a width is not positive.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if input_size < 1 or hidden_size < 1:
            raise ValueError(f"input_size and hidden_size must be at least 1, got {input_size} and {hidden_size}")
        self.hidden_size = hidden_size
        bound = float(hidden_size) ** -0.5
        self.weight_ih = nn.Parameter(torch.empty(2, input_size, 4 * hidden_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(2, hidden_size, 4 * hidden_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(2, 1, 4 * hidden_size).uniform_(-bound, bound))

    def forward(self, sequence: Tensor, real: Tensor) -> Tensor:
        """States of both directions, side by side."""
        users, steps = sequence.size(0), sequence.size(1)
        clean = blank_padding(sequence, real)
        both = torch.stack([clean, clean.flip(1)]).flatten(1, 2)  # (2, U * S, D)
        gates = (torch.matmul(both, self.weight_ih) + self.bias).view(2, users, steps, 4 * self.hidden_size)
        valid = torch.stack([real, real.flip(1)]).unsqueeze(-1)  # (2, U, S, 1)
        state = torch.zeros([2, users, self.hidden_size], dtype=sequence.dtype, device=sequence.device)
        cell = state
        states: list[Tensor] = []
        for step in range(steps):
            gate = gates[:, :, step] + torch.matmul(state, self.weight_hh)
            opened = torch.sigmoid(gate[..., : 3 * self.hidden_size])
            enters, stays, leaves = opened.chunk(3, -1)
            moved = stays * cell + enters * torch.tanh(gate[..., 3 * self.hidden_size :])
            now = valid[:, :, step]
            cell = torch.where(now, moved, cell)
            state = torch.where(now, leaves * torch.tanh(moved), state)
            states.append(state)
        stacked = torch.stack(states, 2)
        return torch.cat([stacked[0], stacked[1].flip(1)], -1)
