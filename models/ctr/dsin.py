"""DSIN: interests of whole sessions, and how they follow each other."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.fields import PairedFields, Places
from models.ctr.network import SequenceModel
from models.ctr.sessions import BidirectionalLSTM, SessionCut, SessionInterest
from models.inputs import InputLayout
from models.layers.attention_group import AttentionGroup
from models.layers.dense import Dense
from models.layers.target_attention import InterestAttention


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """How a history is cut into sessions.

    Attributes:
        gap: the behaviour number that holds the seconds since the behaviour before, unscaled.
        gap_seconds: a longer gap begins a session.
        sessions: the newest that are kept.
        length: the newest steps of each that are kept.
        heads: of the self-attention inside a session; a divisor of the query's width.

    Raises:
        ValueError: if a number is not positive, or ``gap`` is no name.
    """

    gap: str
    gap_seconds: float = 1800.0
    sessions: int = 5
    length: int = 10
    heads: int = 2

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not isinstance(self.gap, str) or not self.gap:
            raise ValueError(f"gap must name a behaviour number of unscaled seconds, got {self.gap!r}")
        if min(self.sessions, self.length, self.heads) < 1 or not self.gap_seconds > 0:
            raise ValueError(
                "gap_seconds, sessions, length and heads must be positive, "
                f"got {self.gap_seconds}, {self.sessions}, {self.length} and {self.heads}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DSINConfig(SequenceConfig):
    """Options of ``DSINModel``: those of ``SequenceConfig`` and how sessions are cut.

    Attributes:
        session: see ``SessionOptions``.

    Raises:
        ValueError: if no attention group is given, and as ``SequenceConfig``.
    """

    session: SessionOptions

    def __post_init__(self) -> None:
        """Check the groups and the rest."""
        SequenceConfig.__post_init__(self)
        if not self.attention_groups:
            raise ValueError("attention_groups must name at least one group, got none")

    @classmethod
    def single_options(cls) -> dict[str, type[Any]]:
        """As ``SequenceConfig.single_options``."""
        return {**SequenceConfig.single_options(), "session": SessionOptions}


class DSINGroup(nn.Module):
    """Interest of one attention group: attention over the sessions, and over the states of a BiLSTM that read them.

    Extras (the behaviour's type, value, age) are mapped to the keys' width and added to them, as in DIN.

    Shapes: candidates: one (U, C, D) a field, behaviours: one (U, T, D) a field, mask (U, T, S); returns the interest
    (U, C, Q + 2 H), with H the group's ``hidden_size`` (default Q / 2, rounded up), and the steps (U, T, Q).

    Raises:
        ValueError: if the gap is not a behaviour number, or lies in another stream than the group's fields.
    """

    def __init__(self, layout: InputLayout, group: AttentionGroup, options: SessionOptions) -> None:
        super().__init__()
        self.fields = PairedFields(layout, group.candidates, group.histories, tuple(group.extras))
        self.gap = _gap_place(layout, group, options.gap)
        width = self.fields.query_width
        hidden = group.hidden_size or (width + 1) // 2
        self.extras: Dense | None = None
        if self.fields.extra_width > 0:
            self.extras = Dense(self.fields.extra_width, width)
        self.cut = SessionCut(options.sessions, options.length, options.gap_seconds)
        self.interest = SessionInterest(options.sessions, options.length, width, options.heads)
        self.evolution = BidirectionalLSTM(width, hidden)
        self.bridge: nn.Module = nn.Identity() if 2 * hidden == width else Dense(width, 2 * hidden)
        layers = list(group.hidden_layers)
        shared = (layers, group.att_dropout, group.batchnorm, group.activation)
        self.session_attention = InterestAttention(width, *shared)
        self.state_attention = InterestAttention(2 * hidden, *shared)
        self.width = width + 2 * hidden

    def forward(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The interest towards each candidate, and the steps."""
        steps = self.fields.keys(behaviours)
        if self.extras is not None:
            steps = steps + self.extras(self.fields.extras(behaviours))
        cut, inside = self.cut(steps, behaviours[self.gap][:, :, 0], self.fields.mask(behaviour_mask))
        interests = self.interest(cut, inside)
        real = inside[:, :, 0]  # a session's steps come first
        states = self.evolution(interests, real)
        query = self.fields.query(candidates)
        over_sessions = self.session_attention(query, interests, real)
        over_states = self.state_attention(self.bridge(query), states, real)
        return torch.cat([over_sessions, over_states], -1), steps


class DSINModel(SequenceModel):
    """Deep Session Interest Network for users x candidates.

    Sessions, their interests and the BiLSTM are computed once a user, from the gaps alone that the graph is given.

    Source: Feng et al. 2019, arXiv:1905.06482. Differs from it: the activation units are those of DIEN, candidates
    share their user's work, and the options of ``SequenceConfig``.

    Shapes: the seven tensors of ``models.inputs``; returns logits (U, C, K).
    """

    def __init__(self, config: DSINConfig) -> None:
        super().__init__(config, [DSINGroup(config.layout, group, config.session) for group in config.attention_groups])


def _gap_place(layout: InputLayout, group: AttentionGroup, gap: str) -> int:
    places = Places(layout)
    numbers = {entry.name for entry in layout.behaviour_numbers}
    if gap not in numbers:
        raise ValueError(f"gap must be one of the behaviour numbers {sorted(numbers)}, got {gap!r}")
    others = {places.streams[name] for name in (*group.histories, *group.extras)}
    if others != {places.streams[gap]}:
        raise ValueError(
            f"gap must be in the same stream (filter and length) as the fields of attention group {group.name!r}, "
            f"got {gap!r} of another"
        )
    return places.behaviours[gap]
