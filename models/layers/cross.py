"""The cross network: explicit products of the input with itself, one degree a layer."""

import torch
from torch import Tensor, nn

from models.layers.initializers import Initializer, initialize
from models.layers.regularization import Regularized, Regularizer

KINDS = ("vector", "matrix", "mixed")


class DCN(Regularized):
    """Cross network: every layer multiplies the input x_0 with a map of the last output and adds that output.

    vector: x' = x_0 * (x w) + b + x.  matrix: x' = x_0 * (x W + b) + x.
    mixed: x' = sum_e g_e x_0 * (tanh(tanh(x V_e) C_e) U_e^T + b) + x with g = softmax over experts of x . G_e.

    Kernel norm replaces a matrix by g_j W_j / max(|W_j|, 1e-3), the norm taken over the input axis (axis 1 of each
    expert's) and g learned from the initial norms, so that it changes nothing at first.

    Source: Wang et al. 2017, arXiv:1708.05123 (vector); Wang et al. 2020, arXiv:2008.13535 (matrix, mixed). Differs
    from them: kernel norm and dropout are additions.

    Shapes: x (B, D); returns (B, D). State: bias.{i} (D,); kernel.{i} (D, 1) or (D, D); mixed: U.{i}, V.{i} (E, D, R),
    C.{i} (E, R, R), G.{i} (E, D); with kernel norm kernel_norm.{i}, or kernel_norm_U.{i} to kernel_norm_G.{i}.

    Args:
        in_features: D.
        layer_num: number of layers.
        dcn_type: vector, matrix or mixed.
        initializer: of the matrices; None means glorot_normal.
        regularizer: penalty of the matrices.
        num_experts: E, for mixed.
        low_rank: R, for mixed.
        allow_kernel_norm: see above.
        use_dropout: dropout after every layer, while training.
        keep_prob: share that dropout keeps.

    Raises:
        ValueError: if ``dcn_type`` is unknown, a size is not positive, ``keep_prob`` is outside (0, 1], or x does not
            fit.

    Example:
        >>> import torch
        >>> from models.layers import DCN
        >>> layer = DCN(in_features=6, layer_num=2, dcn_type="mixed", num_experts=3, low_rank=2)
        >>> layer(torch.ones(4, 6)).shape
        torch.Size([4, 6])
    """

    def __init__(
        self,
        in_features: int,
        layer_num: int = 1,
        dcn_type: str = "matrix",
        initializer: Initializer | None = None,
        regularizer: Regularizer | None = None,
        num_experts: int = 1,
        low_rank: int = 0,
        allow_kernel_norm: bool = False,
        use_dropout: bool = False,
        keep_prob: float = 0.95,
    ) -> None:
        super().__init__()
        if dcn_type not in KINDS:
            raise ValueError(f"dcn_type must be one of {', '.join(KINDS)}; got {dcn_type!r}")
        if in_features < 1 or layer_num < 1:
            raise ValueError(f"in_features and layer_num must be at least 1, got {in_features} and {layer_num}")
        if dcn_type == "mixed" and (low_rank < 1 or num_experts < 1):
            raise ValueError(f"low_rank and num_experts must be at least 1 for mixed, got {low_rank} and {num_experts}")
        if not 0.0 < keep_prob <= 1.0:
            raise ValueError(f"keep_prob must be in (0, 1], got {keep_prob}")
        self.in_features = in_features
        self.dcn_type = dcn_type
        self.normed = allow_kernel_norm
        experts, rank = (num_experts, low_rank) if dcn_type == "mixed" else (0, 0)
        self._layers = layer_num
        self._initializer: Initializer = initializer or "glorot_normal"
        self._regularizer = regularizer
        # The lists of the other kinds stay empty: TorchScript compiles every branch of forward.
        self.kernel = self._matrices(
            "kernel", [] if experts else [in_features, 1 if dcn_type == "vector" else in_features]
        )
        self.U = self._matrices("U", [experts, in_features, rank] if experts else [])
        self.V = self._matrices("V", [experts, in_features, rank] if experts else [])
        self.C = self._matrices("C", [experts, rank, rank] if experts else [])
        self.G = self._matrices("G", [experts, in_features] if experts else [])
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(in_features)) for _ in range(layer_num))
        self.kernel_norm = self._norms(self.kernel, -2)
        self.kernel_norm_U = self._norms(self.U, -2)
        self.kernel_norm_V = self._norms(self.V, -2)
        self.kernel_norm_C = self._norms(self.C, -2)
        self.kernel_norm_G = self._norms(self.G, -1)
        self.dropout = nn.Dropout(1.0 - keep_prob if use_dropout else 0.0)

    def _matrices(self, name: str, shape: list[int]) -> nn.ParameterList:
        """One matrix a layer, or one stack of them, one an expert; nothing without a shape."""
        matrices = nn.ParameterList()
        for layer in range(self._layers if shape else 0):
            matrix = nn.Parameter(torch.empty(shape))
            for part in matrix.detach() if name != "kernel" else [matrix.detach()]:
                initialize(part, self._initializer, part.size(0), part.size(1) if part.dim() == 2 else 1)
            matrices.append(matrix)
            self.penalize(f"{name}.{layer}", self._regularizer)
        return matrices

    def _norms(self, matrices: nn.ParameterList, input_axis: int) -> nn.ParameterList:
        if not self.normed:
            return nn.ParameterList()
        return nn.ParameterList(
            nn.Parameter(torch.linalg.vector_norm(matrix.detach(), dim=input_axis)) for matrix in matrices
        )

    def forward(self, x: Tensor) -> Tensor:
        """Crossed x."""
        if x.dim() != 2 or x.size(1) != self.in_features:
            raise ValueError(f"x must be (B, {self.in_features}), got {list(x.shape)}")
        if self.dcn_type == "mixed":
            return self._mixed(x)
        norms: list[Tensor] = []
        for norm in self.kernel_norm:
            norms.append(norm)
        crossed = x
        for layer, (kernel, bias) in enumerate(zip(self.kernel, self.bias)):  # noqa: B905 - a strict zip does not script
            matrix = _with_norm(kernel, norms[layer], -2) if self.normed else kernel
            mapped = torch.matmul(crossed, matrix)
            if self.dcn_type == "vector":
                step = x * mapped + bias
            else:
                step = x * (mapped + bias)
            crossed = self.dropout(step + crossed)
        return crossed

    def _mixed(self, x: Tensor) -> Tensor:
        norms: list[Tensor] = []
        if self.normed:
            for parts in zip(self.kernel_norm_U, self.kernel_norm_V, self.kernel_norm_C, self.kernel_norm_G):  # noqa: B905
                norms.extend(list(parts))
        crossed = x
        for layer, (u, v, c, g, bias) in enumerate(zip(self.U, self.V, self.C, self.G, self.bias)):  # noqa: B905
            if self.normed:
                u = _with_norm(u, norms[4 * layer], -2)
                v = _with_norm(v, norms[4 * layer + 1], -2)
                c = _with_norm(c, norms[4 * layer + 2], -2)
                g = _with_norm(g, norms[4 * layer + 3], -1)
            crossed = self.dropout(self._mixed_step(x, crossed, u, v, c, g, bias) + crossed)
        return crossed

    def _mixed_step(self, x: Tensor, crossed: Tensor, u: Tensor, v: Tensor, c: Tensor, g: Tensor, b: Tensor) -> Tensor:
        """Sum over experts, (B, D); the experts are the first axis of every product."""
        gates = torch.softmax(torch.matmul(crossed, g.t()), 1)  # (B, E)
        low = torch.tanh(torch.matmul(torch.tanh(torch.matmul(crossed.unsqueeze(0), v)), c))  # (E, B, R)
        expanded = torch.matmul(low, u.transpose(1, 2)) + b  # (E, B, D)
        return x * (gates.t().unsqueeze(-1) * expanded).sum(0)


def _with_norm(matrix: Tensor, norm: Tensor, input_axis: int) -> Tensor:
    squared = torch.sum(matrix * matrix, input_axis)
    return matrix * (norm / torch.sqrt(torch.clamp_min(squared, 1e-6))).unsqueeze(input_axis)
