"""From a bundle's folder to a version of the kind that its manifest says."""

from pathlib import Path

from bundle.loading import Limits
from service.core.compiled_version import compiled_version
from service.core.uplift_version import UpliftVersion, uplift_version
from service.core.version import ServedVersion, open_named, served_version
from service.engines.opening import EngineOptions

Version = ServedVersion | UpliftVersion


def open_version(
    path: Path, options: EngineOptions, limits: Limits | None = None, expected: tuple[str, str] | None = None
) -> Version:
    """Open a bundle, load its graphs and reproduce its golden rows: after this it may take traffic.

    Args:
        path: The bundle's folder.
        options: Which of its graphs to run.
        limits: What the bundle may weigh.
        expected: Name and version that the manifest must have; None: whatever it says.

    Raises:
        BundleRefused: The bundle breaks a rule, a graph does not load or does not give training's outputs.
    """
    bundle = open_named(path, limits, expected)
    if bundle.manifest.kind == "uplift":
        return uplift_version(bundle, options)
    version = served_version(bundle, options)
    version.compiled = compiled_version(bundle)
    return version
