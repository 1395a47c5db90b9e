"""The plan of an ensemble: its members' plans, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from models.uplift.ensemble import Ensemble
from training.uplift.plan import Plan
from training.uplift.rows import UpliftRows


def ensemble_plan(network: Ensemble, plan: Callable[..., Plan], settings: Any, train: UpliftRows) -> Plan:
    """Every member's own stages; members differ in their first weights and in the order of their rows.

    Args:
        network: the members.
        plan: of one member, as the catalogue of objectives has it.
        settings: of every member.
        train: the rows that all members see.
    """
    stages = [
        replace(stage, name=f"member {number}: {stage.name}")
        for number, member in enumerate(network.members, start=1)
        for stage in plan(member, settings, train).stages
    ]
    return Plan(tuple(stages))
