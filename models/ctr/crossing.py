"""Feature crossing beside the attention: every vector of the top's input as a field, crossed by blocks chosen by name.

A field is the vector of an id, of a pooled history, of an interest, or a number times a vector of its own. Crossing
blocks need fields of one width, ``cross_dim``; others are mapped to it. What comes out joins the top's input.

Letters: B = U x C rows, F fields (the user's first), D = cross_dim, V width of the top's input without crossing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.ctr.crossing_options import (
    AllIntOptions,
    AutoIntOptions,
    BilinearOptions,
    CDotOptions,
    CINOptions,
    DCNOptions,
    GroupIntOptions,
    SeNetOptions,
)
from models.layers.cin import CIN
from models.layers.cross import DCN
from models.layers.dense import Dense
from models.layers.feature_transform import AutoInt, SeNet
from models.layers.group_interaction import AllInt, CDot, GroupInt


@dataclass(frozen=True, slots=True)
class CrossingSizes:
    """What a block is built for.

    Attributes:
        user_fields: the first fields, which belong to the user.
        fields: F.
        dim: D.
        width: V.
    """

    user_fields: int
    fields: int
    dim: int
    width: int


class OnInput(nn.Module):
    """A block on the whole input of the top.

    Shapes: fields (B, F, D), joined (B, V); returns (B, W).
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, fields: Tensor, joined: Tensor) -> Tensor:
        """The crossed input."""
        crossed: Tensor = self.layer(joined)
        return crossed


class OnFields(nn.Module):
    """A block on the stacked fields.

    Shapes: as ``OnInput``.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, fields: Tensor, joined: Tensor) -> Tensor:
        """The crossed fields."""
        crossed: Tensor = self.layer(fields)
        return crossed


class SelfAttended(nn.Module):
    """``AutoInt`` of the fields.

    Shapes: as ``OnInput``.
    """

    def __init__(self, layer: AutoInt) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, fields: Tensor, joined: Tensor) -> Tensor:
        """The attended fields, side by side."""
        return self.layer.attend(fields).flatten(1)


class Reweighed(nn.Module):
    """``SeNet`` of the fields.

    Shapes: as ``OnInput``.
    """

    def __init__(self, layer: SeNet) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, fields: Tensor, joined: Tensor) -> Tensor:
        """The weighed fields, side by side."""
        return self.layer.reweigh(fields).flatten(1)


class AllPairs(nn.Module):
    """``AllInt`` of the fields.

    Shapes: as ``OnInput``.
    """

    def __init__(self, layer: AllInt) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, fields: Tensor, joined: Tensor) -> Tensor:
        """The compressed products, side by side."""
        return self.layer.interact(fields).flatten(1)


class OnSides(nn.Module):
    """``GroupInt`` of the user's with the candidate's fields.

    Shapes: as ``OnInput``.
    """

    def __init__(self, layer: GroupInt, user_fields: int) -> None:
        super().__init__()
        self.layer = layer
        self.dot = layer.interaction_type == "dot"
        self.user_fields = user_fields

    def forward(self, fields: Tensor, joined: Tensor) -> Tensor:
        """The products."""
        left = list(fields[:, : self.user_fields].unbind(1))
        right = list(fields[:, self.user_fields :].unbind(1))
        products: Tensor = self.layer.interact(left, right)
        return products if self.dot else products.flatten(1)


class BilinearPairs(nn.Module):
    """Products of all pairs of fields, the first of a pair mapped by one shared matrix: (x_i W) * x_j, i < j.

    Source: Huang et al. 2019, arXiv:1905.09433 (FiBiNET, type field-all); the sums: Zhang et al. 2022,
    arXiv:2209.05016. Differs from them: nothing.

    Shapes: fields (B, F, D); returns (B, P) for dot, (B, P * D) for multiply, with P = F (F - 1) / 2. State: map.*.

    Raises:
        ValueError: if there are fewer than two fields.
    """

    def __init__(self, fields: int, dim: int, product: str) -> None:
        super().__init__()
        if fields < 2:
            raise ValueError(f"bilinear needs at least 2 fields, got {fields}")
        self.map = Dense(dim, dim, use_bias=False)
        self.dot = product == "dot"
        pairs = torch.triu_indices(fields, fields, 1)
        self.first: Tensor
        self.second: Tensor
        self.flat: Tensor
        self.register_buffer("first", pairs[0], persistent=False)
        self.register_buffer("second", pairs[1], persistent=False)
        self.register_buffer("flat", pairs[0] * fields + pairs[1], persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        """The products."""
        mapped: Tensor = self.map(fields)
        if self.dot:
            # All F * F sums in one product cost less than gathering the pairs first.
            sums = torch.matmul(mapped, fields.transpose(1, 2)).flatten(1)
            return sums.index_select(1, self.flat)
        return (mapped.index_select(1, self.first) * fields.index_select(1, self.second)).flatten(1)


class StackedFields(nn.Module):
    """Fields of one width out of the vectors and numbers of both sides.

    Shapes: of_user: (U, W_i) each, of_candidate: (U, C, W_i) each, user_numbers (U, Nu), candidate_numbers (U, C, Nc);
    returns (B, F, D), the user's fields first. State: user_maps.{i}.* and candidate_maps.{i}.* where a width is not D,
    number_vectors (Nu + Nc, D).

    Args:
        widths: of the user's and of the candidate's vectors; those of width 0 are left out.
        numbers: Nu and Nc.
        dim: D.
        std: of the initial vectors of numbers.

    Raises:
        ValueError: if there is no field.
    """

    user_places: list[int]
    candidate_places: list[int]

    def __init__(self, widths: tuple[list[int], list[int]], numbers: tuple[int, int], dim: int, std: float) -> None:
        super().__init__()
        self.of_user, self.of_candidate = numbers
        self.user_places = [i for i, width in enumerate(widths[0]) if width > 0]
        self.candidate_places = [i for i, width in enumerate(widths[1]) if width > 0]
        self.user_fields = len(self.user_places) + numbers[0]
        self.fields = self.user_fields + len(self.candidate_places) + numbers[1]
        if self.fields < 1:
            raise ValueError("crossing needs at least one field, got none")
        self.user_maps = _maps([widths[0][i] for i in self.user_places], dim)
        self.candidate_maps = _maps([widths[1][i] for i in self.candidate_places], dim)
        self.number_vectors = nn.Parameter(torch.empty(sum(numbers), dim).normal_(0.0, std)) if sum(numbers) else None

    def forward(
        self, of_user: list[Tensor], of_candidate: list[Tensor], user_numbers: Tensor, candidate_numbers: Tensor
    ) -> Tensor:
        """The fields."""
        candidates = candidate_numbers.size(1)
        users: list[Tensor] = []
        for i, mapped in enumerate(self.user_maps):
            users.append(mapped(of_user[self.user_places[i]]).unsqueeze(1))
        both: list[Tensor] = []
        for i, mapped in enumerate(self.candidate_maps):
            both.append(mapped(of_candidate[self.candidate_places[i]]).unsqueeze(2))
        vectors = self.number_vectors
        if vectors is not None:
            if self.of_user > 0:
                users.append(user_numbers.unsqueeze(-1) * vectors[: self.of_user])
            if self.of_candidate > 0:
                both.append(candidate_numbers.unsqueeze(-1) * vectors[self.of_user :])
        if len(users) > 0:
            both.insert(0, torch.cat(users, 1).unsqueeze(1).expand(-1, candidates, -1, -1))
        return torch.cat(both, 2).flatten(0, 1)


class Crossing(nn.Module):
    """All chosen blocks, side by side.

    Shapes: as ``StackedFields``, with user (U, Vu) and candidate (U, C, Vc), the top's input so far; returns (U, C,
    width). State: fields.* where a block crosses fields, blocks.{i}.*.

    Args:
        blocks: options by name.
        widths: of the user's and of the candidate's vectors.
        numbers: Nu and Nc.
        dim: D.
        std: of the initial vectors of numbers.

    Raises:
        ValueError: if there is no field, or too few for a block.
    """

    def __init__(
        self,
        blocks: Mapping[str, Any],
        widths: tuple[list[int], list[int]],
        numbers: tuple[int, int],
        dim: int,
        std: float,
    ) -> None:
        super().__init__()
        stacked = StackedFields(widths, numbers, dim, std)
        sizes = CrossingSizes(
            user_fields=stacked.user_fields,
            fields=stacked.fields,
            dim=dim,
            width=sum(widths[0]) + sum(widths[1]) + sum(numbers),
        )
        built = [_BUILDERS[name](options, sizes) for name, options in blocks.items()]
        self.blocks = nn.ModuleList(block for block, _ in built)
        self.fields: StackedFields | None = None
        if any(not isinstance(block, OnInput) for block in self.blocks):
            self.fields = stacked
        self.width = sum(width for _, width in built)

    def forward(
        self,
        of_user: list[Tensor],
        of_candidate: list[Tensor],
        user_numbers: Tensor,
        candidate_numbers: Tensor,
        user: Tensor,
        candidate: Tensor,
    ) -> Tensor:
        """The crossed features."""
        candidates = candidate.size(1)
        joined = side_by_side(user, candidate).flatten(0, 1)
        fields = joined  # where no block looks at them
        if self.fields is not None:
            fields = self.fields(of_user, of_candidate, user_numbers, candidate_numbers)
        crossed: list[Tensor] = []
        for block in self.blocks:
            crossed.append(block(fields, joined))
        return torch.cat(crossed, -1).view(candidate.size(0), candidates, self.width)


def side_by_side(user: Tensor, candidate: Tensor) -> Tensor:
    """[user, candidate] of every candidate: user (U, Vu), candidate (U, C, Vc) -> (U, C, Vu + Vc)."""
    if user.size(-1) == 0:  # runtimes get tensors without columns wrong
        return candidate
    repeated = user.unsqueeze(1).expand(-1, candidate.size(1), -1)
    if candidate.size(-1) == 0:
        return repeated
    return torch.cat([repeated, candidate], -1)


def _maps(widths: list[int], dim: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Identity() if width == dim else Dense(width, dim, use_bias=False) for width in widths)


def _dcn(options: DCNOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    layer = DCN(
        sizes.width,
        options.layers,
        options.type,
        num_experts=options.experts,
        low_rank=options.rank,
        use_dropout=options.dropout > 0,
        keep_prob=1.0 - options.dropout,
    )
    return OnInput(layer), sizes.width


def _cin(options: CINOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    layers = list(options.layers)
    return OnFields(CIN(sizes.fields, sizes.dim, layers, options.activation)), sum(layers)


def _autoint(options: AutoIntOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    return SelfAttended(AutoInt(options.layers)), sizes.fields * sizes.dim


def _senet(options: SeNetOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    hidden = max(1, sizes.fields // options.reduction)
    return Reweighed(SeNet(sizes.fields, hidden)), sizes.fields * sizes.dim


def _bilinear(options: BilinearOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    pairs = sizes.fields * (sizes.fields - 1) // 2
    layer = BilinearPairs(sizes.fields, sizes.dim, options.product)
    return OnFields(layer), pairs * (1 if layer.dot else sizes.dim)


def _group_int(options: GroupIntOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    pairs = sizes.user_fields * (sizes.fields - sizes.user_fields)
    if pairs == 0:
        raise ValueError("group_int needs fields of the user and of the candidate, got one side alone")
    layer = GroupInt(options.product)
    return OnSides(layer, sizes.user_fields), pairs * (1 if options.product == "dot" else sizes.dim)


def _all_int(options: AllIntOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    return AllPairs(AllInt(sizes.fields, options.compressed)), sizes.fields * options.compressed


def _cdot(options: CDotOptions, sizes: CrossingSizes) -> tuple[nn.Module, int]:
    layer = CDot(sizes.fields, sizes.dim, options.projected, options.layers)
    return OnFields(layer), sizes.fields * options.projected + sizes.dim * options.projected


_BUILDERS: Final[Mapping[str, Callable[[Any, CrossingSizes], tuple[nn.Module, int]]]] = {
    "all_int": _all_int,
    "autoint": _autoint,
    "bilinear": _bilinear,
    "cdot": _cdot,
    "cin": _cin,
    "dcn": _dcn,
    "group_int": _group_int,
    "senet": _senet,
}
