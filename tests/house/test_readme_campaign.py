"""The README's example of treatment effects: its TOML and commands on a generated campaign, its request over HTTP."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cli.service_process import ServiceProcess
from tests.cli.running import ctrlift
from tests.house.test_readme import block_with

# One worker does the example once.
pytestmark = pytest.mark.xdist_group("readme")

PEOPLE = 4000
ARMS = ("none", "coupon", "gift")
COSTS = {"none": 0, "coupon": 1, "gift": 3}


def write_campaign(folder: Path) -> None:
    """Offers by lot; the coupon helps who visits often, the gift everybody a little."""
    rng = np.random.default_rng(0)
    visits, offer = rng.poisson(3, PEOPLE), rng.integers(0, 3, PEOPLE)
    chance = 0.2 + 0.5 * ((offer == 1) & (visits > 3)) + 0.1 * (offer == 2)
    pl.DataFrame(
        {
            "user_id": [str(number) for number in range(PEOPLE)],
            "age": rng.integers(18, 80, PEOPLE),
            "visits": visits,
            "offer": [ARMS[arm] for arm in offer],
            "bought": (rng.random(PEOPLE) < chance).astype(np.int8),
        }
    ).write_parquet(folder / "campaign.parquet")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example done once."""
    folder = tmp_path_factory.mktemp("campaign")
    write_campaign(folder)
    (folder / "campaign.toml").write_text(block_with("toml", 'name = "campaign"'), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for line in block_with("sh", "ctrlift train campaign.toml").splitlines():
            done = ctrlift(*shlex.split(line)[1:])
            assert done.code == 0, f"{line}: {done.err}"
        yield folder


def test_the_file_is_answered_within_the_budget(campaign: Path) -> None:
    offers, rows = pl.read_parquet(campaign / "offers.parquet"), pl.read_parquet(campaign / "campaign.parquet")
    assert offers.select(rows.columns).equals(rows)
    spent = sum(COSTS[arm] for arm in offers["recommended_treatment"].to_list())
    assert 80 < spent <= 100
    often = offers["visits"] > 3
    assert offers["effect_coupon"].filter(often).mean() > offers["effect_coupon"].filter(~often).mean() + 0.2


def test_the_request_is_answered(campaign: Path) -> None:
    settings = campaign / "service.toml"
    settings.write_text(f'[models]\ndir = "{campaign}/bundles"\n\n[store]\nurl = "memory://"\n')
    with ServiceProcess(settings, campaign / "service.log") as running:
        running.wait_until_ready()
        answer = running.post("/uplift", json.loads(block_with("json", '"users"')))
    (user,) = answer["users"]
    assert tuple(user["outcomes"]) == ARMS
    for arm in ARMS[1:]:
        assert user["effects"][arm] == user["outcomes"][arm] - user["outcomes"]["none"]
        low, high = user["intervals"][arm]
        assert low <= user["effects"][arm] <= high
    assert answer["budget"]["spent"] <= 100
