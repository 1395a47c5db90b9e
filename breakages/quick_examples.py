"""A pytest plugin for the drill: a property that fails has done its work, so the example is not made smaller."""

import pytest
from hypothesis import Phase, settings

settings.register_profile("drill", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)
settings.load_profile("drill")


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of the plugin that the drill leaves out."""
    config.addinivalue_line("markers", "xdist_group(name): tests for one worker of pytest-xdist")
