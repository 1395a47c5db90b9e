"""What a network of several tasks says about itself while it trains: gates, task weights, widths that were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from models.ctr.network import SequenceModel
from training.job import Job

# A gate that gives one expert more than this leaves the others without work.
COLLAPSED_SHARE: Final = 0.95


def health(job: Job) -> dict[str, Any]:
    """Keys for a line of the log; those that say nothing are left out.

    ``gates`` by task, ``task_weights`` as learned by now, ``selected_sizes`` by embedding table.
    """
    network = job.network
    of_network = (
        {"gates": network.gate_statistics(), "selected_sizes": network.selected_sizes()}
        if isinstance(network, SequenceModel)
        else {}
    )
    found = {**of_network, "task_weights": job.weighting.log_line()}
    return {name: values for name, values in found.items() if values}


def collapsed_gates(line: Mapping[str, Any]) -> list[str]:
    """A sentence for every task whose gate uses one expert alone."""
    return [
        f"task {task}: its gate gives one expert {gate['top_share']:.0%} of the weight; the others learn nothing"
        for task, gate in line.get("gates", {}).items()
        if gate.get("top_share", 0.0) > COLLAPSED_SHARE
    ]
