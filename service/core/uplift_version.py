"""One version of an uplift model, ready to answer: a verified bundle and its graphs.

``ctrlift uplift`` uses this class too, so that a file and a request get their answers from the same code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundle.encode import EncodedRows, Encoder
from bundle.errors import BundleRefused, FeatureError
from bundle.loading import Bundle, Limits
from bundle.population import Population, UpliftQuery, rows_from_users
from bundle.schema import FeatureSchema, IdFeature, NumberFeature
from bundle.treatment import UpliftPart
from bundle.uplift_golden import UpliftGoldenRow
from bundle.uplift_inputs import graph_inputs
from bundle.user_columns import StoredLike, UserColumns
from service.compiled.library import CompiledUnavailable
from service.compiled.population import PopulationEncoder, Unsupported
from service.compiled.treating import PlainTreater
from service.core.estimates import Network
from service.core.intervals import Intervals
from service.core.version import GOLDEN_TOLERANCE, open_named
from service.engines.base import EngineError
from service.engines.opening import EngineName, EngineOptions, open_engine


class Told(NamedTuple):
    """A feature that a request may give of a user: a number, an id, or several ids."""

    name: str
    kind: Literal["number", "id", "ids"]


class UpliftVersion:
    """A bundle of kind uplift with its graphs. Use ``load_uplift`` to get one that was checked.

    Args:
        bundle: The opened bundle.
        part: Its treatments.
        network: Its graphs.

    Attributes:
        empty_arms: Columns of treatments that training saw nobody in.
        encoder: The compiled encoder; None where there is none for these features.
        treater: Works out plain answers by compiled code; None where there is none, or a treatment has doses.
    """

    def __init__(self, bundle: Bundle, part: UpliftPart, network: Network) -> None:
        self.bundle = bundle
        self.manifest = bundle.manifest
        self.name = bundle.manifest.name
        self.version = bundle.manifest.version
        self.part = part
        self.network = network
        self.intervals = Intervals(part, bundle.conformal)
        self._encoder: Encoder = bundle.encoder
        features = [f for f in bundle.fitted.schema.feature if f.name != bundle.fitted.schema.ids.user]
        self.feature_names = frozenset(f.name for f in features)
        self.told = told_of(bundle.fitted.schema)
        self.given_names = frozenset(feature.name for feature in self.told)
        self.reads_behaviours = self.feature_names != self.given_names
        self.empty_arms = arms_without_rows(part)
        self.encoder = _encoder(bundle)
        self.treater = _treater(part) if not part.doses and not self.empty_arms else None

    def population(self, users: UpliftQuery | UserColumns, stored: Sequence[StoredLike | None] | None) -> Population:
        """Users as rows.

        Raises:
            FeatureError: A feature does not fit the bundle's schema; the problems name JSON pointers.
        """
        return rows_from_users(self.bundle.fitted, users, stored)

    def encode(self, population: Population) -> EncodedRows:
        """Rows as the graph's inputs."""
        return self._encoder.encode(population.rows)

    def check_golden(self) -> None:
        """Reproduce every raw output that training computed.

        Raises:
            BundleRefused: There are none, or one differs by more than ``GOLDEN_TOLERANCE``.
        """
        rows = self.bundle.uplift_golden
        if not rows:
            raise BundleRefused("golden_missing", "there are no requests to check the graph with")
        for number, row in enumerate(rows):
            found = self.network.raw(self._golden_inputs(row))
            for name, expected in row.outputs.items():
                got = found.get(name)
                if got is None or got.shape != expected.shape:
                    raise BundleRefused(
                        "golden_differs",
                        f"golden row {number}: {name} is missing or has another shape than in training",
                    )
                difference = float(np.max(np.abs(got.astype(np.float64) - expected), initial=0.0))
                if not difference <= GOLDEN_TOLERANCE:
                    raise BundleRefused(
                        "golden_differs",
                        f"golden row {number}: {name} differs by {difference:.2g}, allowed is {GOLDEN_TOLERANCE:g}",
                    )

    def warm_up(self, runs: int) -> None:
        """Answer golden requests, so that the first real one finds memory and kernels ready."""
        rows = self.bundle.uplift_golden
        for number in range(runs):
            inputs = self._golden_inputs(rows[number % len(rows)])
            self.network.raw(inputs)
            if number == 0 and self.part.samples is not None:
                self.network.samples(inputs)

    def _golden_inputs(self, row: UpliftGoldenRow) -> dict[str, NDArray[Any]]:
        encoded = self.encode(self.population(row.query, None))
        return graph_inputs(encoded, self.part, row.doses, row.points)

    def close(self) -> None:
        """Give the graphs back."""
        self.network.close()


def arms_without_rows(part: UpliftPart) -> list[int]:
    """Columns of arms that training saw nobody in; a control that is a dose of the treatment needs no rows."""
    first = 0 if part.reference_dose is None else 1
    return [column for column, name in enumerate(part.treatments) if column >= first and part.arms[name].rows == 0]


def _encoder(bundle: Bundle) -> PopulationEncoder | None:
    """The compiled encoder, where there is one and the features allow it."""
    try:
        return PopulationEncoder(bundle.fitted)
    except (CompiledUnavailable, Unsupported):
        return None


def _treater(part: UpliftPart) -> PlainTreater | None:
    try:
        return PlainTreater(part.outcome)
    except CompiledUnavailable:
        return None


def told_of(schema: FeatureSchema) -> tuple[Told, ...]:
    """What users may be told by, in declared order."""
    found: list[Told] = []
    for feature in schema.feature:
        if isinstance(feature, NumberFeature):
            found.append(Told(feature.name, "number"))
        elif isinstance(feature, IdFeature) and feature.name != schema.ids.user:
            found.append(Told(feature.name, "id" if feature.max_values == 1 else "ids"))
    return tuple(found)


def load_uplift(
    path: Path,
    engine: EngineName = "onnx",
    *,
    threads: int = 1,
    inter_threads: int = 1,
    limits: Limits | None = None,
    expected: tuple[str, str] | None = None,
) -> UpliftVersion:
    """Open a bundle of kind uplift, load its graphs and reproduce its golden rows: after this it may take traffic.

    The arguments are those of ``service.core.version.load_version``.

    Raises:
        BundleRefused: The bundle breaks a rule, a graph does not load or does not give training's outputs.
    """
    return uplift_version(open_named(path, limits, expected), EngineOptions(engine, threads, inter_threads))


def uplift_version(bundle: Bundle, options: EngineOptions) -> UpliftVersion:
    """Load the graphs of an opened bundle of kind uplift and reproduce its golden rows.

    Raises:
        BundleRefused: The bundle is of another kind, a graph does not load or does not give training's outputs.
    """
    part = bundle.manifest.uplift
    if part is None:
        raise BundleRefused(
            "kind", f"a bundle of kind uplift is needed here, this one is of kind {bundle.manifest.kind}"
        )
    try:
        version = UpliftVersion(bundle, part, _open_network(bundle, part, options))
        version.check_golden()
    except EngineError as error:
        raise BundleRefused("graph", str(error)) from error
    except FeatureError as error:
        raise BundleRefused("golden_damaged", f"a golden request does not fit the bundle's schema: {error}") from error
    return version


def _open_network(bundle: Bundle, part: UpliftPart, options: EngineOptions) -> Network:
    inputs = {spec.name: spec.dtype for spec in bundle.manifest.inputs}
    outputs = [spec.name for spec in bundle.manifest.outputs]
    engine = open_engine(bundle.graph(options.engine), inputs, outputs, options)
    if part.samples is None:
        return Network(part, engine, None)
    if part.samples.method == "mc_dropout":
        inputs = {**inputs, "noise": "float32"}
    return Network(part, engine, open_engine(bundle.samples_graph(options.engine), inputs, ["samples"], options))
