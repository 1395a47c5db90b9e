"""Warnings that torch and onnxscript give while exporting, each known and none about the network."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

_DEPRECATIONS = (
    r"`torch\.jit\..*` is deprecated",
    r"# The axis name: .* will not be used, since it shares the same shape constraints",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
)
# The first lists torchvision operators that are not installed, the second splits that are not folded.
_LOGGERS = ("torch.onnx._internal.exporter._registration", "onnxscript.optimizer._constant_folding")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Run a block without them; other warnings pass."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        for message in _DEPRECATIONS:
            warnings.filterwarnings("ignore", message=message)
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
