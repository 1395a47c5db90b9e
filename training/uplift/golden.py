"""Golden requests of treatment effects: raw users whose answers travel in the bundle and are asked again on loading.

They are real validation rows written back as a caller would post them, alone and together, and varied: a feature left
out, an unseen value, a user that nobody knows, every dose from the lowest to the highest, coarse and fine grids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from bundle.encode import Encoder
from bundle.population import Person, UpliftQuery, rows_from_users
from bundle.schema import IdFeature
from bundle.treatment import UpliftPart
from bundle.uplift_golden import UpliftGoldenRow
from bundle.uplift_inputs import graph_inputs
from training.datasets import Dataset
from training.golden import UNKNOWN_USER, RequestWriter

UNSEEN: Final = "golden-unseen-value"
ALONE: Final = 6
TOGETHER: Final = 24
_GRIDS: Final = (2, 21, 201)


def uplift_golden_rows(
    dataset: Dataset, encoder: Encoder, network: nn.Module, part: UpliftPart, outputs: Sequence[str]
) -> list[UpliftGoldenRow]:
    """At least 12 requests with every raw output of the eager network."""
    rows: list[UpliftGoldenRow] = []
    for number, query in enumerate(golden_queries(dataset)):
        share = (number % 5) / 4
        doses = {arm: (1 - share) * scale.low + share * scale.high for arm, scale in part.doses.items()}
        points = _GRIDS[number % len(_GRIDS)] if part.doses else 0
        rows.append(answered(UpliftGoldenRow(query, {}, doses, points), encoder, network, part, outputs))
    return rows


def answered(
    row: UpliftGoldenRow, encoder: Encoder, network: nn.Module, part: UpliftPart, outputs: Sequence[str]
) -> UpliftGoldenRow:
    """The request with what the eager network says to it."""
    encoded = encoder.encode(rows_from_users(encoder.fitted, row.query).rows)
    arrays = graph_inputs(encoded, part, row.doses, row.points) if part.doses else graph_inputs(encoded, part)
    with torch.no_grad():
        found = network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays.values()))
    values = {name: tensor.double().numpy() for name, tensor in zip(outputs, found, strict=True)}
    return replace(row, outputs=values)


def golden_queries(dataset: Dataset) -> Iterator[UpliftQuery]:
    """Requests made of validation rows: 12 and more."""
    writer = RequestWriter(dataset)
    count = len(writer.part)
    lengths = writer.part.rows.behaviours.lengths
    # The longest histories first, then the rest evenly: where there are no histories this is the order of the rows.
    order = np.argsort(-lengths, kind="stable")
    people = [person(writer, int(row)) for row in order[np.linspace(0, count - 1, TOGETHER).astype(int)]]
    ts = float(writer.part.rows.time.max())
    for one in people[:ALONE]:
        yield UpliftQuery([one], ts)
    yield UpliftQuery(people, ts)
    yield UpliftQuery(people[:2], ts)
    first = people[0]
    yield UpliftQuery([Person(UNKNOWN_USER, {}, [])], ts)
    yield UpliftQuery([replace(first, user_id=None)], ts)
    yield UpliftQuery([replace(first, behaviours=[])], ts)
    yield UpliftQuery([replace(first, features={**first.features, **unseen_values(dataset)})], ts)
    for name in list(first.features)[:4]:
        yield UpliftQuery([replace(first, features={**first.features, name: None})], ts)


def person(writer: RequestWriter, row: int) -> Person:
    """One validation row as a user of a request."""
    given = writer.given(row)
    return Person(
        user_id=str(writer.part.user_ids[row]),
        features={**given["user"], **given["context"]},
        behaviours=writer.history(row),
    )


def unseen_values(dataset: Dataset) -> dict[str, Any]:
    """A value that training never met for every plain id feature."""
    return {
        feature.name: [UNSEEN] if feature.max_values > 1 else UNSEEN
        for feature in dataset.features.feature
        if isinstance(feature, IdFeature) and feature.name != dataset.features.ids.user
    }
