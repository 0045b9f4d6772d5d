"""The closed loop with releases, as its benchmark runs it: three days of a tiny world, once for all tests here."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rolecall.features.schema import JOBS
from rolecall.pipelines.market.event_rows import job_id
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
BENCH = Path(__file__).with_name("lab_loop.py")
OF_RELEASES = ("retrained", "frozen", "frozen_models")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """The benchmark's last line, and the folder of its only seed."""

    line: dict[str, Any]
    folder: Path

    def days(self, arm: str) -> list[np.ndarray]:
        """Job numbers shown, a day after the other."""
        files = sorted((self.folder / "days" / arm).glob("*.npz"))
        return [np.load(file)["jobs"] for file in files]

    def posted(self, arm: str) -> dict[str, datetime]:
        rows = TableStore(str(self.folder / arm / "tables")).read(JOBS, columns=["job_id", "posted_at"])
        return dict(zip(rows["job_id"].to_pylist(), rows["posted_at"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    home = tmp_path_factory.mktemp("loop")
    command = [sys.executable, str(BENCH), "--quick", "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    (folder,) = (home / "lab").glob("*/seed-7")
    return Ran(line=json.loads(done.stdout.splitlines()[-1]), folder=folder)


def test_the_benchmark_ends_in_its_figures(ran: Ran) -> None:
    metrics = ran.line["metrics"]
    for arm in ("frozen", "frozen_models", "tfidf", "popularity"):
        ends = [metrics[f"applications_vs_{arm}_{end}"] for end in ("x", "mean", "high")]
        assert ends == sorted(ends)
    assert metrics["visits"] > 100


def test_on_the_first_day_one_release_answers_three_arms_alike(ran: Ran) -> None:
    first = [ran.days(arm)[0] for arm in OF_RELEASES]
    assert len(first[0]) > 20
    assert all(np.array_equal(first[0], other) for other in first[1:])


def test_only_a_fresh_catalogue_shows_what_was_posted_since(ran: Ran) -> None:
    since = datetime(2026, 10, 1, tzinfo=UTC)
    newest = {}
    for arm in OF_RELEASES:
        posted, shown = ran.posted(arm), np.concatenate(ran.days(arm))
        newest[arm] = max(posted[job_id(number)] for number in set(shown[shown >= 0].tolist()))
    assert newest["frozen"] < since
    assert newest["frozen_models"] >= since
    assert newest["retrained"] >= since


def test_frozen_models_keep_the_first_nights_trees(ran: Ran) -> None:
    settings = Settings(home=ran.folder / "frozen_models")
    registry = Registry.from_settings(settings)
    champion = registry.champion()
    assert champion is not None
    first = registry.releases.fetch(champion) / "fine.txt"
    kept = [folder / "assemble" / "release" / "fine.txt" for folder in settings.runs_dir.glob("frozen-models-*")]
    assert len(kept) == 2
    assert {file.read_bytes() for file in kept} == {first.read_bytes()}


def test_every_night_of_the_retrained_arm_ends_in_one_release_that_passed(ran: Ran) -> None:
    """That night's own, or, where it is refused, the champion's rankers over that night's catalogue."""
    gates = [release.gate for release in Registry.from_settings(Settings(home=ran.folder / "retrained")).list()]
    assert gates.count("passed") == 3
    assert gates.count("refused") == len(gates) - 3 <= 2
