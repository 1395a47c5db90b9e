"""From a run of treatment effects to a published bundle: export, prove, publish. Nothing half made is ever visible."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from bundle.conformal import Conformal
from bundle.manifest import GRAPH_FILES, SAMPLES_FILES, FileEntry, Manifest, TensorSpec
from bundle.store import ModelStore
from bundle.treatment import ArmSupport, Samples, UpliftPart
from bundle.writing import UpliftFiles, write_uplift_files
from models.inputs import InputLayout
from training.graph.sampler import MemberSampler, NoiseSampler
from training.graph.signature import SAMPLES_OUTPUT, GraphSignature, samples_signature, uplift_signature
from training.graph.writing import input_specs, write_graphs
from training.parity import open_outputs
from training.preparation import library_versions
from training.report import CardFile
from training.uplift.dose_measures import dose_scale
from training.uplift.encoding import declared_treatment
from training.uplift.evaluate import UpliftEvaluation, evaluate_uplift_split
from training.uplift.figures import evaluation_figures
from training.uplift.golden import uplift_golden_rows
from training.uplift.intervals import PROPENSITY_CLIP, calibrated, samples_of
from training.uplift.network import network_options, uplift_entry
from training.uplift.parity import block_probes, check_graph, golden_probes, sample_probes
from training.uplift.preparation import LOW_SUPPORT_ROWS
from training.uplift.report import uplift_card_html
from training.uplift.trained import TrainedUplift

_CARD_BOOTSTRAP = 200


def publish_uplift(opened: TrainedUplift, models: ModelStore, formats: Sequence[str], version: str) -> Path:
    """Export the graphs, prove them, and publish them with everything that a bundle of kind uplift holds.

    Raises:
        ExportFailed: if a graph does not give the network's outputs; nothing is published then.
        BundleError: if the version exists or is not a version.
    """
    conformal = calibrated(opened)
    part = uplift_part(opened, conformal)
    signature = signature_of(opened)
    golden = uplift_golden_rows(opened.dataset, opened.encoder, opened.network, part, signature.outputs)
    with tempfile.TemporaryDirectory(prefix="ctrlift-export-") as scratch:
        folder = Path(scratch)
        graphs = write_graphs(opened.network, signature, formats, folder, GRAPH_FILES)
        differences: dict[str, float] = {}
        rows = opened.dataset.part("valid")
        for kind, path in graphs.items():
            graph = open_outputs(kind, path, signature.inputs, signature.outputs)
            first = check_graph(golden_probes(opened.encoder, part, golden), graph, f"{kind} graph")
            blocks = block_probes(opened.encoder, opened.network, part, rows, signature.outputs)
            differences[kind] = max(first, check_graph(blocks, graph, f"{kind} graph"))
        sampled = export_samples(opened, part, formats, folder)
        evaluation, measured = evaluate_uplift_split(opened, "test", bootstrap=_CARD_BOOTSTRAP)
        document = evaluation.to_dict()
        manifest = uplift_manifest(opened, version, part, signature, evaluation, differences)

        def card(files: Mapping[str, FileEntry]) -> str:
            listed = [CardFile(file, entry.size, entry.sha256) for file, entry in files.items()]
            figures = list(evaluation_figures(document, measured.observed, measured.default))
            return uplift_card_html(opened.run, version, document, part.model_dump(mode="json"), figures, listed)

        def build(target: Path) -> None:
            kept = conformal if part.conformal else None
            files = UpliftFiles(golden=golden, graphs=graphs, samples=sampled, conformal=kept, card=card)
            write_uplift_files(target, manifest, opened.fitted, files)

        return models.publish(manifest.name, version, build)


def uplift_part(opened: TrainedUplift, conformal: Conformal) -> UpliftPart:
    """What the manifest says about the treatments."""
    treatment = declared_treatment(opened.dataset)
    predictor = opened.predictor
    return UpliftPart(
        treatments=opened.scales.arms,
        outcome=opened.scales.outcome,
        doses={arm: dose_scale(support, treatment.dose_unit) for arm, support in opened.doses.items()},
        reference_dose=treatment.reference_dose if opened.doses else None,
        propensity="estimated" if predictor.estimates_propensity else "none",
        propensity_clip=PROPENSITY_CLIP,
        arms={
            arm: ArmSupport(rows=count, low_support=count < LOW_SUPPORT_ROWS)
            for arm, count in zip(opened.scales.arms, opened.rows.tolist(), strict=True)
        },
        samples=samples_of(opened),
        conformal=any(len(residuals) for residuals in conformal.residuals),
    )


def signature_of(opened: TrainedUplift) -> GraphSignature:
    """Inputs and outputs of the network's graph."""
    config = uplift_entry(opened.plan.name).config
    return uplift_signature(
        layout_of(opened),
        opened.scales.outcome.kind,
        len(opened.scales.arms),
        doses=bool(config.doses),
        density=bool(config.density),
    )


def layout_of(opened: TrainedUplift) -> InputLayout:
    """The network's input columns."""
    return InputLayout.from_dict(opened.plan.options["layout"])


def export_samples(opened: TrainedUplift, part: UpliftPart, formats: Sequence[str], folder: Path) -> dict[str, Path]:
    """The second graph in each format, proven like the first; none where the network does not sample.

    Raises:
        ExportFailed: if a graph does not give the network's samples.
    """
    samples: Samples | None = part.samples
    if samples is None:
        return {}
    sampler: nn.Module = NoiseSampler(opened.network) if samples.noise_width else MemberSampler(opened.network)
    sampler.eval()
    signature = samples_signature(layout_of(opened), samples.noise_width)
    graphs = write_graphs(sampler, signature, formats, folder, SAMPLES_FILES)
    rows = opened.dataset.part("valid")
    for kind, path in graphs.items():
        graph = open_outputs(kind, path, signature.inputs, (SAMPLES_OUTPUT,))
        check_graph(sample_probes(opened.encoder, sampler, part, rows, samples), graph, f"{kind} graph of samples")
    return graphs


def uplift_manifest(
    opened: TrainedUplift,
    version: str,
    part: UpliftPart,
    signature: GraphSignature,
    evaluation: UpliftEvaluation,
    differences: Mapping[str, float],
) -> Manifest:
    """The manifest without its files."""
    index = opened.run.index()
    arms = len(part.treatments)
    outputs = tuple(
        TensorSpec(name=name, dtype="float32", shape=("U", arms) if place < 2 else ("U", arms, "G"))
        for place, name in enumerate(signature.outputs)
    )
    return Manifest(
        name=index.bundle_name,
        version=version,
        kind="uplift",
        network=index.network,
        network_config=dict(network_options(opened.plan)),
        inputs=input_specs(signature),
        outputs=outputs,
        tasks=index.tasks,
        uplift=part,
        metrics=manifest_metrics(evaluation) | {"largest_difference": dict(differences)},
        data_fingerprint=index.data_fingerprint,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=index.seed,
        libraries={**index.libraries, **library_versions()},
        run=index.run_id,
    )


def manifest_metrics(evaluation: UpliftEvaluation) -> dict[str, Any]:
    """The numbers of an evaluation that travel with the bundle; curves and bins stay on the card."""
    return {
        "split": evaluation.split,
        "rows": evaluation.rows,
        "arms": {
            arm: {
                "predicted": found["effect"]["predicted"],
                "difference_in_means": found["effect"]["difference_in_means"],
                "ranking": found["ranking"],
                "truth": found["truth"],
            }
            for arm, found in evaluation.arms.items()
        },
        "factual": evaluation.factual,
        "intervals": evaluation.intervals,
        "doses": {arm: found["truth"] for arm, found in evaluation.doses.items() if "truth" in found},
        "references": [
            {
                "name": reference["name"],
                "arms": {
                    arm: {"ranking": found["ranking"], "truth": found["truth"]}
                    for arm, found in reference["arms"].items()
                },
            }
            for reference in evaluation.references
        ],
    }
