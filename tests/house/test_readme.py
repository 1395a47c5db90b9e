"""The README's own example: its TOML, its commands and its calls, run on generated Parquet files."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from cli.service_process import ServiceProcess
from tests.cli.running import Ran, ctrlift

# One worker does the example once.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ITEMS, USERS, ROWS, SECONDS = 60, 80, 3000, 2_000_000


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block_with(language: str, word: str) -> str:
    (found,) = [text for text in blocks(language) if word in text]
    return found


def commands() -> list[list[str]]:
    """The lines of the example's shell block, without the service that they end with."""
    lines = block_with("sh", "ctrlift train shop.toml").splitlines()
    assert lines[-1].startswith("ctrlift serve ")
    return [shlex.split(line)[1:] for line in lines[:-1]]


def write_shop(folder: Path) -> None:
    """Parquet files as the README's table describes them; users click what is of the category they buy."""
    rng = np.random.default_rng(0)
    category = rng.integers(0, 4, ITEMS)
    taste = rng.integers(0, 4, USERS)
    when = np.sort(rng.integers(1_600_000_000, 1_600_000_000 + SECONDS, 4 * ROWS))
    user, item = rng.integers(0, USERS, 4 * ROWS), rng.integers(0, ITEMS, 4 * ROWS)
    likes = taste[user] == category[item]
    did = likes & (rng.random(4 * ROWS) < 0.5)
    names = {"user_id": [f"u{number}" for number in user], "item_id": item, "ts": when}
    log = pl.DataFrame(names).with_columns(clicked=pl.Series((likes & (rng.random(4 * ROWS) < 0.7)).astype(np.int8)))
    log.filter(pl.Series(did)).select("user_id", "item_id", "ts").with_columns(
        type=pl.Series(rng.choice(["view", "buy"], int(did.sum()))), value=pl.lit(None, dtype=pl.Float64)
    ).write_parquet(folder / "behaviours.parquet")
    log[-ROWS:].with_columns(hour=(pl.col("ts") // 3600) % 24).write_parquet(folder / "impressions.parquet")
    pl.DataFrame(
        {"item_id": range(ITEMS), "category": [f"c{number}" for number in category], "price": rng.gamma(2, 20, ITEMS)}
    ).write_parquet(folder / "items.parquet")
    pl.DataFrame(
        {"user_id": [f"u{number}" for number in range(USERS)], "age": rng.integers(18, 70, USERS)}
    ).write_parquet(folder / "users.parquet")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Ran]]]:
    """The example done once: a folder, and what each command printed."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder)
    (folder / "shop.toml").write_text(block_with("toml", 'name = "shop"'), encoding="utf-8")
    ran: dict[str, Ran] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for command in commands():
            words = [word.replace("$PWD", str(folder)) for word in command]
            ran[" ".join(word for word in command[:2] if word.isalpha())] = done = ctrlift(*words)
            assert done.code == 0, f"{command}: {done.err}"
        yield folder, ran


def test_the_tables_name_the_columns_that_the_test_writes(tmp_path: Path) -> None:
    write_shop(tmp_path)
    for name, columns in re.findall(r"^\| `(\w+\.parquet)` \| [^|]+ \| (.+) \|$", README, re.MULTILINE):
        assert re.findall(r"`(\w+)`", columns) == pl.read_parquet(tmp_path / name).columns, name


def test_the_example_trains_something_better_than_chance(shop: tuple[Path, dict[str, Ran]]) -> None:
    folder, _ = shop
    found = json.loads((folder / "runs" / "shop" / "evaluation-test.json").read_text())
    assert found["tasks"]["ctr"]["calibrated"]["auc"]["value"] > 0.7


def test_the_example_exports_both_formats(shop: tuple[Path, dict[str, Ran]]) -> None:
    bundle = shop[0] / "bundles" / "shop" / "1.0.0"
    assert {"model.onnx", "model.ts", "manifest.json", "card.html"} <= {path.name for path in bundle.iterdir()}


def test_the_example_scores_every_row(shop: tuple[Path, dict[str, Ran]]) -> None:
    folder, _ = shop
    scored, rows = pl.read_parquet(folder / "scored.parquet"), pl.read_parquet(folder / "impressions.parquet")
    assert scored.select(rows.columns).equals(rows)
    assert scored["pctr"].is_between(0, 1, closed="none").all()
    assert scored["pctr"].std() > 0.05


@pytest.fixture(scope="module")
def service(shop: tuple[Path, dict[str, Ran]]) -> Iterator[str]:
    folder, _ = shop
    settings = folder / "service.toml"
    settings.write_text(f'[models]\ndir = "{folder}/bundles"\n\n[store]\nurl = "embedded://{folder}/store"\n')
    with ServiceProcess(settings, folder / "service.log") as running:
        running.wait_until_ready()
        yield running.url


def test_curl_example(service: str) -> None:
    words = shlex.split(block_with("sh", "curl --silent").replace("\\\n", " "))
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[:2] == ["curl", "--silent"]
    name, _, value = options["--header"].partition(": ")
    reply = httpx.post(
        words[2].replace("http://127.0.0.1:8000", service), content=options["--data"], headers={name: value}
    )
    assert reply.status_code == 200, reply.text
    told: dict[str, Any] = json.loads(block_with("json", "request_id"))
    assert reply.json().keys() - {"logits"} == told.keys()
    assert len(reply.json()["scores"]["pctr"]) == len(json.loads(options["--data"])["candidates"])


def test_python_example(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = block_with("python", "import httpx").replace("http://127.0.0.1:8000", service)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    (scores,) = capsys.readouterr().out.splitlines()
    assert all(0 < score < 1 for score in json.loads(scores))


def test_the_example_says_serve_with_the_options_that_serve_has() -> None:
    line = shlex.split(block_with("sh", "ctrlift train shop.toml").splitlines()[-1])
    helped = ctrlift("serve", "--help").out
    assert [word for word in line if word.startswith("--") and word not in helped] == []


def test_python_of_this_run_is_the_readmes() -> None:
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in README
