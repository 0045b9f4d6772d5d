"""The release's index and vectors, and the digest that names them.

Index files differ from build to build, so what counts for the release's id is their content: the
configuration and, in row order, each job's id, vector, terms and payload.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import torch

from rolecall.features.text import job_lexical_text, tokens
from rolecall.kernels.quantization import quantize_rows
from rolecall.platform.errors import InputError
from rolecall.platform.settings import VectorSettings
from rolecall.platform.vectors.backends import create_index, index_config
from rolecall.platform.vectors.protocol import IndexConfig, IndexPoints, job_payload

INDEX_FILE = "index.tar"
VECTORS_FILE = "vectors.npz"
Terms = Sequence[Sequence[str]]
_BLOCK = 10_000
"""Jobs held as Python objects at a time."""


@dataclass(frozen=True, kw_only=True)
class BuiltIndex:
    """What `build_index` wrote below its folder. `content_digest` stands for both parts in the release's id."""

    index: Path
    vectors: Path
    content_digest: str
    jobs: int


def build_index(jobs: pa.Table, vectors: npt.NDArray[np.float32], settings: VectorSettings, folder: Path) -> BuiltIndex:
    """Write `index.tar` and `vectors.npz` (int8 `codes` [n, d], float32 `scales` [n]) for a catalogue.

    `jobs`: rows of the jobs table in catalogue order, that is by job_id; `vectors`: one unit vector each.
    """
    _check(jobs, vectors)
    terms = _terms(jobs)
    average = sum(map(len, terms)) / max(len(terms), 1)
    config = index_config(settings, dimension=int(vectors.shape[1]), average_terms=average)
    digest = content_digest(jobs, vectors, terms, config)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
    try:
        index = create_index(settings, config, scratch=scratch, name=f"rolecall-{digest[:16]}")
        try:
            for _, points in _points(jobs, vectors, terms):
                index.upsert(points)
            index.optimize()
            index.snapshot(folder / INDEX_FILE)
        finally:
            index.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_vectors(folder / VECTORS_FILE, vectors)
    return BuiltIndex(
        index=folder / INDEX_FILE, vectors=folder / VECTORS_FILE, content_digest=digest, jobs=jobs.num_rows
    )


def write_vectors(path: Path, vectors: npt.NDArray[np.float32]) -> None:
    """Quantise and save without pickle. The same vectors give the same bytes."""
    rows = quantize_rows(torch.from_numpy(np.ascontiguousarray(vectors)))
    np.savez(path, codes=rows.codes.numpy(), scales=rows.scales.numpy())


def content_digest(jobs: pa.Table, vectors: npt.NDArray[np.float32], terms: Terms, config: IndexConfig) -> str:
    """SHA-256 over the configuration and the ordered (id, vector, terms, payload) of every job."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for ids, points in _points(jobs, vectors, terms):
        for job_id, vector, words, payload in zip(ids, points.dense, points.terms, points.payloads, strict=True):
            for part in (job_id.encode(), np.asarray(vector, dtype="<f4").tobytes(), _canonical([words, payload])):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
    return digest.hexdigest()


def _check(jobs: pa.Table, vectors: npt.NDArray[np.float32]) -> None:
    ids = pl.Series(jobs["job_id"])
    if len(vectors) != len(ids) or not (ids.is_unique().all() and ids.is_sorted()):
        raise InputError(f"{len(ids)} jobs with {len(vectors)} vectors", "one vector each, jobs in order of job_id")


def _terms(jobs: pa.Table) -> Terms:
    """Every job's terms; each word is one object, however many jobs have it."""
    read = jobs.select(["title", "city", "region", "skills"])
    return [list(map(sys.intern, tokens(job_lexical_text(row)))) for _, rows in _blocks(read) for row in rows]


def _points(jobs: pa.Table, vectors: npt.NDArray[np.float32], terms: Terms) -> Iterator[tuple[list[str], IndexPoints]]:
    """Ids and points of the jobs in order, a block at a time."""
    for first, rows in _blocks(jobs):
        end = first + len(rows)
        yield (
            [row["job_id"] for row in rows],
            IndexPoints(
                rows=np.arange(first, end, dtype=np.int32),
                dense=np.asarray(vectors[first:end], dtype=np.float32),
                terms=terms[first:end],
                payloads=[job_payload(row) for row in rows],
            ),
        )


def _blocks(jobs: pa.Table) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """First row number and rows of each block."""
    for first in range(0, jobs.num_rows, _BLOCK):
        yield first, jobs.slice(first, _BLOCK).to_pylist()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
