"""Between the wire and the stages: requests to questions, answers to replies. No rule of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rolecall.features.context import CandidateContext
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving import models
from rolecall.serving.funnel import FunnelReply
from rolecall.serving.models import (
    Filters,
    PeopleFilters,
    PeopleReply,
    Profile,
    RecommendationReply,
    RecommendedJob,
    RecommendedPerson,
    SearchReply,
    Stage,
)
from rolecall.serving.people_funnel import PeopleAnswer
from rolecall.serving.search import FoundJob
from rolecall.serving.stages import StageTrace


def search_filter(filters: Filters) -> SearchFilter:
    """The index's conditions; the instant is set by whoever asks."""
    plain = filters.model_dump(exclude={"near"})
    near: dict[str, Any] = filters.near.model_dump() if filters.near else {}
    return SearchFilter(**plain, **near)


def with_profile(context: CandidateContext, profile: Profile) -> CandidateContext:
    """The context with what the profile says in place of what was stored; what it leaves open stays."""
    given = profile.model_dump(exclude_defaults=True)
    return replace(context, **given)


def recommendation_reply(
    reply: FunnelReply, *, request_id: str, known: bool, before: Sequence[Stage] = ()
) -> RecommendationReply:
    """The funnel's answer as it goes out; `before` are stages that ran ahead of the funnel."""
    return RecommendationReply(
        request_id=request_id,
        release_id=reply.release_id,
        known=known,
        items=tuple(
            RecommendedJob(
                job_id=item.job_id,
                title=item.title,
                employer=item.employer,
                place=item.place or None,
                score=item.score,
                position=item.position,
                propensity=item.propensity,
                reasons=item.reasons,
            )
            for item in reply.items
        ),
        trace=(*before, *_stages(reply.trace)),
    )


def people_filter(filters: PeopleFilters) -> SearchFilter:
    """The conditions on people; the instant is set by whoever asks."""
    near: dict[str, Any] = filters.near.model_dump() if filters.near else {}
    return SearchFilter(**filters.model_dump(exclude={"near"}), **near)


def people_reply(reply: PeopleAnswer, *, request_id: str, trained: bool) -> PeopleReply:
    """The people funnel's answer as it goes out."""
    return PeopleReply(
        request_id=request_id,
        release_id=reply.release_id,
        known=not reply.cold,
        trained=trained,
        items=tuple(
            RecommendedPerson(
                candidate_id=item.candidate_id,
                score=item.score,
                position=item.position,
                propensity=item.propensity,
                reasons=item.reasons,
            )
            for item in reply.items
        ),
        trace=_stages(reply.trace),
    )


def _stages(trace: Sequence[StageTrace]) -> tuple[Stage, ...]:
    return tuple(
        Stage(
            stage=stage.stage,
            count_in=stage.count_in,
            count_out=stage.count_out,
            milliseconds=round(stage.milliseconds, 3),
        )
        for stage in trace
    )


def search_reply(hits: Sequence[FoundJob], *, request_id: str, release_id: str, milliseconds: float) -> SearchReply:
    """The hits as they go out."""
    return SearchReply(
        request_id=request_id,
        release_id=release_id,
        milliseconds=milliseconds,
        items=tuple(
            models.FoundJob(
                job_id=hit.job_id,
                title=hit.title,
                employer=hit.employer,
                place=hit.place or None,
                score=hit.score,
                position=hit.position,
                snippet=hit.snippet,
            )
            for hit in hits
        ),
    )
