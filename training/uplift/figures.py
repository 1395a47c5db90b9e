"""The figures of an evaluation: Qini curve, effect by decile and overlap of every arm, dose responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from training.card.uplift_plots import decile_figure, dose_figure, overlap_figure, qini_figure
from training.metrics.uplift_bootstrap import qini_band
from training.metrics.uplift_calibration import uplift_calibration
from training.uplift.measures import Observed
from training.uplift.predict import Predictions

Document = dict[str, Any]


def evaluation_figures(document: Document, observed: Observed, predictions: Predictions) -> Iterator[Markup]:
    """One figure after another.

    Args:
        document: ``UpliftEvaluation.to_dict()``.
        observed: the rows it is about.
        predictions: with the default doses.
    """
    mu = predictions.outcomes
    for number in observed.contrasted():
        arm = observed.arms[number]
        effect = mu[:, number] - mu[:, 0]
        treated, control = observed.treatment == number, observed.treatment == 0
        band = qini_band(
            observed.outcome,
            effect,
            treated,
            control,
            units=observed.users,
            replicates=max(observed.replicates, 1),
        )
        yield qini_figure(band, f"qini-{number}", f"Qini curve: {arm}")
        calibration = uplift_calibration(effect, observed.outcome, treated, control)
        yield decile_figure(calibration, f"deciles-{number}", f"Effect by predicted effect: {arm}")
        if predictions.propensity is not None:
            yield overlap_figure(
                observed.treatment,
                predictions.propensity,
                observed.arms,
                f"overlap-{number}",
                of=number,
                title=f"Overlap: {arm}",
            )
    for number, (arm, curve) in enumerate(document["doses"].items()):
        unit = f" in {curve['unit']}" if curve["unit"] else ""
        yield dose_figure(
            curve["dose"],
            curve["average_outcome"],
            curve["supported"],
            f"dose-{number}",
            title=f"Average outcome by dose{unit}: {arm}",
        )
