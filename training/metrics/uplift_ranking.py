"""How well a score orders rows by their treatment effect: Qini curve and area, AUUC, uplift in the top share.

No row shows both outcomes, so every curve compares the treated with the control rows among the n best scored. Rows of
equal score enter together: a curve has one point at the end of each run of ties, and none inside it. Sums are taken
for many weightings at once, (R, N): one for the metric itself, hundreds for its bootstrap.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.columns import Floats, Integers
from training.metrics.uplift_columns import Contrast, Measured, column, contrast


@dataclass(frozen=True, slots=True)
class UpliftCurve:
    """Points of a curve from (0, 0) to all rows, one at the end of each run of ties.

    Shapes: x (M + 1,) share of the rows, y (M + 1,) the curve, random (M + 1,) the straight line to its end.
    """

    x: Floats
    y: Floats
    random: Floats
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrefixSums:
    """Counts n1, n0 and outcome sums s1, s0 of treated and control rows among the best scored; all (R, M + 1)."""

    n1: Floats
    n0: Floats
    s1: Floats
    s0: Floats

    @property
    def n(self) -> Floats:
        """Rows of both arms, (R, M + 1)."""
        return self.n1 + self.n0


@dataclass(frozen=True, slots=True)
class RankedContrast:
    """Rows of a contrast from the highest score to the lowest, cut into runs of equal score.

    Shapes: order (N,) sorts the rows; run_start (M,); columns (4, N) treated, control, and each times the outcome.
    """

    order: Integers
    run_start: Integers
    columns: Floats

    @classmethod
    def of(cls, rows: Contrast, score: Floats) -> Self:
        """Sort once; score (N,) of the contrast's rows."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        treated, outcome = rows.treated[order].astype(np.float64), rows.outcome[order]
        columns = np.stack([treated, 1.0 - treated, treated * outcome, (1.0 - treated) * outcome])
        return cls(order, starts, columns)

    def prefix(self, weights: Floats) -> PrefixSums:
        """Sums for each weighting (R, N) of the rows in the contrast's own order."""
        ranked = weights[:, self.order]
        found = []
        for values in self.columns:
            sums = np.zeros((len(weights), len(self.run_start) + 1))
            weighted = ranked * values
            if len(self.run_start) < weights.shape[1]:
                weighted = np.add.reduceat(weighted, self.run_start, axis=1)
            np.cumsum(weighted, axis=1, out=sums[:, 1:])
            found.append(sums)
        return PrefixSums(*found)


def qini_values(sums: PrefixSums) -> Floats:
    """Qini curve Q(n) = S1(n) - S0(n) n1(n) / n0(n), 0 where n0(n) = 0; (R, M + 1)."""
    ratio = np.divide(sums.n1, sums.n0, out=np.zeros_like(sums.n1), where=sums.n0 > 0)
    return np.where(sums.n0 > 0, sums.s1 - sums.s0 * ratio, 0.0)


def uplift_values(sums: PrefixSums) -> Floats:
    """Curve (S1 / n1 - S0 / n0) n / N, 0 where the n best lack an arm; (R, M + 1)."""
    both = (sums.n1 > 0) & (sums.n0 > 0)
    treated = np.divide(sums.s1, sums.n1, out=np.zeros_like(sums.s1), where=both)
    control = np.divide(sums.s0, sums.n0, out=np.zeros_like(sums.s0), where=both)
    return (treated - control) * sums.n / sums.n[:, -1:]


def area_above_chord(share: Floats, curve: Floats) -> Floats:
    """Signed area between a curve and the straight line to its end by trapezoids; (R, M + 1) twice -> (R,)."""
    height = curve - share * curve[:, -1:]
    return np.asarray((np.diff(share, axis=1) * (height[:, 1:] + height[:, :-1])).sum(axis=1) / 2)


def qini_areas(sums: PrefixSums) -> Floats:
    """Area between Q / n1(N) and its chord over n / N; (R,), NaN where an arm is absent."""
    treated, both = sums.n1[:, -1:], (sums.n1[:, -1] > 0) & (sums.n0[:, -1] > 0)
    curve = np.divide(qini_values(sums), treated, out=np.zeros_like(sums.n1), where=treated > 0)
    return np.where(both, area_above_chord(sums.n / sums.n[:, -1:], curve), np.nan)


def perfect_areas(sums: PrefixSums, *, negative_effects: bool) -> Floats:
    """Area of the perfect curve of 0/1 outcomes in the units of `qini_areas`; (R,), NaN where there is none."""
    n1, n0, s1, s0 = (part[:, -1] for part in (sums.n1, sums.n0, sums.s1, sums.s0))
    defined = (n1 > 0) & (n0 > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        end = s1 - s0 * n1 / n0
        if negative_effects:
            # Treated responders, then everybody who did not respond, then control responders.
            flat, total = n1 - s1 + n0 - s0, n1 + n0
            area = (s1 * s1 / 2 + flat * s1 + s0 * (s1 + end) / 2) / total - end / 2
        else:
            # As many rows as there are responses gained, each of them one response, and nothing afterwards.
            area = np.where(end > 0, end / 2 * (1 - end / (n1 + n0)), 0.0)
        return np.where(defined & (area > 0), area / n1, np.nan)


def uplift_areas(sums: PrefixSums, *, above_random: bool) -> Floats:
    """Area under `uplift_values` over n / N, or what of it lies above the chord; (R,), NaN where an arm is absent."""
    both = (sums.n1[:, -1] > 0) & (sums.n0[:, -1] > 0)
    curve = uplift_values(sums)
    area = area_above_chord(sums.n / sums.n[:, -1:], curve)
    return np.where(both, area if above_random else area + curve[:, -1] / 2, np.nan)


def top_uplifts(sums: PrefixSums, share: float) -> Floats:
    """Mean outcome of treated minus control rows in the top share; (R,), NaN where the top lacks an arm.

    A run of ties that does not fit into the share gives the fitting fraction of each of its rows.
    """
    found = np.full(len(sums.n1), np.nan)
    for row, n in enumerate(sums.n):
        parts = (sums.n1[row], sums.n0[row], sums.s1[row], sums.s0[row])
        n1, n0, s1, s0 = (float(np.interp(share * n[-1], n, part)) for part in parts)
        if n1 > 0 and n0 > 0:
            found[row] = s1 / n1 - s0 / n0
    return found


def check_share(share: float) -> None:
    """Refuse a top share outside (0, 1].

    Raises:
        ValueError: if it is.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share}")


def binary_outcome(rows: Contrast) -> bool:
    """Whether every outcome is 0 or 1, which the perfect curves need."""
    return bool(np.isin(rows.outcome, (0.0, 1.0)).all())


def qini_curve(
    outcome: ArrayLike, score: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None
) -> UpliftCurve:
    """Points of the Qini curve over n1(N): extra outcome gained from the n best scored, for each treated row.

    Source: Radcliffe 2007, Using Control Groups to Target on Predicted Lift. Differs from it: divided by n1(N).

    Shapes: outcome, score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    rows, sums = _ranked(outcome, score, treated, control)
    curve = np.divide(qini_values(sums), sums.n1[:, -1:], out=np.zeros_like(sums.n), where=sums.n1[:, -1:] > 0)
    return _curve(rows, sums, curve)


def uplift_curve(
    outcome: ArrayLike, score: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None
) -> UpliftCurve:
    """Points of (S1 / n1 - S0 / n0) n / N, 0 where the n best lack an arm.

    Shapes: outcome, score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    rows, sums = _ranked(outcome, score, treated, control)
    return _curve(rows, sums, uplift_values(sums))


def qini_norm_area(
    outcome: ArrayLike, score: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None
) -> Measured:
    """Area between the Qini curve and its chord, x = n / N and y = Q / n1(N); 0 with a warning without an arm.

    Shapes: outcome, score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    rows, sums = _ranked(outcome, score, treated, control)
    return _measured(qini_areas(sums), rows.warnings)


def qini_coefficient(
    outcome: ArrayLike,
    score: ArrayLike,
    treated: ArrayLike,
    control: ArrayLike | None = None,
    *,
    negative_effects: bool,
) -> Measured:
    """Qini area over the area of the perfect curve; 0 with a warning where an arm or the perfect area is missing.

    Two perfect curves are in use, and a coefficient means nothing without saying which. With negative effects allowed
    all treated responders come first and all control responders last (what scikit-uplift takes unless told), and no
    score comes above it. Without them the curve climbs by one a row to the total gain, which must be positive, and
    stays there; a score that finds harmed rows can then exceed 1.

    Where no control row has come yet the perfect curve is S1 and not 0, or it would not be the highest one.

    Shapes: outcome (0 or 1), score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN, or an outcome is neither 0 nor 1.
    """
    rows, sums = _ranked(outcome, score, treated, control)
    if not binary_outcome(rows):
        raise ValueError("outcome must be 0 or 1 for the Qini coefficient; use qini_norm_area for amounts")
    perfect = perfect_areas(sums, negative_effects=negative_effects)
    warnings = rows.warnings
    if not warnings and np.isnan(perfect[0]):
        warnings = ("the perfect curve has no area above its chord, so the coefficient counts 0",)
    return _measured(qini_areas(sums) / perfect, warnings)


def auuc(outcome: ArrayLike, score: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None) -> Measured:
    """Area under the uplift curve; 0 with a warning without an arm.

    Source: Rzepakowski and Jaroszewicz 2012, Decision trees for uplift modeling. Libraries scale it differently.

    Shapes: outcome, score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    rows, sums = _ranked(outcome, score, treated, control)
    return _measured(uplift_areas(sums, above_random=False), rows.warnings)


def auuc_above_random(
    outcome: ArrayLike, score: ArrayLike, treated: ArrayLike, control: ArrayLike | None = None
) -> Measured:
    """Area between the uplift curve and the straight line of a random order; 0 with a warning without an arm.

    Shapes: outcome, score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    rows, sums = _ranked(outcome, score, treated, control)
    return _measured(uplift_areas(sums, above_random=True), rows.warnings)


def uplift_at(
    outcome: ArrayLike,
    score: ArrayLike,
    treated: ArrayLike,
    control: ArrayLike | None = None,
    *,
    share: float = 0.3,
) -> Measured:
    """Mean outcome of treated minus control rows in the top share by score; 0 with a warning without an arm there.

    Both arms are ranked together. A run of ties at the cut gives the fitting fraction of each of its rows.

    Shapes: outcome, score, treated, control (B,); rows of neither arm are left out.

    Raises:
        ValueError: if a column is malformed or has a NaN, or share is outside (0, 1].
    """
    check_share(share)
    rows, sums = _ranked(outcome, score, treated, control)
    found = top_uplifts(sums, share)
    warnings = rows.warnings
    if not warnings and np.isnan(found[0]):
        warnings = (f"the top {share:.0%} by score lacks treated or control rows, so its uplift counts 0",)
    return _measured(found, warnings)


def _ranked(
    outcome: ArrayLike, score: ArrayLike, treated: ArrayLike, control: ArrayLike | None
) -> tuple[Contrast, PrefixSums]:
    rows = contrast(outcome, treated, control)
    scores = column(score, "score", len(rows.kept))[rows.kept]
    return rows, RankedContrast.of(rows, scores).prefix(np.ones((1, len(scores))))


def _curve(rows: Contrast, sums: PrefixSums, curve: Floats) -> UpliftCurve:
    share = sums.n[0] / sums.n[0, -1]
    return UpliftCurve(share, curve[0], share * curve[0, -1], rows.warnings)


def _measured(values: Floats, warnings: tuple[str, ...]) -> Measured:
    return Measured(0.0 if np.isnan(values[0]) else float(values[0]), warnings)
