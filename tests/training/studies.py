"""Studies of treatment effects in the form of the known data sets, small and made up, with or without their truth.

`blind = True` writes the same study with every counterfactual cell NaN. Whatever training does must come out the same.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.training.shop import TEST_DATA
from training.config import TrainingConfig, load_config

UPLIFT_DATA = TEST_DATA / "uplift"
CONFIGS = Path(__file__).parents[2] / "configs"


def needs_uplift_data(folder: str) -> pytest.MarkDecorator:
    """Skips, by name, where a study's folder is absent."""
    return pytest.mark.skipif(not (UPLIFT_DATA / folder).is_dir(), reason=f"{folder} is not in CTRLIFT_TEST_DATA")


def study_config(name: str, folder: Path, *overrides: str) -> TrainingConfig:
    """A configuration of the repository with the folder of its data."""
    return load_config(CONFIGS / f"{name}.toml", [f"data.path={folder}", *overrides])


def write_ihdp(folder: Path, *, rows: int = 120, blind: bool = False, seed: int = 0) -> Path:
    """One replication in the form of IHDP with an effect that depends on x1."""
    random = np.random.default_rng(seed)
    x = np.concatenate([random.normal(size=(rows, 6)), random.integers(0, 2, (rows, 19))], axis=1)
    x[:, 13] += 1
    treatment = random.integers(0, 2, rows)
    mu = np.stack([x[:, 0], x[:, 0] + 2 + x[:, 1]], axis=1)
    drawn = mu + random.normal(size=(rows, 2))
    place = np.arange(rows)
    columns: dict[str, Any] = {
        "treatment": treatment,
        "y_factual": drawn[place, treatment],
        "y_cfactual": drawn[place, 1 - treatment],
        "mu0": mu[:, 0],
        "mu1": mu[:, 1],
    }
    if blind:
        columns |= {name: np.full(rows, np.nan) for name in ("y_cfactual", "mu0", "mu1")}
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns | {f"x{n + 1}": x[:, n] for n in range(25)}).write_csv(folder / "ihdp_npci_1.csv")
    return folder


def write_dose_ihdp(folder: Path, *, rows: int = 120, blind: bool = False, seed: int = 0) -> Path:
    """One replication in the form of the dose set on IHDP's covariates."""
    random = np.random.default_rng(seed)
    x, amplitude, dose = random.random((rows, 25)), 1 + random.random(rows), random.random(rows)
    mu = np.sin(3 * np.pi * dose) / (1.2 - dose) * amplitude
    outcome = mu + 0.1 * random.normal(size=rows)
    order = random.permutation(rows).astype(np.int16)
    if blind:
        amplitude, mu = np.full(rows, np.nan), np.full(rows, np.nan)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "covariates.npz", x=x, amp=amplitude, grid=np.linspace(0, 1, 5), adrf_grid=np.full(5, np.nan))
    cut = rows * 2 // 3
    np.savez(folder / "rep_100.npz", t=dose, y=outcome, mu=mu, train=order[:cut], test=order[cut:])
    return folder


def trial(rows: int = 200, seed: int = 0) -> pl.DataFrame:
    """Rows of a trial with three arms, a dose in one of them, and an outcome of either kind."""
    random = np.random.default_rng(seed)
    arm = random.integers(0, 3, rows)
    dose = np.where(arm == 2, random.integers(1, 6, rows).astype(float), np.nan)
    chance = np.select([arm == 0, arm == 1], [0.2, 0.3], 0.2 + 0.1 * np.nan_to_num(dose))
    return pl.DataFrame(
        {
            "person": [f"p{number}" for number in range(rows)],
            "age": random.normal(40, 10, rows).round(1),
            "city": random.choice(["oslo", "lima"], rows),
            "day": random.choice(["mon", "tue"], rows),
            "sent": [("nothing", "letter", "coupon")[number] for number in arm],
            "worth": pl.Series(dose).fill_nan(None),
            "bought": (random.random(rows) < chance).astype(np.int8),
            "spend": (10 * chance + random.normal(size=rows)).round(3),
        }
    )


def trial_mapping(**sections: Any) -> dict[str, Any]:
    """A configuration for the trial's file, as parsed TOML; keys of a section are merged, None removes them."""
    base: dict[str, dict[str, Any]] = {
        "label": {"bought": "bought"},
        "ids": {"user": "person"},
        "treatment": {
            "column": "sent",
            "arms": ["control", "letter", "coupon"],
            "values": {"control": "nothing"},
            "outcome": "binary",
            "dose": "worth",
            "dose_arms": ["coupon"],
        },
        "data": {"rows": "rows.csv"},
        "model": {"network": "tarnet"},
        "bundle": {"name": "trial"},
    }
    merged = {name: {**base.get(name, {}), **section} for name, section in {**base, **sections}.items()}
    plain = {name: {k: v for k, v in section.items() if v is not None} for name, section in merged.items()}
    features = [
        {"name": "age", "kind": "number", "side": "user"},
        {"name": "city", "kind": "id", "side": "user"},
    ]
    return {**plain, "feature": features}
