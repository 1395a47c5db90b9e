"""The ways in which one bundle can be run here: ONNX Runtime alone, and with the compiled kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.engines.kernel.library import KernelUnavailable, open_library
from service.engines.opening import KernelChoice


@dataclass(frozen=True, slots=True)
class Variant:
    """A name, and what opens the graph so in this process and in the service."""

    name: str
    kernel: KernelChoice

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the service, by dotted key."""
        return {"models.kernel": self.kernel}


ONNX: Final = Variant("onnx", "off")
KERNEL: Final = Variant("kernel", "auto")


def variants() -> list[Variant]:
    """Those that this machine can run, the fastest last."""
    return [ONNX] if isinstance(kernel_here(), KernelUnavailable) else [ONNX, KERNEL]


def kernel_here() -> str | KernelUnavailable:
    """The kernel's instruction set on this processor, or why there is none."""
    try:
        return open_library().name
    except KernelUnavailable as reason:
        return reason
