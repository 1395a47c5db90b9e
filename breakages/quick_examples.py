"""A pytest plugin for the drill: a property that fails has done its work, so the example is not made smaller."""

from hypothesis import Phase, settings

settings.register_profile("drill", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None)
settings.load_profile("drill")
