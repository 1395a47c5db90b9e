"""Batches sliced from arrays that were encoded once.

The order of rows, the histories that are dropped and the negatives are functions of (seed, epoch, batch), each with a
stream of its own: a resumed run only needs its position to go on as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.inputs import INPUT_NAMES
from training.environments import environment_batches
from training.negatives import NegativeSampler

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

# Rows of like length are gathered within this many batches at a time: enough that a batch is nearly uniform, few
# enough that the order of an epoch stays random.
MEGA_BATCH: Final = 50


class Stream(IntEnum):
    """What a seeded generator is for; one number each, never reused."""

    ORDER = 1
    NEGATIVES = 2
    LOST_HISTORY = 3


def generator_for(stream: Stream, seed: int, *place: int) -> np.random.Generator:
    """The generator of one stream at one place (epoch, batch) of a run."""
    return np.random.default_rng([int(stream), seed, *place])


class Encoded(Protocol):
    """The part of ``bundle.encode.EncodedRows`` that slicing needs."""

    def take(self, indices: Int64 | None = None, trim: bool = True) -> dict[str, NDArray[Any]]:
        """Arrays by input name for these rows."""
        ...


@dataclass(frozen=True, slots=True)
class Targets:
    """What the rows should have been.

    Attributes:
        labels: (N, K) float32; NaN where a task has no label for the row.
        weights: (N, K) float32, 0 where there is no label.
        rates: (N, K) float32, share of the negatives like this row that were kept; 1 = all.
    """

    labels: Float32
    weights: Float32
    rates: Float32


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's tensors.

    Attributes:
        inputs: the network's seven inputs in their order, B users with one candidate each.
        negatives: (R, T, Fb) int64 of the first R <= B rows, or None where the network has no auxiliary loss.
        labels: (B, K).
        weights: (B, K).
        rates: (B, K), share of the negatives like each row that were kept.
        environments: (B,) int64, or None where training knows none.
    """

    inputs: tuple[Tensor, ...]
    negatives: Tensor | None
    labels: Tensor
    weights: Tensor
    rates: Tensor
    environments: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return Batch(
            inputs=tuple(tensor.to(device) for tensor in self.inputs),
            negatives=None if self.negatives is None else self.negatives.to(device),
            labels=self.labels.to(device),
            weights=self.weights.to(device),
            rates=self.rates.to(device),
            environments=None if self.environments is None else self.environments.to(device),
        )


def epoch_order(lengths: Int64, batch_size: int, seed: int, epoch: int, by_length: bool) -> list[Int64]:
    """The batches of one epoch as row indices.

    Args:
        lengths: (N,) history length of each row.
        batch_size: rows a batch; the last one of an epoch may be smaller.
        seed: of the run.
        epoch: from 0.
        by_length: gather rows of like length, so that little padding is computed; every row still comes once.
    """
    generator = generator_for(Stream.ORDER, seed, epoch)
    order = generator.permutation(len(lengths)).astype(np.int64)
    if not by_length:
        return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    batches: list[Int64] = []
    for first in range(0, len(order), batch_size * MEGA_BATCH):
        mega = order[first : first + batch_size * MEGA_BATCH]
        mega = mega[np.argsort(lengths[mega], kind="stable")]
        # Rows are shuffled inside a batch again: whoever takes the first few must get a fair sample of it.
        parts = [generator.permutation(mega[at : at + batch_size]) for at in range(0, len(mega), batch_size)]
        batches += [parts[place] for place in generator.permutation(len(parts))]
    return batches


def lose_histories(
    batch: Mapping[str, NDArray[Any]], emptied: Mapping[str, NDArray[Any]], lost: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """Replace rows by their copies without a history, as the service would encode them with its store down.

    Args:
        batch: arrays of the rows as they are.
        emptied: arrays of the lost rows alone, encoded with no behaviours; T is 1.
        lost: (B,) bool, the rows to replace.
    """
    mixed: dict[str, NDArray[Any]] = {}
    for name, array in batch.items():
        array = array.copy()
        other = emptied[name]
        if name.startswith("behaviour_"):
            array[lost] = 0
            array[lost, : other.shape[1]] = other
        else:
            array[lost] = other
        mixed[name] = array
    return mixed


@dataclass(frozen=True, slots=True)
class Batches:
    """The training rows, ready to be sliced.

    Attributes:
        rows: the encoded rows.
        lengths: (N,) history lengths.
        targets: labels, weights, rates.
        batch_size: rows a batch over all processes.
        seed: of the run.
        by_length: see ``epoch_order``.
        emptied: the same rows without histories; None without sequence dropout.
        lost_share: share of rows whose history is dropped.
        sampler: draws negatives; None where the network has no auxiliary loss.
        auxiliary_share: share of a batch's rows that the auxiliary loss looks at.
        environments: (N,) codes from 0; every batch then holds rows of each, and lengths are not grouped.
    """

    rows: Encoded
    lengths: Int64
    targets: Targets
    batch_size: int
    seed: int
    by_length: bool = True
    emptied: Encoded | None = None
    lost_share: float = 0.0
    sampler: NegativeSampler | None = None
    auxiliary_share: float = 1.0
    environments: Int64 | None = None

    @property
    def per_epoch(self) -> int:
        """Batches an epoch; the same for every epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def order(self, epoch: int) -> list[Int64]:
        """Row indices of every batch of an epoch."""
        if self.environments is not None:
            return environment_batches(
                self.environments, self.batch_size, generator_for(Stream.ORDER, self.seed, epoch)
            )
        return epoch_order(self.lengths, self.batch_size, self.seed, epoch, self.by_length)

    def build(self, rows: Int64, epoch: int, number: int) -> Batch:
        """Slice batch ``number`` of an epoch.

        Args:
            rows: (B,) row indices, as ``order`` gave them.
            epoch: from 0.
            number: of the batch within the epoch, from 0.
        """
        arrays = self.rows.take(rows)
        if self.emptied is not None and self.lost_share > 0:
            generator = generator_for(Stream.LOST_HISTORY, self.seed, epoch, number)
            lost = generator.random(len(rows)) < self.lost_share
            arrays = lose_histories(arrays, self.emptied.take(rows[lost]), lost)
        negatives = None
        if self.sampler is not None:
            generator = generator_for(Stream.NEGATIVES, self.seed, epoch, number)
            # Rows stand in random order inside a batch, so the first ones are a fair sample of it.
            first = slice(0, math.ceil(self.auxiliary_share * len(rows)))
            ids, mask = arrays["behaviour_ids"][first], arrays["behaviour_mask"][first]
            negatives = torch.from_numpy(self.sampler.behaviour_ids(rows[first], ids, mask, generator))
        return Batch(
            inputs=to_tensors(arrays),
            negatives=negatives,
            labels=torch.from_numpy(self.targets.labels[rows]),
            weights=torch.from_numpy(self.targets.weights[rows]),
            rates=torch.from_numpy(self.targets.rates[rows]),
            environments=None if self.environments is None else torch.from_numpy(self.environments[rows]),
        )


def to_tensors(arrays: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
    """The network's inputs in their order."""
    return tuple(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in INPUT_NAMES)
