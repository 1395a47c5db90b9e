"""Which candidate fields attend to which history fields, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from models.layers.dien import ATTENTIONS, EVOLUTIONS

_PAIR_KEYS = {"ad": "ad", "candidate": "ad", "pos_hist": "pos_hist", "history": "pos_hist", "neg_hist": "neg_hist"}


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Pairs of a candidate field and the history field of the same kind, with one extractor and one evolution.

    The query is the concatenation of the pairs' candidate embeddings, each key that of their history embeddings; a step
    is real where it is real for every pair.

    Attributes:
        name: of the group.
        pairs: mappings {"ad": candidate field, "pos_hist": history field, "neg_hist": optional}; "candidate" and
            "history" are read as the first two.
        hidden_layers: widths of the scoring network, without the final 1.
        activation: of the scoring network.
        att_dropout: of the scoring network.
        gru_type: GRU, AIGRU, AGRU or AUGRU (DIEN only).
        gru_dropout: of the extractor's states (DIEN only).
        extras: behaviour fields without a partner among the candidate's (the behaviour's type, value, age), joined to
            the keys.
        attention: mlp or bilinear (DIEN only).
        batchnorm: in the scoring network.
        hidden_size: of the GRUs; None is the width of the query (DIEN only).

    Raises:
        ValueError: if a pair or a choice is not one of the above.

    Example:
        >>> from models.layers import AttentionGroup
        >>> group = AttentionGroup("clicks", [{"ad": "item", "pos_hist": "hist_item"}], gru_type="agru")
        >>> group.candidates, group.histories, group.gru_type
        (('item',), ('hist_item',), 'AGRU')
    """

    name: str
    pairs: Sequence[Mapping[str, str]]
    hidden_layers: Sequence[int] = (80, 40)
    activation: str = "dice"
    att_dropout: float = 0.0
    gru_type: str = "AUGRU"
    gru_dropout: float = 0.0
    extras: Sequence[str] = field(default=(), kw_only=True)
    attention: str = field(default="mlp", kw_only=True)
    batchnorm: bool = field(default=False, kw_only=True)
    hidden_size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Bring the fields into one form."""
        if not self.pairs:
            raise ValueError(f"attention group {self.name!r}: pairs must name at least one pair, got none")
        object.__setattr__(self, "pairs", tuple(self._pair(pair) for pair in self.pairs))
        object.__setattr__(self, "hidden_layers", tuple(int(width) for width in self.hidden_layers))
        object.__setattr__(self, "extras", tuple(self.extras))
        object.__setattr__(self, "gru_type", self.gru_type.upper())
        if self.gru_type not in EVOLUTIONS:
            raise ValueError(
                f"attention group {self.name!r}: gru_type must be one of {', '.join(EVOLUTIONS)}; got {self.gru_type!r}"
            )
        if self.attention not in ATTENTIONS:
            raise ValueError(
                f"attention group {self.name!r}: attention must be one of {', '.join(ATTENTIONS)}; "
                f"got {self.attention!r}"
            )

    @property
    def candidates(self) -> tuple[str, ...]:
        """Candidate fields, pair by pair."""
        return tuple(pair["ad"] for pair in self.pairs)

    @property
    def histories(self) -> tuple[str, ...]:
        """History fields, pair by pair."""
        return tuple(pair["pos_hist"] for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the inverse is ``AttentionGroup(**...)``."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        values["pairs"] = [dict(pair) for pair in self.pairs]
        values["hidden_layers"] = list(self.hidden_layers)
        values["extras"] = list(self.extras)
        return values

    def _pair(self, given: Mapping[str, str]) -> dict[str, str]:
        unknown = set(given) - set(_PAIR_KEYS)
        pair = {_PAIR_KEYS[key]: value for key, value in given.items() if key in _PAIR_KEYS}
        if unknown or "ad" not in pair or "pos_hist" not in pair:
            raise ValueError(
                f"attention group {self.name!r}: a pair needs 'ad' and 'pos_hist' and may have 'neg_hist', "
                f"got {dict(given)}"
            )
        return pair
