"""What HTTP adds to a recommendation: the funnel in process, behind Ray Serve with HAProxy, behind FastAPI + uvicorn.

One release over at least 20,000 jobs, the same requests, the same thread settings, three processes alive at once and
asked in turn. Load comes from a compiled closed-loop client (`load.c`). Every candidate was asked for once before, so
profile vectors are cached; what a first sight costs is `first_sight_ms`.

    python tests/bench/recommend_http.py                  # builds a home below .rolecall/ once (minutes)
    python tests/bench/recommend_http.py --home FOLDER    # a home with a promoted release of your own
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import time as midnight
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from harness import ROOT, finish, free_port

if TYPE_CHECKING:
    from rolecall.platform.settings import Settings
    from rolecall.serving.state import ServingState

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

NAME = "recommend_http"
LEAST_JOBS = 20_000
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PATH = "/v1/recommendations"


@dataclass(frozen=True, kw_only=True)
class Load:
    """Where requests come from, and how long each measurement lasts."""

    client: Path
    bodies: Path
    seconds: float

    def on(self, url: str, connections: int) -> dict[str, float]:
        """One measurement; every request must be answered 2xx."""
        host, port = url.removeprefix("http://").split(":")
        command = [str(self.client), host, port, PATH, str(self.bodies), str(connections), str(self.seconds)]
        told: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if told["failed"] or not told["requests"]:
            sys.exit(f"{told['failed']:.0f} of {told['requests'] + told['failed']:.0f} requests to {url} failed")
        return told


def main() -> None:
    """Prepare a home, start the three arms, measure them in turn."""
    arguments = parse()
    os.environ.update(THREADS)
    if arguments.bare:
        serve_bare(arguments.home, arguments.bare)
        return
    settings = settings_of(arguments.home)
    prepare(settings, arguments.jobs)
    with tempfile.TemporaryDirectory() as folder:
        candidates = known_candidates(settings, arguments.candidates)
        load = Load(client=compile_client(Path(folder)), bodies=Path(folder) / "bodies", seconds=arguments.seconds)
        bodies = [json.dumps({"candidate_id": name, "limit": 10}) for name in candidates]
        load.bodies.write_text("\n".join(bodies) + "\n")
        finish(NAME, measure(settings, load, bodies, arguments.rounds), goals={"http_added_ms": ("<=", 3.0)})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=ROOT / ".rolecall" / "bench" / NAME)
    parser.add_argument("--jobs", type=int, default=LEAST_JOBS, help="size of the marketplace that is built")
    parser.add_argument("--candidates", type=int, default=500, help="different candidates asked for")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over so many")
    parser.add_argument("--bare", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def settings_of(home: Path) -> Settings:
    from rolecall.platform.settings import load_settings

    ports = {
        "ROLECALL_SERVE__PORT": free_port(),
        "ROLECALL_RAY__HAPROXY_METRICS_PORT": free_port(),
        "ROLECALL_RAY__HAPROXY_STATS_PORT": free_port(),
    }
    environ = {"ROLECALL_HOME": str(home.absolute())} | {name: str(port) for name, port in ports.items()}
    return load_settings(environ=environ)


def prepare(settings: Settings, jobs: int) -> None:
    """Make sure a release over enough jobs is the champion: the daily run of a marketplace, once."""
    from rolecall.platform.registry import Registry

    if settings.home.is_dir() and Registry.from_settings(settings).reconcile():
        return
    from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, JOBS
    from rolecall.pipelines.daily import run_daily
    from rolecall.pipelines.market.config import MarketConfig
    from rolecall.pipelines.market.generate import generate
    from rolecall.platform.tables import TableStore

    print(f"building a release over {jobs} jobs in {settings.home}", flush=True)
    today = datetime.now(UTC).date()
    market = generate(MarketConfig(jobs=jobs, candidates=600, employers=max(50, jobs // 50), end=today))
    store = TableStore(settings.tables_uri)
    tables = ((JOBS, market.jobs), (CANDIDATES, market.candidates), (EMPLOYERS, market.employers))
    for schema, rows in (*tables, (EVENTS, market.events)):
        store.upsert(schema, rows)
    done = run_daily(settings, datetime.combine(today, midnight(), UTC))
    if not done.promoted:  # speed is measured, not quality: a release the gate refused is as fast
        registry = Registry.from_settings(settings)
        registry.promote(done.release_id, expected=registry.champion(), why="benchmark", gated=False)


def known_candidates(settings: Settings, count: int) -> list[str]:
    """Ids spread over the candidates table."""
    from rolecall.features.schema import CANDIDATES
    from rolecall.platform.tables import TableStore

    ids = sorted(TableStore(settings.tables_uri).read(CANDIDATES, columns=["candidate_id"])[0].to_pylist())
    return ids[:: max(1, len(ids) // count)][:count]


def compile_client(folder: Path) -> Path:
    target = folder / "load"
    source = Path(__file__).with_name("load.c")
    subprocess.run(["cc", "-O2", "-pthread", "-o", str(target), str(source)], check=True)
    return target


def measure(settings: Settings, load: Load, bodies: Sequence[str], rounds: int) -> dict[str, float]:
    """Every arm once a round, in turn; medians over the rounds."""
    from rolecall.serving.app import run_server
    from rolecall.serving.state import ServingState

    state = ServingState.open(settings)
    taken: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            taken.setdefault(name, []).append(value)

    with run_server(settings, blocking=False) as server, bare_server(settings) as bare:
        first_sight = in_process(state, bodies)
        for url in (server.url, bare):
            warm_up(url, bodies)
        for _ in range(rounds):
            note(inside=in_process(state, bodies))
            note(**{f"fastapi_{key}": value for key, value in load.on(bare, 1).items()})
            note(**{f"serve_{key}": value for key, value in load.on(server.url, 1).items()})
            note(fastapi_qps16=load.on(bare, 16)["qps"])
            crowd = load.on(server.url, 16)
            note(qps16=crowd["qps"], p99_16=crowd["p99_ms"])
        stages = stage_times(server.url, bodies)
    state.close()
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "jobs": float(jobs_served(settings)),
        "in_process_p50_ms": middle["inside"],
        "first_sight_ms": first_sight,
        "p50_ms": middle["serve_p50_ms"],
        "p99_ms": middle["serve_p99_ms"],
        "http_added_ms": middle["serve_p50_ms"] - middle["inside"],
        "fastapi_p50_ms": middle["fastapi_p50_ms"],
        "fastapi_p99_ms": middle["fastapi_p99_ms"],
        "fastapi_added_ms": middle["fastapi_p50_ms"] - middle["inside"],
        "qps1": middle["serve_qps"],
        "qps16": middle["qps16"],
        "p99_16_ms": middle["p99_16"],
        "fastapi_qps16": middle["fastapi_qps16"],
        **{f"stage_{name}_ms": value for name, value in stages.items()},
    }


def in_process(state: ServingState, bodies: Sequence[str]) -> float:
    """Median milliseconds of the funnel called as a function, one request a body."""
    from rolecall.serving.models import RecommendationRequest

    requests = [RecommendationRequest.model_validate_json(body) for body in bodies]
    return 1e3 * statistics.median(
        timed(lambda n=n, request=request: state.recommend(request, f"r{n}")) for n, request in enumerate(requests)
    )


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def warm_up(url: str, bodies: Sequence[str]) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        for body in bodies:
            post(client, body)


def stage_times(url: str, bodies: Sequence[str]) -> dict[str, float]:
    """Median milliseconds of each stage, as the replies tell."""
    times: dict[str, list[float]] = {}
    with httpx.Client(base_url=url, timeout=30) as client:
        for body in bodies[:200]:
            for stage in post(client, body)["trace"]:
                times.setdefault(stage["stage"], []).append(stage["milliseconds"])
    return {name: statistics.median(values) for name, values in times.items()}


def post(client: httpx.Client, body: str) -> Any:
    return client.post(PATH, content=body, headers={"content-type": "application/json"}).raise_for_status().json()


def jobs_served(settings: Settings) -> int:
    from rolecall.features.schema import JOBS
    from rolecall.platform.tables import TableStore

    return TableStore(settings.tables_uri).read(JOBS, columns=["job_id"]).num_rows


@contextmanager
def bare_server(settings: Settings) -> Iterator[str]:
    """The same application under uvicorn, in a process of its own."""
    port = free_port()
    command = [sys.executable, __file__, "--bare", str(port), "--home", str(settings.home)]
    process = subprocess.Popen(command, env={**os.environ, **THREADS})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], patience_s: float = 120.0) -> None:
    until = time.monotonic() + patience_s
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    sys.exit(f"no server at {url}")


def serve_bare(home: Path, port: int) -> None:
    import uvicorn

    from rolecall.serving.api import create_api
    from rolecall.serving.state import ServingState

    settings = settings_of(home)
    state = ServingState.open(settings)
    app = create_api(state, settings.serve, on_close=state.close)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
