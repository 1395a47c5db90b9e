"""Calls of the operators over every instruction set of this machine; also run as a program, in a sanitized process.

``python -m tests.service.kernel.cases LIBRARY`` runs all cases and ends with 0 if every one agrees.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from service.engines.kernel import operators
from service.engines.kernel.library import Library, instruction_sets, open_library
from service.engines.kernel.operators import ExtractorOperator, InterestOperator
from tests.service.kernel import oracle
from tests.service.kernel.oracle import ACTIVATIONS, Case

# Of the sizes: one of each, whole vectors, whole tiles and one more or less, the speed network's.
CASES = (
    Case(),
    Case(candidates=1, steps=1, width=1, units=(1,), hidden=1),
    Case(candidates=1, users=2, steps=7),
    Case(candidates=1, users=37, steps=9, real=0.5),
    Case(candidates=3, users=21, steps=6, real=0.4, blocks=2),
    Case(candidates=19, users=5, steps=6, real=0.5),
    Case(candidates=8, users=4, steps=33),
    Case(candidates=9, users=3, steps=17),
    Case(candidates=16, steps=16, width=16, units=(16, 16), hidden=16),
    Case(candidates=17, steps=15, width=15, units=(17, 15), hidden=17),
    Case(candidates=33, steps=34, width=31, units=(33, 1), hidden=31, blocks=2),
    Case(candidates=64, steps=4, real=1.0),
    Case(candidates=40, steps=0, users=2),
    Case(candidates=5, steps=12, users=3, real=0.0),
    Case(candidates=100, steps=50, width=36, units=(80, 40), hidden=36, real=1.0),
    Case(candidates=80, steps=35, width=32, units=(64, 33), hidden=32),
    Case(candidates=48, users=2, steps=17, width=33, units=(31,), hidden=33, blocks=2),
    Case(candidates=21, steps=13, units=()),
    Case(candidates=21, steps=13, units=(5, 7, 3, 9), blocks=0),
    Case(candidates=50, steps=20, users=3, width=10, activation="bilinear", hidden=7),
    Case(candidates=3, steps=20, users=9, width=6, activation="bilinear", hidden=18, query_width=3),
    Case(candidates=20, steps=20, users=2, width=6, activation="bilinear", blocks=0),
    Case(candidates=0, steps=4),
    Case(users=0),
    *(Case(candidates=23, steps=11, users=2, units=(13, 6), activation=name, blocks=0) for name in ACTIVATIONS),
    *(Case(candidates=4, steps=11, users=3, activation=name, blocks=0, softmax=False) for name in ACTIVATIONS),
)


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    width, hidden, blocks = (
        (int(rng.integers(1, 40)) for _ in range(2)),
        int(rng.integers(1, 40)),
        int(rng.choice([0, 2, 3])),
    )
    return Case(
        users=int(rng.integers(1, 6)),
        candidates=int(rng.integers(1, 70)),
        steps=int(rng.integers(0, 40)),
        width=next(width),
        units=tuple(int(units) for units in rng.integers(1, 90, rng.integers(0, 4))),
        hidden=hidden,
        blocks=blocks,
        activation=str(rng.choice([*ACTIVATIONS, "bilinear"])),
        # A recurrence is only ever steered by attention that sums to one.
        softmax=bool(blocks) or bool(rng.integers(2)),
        real=float(rng.choice([0.1, 0.6, 1.0])),
        seed=seed,
    )


def call(library: Library, case: Case, given: oracle.Material) -> oracle.Floats:
    operator = InterestOperator(
        library, given.scoring, case.activation, softmax=case.softmax, scale=case.scale, gates=given.gates
    )
    spoil_scratch()
    return operator(given.query, given.keys, given.mask)


def spoil_scratch() -> None:
    """What a call reads of its scratch memory before it wrote there is not a number."""
    operators._SCRATCH.buffer[:] = np.nan


def error(found: oracle.Floats, expected: oracle.Doubles) -> float:
    """Largest difference, of one or of the value where that is more; a shape that differs is the largest of all."""
    if found.shape != expected.shape:
        return float("inf")
    if found.size == 0:
        return 0.0
    return float(np.max(np.abs(found - expected) / np.maximum(1.0, np.abs(expected))))


def interest_error(library: Library, case: Case) -> float:
    given = oracle.material(case)
    expected = oracle.interest(case, given) if case.users else np.zeros((0, case.candidates, case.hidden))
    first = error(call(library, case, given), expected)
    return max(first, error(call(library, case, given), expected))  # the second in scratch that holds the first's


def extractor_error(library: Library, case: Case) -> float:
    given = oracle.material(replace(case, activation="sigmoid"))
    rng = np.random.default_rng(case.seed)
    shapes = ((3 * case.hidden, case.width), (3 * case.hidden, case.hidden), (3 * case.hidden,), (3 * case.hidden,))
    parameters = [rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]
    operator = ExtractorOperator(library, parameters)
    spoil_scratch()
    return error(operator(given.keys, given.mask), oracle.extracted(given.keys, given.mask, parameters))


def main(path: Path) -> int:
    for name in instruction_sets(path):
        library = open_library(path, name)
        for case in (*CASES, *map(random_case, range(12))):
            worst = max(interest_error(library, case), extractor_error(library, case))
            if not worst <= 1e-5:
                sys.stderr.write(f"{name}: {case} differs by {worst}\n")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
