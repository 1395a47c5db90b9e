"""The network around its blocks: seven tensors in, logits out, and what training needs besides."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.fields import Inputs, Vectors
from models.ctr.frame import Frame


class InterestBlock(Protocol):
    """One attention group read in one way.

    Called with the candidates' and the behaviours' vectors and the mask; returns the interest (U, C, width) and what it
    made of the steps (U, T, ...).
    """

    width: int


@runtime_checkable
class SupervisedSteps(Protocol):
    """A block whose steps are supervised by telling behaviours from sampled ones."""

    auxiliary: nn.Module | None

    def auxiliary_loss(
        self, states: Tensor, behaviours: list[Tensor], negatives: list[Tensor], behaviour_mask: Tensor
    ) -> Tensor:
        """The loss, a scalar, of the steps that the block returned."""
        ...


class SequenceModel(nn.Module):
    """Blocks that read the history, and the frame that turns their interests into logits.

    Shapes: the seven tensors of ``models.inputs``; returns logits (U, C, K). State: groups.{i}.*, frame.*.

    Args:
        config: of the network.
        blocks: modules that are ``InterestBlock``s; there may be none.
    """

    def __init__(self, config: SequenceConfig, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.groups = nn.ModuleList(blocks)
        self.frame = Frame(config, [int(block.width) for block in blocks])  # type: ignore[arg-type]

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        candidate_ids: Tensor,
        candidate_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Logits (U, C, K)."""
        inputs = Inputs(
            user_ids,
            user_numbers,
            candidate_ids,
            candidate_numbers,
            behaviour_ids,
            behaviour_numbers,
            behaviour_mask,
        )
        vectors: Vectors = self.frame.read(inputs)
        interests, _ = self._interests(vectors, behaviour_mask)
        logits: Tensor = self.frame(inputs, vectors, interests)
        return logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        candidate_ids: Tensor,
        candidate_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
        negative_behaviour_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (U, C, K) and the auxiliary loss: that of the steps, averaged over the groups, plus that of the top.

        Args:
            user_ids: as forward, like the next six.
            user_numbers: as forward.
            candidate_ids: as forward.
            candidate_numbers: as forward.
            behaviour_ids: as forward.
            behaviour_numbers: as forward.
            behaviour_mask: as forward.
            negative_behaviour_ids: (R, T, Fb), behaviours that did not happen, for the first R <= U users; needed with
                ``use_negsampling``.

        Raises:
            ValueError: if negatives are needed and missing.
        """
        inputs = Inputs(
            user_ids,
            user_numbers,
            candidate_ids,
            candidate_numbers,
            behaviour_ids,
            behaviour_numbers,
            behaviour_mask,
        )
        vectors = self.frame.read(inputs)
        interests, steps = self._interests(vectors, behaviour_mask)
        logits, auxiliary = self.frame.training_outputs(inputs, vectors, interests)
        supervised = [
            (block, states)
            for block, states in zip(self.groups, steps, strict=True)
            if isinstance(block, SupervisedSteps) and block.auxiliary is not None
        ]
        if not supervised:
            return logits, auxiliary
        if negative_behaviour_ids is None:
            raise ValueError("negative_behaviour_ids must be given where use_negsampling is on, got None")
        negatives = self.frame.reader.behaviours(negative_behaviour_ids, vectors.scales)
        losses = [
            block.auxiliary_loss(states, vectors.behaviours, negatives, behaviour_mask) for block, states in supervised
        ]
        return logits, auxiliary + torch.stack(losses).mean()

    def _interests(self, vectors: Vectors, behaviour_mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        interests: list[Tensor] = []
        steps: list[Tensor] = []
        for group in self.groups:
            interest, states = group(vectors.candidates, vectors.behaviours, behaviour_mask)
            interests.append(interest)
            steps.append(states)
        return interests, steps

    def gate_statistics(self) -> dict[str, dict[str, float]]:
        """Health of the top's gates by task, for the log; empty where it has none."""
        return self.frame.tower.gate_statistics()

    def selected_sizes(self) -> dict[str, int]:
        """Widths that the search has found so far, by table; empty where nothing is searched."""
        search = self.frame.reader.search
        return {} if search is None else search.selected_sizes()

    def finalize(self) -> "SequenceModel":
        """Switch to evaluation, and prune the tables to the widths that were found.

        Scores stay what they were in evaluation; the network can no longer be trained, nor take up weights of before.
        """
        self.eval()
        self.frame.reader.finalize()
        return self
