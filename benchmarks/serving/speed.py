"""The speed of serving, measured in full: what `ctrlift bench` runs, and the page that is written from its record.

Run ``python -m benchmarks.serving.speed``. ``--page`` only writes the page anew; ``--merge FILE...`` takes the parts of
runs that were written with `ctrlift bench --json FILE` into the record first, each with its own date and command.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.record import RESULTS
from benchmarks.serving.speed_page import write_from_record, write_page
from benchmarks.serving.speed_run import RunOptions, run


def main() -> None:
    """Measure or merge, record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page from the record that is there")
    parser.add_argument(
        "--merge", nargs="+", type=Path, default=[], help="results to put into the record, oldest first"
    )
    parser.add_argument("--record", type=Path, default=RESULTS, help="folder of the record and the page")
    options = parser.parse_args()
    for path in options.merge:
        write_page(json.loads(path.read_text()), options.record)
    if not options.page and not options.merge:
        write_page(run(RunOptions(), lambda part: print(part, flush=True)), options.record)
    print("written:", write_from_record(options.record))


if __name__ == "__main__":
    main()
