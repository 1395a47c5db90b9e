"""From a run to a published bundle: calibrate, export, prove, publish. Nothing half made is ever visible."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from bundle.errors import BundleError, BundleRefused
from bundle.golden import GoldenRow
from bundle.manifest import GRAPH_FILES, FileEntry, Manifest, TensorSpec
from bundle.store import ModelStore
from bundle.writing import write_bundle_files
from models.inputs import OUTPUT_NAMES, InputLayout
from training.errors import ConfigError, ExportFailed, TrainingError
from training.evaluate import Evaluation, TrainedRun, configuration, evaluate_split, open_trained
from training.golden import golden_rows
from training.graph.signature import GraphSignature, click_signature
from training.graph.writing import input_specs, write_graphs
from training.parity import MAX_DIFFERENCE, GraphRunner, largest_difference, open_graph, probes
from training.preparation import library_versions
from training.report import CardFile, card_html
from training.run import RunFolder
from training.threads import torch_threads
from training.uplift.export import publish_uplift
from training.uplift.trained import open_trained_uplift

Format = Literal["onnx", "torchscript"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
CARD_BOOTSTRAP: Final = 200


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What became of one run of a batch export: a path, or an error in one sentence."""

    run: Path
    name: str | None
    version: str | None
    path: Path | None
    error: str | None


def export_run(
    run: Path | RunFolder,
    store: Path | ModelStore,
    formats: Sequence[str] = FORMATS,
    version: str | None = None,
) -> Path:
    """Publish a run's best weights as a bundle.

    Args:
        run: the run or its folder.
        store: the model store or its folder.
        formats: of ``onnx`` and ``torchscript``; both hold the same graph.
        version: default the store's next minor version.

    Returns:
        The bundle's folder.

    Raises:
        RunError: if the run cannot be read, has no weights, or its data have changed.
        ConfigError: for an unknown format.
        ExportFailed: if a graph does not give the eager network's logits; nothing is published then.
        BundleError: if the version exists or is not a version.
    """
    wanted = checked_formats(formats)
    models = store if isinstance(store, ModelStore) else ModelStore(Path(store))
    folder = run if isinstance(run, RunFolder) else RunFolder.open(Path(run))
    name = folder.index().bundle_name
    version = version or models.next_version(name)
    if version in models.versions(name):  # publishing refuses it as well, but only after minutes of exporting
        raise BundleRefused("version_immutable", f"{name} {version} is published already")
    config = configuration(folder)
    with torch_threads(config.train.threads):
        if config.features.kind == "uplift":
            return publish_uplift(open_trained_uplift(folder, config), models, wanted, version)
        return publish(open_trained(folder), models, wanted, version)


def publish(opened: TrainedRun, models: ModelStore, formats: Sequence[str], version: str) -> Path:
    """Export the graphs, prove them, and publish them with everything that a bundle holds."""
    golden = golden_rows(opened.dataset, opened.encoder, opened.network, opened.correction)
    with tempfile.TemporaryDirectory(prefix="ctrlift-export-") as scratch:
        graphs = write_graphs(opened.network, signature_of(opened), formats, Path(scratch), GRAPH_FILES)
        for kind, path in graphs.items():
            check_parity(opened, golden, open_graph(kind, path), kind)
        evaluation = evaluate_split(opened, "test", bootstrap=CARD_BOOTSTRAP)
        manifest = build_manifest(opened, version, evaluation)

        def card(files: Mapping[str, FileEntry]) -> str:
            listed = [CardFile(file, entry.size, entry.sha256) for file, entry in files.items()]
            kinds = {task: found.calibrator.kind for task, found in opened.correction.tasks.items()}
            return card_html(opened.run, version, evaluation.to_dict(), kinds, listed)

        def build(folder: Path) -> None:
            write_bundle_files(folder, manifest, opened.fitted, golden, graphs, card=card)

        return models.publish(manifest.name, version, build)


def export_many(
    runs: Iterable[Path],
    store: Path | ModelStore,
    formats: Sequence[str] = FORMATS,
    progress: Callable[[ExportResult], None] | None = None,
) -> list[ExportResult]:
    """Export many runs; a run that fails is reported and does not stop the others.

    Args:
        runs: run folders.
        store: the model store or its folder.
        formats: as ``export_run``.
        progress: told about each result as soon as it is known.

    Raises:
        ConfigError: for an unknown format, before anything is exported.
    """
    checked_formats(formats)
    results: list[ExportResult] = []
    for run in runs:
        results.append(export_one(run, store, formats))
        if progress is not None:
            progress(results[-1])
    return results


def export_one(run: Path, store: Path | ModelStore, formats: Sequence[str]) -> ExportResult:
    """One run's export as a result instead of an exception."""
    try:
        path = export_run(run, store, formats)
    # A batch must outlive any single run, whatever is wrong with it: a broken run folder reaches torch, polars and
    # the exporters, each with errors of its own.
    except Exception as error:  # noqa: BLE001
        known = isinstance(error, (TrainingError, BundleError))
        text = str(error) if known else f"{type(error).__name__}: {error}"
        return ExportResult(run, None, None, None, " ".join(text.split()))
    return ExportResult(run, path.parent.name, path.name, path, None)


def checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats without repetition.

    Raises:
        ConfigError: for an unknown one, or none.
    """
    unknown = [kind for kind in formats if kind not in FORMATS]
    if unknown or not formats:
        given = repr(unknown[0]) if unknown else "none"
        raise ConfigError(f"format must be of {', '.join(FORMATS)}, got {given}")
    return tuple(dict.fromkeys(formats))


def signature_of(opened: TrainedRun) -> GraphSignature:
    """Inputs and outputs of the network's graph."""
    return click_signature(InputLayout.from_dict(opened.options["layout"]))


def check_parity(opened: TrainedRun, golden: Sequence[GoldenRow], graph: GraphRunner, kind: str) -> None:
    """Compare a graph with the eager network: golden requests, and blocks of users of other sizes.

    Raises:
        ExportFailed: naming the largest difference and where it was.
    """
    for name, arrays, expected in probes(opened.encoder, opened.network, opened.dataset.part("valid"), golden):
        difference = largest_difference(graph(arrays), expected)
        if not difference <= MAX_DIFFERENCE:
            raise ExportFailed(
                f"the {kind} graph of {opened.run.path} differs from the network by {difference:.2e} in logits on "
                f"{name} (at most {MAX_DIFFERENCE:.0e} is allowed): nothing was published"
            )


def build_manifest(opened: TrainedRun, version: str, evaluation: Evaluation) -> Manifest:
    """The manifest without its files."""
    index = opened.run.index()
    outputs = (TensorSpec(name=OUTPUT_NAMES[0], dtype="float32", shape=("U", "C", len(index.tasks))),)
    return Manifest(
        name=index.bundle_name,
        version=version,
        kind="ctr",
        network=index.network,
        network_config=opened.options,
        inputs=input_specs(signature_of(opened)),
        outputs=outputs,
        tasks=index.tasks,
        correction=opened.correction,
        metrics={
            "split": evaluation.split,
            "rows": evaluation.rows,
            "tasks": {
                task: {"calibrated": found.calibrated, "raw": found.raw, "without_history": found.without_history}
                for task, found in evaluation.tasks.items()
            },
            "references": [
                {"name": reference.name, "task": reference.task, "metrics": reference.metrics}
                for reference in evaluation.references
            ],
        },
        data_fingerprint=index.data_fingerprint,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=index.seed,
        libraries={**index.libraries, **library_versions()},
        run=index.run_id,
    )
