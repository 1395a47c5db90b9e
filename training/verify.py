"""Checking a published bundle as the service would before it takes traffic, and saying what was checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.encode import Encoder
from bundle.errors import BundleRefused
from bundle.loading import Bundle, open_bundle
from bundle.manifest import GRAPH_FILES
from bundle.request import rows_from_query
from training.parity import MAX_DIFFERENCE, GraphRunner, largest_difference, open_graph

# Scores are float64 arithmetic on logits that may differ by MAX_DIFFERENCE; sigmoid and Platt's slope move them less.
MAX_SCORE_DIFFERENCE = 1e-4


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    detail: str


def verify(path: Path) -> list[Check]:
    """Check a bundle's files, then every graph it holds against its golden requests.

    A bundle whose files are refused is not parsed any further, so the list then ends with that refusal.
    """
    try:
        bundle = open_bundle(Path(path))
    except BundleRefused as error:
        return [Check("files", False, f"{error.reason}: {error}")]
    count = len(bundle.manifest.files)
    checks = [
        Check("files", True, f"{count} files have the names, sizes and SHA-256 digests of the manifest"),
        Check("golden requests", len(bundle.golden) > 0, f"{len(bundle.golden)} requests"),
    ]
    return [*checks, *graph_checks(bundle)]


def graph_checks(bundle: Bundle) -> Iterator[Check]:
    """Each graph that the bundle holds: whether it loads, and whether it repeats the golden logits and scores."""
    for kind, file in GRAPH_FILES.items():
        if file not in bundle.manifest.files:
            continue
        try:
            graph = open_graph(kind, bundle.graph_bytes(kind))
            yield replay(bundle, kind, graph)
        # Whatever a parser or an engine throws at a broken graph, the answer is a failed check that names it.
        except Exception as error:  # noqa: BLE001
            yield Check(f"{kind} graph", False, f"cannot run: {type(error).__name__}: {' '.join(str(error).split())}")


def replay(bundle: Bundle, kind: str, graph: GraphRunner) -> Check:
    """Ask every golden request again."""
    encoder, tasks = Encoder(bundle.fitted), bundle.manifest.tasks
    logit_difference = score_difference = 0.0
    for row in bundle.golden:
        arrays = encoder.encode(rows_from_query(bundle.fitted, row.query)).take()
        logits = graph(arrays)[0]
        logit_difference = max(logit_difference, largest_difference(logits, row.logits))
        if not np.isfinite(logit_difference):
            break
        scores = bundle.correction.probabilities(logits, tasks)
        for task in tasks:
            score_difference = max(score_difference, largest_difference(scores[task], row.scores[task]))
    passed = logit_difference <= MAX_DIFFERENCE and score_difference <= MAX_SCORE_DIFFERENCE
    detail = f"largest difference {logit_difference:.1e} in logits (at most {MAX_DIFFERENCE:.0e}), "
    return Check(f"{kind} graph", passed, detail + f"{score_difference:.1e} in scores")
