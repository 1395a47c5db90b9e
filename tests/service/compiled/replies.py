"""Corrections and logits of every kind; also run as a program, in a sanitized process."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle.correct import Calibrator, Correction, Identity, Isotonic, Platt, TaskCorrection, Temperature
from service.compiled.reply import ReplyWriter

TASKS = (("ctr",), ("cvr",), ("ctr", "cvr"), ("cvr", "like", "ctr"), ("ctr", "ctcvr", "cvr"), ("a", "b", 'c"\\ü', "d"))


def calibrator(rng: random.Random) -> Calibrator:
    """One of any kind."""
    knots = sorted(rng.sample(range(1, 1000), rng.randrange(1, 8)))
    heights = sorted(rng.choice([0.0, 1.0, rng.random()]) for _ in knots)
    return rng.choice(
        [
            Identity(),
            Platt(a=rng.choice([1e-3, 1.0, 1.7, 1e300]), b=rng.uniform(-2, 2)),
            Temperature(temperature=rng.choice([1e-300, 0.3, 1.0, 7.5])),
            Isotonic(x_knots=tuple(knot / 1000 for knot in knots), y_knots=tuple(heights)),
        ]
    )


def correction(rng: random.Random, tasks: tuple[str, ...]) -> Correction:
    """A correction of some tasks."""
    mode: Any = rng.choice(["none", "training", "serving"])
    told = {}
    for task in rng.sample(tasks, rng.randrange(len(tasks) + 1)):
        shifted = rng.random() < 0.5
        told[task] = TaskCorrection(
            rate=1.0 if mode == "none" else rng.choice([1e-6, 0.1, 1.0, 3.0]),
            train_prior=rng.uniform(0.01, 0.99) if shifted else None,
            serve_prior=rng.uniform(0.01, 0.99) if shifted else None,
            calibrator=calibrator(rng),
            calibrator_without_history=rng.choice([None, calibrator(rng)]),
        )
    return Correction(mode=mode, tasks=told)


def logits(rng: random.Random, candidates: int, tasks: int) -> NDArray[np.float32]:
    """(1, C, K), most of them such as a network returns."""
    drawn = np.random.default_rng(rng.randrange(1 << 30)).normal(-1, 3, (1, candidates, tasks)).astype(np.float32)
    for value in rng.choices([0.0, -0.0, 1.0, -3.0, 80.0, -80.0, 750.0, -750.0, 3e38, -3e38, 1e-45, 16777216.0], k=3):
        drawn[0, rng.randrange(candidates), rng.randrange(tasks)] = value
    return drawn


def main() -> int:
    """Write them all with the library that the command line names."""
    rng = random.Random(6)
    lengths = set()
    for _ in range(300):
        tasks = rng.choice(TASKS)
        writer = ReplyWriter(correction(rng, tasks), tasks, "movies", "1.0.0", Path(sys.argv[1]))
        for count in (1, 100, 3):
            flags = rng.random() < 0.5, rng.random() < 0.5
            written = writer.write(logits(rng, count, len(tasks)), "id", "store", 7, ("age",) * count, *flags)
            lengths.add(0 if written is None else len(written.body))
    return 0 if len(lengths) > 50 and 0 not in lengths else 1


if __name__ == "__main__":
    sys.exit(main())
