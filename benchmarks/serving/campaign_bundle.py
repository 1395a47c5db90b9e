"""A bundle with four treatments, trained for a moment on a synthetic campaign: for timing, not for its answers."""

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

ARMS: Final = ("none", "mail", "letter", "call", "visit")
NUMBERS: Final = ("age", "recency", "orders", "spend", "visits", "tenure")
IDS: Final = {"city": 200, "channel": 4, "segment": 12, "device": 3}


def people(count: int, seed: int) -> dict[str, Any]:
    """Columns of users as a campaign's table has them."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {"user": [f"u{row:06}" for row in range(count)]}
    columns |= {name: np.round(rng.normal(size=count), 3).tolist() for name in NUMBERS}
    return columns | {name: [f"{name}{value}" for value in rng.integers(0, size, count)] for name, size in IDS.items()}


def campaign_bundle(store: Path, network: str, members: int = 1, rows: int = 2000) -> Path:
    """Train a network at its published size for a moment and publish it; returns the bundle's folder."""
    # Imported here: measuring a bundle that is there already needs no torch.
    from training.config import TrainingConfig
    from training.export import export_run
    from training.fit import train

    rng = np.random.default_rng(0)
    columns = people(rows, seed=0)
    age = np.array(columns["age"])
    arm = rng.integers(0, len(ARMS), rows)
    chance = 1 / (1 + np.exp(-(-1 + 0.5 * age + 0.2 * arm)))
    columns |= {"arm": [ARMS[number] for number in arm], "bought": (rng.random(rows) < chance).astype(int)}
    with tempfile.TemporaryDirectory() as folder:
        pl.DataFrame(columns).write_parquet(Path(folder) / "rows.parquet")
        run = Path(folder) / "run"
        train(
            TrainingConfig.from_mapping(_config(Path(folder) / "rows.parquet", network, members)), run, progress=False
        )
        export_run(run, store, version="1.0.0")
        shutil.rmtree(run)
    return store / "campaign" / "1.0.0"


def _config(rows: Path, network: str, members: int) -> dict[str, Any]:
    features = [{"name": name, "kind": "number", "side": "user"} for name in NUMBERS]
    features += [{"name": name, "kind": "id", "side": "user"} for name in IDS]
    return {
        "bundle": {"name": "campaign"},
        "label": {"bought": "bought"},
        "ids": {"user": "user"},
        "treatment": {"column": "arm", "arms": list(ARMS), "outcome": "binary"},
        "feature": features,
        "data": {"rows": str(rows), "split": {"by": "random", "seed": 0, "test": 0.2, "valid": 0.2}},
        "model": {"network": network} | ({"members": members} if members > 1 else {}),
        "objective": {"epochs": 1},
        "train": {"seed": 0},
    }
