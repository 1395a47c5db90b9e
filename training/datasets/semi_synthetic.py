"""Studies whose outcomes were simulated, so that the effect of every row is known.

Only the outcome that was drawn for the treatment received becomes a column; everything else goes to the truth.
"""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.datasets.sources import Wheel
from training.datasets.study import (
    Study,
    found,
    found_arrays,
    found_csv,
    numbered,
    outcomes_by_arm,
    replication_of,
    shuffled_split,
)
from training.datasets.tables import Truth

Float = NDArray[np.float64]

IHDP: Final = "ihdp"
ACIC: Final = "acic-2016"
TWINS: Final = "twins"
DOSE_IHDP: Final = "dose-ihdp"
DOSE_SIM: Final = "dose-sim"

ACIC_WHEEL: Final = Wheel(
    requirement="causallib==0.10.0",
    files={
        f"causallib/datasets/data/acic_challenge_2016/{name}.csv": digest
        for name, digest in {
            "x": "914d4d6c8dcea14f0268bb0c0558292746cbfbff7111c71434801e8ce48cdbdf",
            "zymu_1": "c77c7ba8cefeb350983d9e3918c444004b290e32f53ce028028701387898e175",
            "zymu_2": "faf5ad7c584d7c2dd6eed5120de8bb5de0a738b9fc343275d7d59a05efbf8ada",
            "zymu_3": "394974df8181524c3a5f0166cae961adc7e1311bf05db2050c1668879bf8e130",
            "zymu_4": "478153982835c31ca5442df3dba9020a9b8b04cad2f87d5a2beae56638cdd9e9",
            "zymu_5": "96b9252370b5f72da72a643b81a3233337ff274f4abbe74837e152f969f9bb87",
            "zymu_6": "73cac08e9444b336417ae99696f2156b96ee096fd195a1ec118fc315571c608e",
            "zymu_7": "b456f0f230fdb6b503acf691ed4efaaf59806d7a23f6ac3f7b47a6b6588292c4",
            "zymu_8": "3d1d6a5646efaba235f9ed0c41c80644050d88764a1728e9411e1000266560b4",
            "zymu_9": "0c3d16e75faf07b8b63c991522270f481c1570f64ebc3c24671e9805612f933e",
            "zymu_10": "81fe53b05fce5cf889a5884179dff485e67e9caeabc9fc1cb0da1da39c4dba3b",
        }.items()
    },
)
_ACIC_SIMULATIONS: Final = range(1, 11)
_IHDP_REPLICATIONS: Final = range(1, 1001)
_DOSE_REPLICATIONS: Final = range(100, 110)
_GRID: Final = np.linspace(0.0, 1.0, 101)
_TWINS_TRUTH: Final = ("life_t0", "life_t1", "y0", "y1", "e_true")


def read_ihdp(folder: Path, replication: int | None) -> Study:
    """One replication of IHDP (NPCI, setting A): 747 children, 90 % of them to train on.

    `x14` is coded 1 and 2 in the files and becomes 0 and 1.
    """
    number = replication_of(replication, _IHDP_REPLICATIONS, IHDP)
    given = found_csv(folder, f"ihdp_npci_{number}.csv", IHDP)
    covariates = tuple(f"x{place}" for place in range(1, 26))
    rows = numbered(given.with_columns(pl.col("x14") - 1)).select("unit", "treatment", "y_factual", *covariates)
    return Study(
        name=IHDP,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("treatment",),
        outcomes=("y_factual",),
        covariates=covariates,
        split=shuffled_split(len(rows), round(0.9 * len(rows)), number),
        truth=Truth(
            {
                "mu": outcomes_by_arm(given, ("mu0", "mu1")),
                "counterfactual": given["y_cfactual"].cast(pl.Float64).to_numpy(),
            }
        ),
    )


def ihdp_complete(folder: Path) -> bool:
    """Whether a folder holds a replication of IHDP."""
    return folder.is_dir() and any(folder.glob("ihdp_npci_*.csv*"))


def read_acic(folder: Path, replication: int | None) -> Study:
    """One simulation of the 2016 challenge: 4,802 rows, 58 covariates of which three are categories, 80 % to train on.

    The outcome `y` is the drawn outcome of the arm received.
    """
    number = replication_of(replication, _ACIC_SIMULATIONS, ACIC)
    covariates = found_csv(folder, "x.csv", ACIC)
    drawn = found_csv(folder, f"zymu_{number}.csv", ACIC)
    treated = pl.col("z") == 1
    observed = drawn.select("z", pl.when(treated).then("y1").otherwise("y0").alias("y"))
    rows = numbered(pl.concat([observed, covariates], how="horizontal"))
    return Study(
        name=ACIC,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("z",),
        outcomes=("y",),
        covariates=tuple(covariates.columns),
        split=shuffled_split(len(rows), round(0.8 * len(rows)), number),
        truth=Truth(
            {
                "mu": outcomes_by_arm(drawn, ("mu0", "mu1")),
                "counterfactual": drawn.select(pl.when(treated).then("y0").otherwise("y1")).to_series().to_numpy(),
            }
        ),
    )


def acic_complete(folder: Path) -> bool:
    """Whether a folder holds the covariates and all ten simulations."""
    names = ("x", *(f"zymu_{number}" for number in _ACIC_SIMULATIONS))
    return all(found(folder, f"{name}.csv") is not None for name in names)


def read_twins(folder: Path, replication: int | None) -> Study:
    """Twins below 2 kg: the treatment is to be the heavier one and was simulated, the outcome is death in year one."""
    replication_of(replication, range(1), TWINS)
    given = found_csv(folder, "twins_public.csv", TWINS)
    covariates = tuple(name for name in given.columns if name not in (*_TWINS_TRUTH, "t", "y"))
    rows = numbered(given).select("unit", "t", "y", *covariates)
    return Study(
        name=TWINS,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("t",),
        outcomes=("y",),
        covariates=covariates,
        split=shuffled_split(len(rows), round(0.8 * len(rows)), 0),
        truth=Truth(
            {
                "potential": outcomes_by_arm(given, ("y0", "y1")),
                "propensity": given["e_true"].cast(pl.Float64).to_numpy(),
            }
        ),
    )


def twins_complete(folder: Path) -> bool:
    """Whether a folder holds the twins."""
    return found(folder, "twins_public.csv") is not None


def read_dose_ihdp(folder: Path, replication: int | None) -> Study:
    """A continuous dose on the covariates of IHDP; everybody is in arm `dose`."""
    number = replication_of(replication, _DOSE_REPLICATIONS, DOSE_IHDP)
    shared = found_arrays(folder, "covariates.npz", DOSE_IHDP)
    drawn = found_arrays(folder, f"rep_{number}.npz", DOSE_IHDP)
    grid = _grid(drawn["t"][drawn["test"].astype(np.int64)])
    curves = (np.sin(3 * np.pi * grid) / (1.2 - grid))[None, :] * shared["amp"][:, None]
    return _dose_study(DOSE_IHDP, folder, shared["x"], drawn, drawn["train"].astype(np.int64), (grid, curves))


def read_dose_sim(folder: Path, replication: int | None) -> Study:
    """A simulated continuous dose over six covariates; everybody is in arm `dose`."""
    number = replication_of(replication, _DOSE_REPLICATIONS, DOSE_SIM)
    drawn = found_arrays(folder, f"rep_{number}.npz", DOSE_SIM)
    train = int(drawn["n_train"])
    x, grid = drawn["x"], _grid(drawn["t"][train:])
    slope = 4 * np.maximum(x[:, 0], x[:, 5]) ** 3 / (1 + 2 * x[:, 2] ** 2) * np.sin(x[:, 3])
    curves = np.cos(2 * np.pi * (grid - 0.5))[None, :] * (grid[None, :] ** 2 + slope[:, None])
    return _dose_study(DOSE_SIM, folder, x, drawn, np.arange(train), (grid, curves))


def dose_ihdp_complete(folder: Path) -> bool:
    """Whether a folder holds the covariates and a replication."""
    return (folder / "covariates.npz").is_file() and any(folder.glob("rep_*.npz"))


def dose_sim_complete(folder: Path) -> bool:
    """Whether a folder holds a replication and, unlike the other dose set, no covariates beside it."""
    return any(folder.glob("rep_*.npz")) and not (folder / "covariates.npz").exists()


def _grid(tested: Float) -> Float:
    """Doses at which the truth is given: evenly spaced ones, and those of the test rows, so that both are exact."""
    return np.unique(np.concatenate([_GRID, tested]))


def _dose_study(
    name: str, folder: Path, x: Float, drawn: dict[str, Float], train: NDArray[np.int64], truth: tuple[Float, Float]
) -> Study:
    covariates = tuple(f"x{place}" for place in range(1, x.shape[1] + 1))
    columns = {"arm": ["dose"] * len(x), "t": drawn["t"], "y": drawn["y"]}
    rows = numbered(pl.DataFrame(columns | {column: x[:, place] for place, column in enumerate(covariates)}))
    split = np.full(len(x), 2, dtype=np.int8)
    split[train] = 0
    return Study(
        name=name,
        folder=folder,
        rows=rows,
        unit="unit",
        treatments=("arm",),
        doses=("t",),
        outcomes=("y",),
        covariates=covariates,
        split=split,
        truth=Truth({"curves": truth[1]}, {"dose_grid": truth[0]}),
    )
