"""Clicks and conversions as one funnel: who did not click cannot have converted."""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle.schema import FeatureSchema
from training.config import BOTH
from training.datasets.tables import Tables
from training.errors import DataError

__all__ = ["BOTH", "CLICK", "CONVERSION", "check_funnel", "funnel_labels"]

CLICK: Final = "ctr"
CONVERSION: Final = "cvr"

Columns = dict[str, NDArray[np.float32]]


def check_funnel(tables: Tables, features: FeatureSchema) -> None:
    """Refuse a conversion of a row that was not clicked.

    Raises:
        DataError: naming the file, the column and the row.
    """
    click, conversion = features.label[CLICK], features.label[CONVERSION]
    clicked, converted = (tables.rows[column].cast(float).to_numpy() for column in (click, conversion))
    wrong = np.flatnonzero((converted == 1) & (clicked == 0))
    if len(wrong):
        raise DataError(
            f"{tables.file('rows')}, column {conversion!r}, row {int(wrong[0]) + 1}: a conversion without a click "
            f"({click!r} is 0); labels that are no funnel need [funnel] mode = 'independent'"
        )


def funnel_labels(labels: Mapping[str, NDArray[np.float32]]) -> Columns:
    """Labels of the funnel: conversions among the clicked rows, and ``ctcvr`` on all rows.

    A row's conversion is known only where it was clicked. Both together are 0 without a click, and the conversion
    where there was one or the click is not known.

    Shapes: (N,) float32 each, NaN where unknown.
    """
    clicked, converted = labels[CLICK], labels[CONVERSION]
    return {
        **labels,
        CONVERSION: np.where(clicked == 1, converted, np.float32(np.nan)),
        BOTH: np.where(clicked == 0, np.float32(0), converted),
    }
