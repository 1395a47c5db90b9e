"""`ctrlift bench`: how fast serving is on this machine, beside what else serves the same network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.exits import CheckFailed, UsageProblem


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="No peers and no curves; under a minute once cached.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run this part alone; may be repeated.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of exported networks; default: in the user's cache.")
    ] = None,
    peers: Annotated[Path, typer.Option(help="Folder of the peers' environments.")] = Path("runs/peers"),
    record: Annotated[
        Path | None, typer.Option(help="Folder of a full run's record and page; default: docs/benchmarks of the tree.")
    ] = None,
    quiet: output.Quiet = False,
) -> None:
    """Measure graph, kernel, service, workers, memory and /uplift; without --quick also peers, batch and curves.

    Every comparison first checks that all sides give the same scores. `python -m benchmarks.serving.peers install`
    installs the peers. A full run, or with --only some parts of one, goes into the record beside the parts of earlier
    runs; `python -m benchmarks.serving.speed --merge FILE...` does that with files written by --json.
    """
    try:
        from benchmarks.record import RESULTS
        from benchmarks.serving.cache import default_cache
        from benchmarks.serving.direct import KernelNotUsed
        from benchmarks.serving.load import LoadFailed
        from benchmarks.serving.promises import PROMISES
        from benchmarks.serving.running import ScoresDiffer
        from benchmarks.serving.service_rows import RunsNotSeen
        from benchmarks.serving.speed_page import write_page
        from benchmarks.serving.speed_run import PARTS, QUICK_PARTS, RunOptions, chosen, run
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("benchmarks"):
            raise
        raise UsageProblem("the benchmarks are not installed here: install ctrlift from its source tree") from error
    known = QUICK_PARTS if quick else PARTS
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise UsageProblem(f"there is no part {unknown[0]!r} in this run; known are {', '.join(known)}")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UsageProblem(f"--json: the folder of {json_file} does not exist")  # said before minutes are spent
    options = RunOptions(quick=quick, only=tuple(only or ()), cache=cache or default_cache(), peers=peers)
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("bench", total=len(chosen(options)) + 1, note="", completed=-1)

        def tell(part: str) -> None:
            bar.update(task, advance=1, note=part)

        try:
            found = run(options, tell)
        except (ScoresDiffer, LoadFailed, KernelNotUsed, RunsNotSeen) as error:
            raise CheckFailed(str(error)) from error
        tell("")
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if not quick and (record is not None or RESULTS.is_dir()):
        write_page(found, record or RESULTS)
    rows = [(key, found[key], found["notes"].get(key, "")) for key in PROMISES if key in found]
    output.print_table("bench", ("ratio", "value", "note"), rows)
