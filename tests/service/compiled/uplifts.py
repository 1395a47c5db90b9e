"""Encodes, answers and writes plain /uplift requests with a library; run as a program, in a sanitized process."""

import random
import sys
from pathlib import Path

import numpy as np

from bundle.treatment import OutcomeScale
from service.compiled.answers import AnswerRows, AnswerWriter
from service.compiled.columns import Choice, strings
from service.compiled.population import PopulationEncoder
from service.compiled.treating import Asking, PlainTreater
from tests.service.compiled.test_population import FITTED, block_of, people, stored_value

ARMS = ("none", "mail", "l" * 50)


def main() -> int:
    """A finding ends the process; the status says whether the walk went where it should."""
    library, rng = Path(sys.argv[1]), random.Random(0)
    encoder, writer = PopulationEncoder(FITTED, library), AnswerWriter(library)
    treater, taken = PlainTreater(OutcomeScale(name="bought", kind="binary"), library), 0
    for count in [1, 2, 3, 50] * 30:
        block = block_of(people(count, rng, rng.choice([0.0, 0.5, 1.0])), library)
        taken += block.fill([stored_value(rng) for _ in range(count)], 1 << 16)
        encoder.encode(block)
        logits = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
        for propensity in (None, logits):
            found = treater.answers(logits, propensity, Asking(np.arange(3), extrapolates=False, lost=None))
            if found is None:
                return 1
            remarks = Choice(np.zeros(count, dtype=np.int64), (b"[]",))
            rows = AnswerRows(found, ARMS, strings([f"u{place}" for place in range(count)]), remarks)
            writer.between(b"[", rows, b"]")
    return 0 if taken > 10 else 1


if __name__ == "__main__":
    sys.exit(main())
