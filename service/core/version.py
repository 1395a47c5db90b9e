"""One version of a model, ready to score: a verified bundle and a loaded graph.

``ctrlift score`` uses this class too, so that a file and a request get their scores from the same code.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.correct import HIGHEST, LOWEST, logit
from bundle.encode import EncodedRows, Encoder, Rows
from bundle.errors import BundleRefused, FeatureError
from bundle.loading import Bundle, Limits, open_bundle
from bundle.request import ScoreQuery, rows_from_query
from bundle.schema_checks import history_features
from bundle.user_columns import StoredLike
from service.core.run_time import RunTime
from service.engines.base import Engine, EngineError
from service.engines.opening import EngineName, EngineOptions, KernelChoice, faster_engine, open_engine

if TYPE_CHECKING:
    from service.core.compiled_version import CompiledVersion

__all__ = ["EngineName", "Prepared", "Ran", "Scored", "ServedVersion", "Stage", "load_version", "served_version"]

Stage = Literal["encode", "engine", "correct"]

GOLDEN_TOLERANCE = 1e-4
_LONG = 10_000  # values that encoding looks at one way or another


class Scored(NamedTuple):
    """Scores of U users for C candidates each.

    Attributes:
        logits: (U, C, K) float64, as the graph returned them.
        probabilities: Task -> (U, C) float64 in (0, 1); may hold more tasks than the graph (pctcvr).
        lengths: (U,) behaviours that were used.
        unseen: Field -> number of ids without a row of their own.
        missing: Features that neither the request nor the store nor the bundle's items gave.
        non_finite: The graph returned something that is no number, and the priors stand in for it.
        seconds: Time of each stage.
    """

    logits: NDArray[np.float64]
    probabilities: Mapping[str, NDArray[np.float64]]
    lengths: NDArray[np.int64]
    unseen: Mapping[str, int]
    missing: tuple[str, ...]
    non_finite: bool
    seconds: Mapping[Stage, float]


class Prepared(NamedTuple):
    """Encoded rows on their way to the graph.

    Attributes:
        encoded: For what is said of them besides the scores.
        inputs: The graph's.
        seconds: Time that encoding took.
    """

    encoded: EncodedRows
    inputs: Mapping[str, NDArray[Any]]
    seconds: float


class Ran(NamedTuple):
    """What the graph returned, (U, C, K) float32, and the time it took."""

    logits: NDArray[np.float32]
    seconds: float


class ServedVersion:
    """A bundle with its engine. Use ``load_version`` to get one that was checked.

    Args:
        bundle: The opened bundle.
        engine: Its graph.

    Attributes:
        run_time: What ``run`` will take.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.tasks = tuple(bundle.manifest.tasks)
        self.run_time = RunTime()
        self._engine = engine
        # Set where the bundle is loaded to serve: a batch has no bytes of requests.
        self.compiled: CompiledVersion | None = None
        self._encoder: Encoder = bundle.encoder
        # Numbers that compare every candidate with every behaviour.
        self._compared = len(history_features(bundle.fitted.schema, per_candidate=True))

    def score(self, query: ScoreQuery, stored: StoredLike | None, *, without_history: bool = False) -> Scored:
        """Score one user's slate: ``prepare``, ``run`` and ``finish`` in one go.

        Raises:
            FeatureError: A feature does not fit the bundle's schema; the problems name JSON pointers.
            EngineError: The graph failed.
            NonFiniteLogits: The graph returned something that is no number, and the bundle has no priors.
        """
        prepared = self.prepare(query, stored)
        return self.finish(prepared, self.run(prepared.inputs), without_history=without_history)

    def score_rows(self, rows: Rows, *, without_history: bool = False) -> Scored:
        """Score U users with C candidates each; see ``score``."""
        prepared = self._encoded(rows, perf_counter())
        return self.finish(prepared, self.run(prepared.inputs), without_history=without_history)

    def prepare(self, query: ScoreQuery, stored: StoredLike | None) -> Prepared:
        """Encode one user's slate.

        Raises:
            FeatureError: See ``score``.
        """
        started = perf_counter()
        return self._encoded(rows_from_query(self.bundle.fitted, query, stored), started)

    def takes_long(self, query: ScoreQuery, stored: StoredLike | None) -> bool:
        """Whether ``prepare`` takes so long that an event loop must not wait for it: more than about a millisecond."""
        past = query.behaviours if stored is None else stored.behaviours
        compared = 0 if past is None else len(past) * self._compared
        return len(query.candidates) * (1 + len(query.candidate_features) + compared) > _LONG

    def _encoded(self, rows: Rows, started: float) -> Prepared:
        encoded = self._encoder.encode(rows)
        return Prepared(encoded, encoded.take(None), perf_counter() - started)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Ran:
        """Run the graph: the one part of the work that another thread can do at the same time.

        Raises:
            EngineError: The graph failed.
        """
        started = perf_counter()
        logits = self._engine.run(inputs)
        seconds = perf_counter() - started
        self.run_time.learn(logits.shape[0] * logits.shape[1], seconds)
        return Ran(logits, seconds)

    def finish(self, prepared: Prepared, ran: Ran, *, without_history: bool) -> Scored:
        """Logits to probabilities.

        Raises:
            EngineError, NonFiniteLogits: See ``score``.
        """
        started = perf_counter()
        encoded = prepared.encoded
        logits = ran.logits.astype(np.float64)
        finite = np.count_nonzero(np.isfinite(logits)) == logits.size
        if not finite:
            logits = self._with_priors(logits)
        probabilities = self.manifest.correction.probabilities(logits, self.tasks, without_history=without_history)
        if {"ctr", "cvr"} <= probabilities.keys():
            # Taken of the corrected factors: correcting the product would correct twice.
            probabilities.setdefault("ctcvr", np.clip(probabilities["ctr"] * probabilities["cvr"], LOWEST, HIGHEST))
        seconds: dict[Stage, float] = {
            "encode": prepared.seconds,
            "engine": ran.seconds,
            "correct": perf_counter() - started,
        }
        return Scored(logits, probabilities, encoded.lengths, encoded.unseen, encoded.missing, not finite, seconds)

    def _with_priors(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put a task's base rate where the graph returned no number; the correction then shifts it like any logit."""
        mended = logits.copy()
        for column, task in enumerate(self.tasks):
            broken = ~np.isfinite(mended[..., column])
            correction = self.manifest.correction.tasks.get(task)
            if not broken.any():
                continue
            if correction is None or correction.train_prior is None:
                raise EngineError("the graph returned a logit that is not finite, and the bundle has no base rate")
            mended[..., column][broken] = logit(correction.train_prior)
        return mended

    @cached_property
    def feature_names(self) -> frozenset[str]:
        """Names that a request may give."""
        return frozenset(feature.name for feature in self.bundle.fitted.schema.feature)

    def inputs_of(self, query: ScoreQuery) -> Mapping[str, NDArray[Any]]:
        """The graph's inputs for a request without stored data; for benchmarks that call the graph alone."""
        return _inputs_alone(self.bundle, query)

    def check_golden(self) -> None:
        """Reproduce the logits and the scores that training computed.

        Raises:
            BundleRefused: There are none, or one differs by more than ``GOLDEN_TOLERANCE``.
        """
        if not self.bundle.golden:
            raise BundleRefused("golden_missing", "golden.npz holds no requests to check the graph with")
        for number, row in enumerate(self.bundle.golden):
            scored = self.score(row.query, None)
            self._check_golden_part(number, "logit", scored.logits[0], row.logits)
            for task, expected in row.scores.items():
                # Logits alone would let a bundle through whose correction is not the one it was judged with.
                self._check_golden_part(number, f"score of {task}", scored.probabilities[task][0], expected)

    @staticmethod
    def _check_golden_part(number: int, what: str, got: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        if got.shape != expected.shape:
            raise BundleRefused("golden_differs", f"golden row {number}: a {what} has another shape than in training")
        difference = float(np.max(np.abs(got - expected)))
        if not difference <= GOLDEN_TOLERANCE:
            raise BundleRefused(
                "golden_differs",
                f"golden row {number}: a {what} differs by {difference:.2g}, allowed is {GOLDEN_TOLERANCE:g}",
            )

    def warm_up(self, runs: int) -> None:
        """Score golden requests, so that the first real one finds memory and kernels ready."""
        for number in range(runs):
            self.score(self.bundle.golden[number % len(self.bundle.golden)].query, None)

    def close(self) -> None:
        """Give the graph back."""
        self._engine.close()


def load_version(
    path: Path,
    engine: EngineName = "onnx",
    *,
    threads: int = 1,
    inter_threads: int = 1,
    kernel: KernelChoice = "auto",
    limits: Limits | None = None,
    expected: tuple[str, str] | None = None,
) -> ServedVersion:
    """Open a bundle of kind ctr, load its graph and reproduce its golden rows: after this it may take traffic.

    The order matters: nothing of a graph is parsed before every digest was checked.

    Args:
        path: The bundle's folder.
        engine: Which of its graphs to run.
        threads: Threads inside one run.
        inter_threads: Graph nodes run side by side.
        kernel: Whether compiled operators are used where they can be.
        limits: What the bundle may weigh.
        expected: Name and version that the manifest must have; None: whatever it says.

    Raises:
        BundleRefused: The bundle breaks a rule, its graph does not load or does not give training's logits.
    """
    opened = open_named(path, limits, expected)
    return served_version(opened, EngineOptions(engine, threads, inter_threads, kernel))


def open_named(path: Path, limits: Limits | None, expected: tuple[str, str] | None) -> Bundle:
    """Open a bundle, which must be what its folder says where ``expected`` (name and version) is given.

    Raises:
        BundleRefused: The bundle breaks a rule or has another name or version.
    """
    bundle = open_bundle(path, limits)
    if expected is not None and (bundle.manifest.name, bundle.manifest.version) != expected:
        raise BundleRefused("name_differs", "the manifest names another model or version than its folder")
    return bundle


def served_version(bundle: Bundle, options: EngineOptions) -> ServedVersion:
    """Load the graph of an opened bundle of kind ctr and reproduce its golden rows.

    Raises:
        BundleRefused: The bundle is of another kind, its graph does not load or does not give training's logits.
    """
    if bundle.manifest.kind != "ctr":
        raise BundleRefused("kind", f"a bundle of kind ctr is needed here, this one is of kind {bundle.manifest.kind}")
    declared = {spec.name: spec.dtype for spec in bundle.manifest.inputs}
    names = [spec.name for spec in bundle.manifest.outputs]
    try:
        engine = open_engine(bundle.graph(options.engine), declared, names, options)
        golden = [_inputs_alone(bundle, row.query) for row in bundle.golden]
        version = ServedVersion(bundle, faster_engine(engine, bundle, golden, options))
        version.check_golden()
    except EngineError as error:
        raise BundleRefused("graph", str(error)) from error
    except FeatureError as error:
        raise BundleRefused("golden_damaged", f"a golden request does not fit the bundle's schema: {error}") from error
    return version


def _inputs_alone(bundle: Bundle, query: ScoreQuery) -> Mapping[str, NDArray[Any]]:
    """The graph's inputs for a request without stored data."""
    return bundle.encoder.encode(rows_from_query(bundle.fitted, query, None)).take(None)
