"""Install the peers: ``python -m benchmarks.serving.peers install [NAME...] [--peers FOLDER]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.serving.peers.environments import FOLDER, PEERS, NotInstalled, install, versions


def main() -> int:
    """Install the named peers, or all; the exit code is 1 if one could not be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.peers", description=__doc__)
    parser.add_argument("action", choices=["install", "list"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; all by default")
    parser.add_argument("--peers", type=Path, default=FOLDER, help="folder of the environments")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in PEERS]
    if unknown:
        parser.error(f"there is no peer {unknown[0]!r}")
    failed = 0
    for name in given.names or PEERS:
        try:
            if given.action == "install":
                install(given.peers, name)
            found = versions(given.peers, name)
            print(f"{name}: {', '.join(f'{package} {version}' for package, version in found.items())}")
        except NotInstalled as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
