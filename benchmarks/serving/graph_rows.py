"""The exported graph, with and without the kernel, against the one that repeats the history: CPU time on one thread."""

from __future__ import annotations

import statistics
from typing import Any, Final

from benchmarks.graph.rates import multiply_adds, plain_product
from benchmarks.serving.direct import Direct, Feed, Repeated, open_direct, open_repeated
from benchmarks.serving.rounds import cpu_ms, in_turns, ratios, summary
from benchmarks.serving.running import largest
from benchmarks.serving.slates import SlateSizes, slates
from benchmarks.serving.speed_bundle import SpeedFiles
from benchmarks.serving.variants import variants

LEAST_SHARE: Final = 0.2
PRODUCT_SIZE: Final = 512


def graph_rows(files: SpeedFiles, sizes: SlateSizes, rounds: int, slice_s: float) -> dict[str, Any]:
    """One size of slate: equal scores first, then CPU time in turns.

    Args:
        files: of the network; without a history-repeated graph for this length of history the variants stand alone.
        sizes: of the slates.
        rounds: of all sides.
        slice_s: of each side in a round.

    Returns:
        ``cpu_ms`` by side and, with a history-repeated graph, ``ratios`` of its CPU time over each variant's, how fast
        it multiplies, and a ``note`` where that is too slow for a fair opponent.

    Raises:
        ScoresDiffer: if two sides do not give the same scores.
    """
    made = slates(sizes)
    opened = {variant.name: open_direct(files.bundle, variant) for variant in variants()}
    feeds = next(iter(opened.values())).feeds(made)
    sides = {name: cpu_ms(direct.calls(feeds), slice_s) for name, direct in opened.items()}
    result: dict[str, Any] = {"candidates": sizes.candidates, "steps": sizes.steps}
    if files.repeated is None:
        scores = [direct.scores(feed) for direct in opened.values() for feed in feeds]
        wanted = scores[: len(feeds)] * len(opened)
        result["largest_difference"] = largest("a variant", list(zip(scores, wanted, strict=True)))
        found = in_turns(sides, rounds)
        return result | {"cpu_ms": {name: summary(values) for name, values in found.items()}}
    repeated = open_repeated(files.repeated)
    tiled = [repeated.feed(feed) for feed in feeds]
    result["largest_differences"] = _differences(opened, repeated, feeds, tiled)
    product, multiplied = plain_product(PRODUCT_SIZE)
    sides |= {"repeated": cpu_ms(repeated.calls(tiled), slice_s), "product": cpu_ms(product, slice_s / 4)}
    found = in_turns(sides, rounds)
    product_rate = 2e-6 * multiplied / statistics.median(found.pop("product"))
    result["cpu_ms"] = {name: summary(values) for name, values in found.items()}
    result["ratios"] = {name: summary(ratios(found["repeated"], found[name]), 3) for name in opened}
    return result | _rates(sizes, statistics.median(found["repeated"]), product_rate)


def _rates(sizes: SlateSizes, repeated_ms: float, product_rate: float) -> dict[str, Any]:
    mflop = 2e-6 * multiply_adds(sizes.candidates, sizes.steps)
    gflops = mflop / repeated_ms
    found: dict[str, Any] = {
        "repeated_mflop": round(mflop, 1),
        "repeated_gflops": round(gflops, 2),
        "product_gflops": round(product_rate, 2),
        "share_of_product_rate": round(gflops / product_rate, 3),
    }
    if gflops < LEAST_SHARE * product_rate:
        found["note"] = (
            f"the history-repeated graph reached {gflops:.1f} GFLOP/s where a plain product reached "
            f"{product_rate:.1f}: too slow to be compared with"
        )
    return found


def _differences(
    opened: dict[str, Direct], repeated: Repeated, feeds: list[Feed], tiled: list[dict[str, Any]]
) -> dict[str, float]:
    wanted = [repeated.scores(feed) for feed in tiled]
    return {
        name: largest(name, [(direct.scores(feed), scores) for feed, scores in zip(feeds, wanted, strict=True)])
        for name, direct in opened.items()
    }
