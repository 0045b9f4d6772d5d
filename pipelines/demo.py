"""`rolecall demo`: the whole path on a made-up marketplace, below a home of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow.parquet as pq

from rolecall.features.candidates import candidate_context
from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import PairFeatures
from rolecall.features.schema import CANDIDATES, EMPLOYERS, ENGAGEMENT_EVENTS, EVENTS, JOBS
from rolecall.pipelines.assemble import RELEASE_FOLDER
from rolecall.pipelines.commands import print_result
from rolecall.pipelines.daily import DailyResult, run_daily
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.generate import Marketplace, generate
from rolecall.pipelines.materialize import feature_store
from rolecall.pipelines.progress import progress_bars
from rolecall.pipelines.steps import Silent, StepRecord
from rolecall.platform.console import console, table
from rolecall.platform.errors import UnavailableError
from rolecall.platform.ray_head import free_ports
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.platform.vectors.backends import open_index
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving import parts
from rolecall.serving.funnel import FunnelRequest
from rolecall.serving.loader import load_release
from rolecall.serving.models import RecommendationReply
from rolecall.serving.printing import print_recommendations
from rolecall.serving.recall import Recall


def demo_settings(settings: Settings) -> Settings:
    """The same settings below `<home>/demo`, so that a demonstration never mixes with real tables."""
    return settings.model_copy(update={"home": settings.home / "demo"})


def fill_tables(settings: Settings, market: Marketplace) -> list[dict[str, Any]]:
    """Put a marketplace into the tables; doing it again changes nothing."""
    store = TableStore(settings.tables_uri, settings.storage.options)
    told = []
    for schema, rows in (
        (JOBS, market.jobs),
        (CANDIDATES, market.candidates),
        (EMPLOYERS, market.employers),
        (EVENTS, market.events),
    ):
        done = store.upsert(schema, rows)
        told.append({"table": schema.name, "new": done.inserted, "known": done.unchanged, "version": done.version})
    return told


def run_demo(settings: Settings, *, jobs: int, candidates: int, serve: bool, as_of: datetime) -> DailyResult:
    """Generate, ingest, run the day, serve, recommend. Prints as it goes; a second time it skips what is done."""
    settings = demo_settings(settings)
    started = time.monotonic()
    console.rule("[bold]1. A marketplace[/] (made up from ESCO, O*NET and GeoNames text, seed 7)")
    market = generate(MarketConfig(jobs=jobs, candidates=candidates, end=as_of.date()))
    console.print(table("Tables", fill_tables(settings, market)))
    people = choose_people(market)

    console.rule("[bold]2. The daily run[/]")
    with progress_bars() as bars:
        first = FirstRecommendation(settings, people[0], as_of, started)
        result = run_daily(settings, as_of, observers=[bars, first])
    print_result(result)

    console.rule("[bold]3. Recommendations[/]")
    if serve:
        with http_server(settings) as url:
            console.print(f"[dim]POST {url}/v1/recommendations[/]")
            for name, body in people:
                print_reply(ask(url, {**body, "limit": 5}), name)
    console.print(
        f"The whole path took {time.monotonic() - started:.0f} s. What to try next:\n"
        f"  export ROLECALL_HOME={settings.home}\n"
        "  rolecall serve                                  # then open http://127.0.0.1:8000/docs\n"
        "  rolecall search 'night shift nurse'             # by meaning and by words\n"
        "  rolecall releases list                          # what was built, and what is served\n"
        "  rolecall ingest FOLDER --mapping my.toml        # your own tables (README, 'Your own data')",
        markup=False,
    )
    return result


def choose_people(market: Marketplace) -> list[tuple[str, dict[str, Any]]]:
    """The most active candidate, one who never did anything, and somebody no table has: name and request body."""
    events = pl.DataFrame(market.events.select(["candidate_id", "kind"]))
    told = events.filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS)).group_by("candidate_id").len()
    active = told.sort("len", "candidate_id", descending=[True, False]).item(0, "candidate_id")
    quiet = sorted(set(market.candidates["candidate_id"].to_pylist()) - set(told["candidate_id"].to_list()))
    fresh = market.candidates.slice(0, 1).to_pylist()[0]
    profile = {"desired_titles": fresh["desired_titles"], "skills": fresh["skills"], "country": fresh["country"]}
    return [
        (f"{active}, the most active candidate", {"candidate_id": active}),
        *((f"{name}, who never responded to anything", {"candidate_id": name}) for name in quiet[:1]),
        (f"somebody new who wants {', '.join(fresh['desired_titles'] or [])}", {"profile": profile}),
    ]


class FirstRecommendation(Silent):
    """An observer that recommends as soon as there is something to recommend with: retrieval alone once the index
    stands, all of the funnel once the release is assembled."""

    def __init__(self, settings: Settings, person: tuple[str, dict[str, Any]], as_of: datetime, started: float) -> None:
        self._settings, self._as_of, self._started = settings, as_of, started
        self._candidate_id = str(person[1]["candidate_id"])

    def finished(self, record: StepRecord) -> None:
        if record.skipped:
            return
        if record.name == "index":
            self._say("first recommendation, by retrieval alone,", self._retrieved(record.folder))
        elif record.name == "assemble":
            self._say("first ranked recommendation", self._ranked(record.folder / RELEASE_FOLDER))

    def _context(self) -> CandidateContext:
        row = feature_store(self._settings).online_candidates([self._candidate_id], at=self._as_of)[0]
        return candidate_context(self._candidate_id, row, at=self._as_of)

    def _retrieved(self, folder: Path) -> list[str]:
        catalogue = Catalogue.from_table(pq.read_table(folder.parent / "catalogue" / parts.JOBS))
        vectors = JobVectors.load(folder / parts.VECTORS)
        pairs = PairFeatures(catalogue, Lexicon.load(folder.parent / "catalogue"), vectors)
        index = open_index(self._settings.vectors, folder / parts.INDEX, scratch=self._settings.scratch_dir)
        with contextlib.closing(index):
            prepared = pairs.prepare(self._context())
            live = SearchFilter(at=self._as_of)
            found = Recall(index, catalogue, vectors).retrieve(prepared, live, 3)
        return [f"{catalogue.titles[row]} ({catalogue.places[row]})" for row in found.rows]

    def _ranked(self, folder: Path) -> list[str]:
        with contextlib.closing(load_release(folder, self._settings, self._settings.scratch_dir)) as release:
            request = FunnelRequest(context=self._context(), at=self._as_of, request_id="first", limit=3)
            return [f"{item.title} ({item.place})" for item in release.funnel.recommend(request).items]

    def _say(self, what: str, titles: list[str]) -> None:
        took = time.monotonic() - self._started
        console.print(f"[bold]{what} after {took:.0f} s[/] for {self._candidate_id}: {'; '.join(titles)}")


@contextlib.contextmanager
def http_server(settings: Settings) -> Iterator[str]:
    """`rolecall serve` in a process of its own on a free port; yields its URL once it is ready."""
    ports = free_ports(3)
    environment = os.environ | {
        "ROLECALL_HOME": str(settings.home),
        "ROLECALL_SERVE__PORT": str(ports[0]),
        "ROLECALL_RAY__HAPROXY_METRICS_PORT": str(ports[1]),
        "ROLECALL_RAY__HAPROXY_STATS_PORT": str(ports[2]),
    }
    log = settings.home / "serve.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "rolecall.serving.commands"], env=environment, stdout=sink, stderr=sink
        )
        try:
            yield wait_until_ready(f"http://127.0.0.1:{ports[0]}", process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, *, seconds: float = 180.0) -> str:
    """Poll `/readyz`. Raises UnavailableError where the server ends or takes longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5.0).status_code == httpx.codes.OK:
                return url
        time.sleep(0.25)
    raise UnavailableError(f"the server at {url} did not become ready", todo=f"read {log}")


def ask(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """One recommendation over HTTP. Raises UnavailableError on any answer but 200."""
    answer = httpx.post(f"{url}/v1/recommendations", json=body, timeout=30.0)
    if answer.status_code != httpx.codes.OK:
        raise UnavailableError(f"HTTP {answer.status_code}: {answer.text[:500]}", "200", f"see {url}/docs")
    return dict(answer.json())


def print_reply(reply: dict[str, Any], who: str) -> None:
    """Jobs with reasons, and what each stage let through and needed."""
    print_recommendations(RecommendationReply.model_validate(reply), who)
