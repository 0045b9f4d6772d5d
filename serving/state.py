"""What one serving process holds: the release, the online features, the event log. Plain Python behind the HTTP side.

state = ServingState.open(settings)      # tries to load the champion
state.start()                            # and follows it from here on
state.recommend(RecommendationRequest(candidate_id="c1"), "request-1")
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rolecall.features.context import CandidateContext, JobQuestion
from rolecall.features.embedder import Embedder
from rolecall.features.store import FeatureStore
from rolecall.features.validation import validate_events
from rolecall.platform.errors import ConflictError, InputError, NotFoundError, UnavailableError
from rolecall.platform.event_log import EventLog
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.schedule.gauges import FreshGauges
from rolecall.platform.served_log import ServedLog
from rolecall.platform.settings import Settings
from rolecall.serving.answers.answering import Retrieved
from rolecall.serving.follow import Follower, ReleaseSlot
from rolecall.serving.funnel import FunnelRequest
from rolecall.serving.job_features import JobFeatureRefresher, use_online_job_features
from rolecall.serving.loader import LoadedRelease, load_release
from rolecall.serving.models import (
    AnswerRequest,
    EventBatch,
    EventReceipt,
    PeopleReply,
    PeopleRequest,
    Readiness,
    RecommendationReply,
    RecommendationRequest,
    SearchReply,
    SearchRequest,
    Stage,
)
from rolecall.serving.people_funnel import PeopleFunnel
from rolecall.serving.people_funnel import PeopleRequest as JobQuestions
from rolecall.serving.permissions import OnlinePermissions
from rolecall.serving.reader import CandidateReader
from rolecall.serving.replies import (
    people_filter,
    people_reply,
    recommendation_reply,
    search_filter,
    search_reply,
    with_profile,
)
from rolecall.serving.scratch import process_scratch
from rolecall.serving.served import ServedSample

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class ServingState:
    """Answers requests from one release at a time. Any thread may call; none of the calls blocks another."""

    def __init__(
        self,
        *,
        slot: ReleaseSlot[LoadedRelease],
        follower: Follower[LoadedRelease],
        reader: CandidateReader,
        events: EventLog,
        forgotten: ForgottenPeople | None = None,
        clock: Clock = utc_now,
        schedules: FreshGauges | None = None,
        refresher: JobFeatureRefresher | None = None,
        served: ServedSample | None = None,
    ) -> None:
        self._served = served
        self._refresher = refresher
        self._forgotten = forgotten
        self._schedules = schedules
        self._slot = slot
        self._follower = follower
        self._reader = reader
        self._events = events
        self._clock = clock

    @classmethod
    def open(cls, settings: Settings, *, clock: Clock = utc_now) -> ServingState:
        """Open the stores and load the champion. Without one the state is open and not ready.

        Raises UnavailableError where there is a champion that cannot be loaded.
        """
        registry = Registry.from_settings(settings)
        features, jobs = online_features(settings), online_features(settings)  # reading all jobs holds up no request
        events = EventLog(open_ledger(settings.ledger_url))
        forgotten = ForgottenPeople(events.engine)
        slot: ReleaseSlot[LoadedRelease] = ReleaseSlot()
        follower = Follower(
            champion=registry.reconcile,
            load=partial(
                load_live,
                settings,
                registry.fetch_to_serve,
                features,
                jobs,
                Embedder(settings.embedder),
                clock,
                forgotten,
            ),
            slot=slot,
            interval_s=settings.serve.follow_interval_s,
        )
        reader = CandidateReader(features, events, history_length=settings.features.history_length, forgotten=forgotten)
        if not follower.step() and follower.wanted is not None:
            raise UnavailableError(
                f"release {follower.wanted} cannot be loaded: {follower.problem}",
                "an intact champion",
                "rolecall releases rollback",
            )
        return cls(
            slot=slot,
            follower=follower,
            reader=reader,
            events=events,
            forgotten=forgotten,
            clock=clock,
            schedules=FreshGauges(events.engine, clock),
            served=ServedSample(ServedLog(events.engine, forgotten), events, share=settings.serve.served_share),
            refresher=JobFeatureRefresher(slot, jobs, interval_s=settings.serve.features_refresh_s),
        )

    def start(self) -> None:
        """Follow the champion, and the features of its jobs, on threads of their own."""
        self._follower.start()
        if self._refresher is not None:
            self._refresher.start()

    def close(self) -> None:
        """Stop following and close the release once its last request ended."""
        if self._refresher is not None:
            self._refresher.close()
        self._follower.close()
        self._slot.close()
        if self._served is not None:
            self._served.close()

    def recommend(self, request: RecommendationRequest, request_id: str) -> RecommendationReply:
        """Jobs for a person. Raises UnavailableError while no release is loaded."""
        with self._slot.lease() as release:
            return recommend(
                release, self._reader, request, request_id=request_id, at=self._clock(), served=self._served
            )

    def people(self, job_id: str, request: PeopleRequest, request_id: str) -> PeopleReply:
        """People for a job. Raises UnavailableError while no release is loaded, ConflictError where the release
        recommends nobody, NotFoundError where it does not hold the job and the request does not describe it."""
        with self._slot.lease() as release:
            return recommend_people(release, job_id, request, request_id=request_id, at=self._clock())

    def search(self, request: SearchRequest, request_id: str) -> SearchReply:
        """Jobs for a text. Raises UnavailableError while no release is loaded."""
        started = time.perf_counter()
        with self._slot.lease() as release:
            hits = release.search.search(
                request.text, at=self._clock(), conditions=search_filter(request.filters), limit=request.limit
            )
            release_id = release.manifest.id
        return search_reply(hits, request_id=request_id, release_id=release_id, milliseconds=_since_ms(started))

    def passages(self, request: AnswerRequest) -> Retrieved:
        """What may answer a question. Raises UnavailableError while no release is loaded."""
        started = time.perf_counter()
        with self._slot.lease() as release:
            found = release.passages.find(
                request.question,
                at=self._clock(),
                conditions=search_filter(request.filters),
                limit=request.passages,
            )
            release_id = release.manifest.id
        return Retrieved(release_id=release_id, passages=found, milliseconds=_since_ms(started))

    def accept(self, batch: EventBatch) -> EventReceipt:
        """Commit events: on disk when this returns. Raises InputError, and keeps none, where one breaks a rule."""
        validated = validate_events([event.model_dump() for event in batch.events])
        if validated.refused:
            told = "; ".join(f"/events/{refusal.row}: {refusal.message}" for refusal in validated.refused[:10])
            raise InputError(told, "events as the schema of /v1/events describes them", "correct and send all again")
        appended = self._events.append(validated.accepted, forgotten=self._forgotten)
        return EventReceipt(
            accepted=appended.accepted,
            duplicate=appended.duplicate + validated.duplicate,
            dropped=appended.dropped,
        )

    def readiness(self) -> Readiness:
        """Ready where a release is loaded, also while a newer one cannot be."""
        problem = self._follower.problem or "ok"
        if not self._follower.alive():
            problem = "the thread that follows the champion has ended"
        return Readiness(
            ready=self._slot.release_id is not None,
            release_id=self._slot.release_id,
            release_as_of=self._as_of(),
            previous_release_id=self._slot.previous_id,
            checks={"release": problem},
        )

    def gauges(self) -> bytes:
        """The daily schedules as Prometheus reads them; nothing where the ledger is slow to answer."""
        return b"" if self._schedules is None else self._schedules.render()

    def following(self) -> bool:
        """Whether the champion is still being followed."""
        return self._follower.alive()

    def _as_of(self) -> datetime | None:
        with contextlib.suppress(UnavailableError), self._slot.lease() as release:
            return release.manifest.as_of
        return None


def recommend(
    release: LoadedRelease,
    reader: CandidateReader,
    request: RecommendationRequest,
    *,
    request_id: str,
    at: datetime,
    served: ServedSample | None = None,
) -> RecommendationReply:
    """Jobs for a person from one release: the one way from a request to a reply, over HTTP and in MLflow alike.

    `served`: keeps what a share of them is answered from; of a profile in the request there is nothing to replay.
    """
    started = time.perf_counter()
    begun = None
    if served is not None and request.candidate_id is not None and request.profile is None:
        begun = served.begin(request_id, request.candidate_id)
    context = _context(reader, request, at)
    read = Stage(stage="context", count_in=1, count_out=int(context.known), milliseconds=_since_ms(started))
    question = FunnelRequest(
        context=context,
        at=at,
        request_id=request_id,
        limit=request.limit,
        conditions=search_filter(request.filters),
    )
    reply = release.funnel.recommend(question)
    if served is not None and begun is not None:
        served.keep(begun, release, context, reply.items, at=at)
    return recommendation_reply(reply, request_id=request_id, known=context.known, before=(read,))


def recommend_people(
    release: LoadedRelease, job_id: str, request: PeopleRequest, *, request_id: str, at: datetime
) -> PeopleReply:
    """People for a job from one release: the one way from a request to a reply."""
    funnel = release.people
    if funnel is None:
        raise ConflictError(
            f"release {release.manifest.id} recommends no people",
            "candidates with consent = true when it was built",
            "ingest consents and run the day again",
        )
    asked = JobQuestions(
        context=_question(funnel, job_id, request),
        at=at,
        request_id=request_id,
        limit=request.limit,
        conditions=people_filter(request.filters),
    )
    return people_reply(funnel.recommend(asked), request_id=request_id, trained=funnel.trained)


def open_reader(settings: Settings) -> CandidateReader:
    """Reads candidates from the stores of these settings."""
    events = EventLog(open_ledger(settings.ledger_url))
    return CandidateReader(
        online_features(settings),
        events,
        history_length=settings.features.history_length,
        forgotten=ForgottenPeople(events.engine),
    )


def online_features(settings: Settings) -> FeatureStore:
    """The feature store below home."""
    return FeatureStore(settings.home / "feast", settings.features)


def _question(funnel: PeopleFunnel, job_id: str, request: PeopleRequest) -> JobQuestion:
    """The job as the release holds it, else as the request describes it."""
    question = funnel.pairs.question(job_id, exclude_applicants=request.exclude_applicants)
    if question is not None:
        return question
    if request.job is None:
        raise NotFoundError(
            f"release {funnel.release_id} does not hold job {job_id}", "a job of the release", "describe it in `job`"
        )
    return JobQuestion(job_id=job_id, exclude_applicants=request.exclude_applicants, **request.job.model_dump())


def _context(reader: CandidateReader, request: RecommendationRequest, at: datetime) -> CandidateContext:
    context = CandidateContext() if request.candidate_id is None else reader.read(request.candidate_id, at)
    return context if request.profile is None else with_profile(context, request.profile)


def load_live(
    settings: Settings,
    fetch: Callable[[str], Path],
    features: FeatureStore,
    jobs: FeatureStore,
    embedder: Embedder,
    clock: Clock,
    forgotten: ForgottenPeople,
    release_id: str,
) -> LoadedRelease:
    """A release with today's job features in place of those it was built with, where the online store has them, and
    with today's consents.

    `features`: the store that requests read; `jobs`: another one, for the features of all jobs at once. `embedder` is
    shared by all releases it fits.
    """
    scratch, threads = process_scratch(settings.scratch_dir), settings.ray.threads_per_actor
    release = load_release(fetch(release_id), settings, scratch, embedder=embedder, threads=threads)
    use_online_job_features(release, jobs)
    if release.people is not None:
        release.people.permissions = OnlinePermissions(features, clock, forgotten=forgotten)
    return release


def _since_ms(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 3)
