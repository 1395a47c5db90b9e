"""Tops for several tasks: what follows the features' vectors, up to one logit a task."""

from models.multitask.mmoe import MMoETop
from models.multitask.options import (
    TOPS,
    MLPOptions,
    MMoEOptions,
    SharedBottomOptions,
    SNROptions,
    TopOptions,
    read_top,
    top_to_dict,
)
from models.multitask.shared_bottom import SharedBottom
from models.multitask.snr import SNRTop
from models.multitask.towers import HiddenOptions, TaskTowers

Top = SharedBottom | MMoETop | SNRTop


def build_top(options: TopOptions, width: int, hidden: HiddenOptions, tasks: tuple[str, ...]) -> Top:
    """The module of a top.

    Args:
        options: any but ``MLPOptions``, whose top is ``models.ctr.tower.UserCandidateTower`` itself.
        width: of what comes in.
        hidden: the hidden layers that the top shares with all others.
        tasks: one tower each.

    Raises:
        ValueError: if the hidden layers do not fit the top.
    """
    if isinstance(options, MMoEOptions):
        return MMoETop(width, hidden, tasks, options)
    if isinstance(options, SNROptions):
        return SNRTop(width, hidden, tasks, options)
    if isinstance(options, SharedBottomOptions):
        return SharedBottom(width, hidden, tasks, options)
    raise ValueError(f"options must be of shared_bottom, mmoe or snr, got {type(options).__name__}")


__all__ = [
    "TOPS",
    "HiddenOptions",
    "MLPOptions",
    "MMoEOptions",
    "MMoETop",
    "SNROptions",
    "SNRTop",
    "SharedBottom",
    "SharedBottomOptions",
    "TaskTowers",
    "Top",
    "TopOptions",
    "build_top",
    "read_top",
    "top_to_dict",
]
