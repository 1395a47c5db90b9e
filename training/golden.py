"""Golden requests: raw questions whose answers travel in the bundle and are asked again before it takes traffic.

They are real rows written back as a caller would post them, varied until every case that breaks graphs is among them:
nobody's history, one step, the longest one, an unknown user, an unseen item, one candidate and many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from torch import nn

from bundle.behaviours import Events, type_code
from bundle.correct import Correction
from bundle.encode import Encoder
from bundle.golden import GoldenRow
from bundle.ids import id64_column
from bundle.request import Behaviour, ScoreQuery, rows_from_query
from bundle.request_values import BehaviourLike
from bundle.schema import FeatureSchema, IdFeature, NumberFeature, SequenceFeature
from training.batches import to_tensors
from training.datasets import Dataset

UNKNOWN_USER: Final = "golden-unknown-user"
UNSEEN_ITEM: Final = "golden-unseen-item"
ROWS_AS_THEY_ARE: Final = 8
MANY_CANDIDATES: Final = 50


def golden_rows(dataset: Dataset, encoder: Encoder, network: nn.Module, correction: Correction) -> list[GoldenRow]:
    """At least 16 requests with the logits of the eager network and the corrected scores."""
    tasks = dataset.tasks
    return [answer(query, encoder, network, correction, tasks) for query in golden_queries(dataset)]


def answer(
    query: ScoreQuery, encoder: Encoder, network: nn.Module, correction: Correction, tasks: Sequence[str]
) -> GoldenRow:
    """What the eager network says to one request."""
    arrays = encoder.encode(rows_from_query(encoder.fitted, query)).take()
    with torch.no_grad():
        logits = network(*to_tensors(arrays))[0].double().numpy()
    scores = correction.probabilities(logits, tasks, without_history=False)
    return GoldenRow(query=query, logits=logits, scores=scores)


def golden_queries(dataset: Dataset) -> list[ScoreQuery]:
    """Requests made of the newest validation rows that have histories, and their variations."""
    writer = RequestWriter(dataset)
    lengths = writer.part.rows.behaviours.lengths
    longest_first = np.argsort(-lengths, kind="stable")
    spread = longest_first[np.linspace(0, len(longest_first) - 1, min(ROWS_AS_THEY_ARE, len(lengths))).astype(int)]
    plain = [writer.query(int(row)) for row in spread]
    longest = plain[0]
    known = writer.some_items(MANY_CANDIDATES)
    history = list(longest.behaviours or ())
    varied = [
        replace(longest, behaviours=[]),
        replace(longest, behaviours=history[-1:]),
        replace(longest, behaviours=history[-2:]),
        replace(longest, user_id=UNKNOWN_USER, user_features={}, context={}, behaviours=[]),
        replace(longest, user_id=None),
        replace(longest, behaviours=[*history[:1], replace_item(history, UNSEEN_ITEM)]) if history else longest,
        with_candidates(longest, [UNSEEN_ITEM]),
        with_candidates(longest, known),
        with_candidates(replace(longest, behaviours=[]), [*known[:6], UNSEEN_ITEM]),
        with_candidates(plain[-1], known[:2]),
    ]
    return [*plain, *varied]


def replace_item(history: Sequence[BehaviourLike], item: str) -> Behaviour:
    """The newest behaviour as if it had been with another item."""
    newest = history[-1]
    return Behaviour(item, newest.ts, newest.type, newest.value)


def with_candidates(query: ScoreQuery, candidates: Sequence[str]) -> ScoreQuery:
    """The request for other candidates; features of the row's own candidate are repeated for each."""
    features = {name: [values[0]] * len(candidates) for name, values in query.candidate_features.items()}
    return replace(query, candidates=list(candidates), candidate_features=features)


class RequestWriter:
    """Writes validation rows as requests: ids as texts again, behaviours inline.

    Behaviours keep only hashes of their items' and types' texts, so the texts are looked up among everything that the
    data set and the declaration name; an event whose item is named nowhere is left out.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.schema: FeatureSchema = dataset.features
        self.part = dataset.part("valid")
        self.frame = dataset.frame("valid")
        key = self.schema.ids.user
        self.users = {} if dataset.users is None else {row[key]: row for row in dataset.users.iter_rows(named=True)}
        texts = item_texts(dataset) if self.schema.ids.item is not None else []
        self.item_of: Mapping[int, str] = dict(zip(id64_column(texts).tolist(), texts, strict=True))
        self.type_of = {type_code(text): text for text in declared_types(self.schema)}

    def query(self, row: int) -> ScoreQuery:
        """One validation row as a request for its item."""
        given = self.given(row)
        return ScoreQuery(
            user_id=str(self.part.user_ids[row]),
            candidates=[str(self.part.item_ids[row])],
            ts=float(self.part.rows.time[row]),
            context=given["context"],
            user_features=given["user"],
            candidate_features={name: [value] for name, value in given["candidate"].items()},
            behaviours=self.history(row),
        )

    def given(self, row: int) -> dict[str, dict[str, Any]]:
        """What a caller would say about one validation row, by side and feature; missing values are left out."""
        values = self.frame.row(row, named=True)
        values = {**self.users.get(str(self.part.user_ids[row]), {}), **values}
        given: dict[str, dict[str, Any]] = {"user": {}, "context": {}, "candidate": {}}
        for feature in self.schema.feature:
            if not isinstance(feature, (IdFeature, NumberFeature)) or feature.name not in values:
                continue
            if feature.name in (self.schema.ids.user, self.schema.ids.item) or self.schema.is_item_column(feature):
                continue
            if (value := plain_value(feature, values[feature.name])) is not None:
                given[feature.side][feature.name] = value
        return given

    def history(self, row: int) -> list[Behaviour]:
        """The behaviours that one validation row may see, oldest first."""
        behaviours = self.part.rows.behaviours
        return self.behaviours(behaviours.events[int(behaviours.start[row]) : int(behaviours.stop[row])])

    def behaviours(self, log: Events) -> list[Behaviour]:
        """Stored events as a request gives them, oldest first."""
        written: list[Behaviour] = []
        for event in log.tolist():
            item, ts, kind, value = event
            if item not in self.item_of:
                continue
            written.append(
                Behaviour(
                    item_id=self.item_of[item],
                    ts=float(ts),
                    type=self.type_of.get(kind),
                    value=None if np.isnan(value) else float(value),
                )
            )
        return written

    def some_items(self, count: int) -> list[str]:
        """The first distinct items of the validation rows."""
        return [str(item) for item in self.part.item_ids.unique(maintain_order=True).to_list()[:count]]


def item_texts(dataset: Dataset) -> list[str]:
    """Every item text that the rows or the item table name."""
    key = dataset.features.item_column
    columns = [dataset.rows[key]]
    if dataset.items is not None:
        columns.append(dataset.items[key])
    return [str(text) for text in pl.concat(columns).unique(maintain_order=True).to_list() if text is not None]


def declared_types(schema: FeatureSchema) -> list[str]:
    """Behaviour types that a filter of the declaration names."""
    named = [
        feature.where.types for feature in schema.feature if isinstance(feature, SequenceFeature) and feature.where
    ]
    return sorted({text for types in named for text in types or ()})


def plain_value(feature: IdFeature | NumberFeature, value: Any) -> Any:
    """A cell as JSON gives it; None where it is missing."""
    if value is None:
        return None
    if isinstance(feature, NumberFeature):
        return None if np.isnan(float(value)) else float(value)
    if isinstance(value, (list, tuple, pl.Series)):
        return [str(member) for member in value]
    return str(value)
