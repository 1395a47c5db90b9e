"""An item model folded in from the history: users without a row of their own get one from what they did."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from models.inputs import IdField, Table
from models.layers.embedding import FieldEmbedding
from models.layers.history import RecencyPooling, joint_mask
from models.layers.masks import blank_padding

SHRINKAGE_STEPS = 5.0
RECENT_HALF_LIFE_STEPS = 5.0
USER_NUMBERS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldIn:
    """Which fields make the item model.

    Attributes:
        history: a history field that shares its table with ``candidate``.
        candidate: the field that is scored.
        value: a behaviour number, how strong the behaviour speaks (a standardised rating); None counts each as 1.
        level: a behaviour id field whose every id learns a correction of that strength (a rating in steps).
        baseline: learn a bias for every id, add the candidate's to the logit and measure each behaviour from its own.
    """

    history: str
    candidate: str
    value: str | None = None
    level: str | None = None
    baseline: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldInPlaces:
    """Where a ``FoldIn`` finds its fields.

    Attributes:
        candidate: the candidate's id field.
        history: the history's.
        level: the level's, or None.
        tables: by name, of those fields.
        candidate_vector: position of the candidate's embedding.
        history_vector: position of the history's.
        value: position of the behaviour number, -1 for none.
    """

    candidate: IdField
    history: IdField
    level: IdField | None
    tables: dict[str, Table]
    candidate_vector: int
    history_vector: int
    value: int


class FoldedHistory(nn.Module):
    """The module of a ``FoldIn``.

    With r_t the strength of behaviour t, b the bias of an id, x its embedding, n the number of real steps:

        r_t   = value_t + level_t - beta b[item_t]
        v     = sum_t r_t x[item_t] / sqrt(n)
        logit = b[candidate] + sum_d w_d v_d x[candidate]_d

    Source: asymmetric factor models, Koren 2008 (SVD++, section 4), where a user is the sum of its items. Differs from
    it: the strengths are learned by level, the dot product is weighted by dimension.

    Shapes: candidates: one (U, C, D) a field; behaviours: one (U, T, D) a field; ids as in ``models.inputs``; mask
    (U, T, S). Returns v * x[candidate] with the dot product behind it (U, C, D + 1), three numbers about the
    strengths (mean, shrunk mean, recent mean) (U, 3), and the logits (U, C, K).
    State: biases.tables.{i}.weight, beta, weight (D, K).
    """

    streams: list[int]

    def __init__(self, entry: FoldIn, places: FoldInPlaces, streams: list[int], width: int, tasks: int) -> None:
        super().__init__()
        self.streams = streams
        self.candidate_vector = places.candidate_vector
        self.history_vector = places.history_vector
        self.value = places.value
        self.has_level = places.level is not None
        behaviours = [replace(places.history, table="bias")]
        tables = [Table(name="bias", rows=places.tables[places.candidate.table].rows, dim=1)]
        if places.level is not None:
            behaviours.append(replace(places.level, table="level"))
            tables.append(Table(name="level", rows=places.tables[places.level.table].rows, dim=1))
        self.biases: FieldEmbedding | None = None
        if entry.baseline or self.has_level:
            self.biases = FieldEmbedding(tables, ([replace(places.candidate, table="bias")], behaviours), std=0.0)
        self.beta = nn.Parameter(torch.full((1,), 0.5)) if entry.baseline else None
        self.shrinkage_steps = SHRINKAGE_STEPS  # TorchScript reads attributes, not globals
        self.weight = nn.Parameter(torch.ones(width, tasks))
        self.recent = RecencyPooling(RECENT_HALF_LIFE_STEPS)

    def forward(
        self,
        candidates: list[Tensor],
        behaviours: list[Tensor],
        candidate_ids: Tensor,
        behaviour_ids: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The candidate against the folded-in user."""
        real = joint_mask(behaviour_mask, self.streams)
        strength = self._strength(behaviours, behaviour_ids, real)
        count = real.to(strength.dtype).sum(1, keepdim=True)
        vectors = blank_padding(behaviours[self.history_vector], real)
        user = (vectors * strength).sum(1) / torch.sqrt(count.clamp_min(1.0))
        product = candidates[self.candidate_vector] * user.unsqueeze(1)
        logits = torch.matmul(product, self.weight)
        features = torch.cat([product, logits[..., :1]], -1)
        if self.beta is not None and self.biases is not None:
            of_candidate: list[Tensor] = self.biases(candidate_ids, 0)
            logits = logits + of_candidate[0]
        total = strength.sum(1)
        about = [total / count.clamp_min(1.0), total / (count + self.shrinkage_steps), self.recent(strength, real)]
        return features, torch.cat(about, -1), logits

    def _strength(self, behaviours: list[Tensor], behaviour_ids: Tensor, real: Tensor) -> Tensor:
        """(U, T, 1), zero on padding."""
        strength = torch.ones_like(behaviours[self.history_vector][..., :1])
        if self.value >= 0:
            strength = behaviours[self.value]
        if self.biases is not None:
            of_behaviour: list[Tensor] = self.biases(behaviour_ids, 1)
            if self.has_level:
                strength = strength + of_behaviour[1]
            if self.beta is not None:
                strength = strength - self.beta * of_behaviour[0]
        return blank_padding(strength, real)
