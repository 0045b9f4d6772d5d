"""Replies as a person reads them on a terminal."""

from __future__ import annotations

from rolecall.platform.console import console, table
from rolecall.serving.models import RecommendationReply


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
    stages = " -> ".join(f"{s.stage} {s.count_out:,} ({s.milliseconds:.1f} ms)" for s in reply.trace)
    console.print(f"[dim]release {reply.release_id}: {stages}[/]")
