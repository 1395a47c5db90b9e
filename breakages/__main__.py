"""`make break`: apply every breakage of the catalogue to a copy of the tree and run only the tests named for it.

Exit code 0 if every breakage turned its tests red, 1 if one stayed green (or could not be applied any more).
Options: --jobs N copies side by side, --only WORD for the breakages whose name holds the word.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from breakages.breakage import Breakage
from breakages.catalogue import BREAKAGES

ROOT: Final = Path(__file__).resolve().parents[1]
LEFT_OUT: Final = shutil.ignore_patterns(
    ".git", ".venv", "runs", "demo", "data", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "build"
)
LONGEST_S: Final = 240.0
TESTS_FAILED: Final = 1  # pytest's exit code; 2 and above mean that the tests did not run


@dataclass(frozen=True)
class Outcome:
    """What the tests said about one breakage; `verdict` is red, or why it is not."""

    breakage: Breakage
    verdict: str
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill and print a table."""
    parser = argparse.ArgumentParser(prog="python -m breakages", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args(arguments)
    chosen = [breakage for breakage in BREAKAGES if options.only in breakage.name]
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="ctrlift-break-") as scratch:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(max(1, options.jobs)):
            copies.put(Path(shutil.copytree(ROOT, Path(scratch) / str(number), ignore=LEFT_OUT)))
        if not _whole_tree_is_green(copies, chosen, console):
            return 1
        outcomes = _all(copies, chosen, options.jobs, console)
    return _report(outcomes, console)


def _whole_tree_is_green(copies: SimpleQueue[Path], chosen: Sequence[Breakage], console: Console) -> bool:
    """Tests that are red without a breakage prove nothing."""
    tests = sorted({test for breakage in chosen for test in breakage.tests})
    copy = copies.get()
    done = _pytest(copy, tests)
    copies.put(copy)
    if done.returncode:
        console.print(done.stdout[-4000:], markup=False)
        console.print("the named tests have to be green before anything is broken", style="bold red")
    return done.returncode == 0


def _all(copies: SimpleQueue[Path], chosen: Sequence[Breakage], jobs: int, console: Console) -> list[Outcome]:
    with Progress(console=Console(stderr=True)) as bar, ThreadPoolExecutor(max(1, jobs)) as pool:
        task = bar.add_task("breaking", total=len(chosen))

        def one(breakage: Breakage) -> Outcome:
            copy = copies.get()
            try:
                return _broken(copy, breakage)
            finally:
                copies.put(copy)
                bar.advance(task)

        return list(pool.map(one, chosen))


def _broken(copy: Path, breakage: Breakage) -> Outcome:
    """Break one line in a copy, run the tests, mend it."""
    path = copy / breakage.file
    whole = path.read_text(encoding="utf-8")
    places = whole.count(breakage.old)
    if places != 1:
        return Outcome(breakage, f"cannot be applied: the line stands {places} times in {breakage.file}", 0.0)
    started = time.monotonic()
    path.write_text(whole.replace(breakage.old, breakage.new), encoding="utf-8")
    try:
        code = _pytest(copy, breakage.tests).returncode
    except subprocess.TimeoutExpired:
        return Outcome(breakage, f"no answer in {LONGEST_S:.0f} s", LONGEST_S)
    finally:
        path.write_text(whole, encoding="utf-8")
    verdicts = {TESTS_FAILED: "red", 0: "STAYED GREEN"}
    verdict = verdicts.get(code, f"the tests did not run (pytest's exit code {code})")
    return Outcome(breakage, verdict, time.monotonic() - started)


def _pytest(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    data = os.environ.get("CTRLIFT_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    environment = {
        **os.environ,
        "CTRLIFT_TEST_DATA": data,
        # The copy's modules, not those of the tree that is installed; no stale bytecode of the line before.
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-p", "breakages.quick_examples", *tests]
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )


def _report(outcomes: Sequence[Outcome], console: Console) -> int:
    table = Table(title=f"{len(outcomes)} breakages", title_justify="left")
    for header in ("breakage", "file", "verdict", "s"):
        table.add_column(header, overflow="fold")
    for outcome in outcomes:
        style = None if outcome.verdict == "red" else "bold red"
        row = (outcome.breakage.name, outcome.breakage.file, outcome.verdict, f"{outcome.seconds:.0f}")
        table.add_row(*row, style=style)
    console.print(table)
    missed = [outcome for outcome in outcomes if outcome.verdict != "red"]
    console.print(f"{len(outcomes) - len(missed)} of {len(outcomes)} breakages turned a test red")
    return 1 if missed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
