"""The page's rows on networks with several tasks, on the sequence networks beside each other and on the catalogue."""

from __future__ import annotations

from typing import Final

from benchmarks.page_row import Record, Row


def catalogue(record: Record) -> str:
    largest = record["largest"]
    return ", ".join(f"{name} {value:.1e}" for name, value in largest.items())


def census(record: Record) -> str:
    return "; ".join(
        f"{side.replace('_', ' ')} {found['income']:.4f} / {found['never_married']:.4f}"
        for side, found in record["mean_auc"].items()
    )


def funnel(record: Record) -> str:
    together, apart = record["mean"]["together"], record["mean"]["apart"]
    gains = [seed["gain"]["ctcvr"]["auc"] for seed in record["seeds"]]
    paired = "; ".join(f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]" for found in gains)
    rates = ", ".join(f"{task} {found['pcoc']:.3f}" for task, found in together.items())
    return (
        f"product {together['ctcvr']['auc']:.4f} against {apart['ctcvr']['auc']:.4f} ({paired}); "
        f"CTR {together['ctr']['auc']:.4f}; PCOC {rates}"
    )


def tutorial(record: Record) -> str:
    return f"{record['mean_auc']:.4f} +- {record['spread_auc']:.4f} ({len(record['seeds'])} seeds)"


def networks(record: Record) -> str:
    """Mean AUC of every network, best first, and the references."""
    ranked = sorted(record["networks"].items(), key=lambda entry: -entry[1]["mean"]["auc"])
    seeds = len(ranked[0][1]["seeds"])
    ours = ", ".join(f"{name} {found['mean']['auc']:.4f}" for name, found in ranked)
    others = ", ".join(f"{name} {found['metrics']['auc']['value']:.4f}" for name, found in record["references"].items())
    return f"{ours} ({seeds} seeds); beside {others}"


def over_lightgbm(record: Record) -> str:
    """Paired gain of each network's first seed over LightGBM, where LightGBM was measured."""
    parts = []
    for name, found in record["networks"].items():
        gain = found["gain"].get("lightgbm")
        if gain is not None:
            auc = gain["auc"]
            parts.append(f"{name} {auc['value']:+.4f} [{auc['low']:+.4f}, {auc['high']:+.4f}]")
    return "; ".join(parts) or "not measured"


TASK_ROWS: Final = (
    Row("every network of the catalogue, eager = graphs", "parity-catalog", "1e-5", "1e-6", catalogue),
    Row(
        "Census-Income, AUC of income / never married",
        "quality-census",
        "MMoE >= .942 / .9935, at most .001 behind a shared bottom",
        ">= .947 / .994",
        census,
    ),
    Row(
        "MovieLens-100k as a funnel: one network against two trained apart, AUC",
        "quality-funnel",
        "product above; CTR >= .770; each PCOC .95-1.05",
        "",
        funnel,
    ),
    Row("AUC on ready-made MovieLens-1M rows", "quality-tutorial", ">= .66", ">= .69", tutorial),
    Row(
        "sequence networks on rated histories, AUC",
        "quality-networks-rated",
        "best >= .779",
        ">= .797, not behind LightGBM",
        networks,
    ),
    Row("paired gain in AUC over LightGBM, rated", "quality-networks-rated", "", "not below 0", over_lightgbm),
    Row("sequence networks on liked histories, AUC", "quality-networks-liked", "", "", networks),
    Row("paired gain in AUC over LightGBM, liked", "quality-networks-liked", "", "", over_lightgbm),
)
