"""The nearest jobs by a scan of every code of the release: exact, and cheaper than the index until a catalogue is much
larger than the answer.

One core, 384 columns, two questions (see tests/bench/RESULTS.md): of 60,000 jobs the first 600 take 6 ms where the
index takes 11, the first 6,000 take 9 ms where it takes 65. What the index takes grows with the answer, a scan with the
catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rolecall.features.catalogue import Catalogue
from rolecall.features.job_vectors import JobVectors
from rolecall.kernels.cpp import build
from rolecall.kernels.int8_topk import int8_topk
from rolecall.kernels.quantization import QuantizedRows
from rolecall.platform.vectors.protocol import DenseQuery, Hits, SearchFilter, epoch_us

SCAN_FROM = 10_000
"""Jobs from which a scan is worth it: of fewer the index answers in a millisecond or two."""
ALWAYS = 30_000
JOBS_A_HIT = 100
"""A scan of `ALWAYS` jobs, and of so many more for every hit that is wanted, takes no longer than the index."""


class NearestJobs:
    """Answers dense questions under a filter of time alone; every other condition is the index's."""

    def __init__(self, catalogue: Catalogue, vectors: JobVectors, *, scan_from: int = SCAN_FROM) -> None:
        self._catalogue = catalogue
        self._items = QuantizedRows(
            codes=torch.from_numpy(vectors.codes), scales=torch.from_numpy(vectors.inverse_norms)
        )
        self._rows = np.arange(len(vectors), dtype=np.int32)
        self._compiled = len(vectors) >= scan_from and build.available()  # in torch a scan takes longer than the index

    def answers(self, conditions: SearchFilter, limit: int) -> bool:
        """Whether a question with these conditions is for `search`: they are about time, and the index is slower."""
        plain = SearchFilter(at=conditions.at, exclude_rows=conditions.exclude_rows)
        return self._compiled and len(self._rows) <= ALWAYS + JOBS_A_HIT * limit and conditions == plain

    def search(self, questions: Sequence[DenseQuery], conditions: SearchFilter, limit: int) -> list[Hits]:
        """As `VectorIndex.search`: best first, ties by row. Scores are cosines of the int8 codes of both sides."""
        allowed = np.ones(len(self._rows), np.bool_)
        if (at := epoch_us(conditions.at)) is not None:
            allowed = self._catalogue.live(self._rows, at)
        allowed[list(conditions.exclude_rows)] = False
        asked = torch.from_numpy(np.stack([question.vector for question in questions]).astype(np.float32))
        best = int8_topk(asked, self._items, limit, allowed=torch.from_numpy(allowed))
        answers = zip(best.rows.numpy().astype(np.int32), best.scores.numpy(), strict=True)
        return [Hits(rows=rows[rows >= 0], scores=scores[rows >= 0]) for rows, scores in answers]
