"""What the text of every public layer must tell, and that its example runs."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from torch import nn

from models import layers

MODULES = sorted(info.name for info in pkgutil.iter_modules(layers.__path__, "models.layers."))
PUBLIC = sorted(set(layers.__all__) - {"advanced_activations"})
PARTS = ("Source: ", "Differs", "Shapes: ", "Raises:", "Example:\n")


@pytest.mark.parametrize("name", PUBLIC)
def test_a_layer_tells_formula_source_shapes_errors_and_an_example(name: str) -> None:
    documented = getattr(layers, name)
    text = inspect.getdoc(documented) or ""
    is_layer = inspect.isclass(documented) and issubclass(documented, nn.Module)
    assert [part for part in (PARTS if is_layer else PARTS[-1:]) if part not in text] == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name), report=True)
    assert failed == 0
