"""Blocks by name: reading a choice of them, each with its options, from plain values and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from models.layers.history import build


def read_blocks(where: str, given: object, known: Mapping[str, type[Any]]) -> dict[str, Any]:
    """The options of the chosen blocks, in the order given.

    Args:
        where: what messages call the place.
        given: a list of names, or a mapping of names to options (plain values, or objects of the known classes).
        known: option classes by name.

    Raises:
        ValueError: naming the block or the option that is unknown or unfit.
    """
    if isinstance(given, str) or not isinstance(given, Mapping | list | tuple):
        raise ValueError(f"{where} must be a list of names or a mapping of names to options, got {given!r}")
    chosen = dict(given) if isinstance(given, Mapping) else {name: {} for name in given}
    if len(chosen) != len(given):
        raise ValueError(f"{where} must name a block once, got {list(given)}")
    blocks: dict[str, Any] = {}
    for name, options in chosen.items():
        if name not in known:
            raise ValueError(f"{where}: {name!r} is not a block; known are {', '.join(sorted(known))}")
        if isinstance(options, known[name]):
            blocks[name] = options
            continue
        if not isinstance(options, Mapping):
            raise ValueError(f"{where}.{name} must be a mapping of options, got {options!r}")
        try:
            blocks[name] = build(known[name], options, f"{where}.{name}")
        except ValueError as error:
            raise ValueError(f"{where}.{name}: {error}") from error
    return blocks


def blocks_to_dict(blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON types; the inverse is ``read_blocks``."""
    return {name: plain(options) for name, options in blocks.items()}


def plain(options: Any) -> dict[str, Any]:
    """The options of one block as plain JSON types."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}
