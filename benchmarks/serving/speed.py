"""The speed of serving, measured in full: what `ctrlift bench` runs, and the page that is written from its record.

Run ``python -m benchmarks.serving.speed``; with ``--page`` only the page is written anew.
"""

from __future__ import annotations

import argparse

from benchmarks.record import RESULTS
from benchmarks.serving.speed_page import write_from_record, write_page
from benchmarks.serving.speed_run import RunOptions, run


def main() -> None:
    """Measure, record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="write the page from the record that is there")
    if not parser.parse_args().page:
        write_page(run(RunOptions(), lambda part: print(part, flush=True)), RESULTS)
    print("written:", write_from_record(RESULTS))


if __name__ == "__main__":
    main()
