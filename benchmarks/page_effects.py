"""The page's rows on treatment effects and on training across environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.page_row import Record, Row


def pehe(record: Record) -> str:
    found, error = record["summary"]["sqrt_pehe_out"], record["summary"]["ate_error_out"]
    return f"sqrt PEHE {found['mean']:.3f} (median {found['median']:.3f}), ATE error {error['mean']:.3f}"


def dropout(record: Record) -> str:
    found = record["summary"]
    return (
        f"{pehe(record)}; 95 % intervals cover {100 * found['coverage']['mean']:.1f} %, mean width "
        f"{found['mean_width']['mean']:.2f} noise standard deviations (median {found['mean_width']['median']:.2f})"
    )


def qini(task: str) -> Callable[[Record], str]:
    def read(record: Record) -> str:
        found = record["tasks"][task]
        seeds = [seed["qini_norm_area"] for seed in found["seeds"]]
        gain = found["gain_over_the_response_model"]
        return (
            f"{found['mean']:.4f} ({min(seeds):.4f} to {max(seeds):.4f}); over the response model "
            f"{gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
        )

    return read


def amse(record: Record) -> str:
    found = record["summary"]
    continuous = all(each["continuous"] for each in record["replications"])
    return (
        f"{found['amse']['mean']:.3f} (median {found['amse']['median']:.3f}), without targeting "
        f"{found['amse_without_targeting']['mean']:.3f}; {'all' if continuous else 'not all'} curves continuous"
    )


def acic(record: Record) -> str:
    found = record["summary"]
    names = {"own": "TARNet", "t_learner": "T-learner", "x_learner": "X-learner"}
    return "; ".join(f"{label} {found[name]['mean']:.3f}" for name, label in names.items())


def jobs(record: Record) -> str:
    return f"{record['mean']['risk']:.3f} (treating everybody {record['mean']['risk_of_treating_all']:.3f})"


def structural(record: Record) -> str:
    tutorial = record["population"]["tutorial"]["50000"]
    ours = record["population"]["ours, 5000 steps"]["summary"]
    return (
        f"abs(a-1) {tutorial['worst_a_error']:.4f}, abs(b) {tutorial['worst_b']:.4f} at 50,000 steps; ours "
        f"{ours['largest_a_error']:.4f}, {ours['largest_b']:.4f} at 5,000"
    )


def digits(record: Record) -> str:
    return ", ".join(f"{name.upper()} {100 * record[name]['mean']['test']:.1f} %" for name in ("irm", "erm"))


def throughput(record: Record) -> str:
    return "; ".join(
        f"{name}: {found['ratio']:.2f}"
        for name, found in record.items()
        if isinstance(found, dict) and "ratio" in found
    )


EFFECT_ROWS: Final = (
    Row(
        "TARNet on IHDP 1-10, out of sample",
        "uplift-ihdp",
        "PEHE .90, ATE error .20",
        ".70, median .40, .12",
        pehe,
    ),
    Row(
        "DCN-PD, factual loss, the same",
        "uplift-dcn-pd",
        "PEHE 1.2",
        "1.0; cover 90-99 % at mean width <= 4",
        dropout,
    ),
    Row("Hillstrom visit, women's e-mail, Qini area", "uplift-hillstrom", ".0090", "above .0100", qini("W")),
    Row("Hillstrom visit, any e-mail, Qini area", "uplift-hillstrom", ".0040", "above .0046", qini("A")),
    Row("Jobs, policy risk, five splits", "uplift-jobs", ".200", ".185", jobs),
    Row("ACIC-2016, sqrt PEHE, ten simulations", "uplift-acic-2016", "below both learners", "30 % below", acic),
    Row("VCNet, AMSE of the average dose-response curve", "uplift-dose-ihdp", ".25", ".15, continuous", amse),
    Row(
        "invariant risk minimisation, structural equations",
        "invariance-sem",
        ".01 and .03 at 50,000 steps",
        "abs(b) < .01 within 5,000",
        structural,
    ),
    Row("coloured digits, test accuracy, ten seeds", "invariance-digits", "IRM >= 60 %, ERM <= 30 %", "", digits),
    Row(
        "POST /uplift, 1,000 users x 4 treatments, against the graph alone",
        "serving-uplift-throughput",
        ".60",
        ".85",
        throughput,
    ),
)
