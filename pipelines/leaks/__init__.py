"""The leak detector: nothing a ranker learns from may know what it could not have known at the request.

Two ways of looking, on every training set, of both directions:

- by replay (`jobs`, `people`): the columns of a few requests are computed again by the same code from tables without
  what they may not know. Whatever changes leaks; exact, and silent where nothing does.
- by numbers (`detector`): the finished matrix is searched for what honest columns cannot do, so it also sees what no
  event log explains: a label average in a file, an id, the order of rows.
"""

from rolecall.pipelines.leaks.detector import LeakDetector
from rolecall.pipelines.leaks.findings import Finding, Kind
from rolecall.pipelines.leaks.jobs import LeakAudit, Sampled, sample_requests, stored_requests
from rolecall.pipelines.leaks.people import PeopleLeakAudit

__all__ = [
    "Finding",
    "Kind",
    "LeakAudit",
    "LeakDetector",
    "PeopleLeakAudit",
    "Sampled",
    "sample_requests",
    "stored_requests",
]
