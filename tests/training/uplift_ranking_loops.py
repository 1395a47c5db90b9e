"""A made-up campaign, and the ranking metrics of treatment effects as plain loops over its rows."""

import math

import numpy as np


def campaign(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, true effect, treated, feature noise of a randomised campaign whose effect changes sign."""
    generator = np.random.default_rng(seed)
    effect = generator.uniform(-0.3, 0.5, rows)
    treated = generator.random(rows) < 0.5
    outcome = (generator.random(rows) < 0.4 + effect * treated).astype(float)
    return outcome, effect, treated, generator.normal(size=rows)


def slow_curves(
    outcome: np.ndarray, score: np.ndarray, treated: np.ndarray, *, perfect: bool = False
) -> tuple[list, list, list]:
    """Share, Q / n1(N) and uplift curve, one plain sum over the rows for each distinct score."""
    outcome, score, treated = np.asarray(outcome, float), np.asarray(score), np.asarray(treated, bool)
    points, q, u = [0.0], [0.0], [0.0]
    for threshold in sorted(set(score.tolist()), reverse=True):
        top = [i for i in range(len(score)) if score[i] >= threshold]
        n1, n0 = sum(treated[i] for i in top), sum(not treated[i] for i in top)
        s1, s0 = sum(outcome[i] for i in top if treated[i]), sum(outcome[i] for i in top if not treated[i])
        points.append(len(top) / len(score))
        q.append((s1 - s0 * n1 / n0 if n0 else s1 * perfect) / treated.sum())
        u.append((s1 / n1 - s0 / n0) * len(top) / len(score) if n0 and n1 else 0.0)
    return points, q, u


def slow_area(x: list, y: list) -> float:
    return math.fsum((x[i + 1] - x[i]) * (y[i + 1] + y[i]) / 2 for i in range(len(x) - 1))


def slow_metrics(outcome: np.ndarray, score: np.ndarray, treated: np.ndarray) -> dict[str, float]:
    x, q, u = slow_curves(outcome, score, treated)
    area = slow_area(x, q) - q[-1] / 2
    # The perfect order of Radcliffe with negative effects, and the curve that climbs to the gain and stays.
    key = np.where(treated, outcome, -np.asarray(outcome))
    n1 = treated.sum()
    px, pq, _ = slow_curves(outcome, key, treated, perfect=True)
    gain = q[-1] * n1
    qx, qq = [0.0, gain / len(outcome), 1.0], [0.0, gain / n1, gain / n1]
    top = slow_top(outcome, score, treated, 0.25)
    return {
        "qini_norm_area": area,
        "qini_negative_effects": area / (slow_area(px, pq) - q[-1] / 2),
        "qini_no_negative_effects": area / (slow_area(qx, qq) - q[-1] / 2),
        "auuc": slow_area(x, u),
        "auuc_above_random": slow_area(x, u) - u[-1] / 2,
        "uplift_at_25": top,
    }


def slow_top(outcome: np.ndarray, score: np.ndarray, treated: np.ndarray, share: float) -> float:
    """Each row of the tied run at the cut enters with the fraction that still fits."""
    seats = share * len(score)
    part = np.empty(len(score))
    for row, value in enumerate(score):
        above, tied = (score > value).sum(), (score == value).sum()
        part[row] = min(max((seats - above) / tied, 0.0), 1.0)
    means = [(part * outcome)[arm].sum() / part[arm].sum() for arm in (treated, ~treated)]
    return float(means[0] - means[1])
