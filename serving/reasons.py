"""Why a job was recommended, in words: facts about this person and this job, never the model's internals."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np

from rolecall.features.catalogue import Floats, Rows, normal
from rolecall.features.pairs import PairFeatures, PreparedCandidate

MOST_REASONS = 4
MOST_SKILLS = 3
NEAR_KM = 50.0
SIMILAR = 0.4
FRESH_DAYS = 3.0
_COLUMNS = ("distance_km", "same_city", "city_share", "remote", "employer_share", "age_days")


class Reasons:
    """Explains jobs of one release."""

    def __init__(self, pairs: PairFeatures) -> None:
        self.pairs = pairs

    def explain(self, prepared: PreparedCandidate, rows: Rows, *, at: datetime) -> list[tuple[str, ...]]:
        """Up to four reasons a job, the most personal first; none where nothing is known about the person."""
        titles = self.pairs.lexicon.fields["title"].similarity(prepared.queries["title"], rows)
        meanings = self.pairs.vectors.cosines(rows, prepared.dense)
        facts = self.pairs.matrix(prepared, rows, at=at, job_features={}, columns=_COLUMNS)
        return [
            tuple(found for found in self._reasons(prepared, int(row), title, fact) if found)[:MOST_REASONS]
            or self._meaning(prepared, meaning)
            for row, title, fact, meaning in zip(rows, titles, facts, meanings, strict=True)
        ]

    def _reasons(self, prepared: PreparedCandidate, row: int, titles: Floats, facts: Floats) -> Iterable[str]:
        distance, same_city, city_share, remote, employer, age = map(float, facts)
        yield self._skills(prepared, row)
        yield self._desired(prepared, titles)
        yield self._similar(prepared, titles)
        if employer > 0 and (name := self.pairs.catalogue.employers[row]):
            yield f"at {name}, as jobs you looked at"
        yield self._place(prepared, row, distance=distance, same_city=same_city == 1, seen_city=city_share > 0)
        if remote == 1:
            yield "remote"
        if age <= FRESH_DAYS:
            yield f"posted {int(age)} days ago" if age >= 2 else "posted yesterday" if age >= 1 else "posted today"

    def _meaning(self, prepared: PreparedCandidate, cosines: Floats) -> tuple[str, ...]:
        """Where no word and no place says why: what the job's text is nearest to. Nothing to be near to: no reason."""
        if not len(cosines):
            return ()
        nearest = int(np.argmax(cosines))
        if nearest == len(prepared.history):
            return ("reads like your profile",)
        return (f'reads like "{self.pairs.catalogue.titles[prepared.history[nearest]]}", which you viewed',)

    def _skills(self, prepared: PreparedCandidate, row: int) -> str:
        skills = self.pairs.catalogue.skills
        asked = {skills.names[code] for code in skills.of(row)}
        shared = [skill for skill in prepared.context.skills if normal(skill) in asked]
        more = f" and {len(shared) - MOST_SKILLS} more" if len(shared) > MOST_SKILLS else ""
        return f"matches your skills: {', '.join(shared[:MOST_SKILLS])}{more}" if shared else ""

    def _desired(self, prepared: PreparedCandidate, titles: Floats) -> str:
        likeness = titles[len(prepared.history) + 1 :]
        if not len(likeness) or likeness.max() < SIMILAR:
            return ""
        return f'close to "{prepared.context.desired_titles[int(np.argmax(likeness))]}", which you look for'

    def _similar(self, prepared: PreparedCandidate, titles: Floats) -> str:
        likeness = titles[: len(prepared.history)]
        if not len(likeness) or likeness.max() < SIMILAR:
            return ""
        return (
            f'similar to "{self.pairs.catalogue.titles[prepared.history[int(np.argmax(likeness))]]}", which you viewed'
        )

    def _place(
        self, prepared: PreparedCandidate, row: int, *, distance: float, same_city: bool, seen_city: bool
    ) -> str:
        city, home = self.pairs.catalogue.cities[row], prepared.context.city
        if same_city:
            return f"in {city}"
        if distance <= NEAR_KM:
            return f"{distance:.0f} km from {home or 'you'}"
        return f"in {city}, as jobs you looked at" if seen_city and city else ""
