"""A simulated world for schedulers: one true time, clocks that are wrong, processes that die or stall at any statement.

Each scheduler is a thread, but only one runs at a time, and whoever runs gives way before every SQL statement, every
commit and every call of the cluster. Which one goes on, dies, stalls or has its clock set is drawn from a seed, so a
simulation replays exactly. Nothing sleeps: when every scheduler waits, the time moves on.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from rolecall.platform.jobs import JobState
from rolecall.platform.ledger import open_ledger
from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.scheduler import Event, Scheduler
from rolecall.platform.schedule.store import ScheduleStore

SECOND = timedelta(seconds=1)
LEASE = timedelta(minutes=30)
POLL_S = 300.0


class Crash(BaseException):
    """The process is gone: nothing of it runs any more."""


@dataclass(frozen=True, kw_only=True)
class Chaos:
    """How often, at a step, a scheduler dies, stalls for longer than its lease, or has its clock set."""

    crash: float = 0.0
    stall: float = 0.0
    clock: float = 0.0


@dataclass(kw_only=True)
class Job:
    day: date
    started: datetime
    ends: datetime
    ends_well: bool


@dataclass
class Cluster:
    """Takes a submission id once, remembers it for ever, and writes down what looks wrong to it."""

    time: Callable[[], datetime]
    failures: Callable[[date], int]
    length: Callable[[date], timedelta]
    jobs: dict[str, Job] = field(default_factory=dict)
    tries: dict[date, int] = field(default_factory=dict)
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def submit(self, schedule: Schedule, day: Day) -> bool:
        name, at = str(day.submission_id), day.logical_date
        if name in self.jobs:
            self.refused += 1
            return False
        now = self.time()
        for other in self.jobs.values():
            if other.ends > now:
                self.faults.append(f"{name} started while {other.day} runs")
            if other.day > at:
                self.faults.append(f"{name} started after {other.day}")
            if other.day == at and other.ends_well:
                self.faults.append(f"{name} started though {at} succeeded")
        self.tries[at] = self.tries.get(at, 0) + 1
        well = self.tries[at] > self.failures(at)
        self.jobs[name] = Job(day=at, started=now, ends=now + self.length(at), ends_well=well)
        return True

    def state(self, submission_id: str) -> JobState | None:
        job = self.jobs.get(submission_id)
        if job is None:
            return None
        if self.time() < job.ends:
            return "running"
        return "succeeded" if job.ends_well else "failed"

    def why_failed(self, submission_id: str) -> str:
        return f"{submission_id} failed as planned"


class Process:
    """One scheduler's place on the stage."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.stage = stage
        self.number = number
        self.turn = threading.Semaphore(0)
        self.wake = stage.time
        self.skew = timedelta()
        self.doomed = False
        self.done = False
        self.wants_lock = False
        self.committed = False
        self.lives = 0
        self.error: BaseException | None = None
        self.events: list[Event] = []
        self.engine = stage.connect()
        event.listen(self.engine, "before_cursor_execute", self._statement)
        event.listen(self.engine, "commit", self._commit)
        event.listen(self.engine, "rollback", self._rollback)
        self.thread = threading.Thread(target=self._live, daemon=True)

    def clock(self) -> datetime:
        return self.stage.time + self.skew

    def sleep(self, seconds: float) -> None:
        self.wake = self.stage.time + seconds * SECOND
        self.point()

    def point(self) -> None:
        """Give way; whoever was chosen to die meanwhile dies here."""
        if self.doomed:
            raise Crash
        if self.committed:
            self.free()
        self.stage.back.release()
        self.turn.acquire()
        if self.doomed:
            raise Crash

    def submit(self, schedule: Schedule, day: Day) -> bool:
        self.point()
        taken = self.stage.cluster.submit(schedule, day)
        self.point()
        return taken

    def state(self, submission_id: str) -> JobState | None:
        self.point()
        return self.stage.cluster.state(submission_id)

    def why_failed(self, submission_id: str) -> str:
        self.point()
        return self.stage.cluster.why_failed(submission_id)

    def _live(self) -> None:
        self.turn.acquire()
        try:
            while not self.stage.over:
                try:
                    self._tick()
                    self.sleep(self.stage.between_ticks())
                except Crash:
                    self.free()
                    self.doomed = False
                    self.lives += 1
                    self.wake = self.stage.time + self.stage.until_restart() * SECOND
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self.free()
            self.done = True
            self.stage.back.release()

    def _tick(self) -> None:
        self.point()
        scheduler = Scheduler(
            ScheduleStore(self.engine),
            self,
            owner=f"p{self.number}.{self.lives}",
            clock=self.clock,
            pause=self.sleep,
            lease=LEASE,
            poll_s=POLL_S,
            on_event=self.events.append,
        )
        scheduler.tick(wait=self.stage.random.random() < 0.5)

    def _statement(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.committed:
            self.free()
        self.wants_lock = statement == "BEGIN IMMEDIATE"
        self.point()
        if self.wants_lock:
            self.stage.writer, self.wants_lock = self, False

    def _commit(self, _connection: Any) -> None:
        self.point()
        self.committed = True  # the database is told when this returns: free from the next step on

    def _rollback(self, _connection: Any) -> None:
        self.free()

    def free(self) -> None:
        """Give the ledger's write lock back."""
        self.committed = self.wants_lock = False
        if self.stage.writer is self:
            self.stage.writer = None


class Stage:
    """Runs the processes, one step of one of them at a time."""

    def __init__(
        self,
        folder: Path,
        schedule: Schedule,
        *,
        seed: int = 0,
        schedulers: int = 2,
        chaos: Chaos | None = None,
        tick_minutes: float = 120.0,
        failing: float = 0.2,
        script: Sequence[tuple[int, int]] = (),
        crashes: Sequence[int] = (),
    ) -> None:
        """`script`: (scheduler, steps) it takes alone, one after the other, before chance decides; `crashes`: the
        steps at which whoever takes them dies; `failing`: the share of dates whose first attempts fail."""
        self.url = f"sqlite:///{folder / f'ledger-{seed}.db'}"
        self.random = random.Random(seed)
        self.schedule = schedule
        self.chaos = chaos or Chaos()
        self.script = list(script)
        self.crashes = set(crashes)
        self.tick_s = tick_minutes * 60
        self.time = schedule.as_of(schedule.start) - timedelta(hours=1)
        self.over = False
        self.writer: Process | None = None
        self.back = threading.Semaphore(0)
        plans = random.Random(seed + 1)
        failures = {day: plans.choice((1, 2)) if plans.random() < failing else 0 for day in self.dates}
        lengths = {day: plans.choice((40, 600, 3 * 3600)) * SECOND for day in self.dates}
        self.cluster = Cluster(lambda: self.time, failures.__getitem__, lengths.__getitem__)
        self.store = ScheduleStore(self.connect())
        self.store.add(schedule, now=self.time)
        self.processes = [Process(self, number) for number in range(schedulers)]
        self.steps = 0

    @property
    def dates(self) -> list[date]:
        assert self.schedule.end is not None
        return self.schedule.days(self.schedule.start, self.schedule.end)

    def connect(self) -> Engine:
        """The ledger as it is, but for the force to disk: processes die here, the machine does not."""
        engine = open_ledger(self.url)
        engine.dispose()
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
        return engine

    def between_ticks(self) -> float:
        return self.tick_s * self.random.uniform(0.2, 1.8)

    def until_restart(self) -> float:
        return self.random.choice((0.0, 30.0, 3000.0, 14400.0))

    def play(self) -> list[str]:
        """Until every date is done, or long enough after the last; returns what went wrong."""
        for process in self.processes:
            process.thread.start()
        limit = self.schedule.as_of(self.dates[-1]) + timedelta(days=10)
        while not self.over:
            self._step()
            if self.steps % 100 == 0:
                self.over = self.time > limit or self._all_done()
        for process in self.processes:
            while not process.done:
                process.doomed = True
                self._let(process)
            process.thread.join()
            process.engine.dispose()
        return self._judge()

    def _step(self) -> None:
        self.steps += 1
        ready = [one for one in self.processes if not one.done and one.wake <= self.time and self._may_go(one)]
        if not ready:
            self.time = max(self.time, min(one.wake for one in self.processes if not one.done))
            return
        process = self._chosen(ready)
        self.time += self.random.choice((0.0, 0.01, 0.5)) * SECOND
        self._disturb(process)
        self._let(process)
        if process.error is not None:
            self.over = True

    def _chosen(self, ready: list[Process]) -> Process:
        while self.script:
            (number, left), rest = self.script[0], self.script[1:]
            self.script = [(number, left - 1), *rest] if left > 1 else rest
            if self.processes[number] in ready:
                return self.processes[number]
            self.script = rest
        return self.random.choice(ready)

    def _may_go(self, process: Process) -> bool:
        return not process.wants_lock or self.writer in (None, process)

    def _disturb(self, process: Process) -> None:
        draw = self.random.random()
        if draw < self.chaos.crash or self.steps in self.crashes:
            process.doomed = True
        elif draw < self.chaos.crash + self.chaos.stall and self.writer is not process:
            process.wake = self.time + self.random.choice((60, 2400, 9000)) * SECOND
        elif draw < self.chaos.crash + self.chaos.stall + self.chaos.clock:
            process.skew = self.random.choice((0, 0, -1, 90, -130, 3000, -7200, -172800, 86400)) * SECOND

    def _let(self, process: Process) -> None:
        if process.wake > self.time and not process.doomed:
            return
        process.turn.release()
        self.back.acquire()

    def _all_done(self) -> bool:
        days = self.store.days(self.schedule.name).values()
        return len(days) == len(self.dates) and all(day.state == "succeeded" for day in days)

    def _judge(self) -> list[str]:
        faults = list(self.cluster.faults)
        faults += [f"scheduler {one.number} raised {one.error!r}" for one in self.processes if one.error]
        well = sorted(job.day for job in self.cluster.jobs.values() if job.ends_well)
        if well != self.dates:
            odd = set(self.dates).symmetric_difference(well) or [day for day in well if well.count(day) > 1]
            faults.append(f"executed not exactly once: {sorted(odd)}")
        days = self.store.days(self.schedule.name)
        faults += [f"{day.logical_date} ends {day.state}" for day in days.values() if day.state != "succeeded"]
        told = [one.logical_date for each in self.processes for one in each.events if one.what == "succeeded"]
        if len(set(told)) != len(told):
            faults.append("a success was recorded twice")
        quiet = self.chaos == Chaos() and not self.crashes
        disputed = [event for each in self.processes for event in each.events if event.what in ("lost", "attached")]
        if quiet and (disputed or self.cluster.refused):
            faults.append(f"two schedulers had the same day though every lease was kept: {disputed[:3]}")
        return faults
