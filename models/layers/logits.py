"""Logits: an exact log-sigmoid, and making the training logit describe the sampled data."""

import torch
from torch import Tensor, nn

from models.layers import advanced_activations


def log_sigmoid(z: Tensor) -> Tensor:
    """Logarithm of the sigmoid, exact for large values of either sign.

    Not ``F.logsigmoid``: the ONNX exporter writes that as Log(Sigmoid(z)), which is -inf from -20 downwards.

    Example:
        >>> import torch
        >>> from models.layers import log_sigmoid
        >>> log_sigmoid(torch.tensor([-800.0, 800.0])).tolist()
        [-800.0, 0.0]
    """
    return torch.clamp(z, max=0.0) - torch.log1p(torch.exp(-torch.abs(z)))


class LogitCorrection(nn.Module):
    """Turn an unbiased logit into the logit of the data as they were sampled, before the loss sees it.

    Negatives kept with probability w multiply the odds by 1/w, so the sampled logit is z - log w. Where every
    impression was logged as a negative first and once more as a positive when it converted, the share of positives
    is p / (1 + p), its odds are p, and the logit is log p = log_sigmoid(z). Both together: log_sigmoid(z) - log w.
    The network itself then stays unbiased and serving needs nothing. w is the keep rate of *negatives* in the row's
    context and belongs to positive rows too; giving positives 1 breaks the identity.

    Source: Ktena et al. 2019, arXiv:1907.06558. Differs from it: nothing.

    Shapes: logits (B,) or (B, 1), sample_rate (B,) or (B, 1); returns the shape of the logits.

    Args:
        activation: applied to the corrected logit; None leaves it a logit.
        sample_bias: the negative-first logging described above.

    Raises:
        ValueError: if a tensor has more than two axes, the batch sizes differ, or an eager rate is not positive.

    Example:
        >>> import torch
        >>> from models.layers import LogitCorrection
        >>> LogitCorrection()(torch.zeros(2), torch.tensor([1.0, 0.1]))
        tensor([0.0000, 2.3026])
    """

    def __init__(self, activation: advanced_activations.Activation = None, sample_bias: bool = False) -> None:
        super().__init__()
        self.activation = advanced_activations.get(activation) or advanced_activations.identity()
        self.sample_bias = sample_bias

    def forward(self, logits: Tensor, sample_rate: Tensor | None = None) -> Tensor:
        """Corrected logits.

        Raises:
            ValueError: if a tensor has more than two axes, the batch sizes differ, or an eager rate is not positive.
        """
        if logits.dim() > 2:
            raise ValueError(f"logits must be (B,) or (B, K), got {list(logits.shape)}")
        corrected = log_sigmoid(logits) if self.sample_bias else logits
        if sample_rate is not None:
            corrected = corrected - self._log_rate(logits, sample_rate)
        activated: Tensor = self.activation(corrected)
        return activated

    def _log_rate(self, logits: Tensor, sample_rate: Tensor) -> Tensor:
        if sample_rate.dim() > 2:
            raise ValueError(f"sample_rate must be (B,) or (B, 1), got {list(sample_rate.shape)}")
        rate = _positive(sample_rate.to(logits.dtype))
        # Aligned on the batch axis: (B, 1) against (B,) must never become (B, B).
        if logits.dim() == 2 and rate.dim() == 1:
            rate = rate.unsqueeze(1)
        if logits.dim() == 1 and rate.dim() == 2:
            if rate.size(1) != 1:
                raise ValueError(f"sample_rate must be (B,) or (B, 1) for logits (B,), got {list(sample_rate.shape)}")
            rate = rate.squeeze(1)
        if rate.dim() > 0 and rate.size(0) != 1 and rate.size(0) != logits.size(0):
            raise ValueError(f"sample_rate must have {logits.size(0)} rows as the logits, got {rate.size(0)}")
        return torch.log(rate)


def _positive(rate: Tensor) -> Tensor:
    # A graph cannot raise on a value. The two questions are asked apart: TorchScript knows only the first.
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return torch.clamp_min(rate, 1e-8)
    if torch.compiler.is_exporting():
        return torch.clamp_min(rate, 1e-8)
    if bool((rate <= 0).any()):
        raise ValueError(f"sample_rate must be positive, got a minimum of {float(rate.min())}")
    return rate
