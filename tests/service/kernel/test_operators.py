"""The compiled operators against their definition, on every instruction set that this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engines.kernel.build import build
from service.engines.kernel.library import Library, instruction_sets, open_library
from service.engines.kernel.operators import ExtractorOperator, InterestOperator, OperatorError
from tests.conftest import build_once
from tests.service.kernel import cases, oracle
from tests.service.kernel.oracle import Case


@pytest.fixture(params=["amx", "avx512", "avx2", "plain"])
def library(request: pytest.FixtureRequest, kernel_library: Path) -> Library:
    if request.param not in instruction_sets(kernel_library):
        pytest.skip(f"this machine does not have {request.param}")
    return open_library(kernel_library, request.param)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_chosen_shapes(library: Library, case: Case) -> None:
    assert cases.interest_error(library, case) <= 1e-5
    assert cases.extractor_error(library, case) <= 1e-5


def test_random_shapes(library: Library) -> None:
    errors = {seed: cases.interest_error(library, cases.random_case(seed)) for seed in range(100, 160)}
    assert max(errors.values()) <= 1e-5, errors


def test_the_fastest_set_is_taken_by_default(kernel_library: Path) -> None:
    assert open_library(kernel_library).name == instruction_sets(kernel_library)[0]
    assert instruction_sets(kernel_library)[-1] == "plain"


@pytest.mark.parametrize("seed", [1029, 1106, 1211, 1241])
def test_scores_that_no_softmax_levels_out_keep_their_precision(library: Library, seed: int) -> None:
    """Random networks whose scores seventeen bits of every factor would get wrong by more than this."""
    case = replace(cases.random_case(seed), activation="sigmoid", softmax=False, blocks=0)
    assert cases.interest_error(library, case) <= 5e-6


def test_a_process_that_gets_no_tiles_takes_the_next_set(kernel_library: Path) -> None:
    """Linux refuses them to a process whose signals are handled on a stack that could not hold them."""
    if "amx" not in instruction_sets(kernel_library):
        pytest.skip("this machine does not have amx")
    code = (
        "import ctypes, sys\n"
        "from pathlib import Path\n"
        "class Stack(ctypes.Structure):\n"
        "    _fields_ = (('where', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t))\n"
        "memory = ctypes.create_string_buffer(8192)\n"
        "stack = Stack(ctypes.addressof(memory), 0, 8192)\n"
        "assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0\n"
        "from service.engines.kernel.library import instruction_sets\n"
        "sys.stdout.write(' '.join(instruction_sets(Path(sys.argv[1]))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(kernel_library)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["avx512", "avx2", "plain"]


def test_a_compiler_that_does_not_know_tiles_builds_the_other_sets(
    compiler: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old-compiler"
    refusing = 'case "$*" in *-mamx*) echo "error: unknown option -mamx-tile" >&2; exit 1;; esac'
    old.write_text(f'#!/bin/sh\n{refusing}\nexec {" ".join(compiler)} "$@"\n')
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    built = build(tmp_path / "_old.so", ("-O0",))
    assert "amx" not in instruction_sets(built)
    assert cases.interest_error(open_library(built), Case()) <= 1e-5


@pytest.mark.parametrize("size", [1e3, 1e8, 1e15])
def test_large_values_saturate(library: Library, size: float) -> None:
    case = Case(candidates=20, steps=9, units=(7, 5), real=1.0, blocks=3)
    given = oracle.material(case)
    loud = oracle.Material(given.query * np.float32(size), given.keys, given.mask, given.scoring, given.gates)
    found = cases.call(library, case, loud)
    assert np.isfinite(found).all()
    # Which of the saturated units are on is decided by products that float32 rounds, hence signs only at the extreme.
    if size == 1e3:
        np.testing.assert_allclose(found, oracle.interest(case, loud), atol=2e-4)


@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_what_is_not_a_number_stays_with_its_candidate(library: Library, activation: str) -> None:
    case = Case(candidates=21, steps=9, activation=activation, real=1.0)
    given = oracle.material(case)
    query = given.query.copy()
    query[0, 19] = np.nan
    found = cases.call(library, case, oracle.Material(query, given.keys, given.mask, given.scoring, given.gates))
    assert np.isnan(found[0, 19]).all()
    expected = oracle.interest(case, given)
    others = [c for c in range(21) if c != 19]
    np.testing.assert_allclose(found[:, others], expected[:, others], atol=1e-5)


def test_one_after_the_other_is_all_at_once(library: Library) -> None:
    case = Case(users=7, candidates=3, steps=8, real=0.5)
    given = oracle.material(case)
    together = cases.call(library, case, given)
    for user in range(7):
        alone = oracle.Material(
            given.query[user : user + 1],
            given.keys[user : user + 1],
            given.mask[user : user + 1],
            given.scoring,
            given.gates,
        )
        np.testing.assert_allclose(cases.call(library, case, alone)[0], together[user], atol=2e-6)


def test_small_numbers_stay_what_they_are_outside(library: Library) -> None:
    """Inside an operator they count as zero."""
    assert cases.interest_error(library, Case(candidates=20)) <= 1e-5
    assert cases.extractor_error(library, Case()) <= 1e-5
    smallest = np.full(64, 1e-40, np.float32)
    assert (smallest * np.float32(0.5) > 0).all()


def test_threads_do_not_disturb_one_another(library: Library) -> None:
    chosen = [Case(users=2, candidates=40 + seed, steps=20 + 7 * seed, seed=seed) for seed in range(4)]
    worst = [float("inf")] * len(chosen)

    def work(place: int) -> None:
        worst[place] = max(cases.interest_error(library, chosen[place]) for _ in range(20))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(chosen))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(worst) <= 1e-5


def test_arrays_that_do_not_fit_are_refused(kernel_library: Path) -> None:
    case = Case(users=2, candidates=3, steps=5)
    given = oracle.material(case)
    operator = InterestOperator(
        open_library(kernel_library), given.scoring, "sigmoid", softmax=True, scale=1.0, gates=given.gates
    )
    wrong: tuple[tuple[Any, Any, Any], ...] = (
        (given.query[:1], given.keys, given.mask),
        (given.query[..., :3], given.keys, given.mask),
        (given.query[0], given.keys, given.mask),
        (given.query.astype(np.float64), given.keys, given.mask),
        (given.query, given.keys[:, :4], given.mask),
        (given.query, given.keys, given.mask[:, :4]),
        (given.query, given.keys, given.mask[0]),
        (given.query, given.keys, given.mask.astype(np.int8)),
    )
    for arrays in wrong:
        with pytest.raises(OperatorError, match="must be"):
            operator(*arrays)
    turned = np.asfortranarray(given.query)  # laid out otherwise, and still the same values
    np.testing.assert_array_equal(
        operator(turned, given.keys, given.mask), operator(given.query, given.keys, given.mask)
    )


def test_parameters_that_do_not_fit_are_refused(kernel_library: Path) -> None:
    library, given = open_library(kernel_library), oracle.material(Case())
    kernel, bias, shape, last, last_bias = given.scoring
    wrong: tuple[list[oracle.Floats], ...] = (
        [kernel[:15], bias, shape, last, last_bias],
        [kernel[:0], bias, shape, last, last_bias],
        [kernel, bias[:5], shape, last, last_bias],
        [kernel, bias, shape[:2], last, last_bias],
        [kernel, bias, shape, last[:5], last_bias],
        [kernel, bias, shape, last],
        [kernel, bias, shape] * 17 + [last, last_bias],
        [],
    )
    for scoring in wrong:
        with pytest.raises(OperatorError):
            InterestOperator(library, scoring, "sigmoid", softmax=True, scale=1.0)
    with pytest.raises(OperatorError, match="activation"):
        InterestOperator(library, given.scoring, "tanh", softmax=True, scale=1.0)
    with pytest.raises(OperatorError, match="bilinear"):
        InterestOperator(library, given.scoring, "bilinear", softmax=True, scale=1.0)
    for place in range(4):
        gates = list(given.gates)
        gates[place] = gates[place][:-1]
        with pytest.raises(OperatorError, match="gates"):
            InterestOperator(library, given.scoring, "sigmoid", softmax=True, scale=1.0, gates=gates)
    with pytest.raises(OperatorError):
        ExtractorOperator(library, [kernel, bias])
    one = np.ones(9, np.float32)
    with pytest.raises(OperatorError):
        ExtractorOperator(library, [np.ones((9, 4), np.float32), np.ones((8, 3), np.float32), one, one])


def test_under_the_sanitizers(shared_folder: Path, compiler: list[str]) -> None:
    """Addresses and undefined behaviour: the same cases in a process of their own, any finding ends it."""
    flags = ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    probe = subprocess.run([*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=False)
    runtime = Path(probe.stdout.strip())
    if not runtime.is_absolute():
        pytest.skip(f"{compiler[0]} has no address sanitizer that can be loaded first")
    folder = shared_folder / "kernel-sanitized"

    def make(made: Path) -> None:
        build(made / "_kernel.so", flags)

    path = build_once(folder, make) / "_kernel.so"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",  # of Python itself
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.kernel.cases", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
