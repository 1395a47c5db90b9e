"""Targeted regularisation: the loss whose optimum in epsilon solves the efficient estimating equation."""

from __future__ import annotations

from torch import Tensor

from models.uplift.inputs import OutcomeKind
from training.objectives.factual import factual_loss
from training.uplift.rows import UpliftRows


def targeted_loss(targeted: Tensor, rows: UpliftRows, kind: OutcomeKind) -> Tensor:
    """Factual loss of the outcomes mu + epsilon h, with h the clever covariate of ``models.uplift.dragonnet``.

    Where its gradient in epsilon is 0, sum_i v_i h_i (y_i - m_i) = 0 over the rows of each arm that shares an epsilon,
    m being mu + epsilon h of a continuous outcome and its sigmoid for a binary one.

    Source: Shi, Blei and Veitch 2019, arXiv:1906.02120, section 3. Differs from it: the logistic form for logits, as in
    van der Laan and Rubin 2006, Targeted Maximum Likelihood Learning.

    Shapes: targeted (B, K); returns ().
    """
    return factual_loss(targeted, rows, kind)
