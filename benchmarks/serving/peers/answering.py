"""What every peer does with a request: read the history from the store, run the graph on one thread, return scores.

It runs inside the peers' environments. Texts become rows of the embedding tables by one dictionary that is made at the
start, histories are read in the store's own record format, and nothing is validated beyond what the framework does: the
service checks all of it, so each of these is in the peers' favour.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.serving.speed_config import CONTEXT, SpeedConfig, item_names
from bundle.behaviours import RECORD
from bundle.fitting import FittedSchema
from bundle.ids import id64_column

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Given:
    """What the runner tells a peer, through the environment.

    Attributes:
        bundle: the folder of the bundle.
        graph: the ONNX file to run.
        repeats: the graph repeats the history for every candidate.
        store: Unix socket of the behaviour store.
        port: to listen on, on the loopback interface.
    """

    bundle: Path
    graph: Path
    repeats: bool
    store: str
    port: int

    def to_environment(self) -> dict[str, str]:
        """Variables that ``from_environment`` reads."""
        return {
            "PEER_BUNDLE": str(self.bundle),
            "PEER_GRAPH": str(self.graph),
            "PEER_REPEATS": "1" if self.repeats else "",
            "PEER_STORE": self.store,
            "PEER_PORT": str(self.port),
        }

    @classmethod
    def from_environment(cls) -> Given:
        """What the runner told.

        Raises:
            KeyError: if this was not started by the runner.
        """
        told = os.environ
        graph, repeats = Path(told["PEER_GRAPH"]), bool(told["PEER_REPEATS"])
        return cls(Path(told["PEER_BUNDLE"]), graph, repeats, told["PEER_STORE"], int(told["PEER_PORT"]))


def sequence_key(user_id: str) -> str:
    """Where the store keeps a user's behaviours."""
    return f"ctrlift1:seq:{{{user_id}}}"


class Answering:
    """The network with everything that its inputs are made of."""

    def __init__(self, given: Given) -> None:
        fitted = FittedSchema.load(given.bundle)
        names = item_names(SpeedConfig().items)
        self._items = fitted.items
        self._table = np.concatenate([fitted.items.id_columns[key] for key in _keys(fitted)], axis=1)  # (I + 1, 2)
        places = fitted.items.rows(id64_column(names))
        self._place = dict(zip(names, places.tolist(), strict=True))
        self._mean = np.array([fitted.scalers[name].mean for name in CONTEXT])
        self._scale = np.array([fitted.scalers[name].std for name in CONTEXT])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(given.graph), options, providers=["CPUExecutionProvider"])
        self._wanted = {each.name for each in self._session.get_inputs()}
        self._repeats = given.repeats

    def scores(self, candidates: list[str], context: dict[str, float], stored: bytes | None) -> list[float]:
        """Click probabilities of one user's candidates."""
        feed = self._feed(candidates, context, stored or b"\x01")
        if self._repeats:
            feed = {name: _repeat(name, array, len(candidates)) for name, array in feed.items()}
        logits = self._session.run(None, feed)[0].reshape(-1)
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).tolist()  # type: ignore[no-any-return]

    def reply(self, asked: dict[str, Any], stored: bytes | None) -> dict[str, Any]:
        """The answer to a decoded JSON body."""
        return {"scores": {"pctr": self.scores(asked["candidates"], asked["context"], stored)}}

    def _feed(self, candidates: list[str], context: dict[str, float], stored: bytes) -> Feed:
        place = self._place
        rows = [place.get(candidate, -1) for candidate in candidates]
        past = np.frombuffer(stored, RECORD, offset=1)[-SpeedConfig().steps :]["item"]
        numbers = np.array([context[name] for name in CONTEXT])
        feed: Feed = {
            "user_ids": np.empty((1, 0), np.int64),
            "user_numbers": ((numbers - self._mean) / self._scale).astype(np.float32)[None],
            "candidate_ids": self._table[rows][None],
            "candidate_numbers": np.empty((1, len(rows), 0), np.float32),
            "behaviour_ids": self._table[self._items.rows(past)][None],
            "behaviour_numbers": np.empty((1, len(past), 0), np.float32),
            "behaviour_mask": np.ones((1, len(past), 1), np.bool_),
        }
        return {name: array for name, array in feed.items() if name in self._wanted}


def _keys(fitted: FittedSchema) -> list[str]:
    """Columns of the item table, item first: the order of the network's id inputs."""
    return sorted(fitted.items.id_columns, key=lambda key: not key.startswith("item"))


def _repeat(name: str, array: NDArray[Any], candidates: int) -> NDArray[Any]:
    if name.startswith("candidate"):
        return np.swapaxes(array, 0, 1)
    return np.repeat(array, candidates, axis=0)
