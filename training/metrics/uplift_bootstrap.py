"""Intervals of the uplift ranking metrics, for one score and for the difference of two.

On ten thousand rows the noise of a Qini area is as large as the differences between good models, so a value without
its interval decides nothing. A row drawn m times has weight m: each score is sorted once and no row is copied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.bootstrap import Interval
from training.metrics.columns import Floats, Integers, codes
from training.metrics.uplift_columns import Contrast, column, contrast
from training.metrics.uplift_ranking import (
    PrefixSums,
    RankedContrast,
    binary_outcome,
    check_share,
    perfect_areas,
    qini_areas,
    qini_values,
    top_uplifts,
    uplift_areas,
)

# Rows times replicates alive at a time; eight replicates of 13,000 rows stay in a core's cache.
_CELLS_AT_ONCE: Final = 100_000


@dataclass(frozen=True, slots=True)
class RankingIntervals:
    """Metrics by name, each with its interval. An undefined value counts 0 with no replicates and a warning."""

    metrics: dict[str, Interval]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CurveBand:
    """A Qini curve on even shares of the rows, with pointwise bounds over the replicates; all columns (P,)."""

    x: Floats
    y: Floats
    low: Floats
    high: Floats
    random: Floats
    level: float
    replicates: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Rows to resample: unit (N,) is what is drawn as a whole, a row or a person."""

    rows: Contrast
    unit: Integers
    replicates: int
    seed: int
    shares: tuple[float, ...] = ()

    def weightings(self) -> Iterator[Floats]:
        """Blocks (r, N): first the rows as they are, then one weighting a replicate."""
        yield np.ones((1, len(self.unit)))
        generator = np.random.default_rng(self.seed)
        count = int(self.unit.max()) + 1
        block = max(1, _CELLS_AT_ONCE // len(self.unit))
        for start in range(0, self.replicates, block):
            # Replicate by replicate, or the draws would depend on the size of a block.
            times = [
                np.bincount(generator.integers(0, count, count), minlength=count)[self.unit]
                for _ in range(min(block, self.replicates - start))
            ]
            yield np.stack(times).astype(np.float64)

    def metrics(self, sums: PrefixSums) -> dict[str, Floats]:
        """Every ranking metric by name, (R,) each, NaN where undefined."""
        area = qini_areas(sums)
        found = {"qini_norm_area": area}
        if binary_outcome(self.rows):
            found["qini_negative_effects"] = area / perfect_areas(sums, negative_effects=True)
            found["qini_no_negative_effects"] = area / perfect_areas(sums, negative_effects=False)
        found["auuc"] = uplift_areas(sums, above_random=False)
        found["auuc_above_random"] = uplift_areas(sums, above_random=True)
        for share in self.shares:
            found[f"uplift_at_{share * 100:g}"] = top_uplifts(sums, share)
        return found


def ranking_intervals(
    outcome: ArrayLike,
    score: ArrayLike,
    treated: ArrayLike,
    control: ArrayLike | None = None,
    *,
    units: ArrayLike | None = None,
    shares: Sequence[float] = (0.1, 0.2, 0.3),
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> RankingIntervals:
    """Every ranking metric of one score with a percentile interval; the two coefficients for 0/1 outcomes only.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Shapes: outcome, score, treated, control, units (B,); units are drawn as a whole, a row is one without them.

    Raises:
        ValueError: if a column is malformed or has a NaN, or shares, replicates or level are out of range.
    """
    drawn = _drawn(contrast(outcome, treated, control), units, replicates, level, seed, shares)
    ranked = _ranked(drawn.rows, score, "score")
    blocks = [drawn.metrics(ranked.prefix(weights)) for weights in drawn.weightings()]
    return _summary(blocks, level, drawn.rows.warnings)


def paired_ranking_intervals(
    outcome: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    treated: ArrayLike,
    control: ArrayLike | None = None,
    *,
    units: ArrayLike | None = None,
    shares: Sequence[float] = (0.1, 0.2, 0.3),
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> RankingIntervals:
    """Difference of every ranking metric, first score minus second, on the same resampled rows.

    Shapes: outcome, first, second, treated, control, units (B,).

    Raises:
        ValueError: if a column is malformed or has a NaN, or shares, replicates or level are out of range.
    """
    drawn = _drawn(contrast(outcome, treated, control), units, replicates, level, seed, shares)
    one, other = _ranked(drawn.rows, first, "first"), _ranked(drawn.rows, second, "second")
    blocks = []
    for weights in drawn.weightings():
        of_one, of_other = drawn.metrics(one.prefix(weights)), drawn.metrics(other.prefix(weights))
        blocks.append({name: of_one[name] - of_other[name] for name in of_one})
    return _summary(blocks, level, drawn.rows.warnings)


def qini_band(
    outcome: ArrayLike,
    score: ArrayLike,
    treated: ArrayLike,
    control: ArrayLike | None = None,
    *,
    units: ArrayLike | None = None,
    points: int = 101,
    replicates: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> CurveBand:
    """The Qini curve over n1(N) on even shares, with a pointwise percentile band; zeros without an arm.

    Shapes: outcome, score, treated, control, units (B,); the curve's columns (points,).

    Raises:
        ValueError: if a column is malformed or has a NaN, or points, replicates or level are out of range.
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points}")
    drawn = _drawn(contrast(outcome, treated, control), units, replicates, level, seed, ())
    ranked = _ranked(drawn.rows, score, "score")
    grid = np.linspace(0.0, 1.0, points)
    curves = np.concatenate([_on_grid(ranked.prefix(weights), grid) for weights in drawn.weightings()])
    defined = curves[1:][np.isfinite(curves[1:, 0])]
    if np.isnan(curves[0, 0]) or not len(defined):
        line = np.nan_to_num(curves[0])
        warnings = drawn.rows.warnings or ("no replicate drew both arms, so the band has no width",)
        return CurveBand(grid, line, line, line, grid * line[-1], level, 0, warnings)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return CurveBand(grid, curves[0], low, high, grid * curves[0, -1], level, len(defined))


def _on_grid(sums: PrefixSums, grid: Floats) -> Floats:
    """Qini curves (R, P) at shares of the rows; rows of NaN where an arm is absent."""
    curves = qini_values(sums)
    found = np.full((len(curves), len(grid)), np.nan)
    for row, n in enumerate(sums.n):
        if sums.n1[row, -1] > 0 and sums.n0[row, -1] > 0:
            found[row] = np.interp(grid * n[-1], n, curves[row]) / sums.n1[row, -1]
    return found


def _ranked(rows: Contrast, score: ArrayLike, name: str) -> RankedContrast:
    return RankedContrast.of(rows, column(score, name, len(rows.kept))[rows.kept])


def _drawn(
    rows: Contrast, units: ArrayLike | None, replicates: int, level: float, seed: int, shares: Sequence[float]
) -> _Drawn:
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    for share in shares:
        check_share(share)
    if units is None:
        return _Drawn(rows, np.arange(len(rows.outcome)), replicates, seed, tuple(shares))
    keys = np.asarray(units)
    if keys.shape != rows.kept.shape:
        raise ValueError(f"units must have shape {rows.kept.shape} like the other columns, got {keys.shape}")
    return _Drawn(rows, codes(keys[rows.kept]), replicates, seed, tuple(shares))


def _summary(blocks: list[dict[str, Floats]], level: float, warnings: tuple[str, ...]) -> RankingIntervals:
    metrics, found = {}, list(warnings)
    for name in blocks[0]:
        values = np.concatenate([block[name] for block in blocks])
        defined = values[1:][np.isfinite(values[1:])]
        if np.isnan(values[0]) or not len(defined):
            value = 0.0 if np.isnan(values[0]) else float(values[0])
            metrics[name] = Interval(value, value, value, 0.0, level, 0)
            if not warnings:
                found.append(f"{name} is undefined on these rows or in every replicate, so it has no interval")
            continue
        low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
        metrics[name] = Interval(float(values[0]), float(low), float(high), float(defined.std()), level, len(defined))
        if len(defined) < len(values) - 1:
            missing = len(values) - 1 - len(defined)
            found.append(f"{name} was undefined in {missing} of {len(values) - 1} replicates, which are left out")
    return RankingIntervals(metrics, tuple(found))
