"""What an uplift bundle says about users, in the units of its data, before anybody asks for treatments or budgets.

Letters: U users, K treatments (0 = control), G points of a dose grid, M samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle import effects
from bundle.treatment import DENSITY, UpliftPart
from service.engines.base import Engine, EngineError

Float = NDArray[np.float64]
Inputs = Mapping[str, NDArray[Any]]

# Noise of a thousand users times fifty samples would take hundreds of megabytes at once.
_SAMPLED_VALUES: Final = 8_000_000
_BLOCK: Final = 4096
GRID: Final = "dose_grid"  # the one input that is not by user


@dataclass(frozen=True, slots=True)
class Predicted:
    """Answers of one run of the graph; NaN wherever the graph returned something that is no number.

    Attributes:
        outcomes: (U, K) at the doses that were asked.
        propensity: (U, K) as estimated, unclipped; NaN throughout where the bundle estimates none.
        curves: (U, K, G) outcomes along the grid; G is 0 for a bundle without doses.
        density: (U, K, G) of the dose, or None where it is not estimated.
    """

    outcomes: Float
    propensity: Float
    curves: Float
    density: Float | None


class Network:
    """The graphs of one bundle and the scales that their outputs are on.

    Args:
        part: What the manifest says about treatments.
        engine: The main graph.
        samples: The graph of outcome samples, where the bundle has one.
    """

    def __init__(self, part: UpliftPart, engine: Engine, samples: Engine | None) -> None:
        self.part = part
        self._engine = engine
        self._samples = samples

    def raw(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """The graph's outputs by name, for all of its inputs.

        Raises:
            EngineError: The run failed.
        """
        return self._engine.outputs(inputs)

    def predict(self, inputs: Inputs, doses: Float, grid: Float) -> Predicted:
        """One run in the units of the data.

        Args:
            inputs: Of the encoder.
            doses: (U, K) scaled to [0, 1].
            grid: (G,) scaled to [0, 1].

        Raises:
            EngineError: The run failed.
        """
        return self.in_units(self.in_blocks(self.with_doses(inputs, doses, grid)))

    def in_units(self, found: Mapping[str, NDArray[np.float32]]) -> Predicted:
        """The graph's outputs in the units of the data.

        Raises:
            EngineError: One is missing.
        """
        scale = self.part.outcome
        try:
            outcome, logits, *curve = [found[name] for name in self.part.outputs]
        except KeyError as error:
            raise EngineError(f"the graph has no output {error}") from error
        estimated = self.part.propensity == "estimated"
        density = found.get(DENSITY)
        return Predicted(
            outcomes=effects.outcomes(outcome, scale),
            propensity=effects.propensities(logits) if estimated else np.full(outcome.shape, np.nan),
            curves=effects.outcomes(curve[0], scale) if curve else np.empty((*outcome.shape, 0)),
            density=None if density is None else density.astype(np.float64),
        )

    def in_blocks(self, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
        """The graph's outputs for any number of users; hidden layers of a whole file would not fit into memory.

        Raises:
            EngineError: A run failed.
        """
        users = len(inputs["user_ids"])
        if users <= _BLOCK:
            return self.raw(inputs)
        found = [
            self.raw(
                {name: values if name == GRID else values[start : start + _BLOCK] for name, values in inputs.items()}
            )
            for start in range(0, users, _BLOCK)
        ]
        return {name: np.concatenate([block[name] for block in found]) for name in found[0]}

    def samples(self, inputs: Inputs) -> Float:
        """Outcome samples (M, U, K) in the units of the data, for all inputs of the main graph.

        Every user gets the same noise, drawn afresh from the bundle's seed: a reply repeats, and a user's interval does
        not depend on who else is in the request.

        Raises:
            EngineError: The run failed, or the bundle has no graph of samples.
        """
        asked = self.part.samples
        if asked is None or self._samples is None:
            raise EngineError("the bundle has no graph of samples")
        noise = np.random.default_rng(asked.seed).random((asked.count, 1, asked.noise_width), dtype=np.float32)
        users = len(inputs["user_ids"])
        block = max(1, _SAMPLED_VALUES // (asked.count * max(1, asked.noise_width)))
        parts = []
        for start in range(0, users, block):
            rows = slice(start, min(start + block, users))
            feed = {name: values if name == GRID else values[rows] for name, values in inputs.items()}
            shape = (asked.count, rows.stop - rows.start, asked.noise_width)
            feed["noise"] = np.ascontiguousarray(np.broadcast_to(noise, shape))
            parts.append(self._samples.run(feed))
        return effects.outcomes(np.concatenate(parts, axis=1), self.part.outcome)

    def with_doses(self, inputs: Inputs, doses: Float, grid: Float) -> dict[str, NDArray[Any]]:
        """All inputs of the graph; the doses are left out where no treatment has one."""
        if not self.part.doses:
            return dict(inputs)
        return {**inputs, "doses": doses.astype(np.float32), GRID: grid.astype(np.float32)}

    def close(self) -> None:
        """Give the graphs back."""
        self._engine.close()
        if self._samples is not None:
            self._samples.close()
