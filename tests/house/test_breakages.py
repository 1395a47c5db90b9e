"""The catalogue of the breakage drill fits the code as it stands; `make break` runs it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from breakages.breakage import Breakage
from breakages.catalogue import BREAKAGES

ROOT = Path(__file__).parents[2]
AT_LEAST = 20


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len({breakage.name for breakage in BREAKAGES}) == len(BREAKAGES) >= AT_LEAST


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda breakage: breakage.name)
def test_the_line_stands_once_and_the_tests_exist(breakage: Breakage) -> None:
    source = (ROOT / breakage.file).read_text(encoding="utf-8")
    assert source.count(breakage.old) == 1
    assert breakage.new != breakage.old
    if breakage.file.endswith(".py"):
        ast.parse(source.replace(breakage.old, breakage.new))  # it has to be red for what it does, not for its syntax
    assert breakage.tests
    for test in breakage.tests:
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), test
