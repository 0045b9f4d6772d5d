"""Replies as a person reads them on a terminal."""

from __future__ import annotations

from rolecall.platform.console import console, table
from rolecall.serving.models import AnswerReply, PeopleReply, RecommendationReply


def print_recommendations(reply: RecommendationReply, who: str) -> None:
    """Jobs with their reasons, then what each stage let through and how long it took."""
    rows = [
        {
            "#": item.position,
            "job": item.job_id,
            "title": item.title,
            "employer": item.employer,
            "place": item.place,
            "score": item.score,
            "reasons": "; ".join(item.reasons),
        }
        for item in reply.items
    ]
    console.print(table(f"For {who}" + ("" if reply.known else " (never seen: from content alone)"), rows))
    _print_trace(reply)


def print_people(reply: PeopleReply, job_id: str) -> None:
    """People with their reasons, then what each stage let through and how long it took."""
    rows = [
        {"#": item.position, "candidate": item.candidate_id, "score": item.score, "reasons": "; ".join(item.reasons)}
        for item in reply.items
    ]
    order = "" if reply.trained else " (no outcomes to learn from: in order of content)"
    console.print(table(f"For job {job_id}{order}", rows))
    _print_trace(reply)


def print_answer(reply: AnswerReply) -> None:
    """What each sentence of an answer rests on; the text itself was printed as it came."""
    if not reply.found:
        console.print("Nothing in the release fits the question.")
    else:
        titles = {passage.id: passage.title for passage in reply.passages}
        rows = [
            {
                "sentence": one.text,
                "passage": one.passage_id or "none",
                "title": titles.get(one.passage_id or ""),
            }
            for one in reply.statements
        ]
        console.print()
        console.print(table("What it rests on", rows))
    _print_trace(reply)


def _print_trace(reply: RecommendationReply | PeopleReply | AnswerReply) -> None:
    stages = " -> ".join(f"{s.stage} {s.count_out:,} ({s.milliseconds:.1f} ms)" for s in reply.trace)
    console.print(f"[dim]release {reply.release_id}: {stages}[/]")
