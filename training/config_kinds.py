"""What a configuration may say depends on its kind: click models and treatment effects are trained differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from bundle.schema import FeatureSchema

if TYPE_CHECKING:
    from training.config import DataSection

Kind = Literal["ctr", "uplift"]

# Sections of one kind alone; where a section is absent here, both kinds have it.
_FOREIGN: Final[Mapping[Kind, tuple[str, ...]]] = {
    "ctr": ("objective", "evaluation"),
    "uplift": ("sampling", "calibration", "funnel"),
}
_REASON: Final[Mapping[Kind, str]] = {
    "ctr": "needs treatments, which this configuration does not declare",
    "uplift": "belongs to click models, and this configuration declares treatments",
}
# How a network of treatment effects learns is told stage by stage in [objective]; the rest of [train] would be ignored.
_UPLIFT_TRAIN: Final = ("seed", "device", "threads", "checkpoint_every")


def check_kind(features: FeatureSchema, sections: Mapping[str, Any]) -> None:
    """Refuse what has no meaning for the kind of the declaration.

    Args:
        features: the declaration.
        sections: as the file gives them, before they are read.

    Raises:
        ValueError: naming the key.
    """
    for name in _FOREIGN[features.kind]:
        if name in sections:
            raise ValueError(f"key {name}: {_REASON[features.kind]}")
    split = _inner(sections, "data", "split")
    if features.kind == "ctr":
        if split.get("by") == "random":
            raise ValueError("key data.split.by: 'random' is for treatment effects; clicks are split by time")
        return
    if _inner(sections, "data").get("items") is not None:
        raise ValueError("key data.items: with treatments there are no candidates that an item table could describe")
    for key in _inner(sections, "train"):
        if key not in _UPLIFT_TRAIN:
            raise ValueError(f"key train.{key}: with treatments [train] holds {', '.join(_UPLIFT_TRAIN)}; the rest of "
                             "the training is told in [objective]")  # fmt: skip
    if "network" not in _inner(sections, "model"):
        raise ValueError("missing key model.network")
    if split.get("by") == "time" and features.ids.time is None:
        raise ValueError("key data.split.by: a split by time needs the key ids.time")


def with_kind_defaults(features: FeatureSchema, data: DataSection) -> DataSection:
    """The data section with the split that its kind has where the file does not say one."""
    split = data.split
    by = split.by or ("time" if features.kind == "ctr" else "random")
    seed = split.seed or 0 if by == "random" else None
    return data.model_copy(update={"split": split.model_copy(update={"by": by, "seed": seed})})


def sections_of(kind: Kind, sections: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved sections that a configuration of this kind has."""
    kept = {name: section for name, section in sections.items() if name not in _FOREIGN[kind]}
    if kind == "uplift":
        kept["train"] = {key: value for key, value in kept["train"].items() if key in _UPLIFT_TRAIN}
    return kept


def _inner(sections: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A section of the file, empty where it is absent or no section at all: its own checks will say so."""
    here: Any = sections
    for step in path:
        here = here.get(step) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) else {}
