"""A network composed of blocks by name: how the history is read, how features are crossed, what stands on top."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from torch import nn

from models.ctr.blocks import read_blocks
from models.ctr.co_action import CANGroup, CANOptions
from models.ctr.config import SequenceConfig
from models.ctr.dien import DIENGroup
from models.ctr.din import DINGroup, DINOptions
from models.ctr.dmr import DMRGroup, DMROptions
from models.ctr.dsin import DSINGroup, SessionOptions
from models.ctr.network import SequenceModel
from models.layers.attention_group import AttentionGroup
from models.layers.history import HistoryPooling


@dataclass(frozen=True, kw_only=True, slots=True)
class DIENOptions:
    """DIEN's block has its options in the attention groups, and those of the auxiliary loss in ``CTRConfig``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolingOptions:
    """Every history of a group pooled, and multiplied with its candidate field; as ``HistoryPooling``.

    Attributes:
        mode: sum, avg, max or recent.
        half_life: in steps, for recent.

    Raises:
        ValueError: as ``HistoryPooling``.
    """

    mode: str = "avg"
    half_life: float = 5.0

    def __post_init__(self) -> None:
        """Check the mode."""
        HistoryPooling(history="any", mode=self.mode, half_life=self.half_life)


SEQUENCES: Final[Mapping[str, type[Any]]] = {
    "can": CANOptions,
    "dien": DIENOptions,
    "din": DINOptions,
    "dmr": DMROptions,
    "dsin": SessionOptions,
    "pooling": PoolingOptions,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CTRConfig(SequenceConfig):
    """Options of ``CTRModel``: those of ``SequenceConfig`` and the blocks that read the history.

    Attributes:
        sequence: blocks, by name, each reading every attention group; a list, or a mapping of names to options.
        use_negsampling: for ``dien``, learn to tell the next behaviour from a sampled one.
        auxiliary_hidden_layers: of the network that tells them apart.

    Raises:
        ValueError: if a block is unknown, ``use_negsampling`` lacks its block, and as ``SequenceConfig``.
    """

    sequence: Mapping[str, Any] = field(default_factory=dict)
    use_negsampling: bool = False
    auxiliary_hidden_layers: tuple[int, ...] = (100, 50)

    def __post_init__(self) -> None:
        """Check the blocks and the rest."""
        SequenceConfig.__post_init__(self)
        object.__setattr__(self, "sequence", read_blocks("sequence", self.sequence, SEQUENCES))
        object.__setattr__(self, "auxiliary_hidden_layers", tuple(self.auxiliary_hidden_layers))
        if self.use_negsampling and "dien" not in self.sequence:
            raise ValueError(f"use_negsampling needs the sequence block 'dien', got {list(self.sequence)}")


class CTRModel(SequenceModel):
    """Blocks of choice for users x candidates.

    Every sequence block reads every attention group; without groups, a network on features alone is left.

    Source: the papers of the blocks. Differs from them: as each block says; what a crossing puts out joins the input of
    the top, instead of the logits.

    Shapes: the seven tensors of ``models.inputs``; returns logits (U, C, K).
    """

    def __init__(self, config: CTRConfig) -> None:
        blocks: list[nn.Module] = []
        for name, options in config.sequence.items():
            if name != "pooling":
                blocks.extend(_block(name, options, group, config) for group in config.attention_groups)
        super().__init__(with_pooling(config), blocks)


def with_pooling(config: CTRConfig) -> CTRConfig:
    """The configuration with the histories that the block ``pooling`` pools among its ``history_pooling``."""
    options = config.sequence.get("pooling")
    if options is None:
        return config
    pooled = tuple(
        HistoryPooling(history=history, mode=options.mode, candidate=candidate, half_life=options.half_life)
        for group in config.attention_groups
        for candidate, history in zip(group.candidates, group.histories, strict=True)
    )
    kept = {name: entry for name, entry in config.sequence.items() if name != "pooling"}
    return replace(config, history_pooling=(*config.history_pooling, *pooled), sequence=kept)


def _block(name: str, options: Any, group: AttentionGroup, config: CTRConfig) -> nn.Module:
    if name == "din":
        return DINGroup(config.layout, group, options.mode)
    if name == "dien":
        auxiliary = config.auxiliary_hidden_layers if config.use_negsampling else None
        return DIENGroup(config.layout, group, auxiliary)
    if name == "dsin":
        return DSINGroup(config.layout, group, options)
    if name == "dmr":
        return DMRGroup(config.layout, group, options)
    return CANGroup(config.layout, group, options)
