"""The pages about layers are what the docstrings say, and no layer is missing."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from models import layers

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_layer_pages", DOCS / "generate_layer_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_pages_are_the_generated_ones(generator: ModuleType) -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "layers").glob("*.md")}
    assert committed == generator.pages(), "run: python docs/generate_layer_pages.py"


def test_every_public_layer_has_its_place(generator: ModuleType) -> None:
    listed = [name.split(".")[0] for _, names in generator.FAMILIES.values() for name in names]
    assert set(layers.__all__) - {"FFM"} == set(listed)


def test_every_entry_tells_its_shapes_and_example(generator: ModuleType) -> None:
    for text in generator.pages().values():
        for entry in text.split("\n## ")[1:]:
            assert ">>> " in entry, entry.splitlines()[0]
