"""Networks for click and conversion prediction: users x candidates in, logits out."""

from models.ctr.dien import DIENConfig, DIENModel
from models.ctr.din import DINConfig, DINModel

__all__ = ["DIENConfig", "DIENModel", "DINConfig", "DINModel"]
