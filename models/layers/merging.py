"""Feature embeddings as one list, one concatenation or one stack, and the way between these forms."""

import torch
from torch import Tensor, nn

MERGE_TYPES = ("concat", "stack", None)


def merge_tensor_list(
    tensor_list: Tensor | list[Tensor],
    merge_type: str | None = "concat",
    num_feature: int | None = None,
    axis: int = 1,
    keep_list: bool = False,
) -> Tensor | list[Tensor]:
    """Bring tensors into one form; a bare tensor counts as a list of one. Nothing given is written to.

    =============================  ===========  ==========  ================
    given                          concat       stack       None
    =============================  ===========  ==========  ================
    several                        cat(axis)    stack(axis) the list
    one (B, N, D)                  (B, N * D)   itself      unbind(axis)
    one (B, N * D), num_feature N  itself       (B, N, D)   N times (B, D)
    one (B, D) otherwise           itself       itself      itself
    =============================  ===========  ==========  ================

    Source: the layers of Monolith (ByteDance); no paper. Differs from it: the caller's list is never overwritten, and
    a width that is no multiple of ``num_feature`` is refused instead of rounded.

    Shapes: as in the table; B rows, N features, D width.

    Args:
        tensor_list: one tensor, or tensors of two or three axes.
        merge_type: concat, stack or None.
        num_feature: N of a single tensor with two axes.
        axis: see the table.
        keep_list: wrap a result that is one tensor in a list.

    Returns:
        A tensor, or a list of tensors.

    Raises:
        ValueError: if ``merge_type`` is unknown, the list is empty, a tensor has other axes, or shapes do not fit.

    Example:
        >>> import torch
        >>> from models.layers import merge_tensor_list
        >>> merge_tensor_list([torch.ones(4, 3), torch.ones(4, 3)], "stack").shape
        torch.Size([4, 2, 3])
    """
    if merge_type is not None and merge_type != "concat" and merge_type != "stack":
        raise ValueError(f"merge_type must be 'concat', 'stack' or None, got {merge_type}")
    tensors = [tensor_list] if isinstance(tensor_list, Tensor) else tensor_list
    if len(tensors) == 0:
        raise ValueError("tensor_list must hold at least one tensor, got none")
    for tensor in tensors:
        if tensor.dim() != 2 and tensor.dim() != 3:
            raise ValueError(f"tensor_list must hold tensors of 2 or 3 axes, got {list(tensor.shape)}")
    if len(tensors) == 1:
        merged = _merge_one(tensors[0], merge_type, 1 if num_feature is None else num_feature, axis)
    elif merge_type is None:
        return tensors
    else:
        _check_alike(tensors, axis, merge_type)
        merged = torch.cat(tensors, axis) if merge_type == "concat" else torch.stack(tensors, axis)
    if keep_list and isinstance(merged, Tensor):
        return [merged]
    return merged


def _merge_one(given: Tensor, merge_type: str | None, num_feature: int, axis: int) -> Tensor | list[Tensor]:
    if given.dim() == 2:
        if num_feature < 2:
            return given
        stacked = _split_features(given, num_feature)
        if merge_type is None:
            return list(stacked.unbind(1))
        return given if merge_type == "concat" else stacked
    if merge_type is None:
        return list(given.unbind(axis))
    return given.flatten(1) if merge_type == "concat" else given


def _split_features(flat: Tensor, num_feature: int) -> Tensor:
    if flat.size(1) % num_feature != 0:
        raise ValueError(f"num_feature must divide the width {flat.size(1)}, got {num_feature}")
    return flat.reshape(flat.size(0), num_feature, flat.size(1) // num_feature)


def _check_alike(tensors: list[Tensor], axis: int, merge_type: str) -> None:
    first = tensors[0]
    highest = first.dim() if merge_type == "stack" else first.dim() - 1
    if axis < -highest - 1 or axis > highest:
        raise ValueError(f"axis must be an axis of the result, got {axis}")
    joined = axis if axis >= 0 else axis + highest + 1
    for tensor in tensors:
        alike = tensor.dim() == first.dim()
        if alike:
            for dim in range(first.dim()):
                if tensor.size(dim) != first.size(dim) and not (merge_type == "concat" and dim == joined):
                    alike = False
        if not alike:
            raise ValueError(
                f"tensor_list must hold tensors that fit for {merge_type}, "
                f"got {list(first.shape)} and {list(tensor.shape)}"
            )


class FieldMerge(nn.Module):
    """The last step of layers with ``out_type`` and ``keep_list``, both fixed at construction.

    Shapes: fields (B, N, D); returns (B, N * D) for concat, (B, N, D) for stack, N tensors (B, D) for None.

    Args:
        out_type: concat, stack or None.
        keep_list: wrap a result that is one tensor in a list.

    Raises:
        ValueError: if ``out_type`` is unknown.
    """

    def __init__(self, out_type: str | None, keep_list: bool) -> None:
        super().__init__()
        if out_type not in MERGE_TYPES:
            raise ValueError(f"out_type must be 'concat', 'stack' or None, got {out_type!r}")
        # A string and not None, which TorchScript would treat as another type.
        self.form = out_type or "list"
        self.keep_list = keep_list

    def forward(self, fields: Tensor) -> Tensor | list[Tensor]:
        """The fields in the form asked for."""
        if self.form == "list":
            return list(fields.unbind(1))
        return self.wrap(fields.flatten(1) if self.form == "concat" else fields)

    def of_list(self, fields: list[Tensor]) -> Tensor | list[Tensor]:
        """The same of N tensors (B, D_i), which may differ in width unless they are stacked."""
        if self.form == "list":
            return fields
        return self.wrap(torch.cat(fields, 1) if self.form == "concat" else torch.stack(fields, 1))

    def wrap(self, merged: Tensor) -> Tensor | list[Tensor]:
        """A tensor as it is, or as a list of one."""
        if self.keep_list:
            return [merged]
        return merged
