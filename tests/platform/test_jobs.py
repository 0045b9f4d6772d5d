"""A job is submitted once, whoever asks; the logic without a cluster, then the same against Ray."""

from __future__ import annotations

import shlex
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rolecall.platform.errors import ConflictError, InputError, NotFoundError, UnavailableError
from rolecall.platform.jobs import (
    FINISHED,
    IMPORT_ROOT,
    JobState,
    RayJobService,
    job_environment,
    submission_id,
    submit_job,
)

MIDNIGHT = datetime(2026, 10, 1, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
ON_A_WORKER = """
import ray
ray.init(log_to_driver=False)
@ray.remote
def where():
    import rolecall.platform.errors as ours
    return ours.__file__
print("driver", __import__("rolecall.platform.errors").__name__, "worker", ray.get(where.remote()))
"""


@dataclass
class Ledger:
    """A job service that only keeps books. `racing` ids are taken by somebody else at the moment of the submit."""

    states: dict[str, JobState] = field(default_factory=dict)
    submitted: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    racing: set[str] = field(default_factory=set)

    def submit(self, *, entrypoint: str, submission_id: str, runtime_env: Mapping[str, Any]) -> None:
        taken = submission_id in self.states or submission_id in self.racing
        self.states.setdefault(submission_id, "pending")
        if taken:
            raise ConflictError("taken")
        self.submitted.append((submission_id, runtime_env))

    def state(self, submission_id: str) -> JobState | None:
        return self.states.get(submission_id)

    def logs(self, submission_id: str) -> Iterator[str]:
        yield f"log of {submission_id}"


def test_the_same_day_gives_the_same_id_in_any_zone() -> None:
    abroad = MIDNIGHT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert submission_id("daily", MIDNIGHT) == submission_id("daily", abroad)
    assert submission_id("daily", MIDNIGHT).startswith("rolecall-daily-20261001t000000z-")


def test_another_day_pipeline_or_scope_gives_another_id() -> None:
    ids = {
        submission_id("daily", MIDNIGHT),
        submission_id("daily", MIDNIGHT + timedelta(days=1)),
        submission_id("weekly", MIDNIGHT),
        submission_id("daily", MIDNIGHT, {"tables": "s3://a"}),
        submission_id("daily", MIDNIGHT, {"tables": "s3://b"}),
    }
    assert len(ids) == 5
    assert submission_id("daily", MIDNIGHT, {"a": "1", "b": "2"}) == submission_id(
        "daily", MIDNIGHT, {"b": "2", "a": "1"}
    )


def test_a_time_without_a_zone_and_an_odd_name_are_refused() -> None:
    with pytest.raises(InputError, match="no time zone"):
        submission_id("daily", MIDNIGHT.replace(tzinfo=None))
    with pytest.raises(InputError, match="lower-case"):
        submission_id("daily run; rm", MIDNIGHT)


def test_a_second_submit_attaches_while_the_first_runs_and_after_it_succeeded() -> None:
    service = Ledger()
    first = submit_job(service, entrypoint="run", submission_id="day")
    states: tuple[JobState, ...] = ("pending", "running", "succeeded")
    for state in states:
        service.states["day"] = state
        again = submit_job(service, entrypoint="run", submission_id="day")
        assert (again.submission_id, again.attached, again.state()) == ("day", True, state)
    assert not first.attached
    assert len(service.submitted) == 1


@pytest.mark.parametrize("end", ["failed", "stopped"])
def test_after_a_failure_the_next_attempt_starts_under_its_own_id(end: JobState) -> None:
    service = Ledger(states={"day": end})
    second = submit_job(service, entrypoint="run", submission_id="day")
    assert (second.submission_id, second.attempt, second.attached) == ("day-attempt-2", 2, False)
    service.states["day-attempt-2"] = end
    assert submit_job(service, entrypoint="run", submission_id="day").submission_id == "day-attempt-3"


def test_losing_the_race_for_an_id_attaches_to_the_winner() -> None:
    service = Ledger(racing={"day"})
    handle = submit_job(service, entrypoint="run", submission_id="day")
    assert (handle.submission_id, handle.attached) == ("day", True)
    assert service.submitted == []


def test_attempts_end() -> None:
    states: dict[str, JobState] = {"day": "failed"} | {f"day-attempt-{n}": "failed" for n in range(2, 101)}
    with pytest.raises(ConflictError, match="100 times"):
        submit_job(Ledger(states=states), entrypoint="run", submission_id="day")


def test_result_waits_for_the_end() -> None:
    service = Ledger()
    handle = submit_job(service, entrypoint="run", submission_id="day")
    left: list[JobState] = ["running", "running", "succeeded"]

    def pause(seconds: float) -> None:
        service.states["day"] = left.pop(0)

    assert handle.result(pause) == "succeeded"
    assert left == []
    del service.states["day"]
    with pytest.raises(NotFoundError, match="knows no job day"):
        handle.state()


def test_a_source_tree_travels_and_is_importable_there(tmp_path: Path) -> None:
    (tmp_path / IMPORT_ROOT).mkdir(parents=True)
    env = job_environment(tmp_path, {"A": "1"}, ("big",))
    assert env == {
        "working_dir": str(tmp_path),
        "excludes": ["big"],
        "env_vars": {"A": "1", "PYTHONPATH": IMPORT_ROOT},
    }
    assert job_environment(tmp_path, {"PYTHONPATH": "x"}, ())["env_vars"]["PYTHONPATH"] == "x"
    assert job_environment(None, {"A": "1"}, ()) == {"env_vars": {"A": "1"}}
    with pytest.raises(InputError, match="not there"):
        job_environment(tmp_path / "gone", {}, ())


def test_an_address_that_is_no_url_is_refused_and_a_silent_one_is_unavailable() -> None:
    with pytest.raises(InputError, match="http://host:port"):
        RayJobService("ray://127.0.0.1:10001")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match="running cluster"):
            RayJobService(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_cluster_that_refuses_the_token_is_unavailable(status: int) -> None:
    """Ray raises an error of its own class there, which would end a scheduler that ticks on."""

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UnavailableError, match="did not take the call"):
            RayJobService(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


@pytest.mark.slow
def test_on_a_cluster_the_second_submit_follows_the_first(ray_cluster: str, tmp_path: Path) -> None:
    """The job counts its own runs in a file: submitted twice it must have run once."""
    runs = tmp_path / "runs"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "job.py").write_text(
        f"import os\nopen({str(runs)!r}, 'a').write('x')\nprint('hello', os.environ['DAY'])\n"
    )
    service = RayJobService(ray_cluster)
    given = {"entrypoint": f"{sys.executable} job.py", "submission_id": submission_id("daily", MIDNIGHT)}
    first = submit_job(service, working_dir=tmp_path / "code", env={"DAY": "1st"}, **given)
    second = submit_job(RayJobService(ray_cluster), working_dir=tmp_path / "code", env={"DAY": "1st"}, **given)
    assert (first.attached, second.attached) == (False, True)
    assert "hello 1st" in "".join(second.follow())
    assert first.result() == second.result() == "succeeded"
    assert "hello 1st" in "".join(first.follow())
    assert runs.read_text() == "x"


@pytest.mark.slow
def test_on_a_cluster_the_source_tree_imports_in_the_job_and_on_its_workers(ray_cluster: str) -> None:
    code = f"{sys.executable} -c {shlex.quote(ON_A_WORKER)}"
    handle = submit_job(RayJobService(ray_cluster), entrypoint=code, submission_id="imports", working_dir=ROOT)
    log = "".join(handle.follow())
    assert handle.result() == "succeeded", log
    assert "driver rolecall worker" in log
    assert str(ROOT) not in log.split("worker", 1)[1]


@pytest.mark.slow
def test_on_a_cluster_a_failed_job_is_tried_again_under_the_next_id(ray_cluster: str) -> None:
    service = RayJobService(ray_cluster)
    first = submit_job(service, entrypoint="echo broken; exit 3", submission_id="breaks")
    assert first.result() in FINISHED - {"succeeded"}
    assert "broken" in "".join(first.follow())
    second = submit_job(service, entrypoint="echo mended", submission_id="breaks")
    assert (second.attempt, second.attached) == (2, False)
    assert second.result() == "succeeded"


@pytest.mark.slow
def test_on_a_cluster_ids_collide_and_unknown_ids_are_told(ray_cluster: str) -> None:
    service = RayJobService(ray_cluster)
    service.submit(entrypoint="true", submission_id="once", runtime_env={})
    with pytest.raises(ConflictError, match="once is taken"):
        service.submit(entrypoint="true", submission_id="once", runtime_env={})
    assert service.state("never") is None
    with pytest.raises(NotFoundError, match="knows no job never"):
        list(service.logs("never"))
