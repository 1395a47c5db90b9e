"""Networks for click and conversion prediction: users x candidates in, logits out."""

from models.ctr.composed import CTRConfig, CTRModel
from models.ctr.dien import DIENConfig, DIENModel
from models.ctr.din import DINConfig, DINModel
from models.ctr.dsin import DSINConfig, DSINModel, SessionOptions
from models.ctr.presets import PRESETS

__all__ = [
    "PRESETS",
    "CTRConfig",
    "CTRModel",
    "DIENConfig",
    "DIENModel",
    "DINConfig",
    "DINModel",
    "DSINConfig",
    "DSINModel",
    "SessionOptions",
]
