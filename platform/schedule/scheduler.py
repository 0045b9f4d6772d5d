"""The scheduler: enters what is due, submits it, watches it, records how it ended.

    scheduler = Scheduler(store, launcher, owner="host:123:9f3c", clock=utc_now, pause=time.sleep)
    report = scheduler.tick()               # until nothing runs any more
    report = scheduler.tick(wait=False)     # submit and return; the next tick collects

Any number of schedulers may tick at any time, and die at any moment: which of them watches a day is decided by leases
in the ledger, and who finds a day submitted, or cannot tell, submits the same id, which the cluster takes once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal, Protocol

from rolecall.platform.errors import UnavailableError
from rolecall.platform.jobs import FINISHED, JobState
from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.store import ScheduleStore

LEASE = timedelta(seconds=120)
POLL_SECONDS = 2.0
What = Literal["entered", "skipped", "given up", "submitted", "attached", "succeeded", "failed", "lost", "unavailable"]
BAD: frozenset[What] = frozenset({"given up", "failed", "unavailable"})


class Launcher(Protocol):
    """A place that runs a day. Every method raises UnavailableError while it cannot be reached."""

    def submit(self, schedule: Schedule, day: Day) -> bool:
        """Start the job `day.submission_id`; False where that id was submitted before, by whomever."""
        ...

    def state(self, submission_id: str) -> JobState | None:
        """The job's state, or None where the id was never submitted, or the place has forgotten it."""
        ...

    def why_failed(self, submission_id: str) -> str:
        """The last words of a job that failed."""
        ...


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something a tick did or met. `lost`: another scheduler took the day over meanwhile."""

    schedule: str
    logical_date: date
    what: What
    attempt: int
    detail: str = ""


@dataclass(kw_only=True)
class Report:
    """What a tick did, in order."""

    events: list[Event] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        """Whether an attempt failed, or its cluster could not be reached."""
        return any(event.what in BAD for event in self.events)

    def add(self, day: Day, what: What, detail: str = "") -> None:
        self.events.append(
            Event(schedule=day.schedule, logical_date=day.logical_date, what=what, attempt=day.attempt, detail=detail)
        )


class Scheduler:
    """One scheduler. `owner` must be its own alone; `clock` gives instants in UTC, `pause` waits that many seconds."""

    def __init__(
        self,
        store: ScheduleStore,
        launcher: Launcher,
        *,
        owner: str,
        clock: Callable[[], datetime],
        pause: Callable[[float], None],
        lease: timedelta = LEASE,
        poll_s: float = POLL_SECONDS,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.store = store
        self._launcher = launcher
        self._owner = owner
        self._clock = clock
        self._pause = pause
        self._lease = lease
        self._poll_s = poll_s
        self._on_event = on_event

    def tick(self, names: Sequence[str] | None = None, *, wait: bool = True) -> Report:
        """Bring every schedule (or those named) as far as it goes now.

        With `wait`, until no day runs that this scheduler watches; schedules are watched side by side. A day that
        failed is not waited for: a later tick begins its next attempt. Raises NotFoundError on an unknown name.
        """
        chosen = [self.store.get(name).name for name in names or ()] or [one.name for one in self.store.all()]
        report, watched = Report(), dict[str, Day]()
        try:
            while True:
                for name in chosen:
                    self._advance(name, watched, report)
                if not wait or not watched:
                    return report
                self._pause(self._poll_s)
                chosen = list(watched)
        finally:
            for day in watched.values():
                self.store.release(day)

    def _advance(self, name: str, watched: dict[str, Day], report: Report) -> None:
        """Until the schedule's day runs, or nothing may be done."""
        while (day := self._held(name, watched, report)) is not None:
            watched[name] = day
            try:
                state = self._look(day, report)
                if state not in FINISHED:
                    return
                error = None if state == "succeeded" else self._why(day, state)
            except UnavailableError as error_:
                self._tell(report, day, "unavailable", str(error_))
                self.store.release(watched.pop(name))
                return
            self._conclude(watched.pop(name), error, report)

    def _held(self, name: str, watched: dict[str, Day], report: Report) -> Day | None:
        """The day this scheduler holds the lease of, renewed where a third of it has passed."""
        day, now = watched.get(name), self._clock()
        if day is None:
            for new in self.store.extend(name, now):
                self._tell(report, new, _entry(new))
            return self.store.claim(name, owner=self._owner, now=now, lease=self._lease)
        if day.heartbeat is not None and abs(now - day.heartbeat) < self._lease / 3:
            return day
        renewed = self.store.claim(name, owner=self._owner, now=now, lease=self._lease)
        if renewed is None or renewed.submission_id != day.submission_id:
            self._tell(report, watched.pop(name), "lost", "another scheduler watches it now")
        return renewed

    def _look(self, day: Day, report: Report) -> JobState:
        """The state of a day's job; it is submitted where the cluster does not know it."""
        submission = day.submission_id or ""
        state = self._launcher.state(submission)
        if state is not None:
            return state
        started = self._launcher.submit(self.store.get(day.schedule), day)
        self._tell(report, day, "submitted" if started else "attached", submission)
        return self._launcher.state(submission) or "pending"

    def _why(self, day: Day, state: JobState) -> str:
        told = self._launcher.why_failed(day.submission_id or "").strip()
        return told or f"the job {state}"

    def _conclude(self, day: Day, error: str | None, report: Report) -> None:
        after = self.store.conclude(day, error=error, now=self._clock())
        if after is None:
            self._tell(report, day, "lost", "another scheduler recorded its end")
        elif after.state == "succeeded":
            self._tell(report, after, "succeeded")
        elif after.state == "failed":
            self._tell(report, after, "given up", f"{after.failures} attempts failed, the last one: {after.error}")
        else:
            self._tell(
                report, after, "failed", f"next attempt {after.next_attempt:%Y-%m-%d %H:%M:%S} UTC: {after.error}"
            )

    def _tell(self, report: Report, day: Day, what: What, detail: str = "") -> None:
        report.add(day, what, detail)
        self._on_event(report.events[-1])


def _entry(day: Day) -> What:
    if day.state == "waiting":
        return "entered"
    return "given up" if day.state == "failed" else "skipped"
