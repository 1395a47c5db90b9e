"""Well-known networks as configurations of ``CTRModel``.

Each is a set of options that a configuration may override one by one; what is not named here is as in ``CTRConfig``.
"""

from collections.abc import Mapping
from typing import Any, Final

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Wang et al. 2020, arXiv:2008.13535
    "dcn_v2": {"sequence": ["pooling"], "crossing": {"dcn": {"layers": 2, "type": "matrix"}}},
    # Lian et al. 2018, arXiv:1803.05170
    "xdeepfm": {"sequence": ["pooling"], "crossing": {"cin": {"layers": [32, 32]}}, "wide": True},
    # Song et al. 2019, arXiv:1810.11921
    "autoint": {"sequence": ["pooling"], "crossing": {"autoint": {"layers": 2}}},
    # Huang et al. 2019, arXiv:1905.09433
    "fibinet": {"sequence": ["pooling"], "crossing": {"senet": {}, "bilinear": {}}, "wide": True},
    # Bian et al. 2020, arXiv:2011.05625: beside an attention over the same history
    "can": {"sequence": ["can", "din"]},
    # Lyu et al. 2020, AAAI: relevance of user to item, and attention of item to item
    "dmr": {"sequence": ["dmr", "din"]},
}
