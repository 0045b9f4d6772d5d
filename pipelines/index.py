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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from rolecall.features.text import job_lexical_text, tokens
from rolecall.kernels.quantization import quantize_rows
from rolecall.platform.errors import InputError
from rolecall.platform.settings import VectorSettings
from rolecall.platform.vectors.backends import create_index, index_config
from rolecall.platform.vectors.protocol import IndexConfig, IndexPoints, Payload, job_payload

INDEX_FILE = "index.tar"
VECTORS_FILE = "vectors.npz"
Terms = Sequence[Sequence[str]]
_BLOCK = 10_000
"""Rows held as Python objects at a time."""


@dataclass(frozen=True, kw_only=True)
class BuiltIndex:
    """What `build_index` wrote below its folder. `content_digest` stands for both parts in the release's id."""

    index: Path
    vectors: Path
    content_digest: str
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What an index is built from, in row order: jobs by job_id, or people by candidate_id.

    `vectors`: a unit vector each; `terms`: of their lexical texts; `payloads`: those of rows [first, end), made when
    they are asked for.
    """

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    terms: Terms
    payloads: Callable[[int, int], list[Payload]]

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.ids) or any(a >= b for a, b in pairwise(self.ids)):
            raise InputError(
                f"{len(self.ids)} rows with {len(self.vectors)} vectors", "one vector each, rows in order of id"
            )

    def blocks(self) -> Iterator[tuple[Sequence[str], IndexPoints]]:
        """Ids and points in order, a block at a time."""
        for first in range(0, len(self.ids), _BLOCK):
            end = min(first + _BLOCK, len(self.ids))
            yield (
                self.ids[first:end],
                IndexPoints(
                    rows=np.arange(first, end, dtype=np.int32),
                    dense=np.asarray(self.vectors[first:end], dtype=np.float32),
                    terms=self.terms[first:end],
                    payloads=self.payloads(first, end),
                ),
            )


def build_index(jobs: pa.Table, vectors: npt.NDArray[np.float32], settings: VectorSettings, folder: Path) -> BuiltIndex:
    """Write `index.tar` and `vectors.npz` (int8 `codes` [n, d], float32 `scales` [n]) for a catalogue.

    `jobs`: rows of the jobs table in catalogue order, that is by job_id; `vectors`: one unit vector each.
    """
    wanted = Indexed(
        ids=jobs["job_id"].to_pylist(),
        vectors=vectors,
        terms=_terms(jobs),
        payloads=lambda first, end: [job_payload(row) for row in jobs.slice(first, end - first).to_pylist()],
    )
    digest = write_index(wanted, settings, folder, index_file=INDEX_FILE, vectors_file=VECTORS_FILE, name="rolecall")
    return BuiltIndex(
        index=folder / INDEX_FILE, vectors=folder / VECTORS_FILE, content_digest=digest, jobs=jobs.num_rows
    )


def write_index(
    wanted: Indexed, settings: VectorSettings, folder: Path, *, index_file: str, vectors_file: str, name: str
) -> str:
    """Write an index and its quantised vectors below `folder`. Returns the content digest of both.

    `name`: what a server's collection is called by, with the digest.
    """
    average = sum(map(len, wanted.terms)) / max(len(wanted.terms), 1)
    config = index_config(settings, dimension=int(wanted.vectors.shape[1]), average_terms=average)
    digest = content_digest(wanted, config)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
    try:
        index = create_index(settings, config, scratch=scratch, name=f"{name}-{digest[:16]}")
        try:
            for _, points in wanted.blocks():
                index.upsert(points)
            index.optimize()
            index.snapshot(folder / index_file)
        finally:
            index.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_vectors(folder / vectors_file, wanted.vectors)
    return digest


def write_vectors(path: Path, vectors: npt.NDArray[np.float32]) -> None:
    """Quantise and save without pickle. The same vectors give the same bytes."""
    rows = quantize_rows(torch.from_numpy(np.array(vectors, np.float32)))  # a copy: a mapped file is read-only
    np.savez(path, codes=rows.codes.numpy(), scales=rows.scales.numpy())


def content_digest(wanted: Indexed, config: IndexConfig) -> str:
    """SHA-256 over the configuration and the ordered (id, vector, terms, payload) of every row."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for ids, points in wanted.blocks():
        for row_id, vector, words, payload in zip(ids, points.dense, points.terms, points.payloads, strict=True):
            for part in (row_id.encode(), np.asarray(vector, dtype="<f4").tobytes(), _canonical([words, payload])):
                digest.update(len(part).to_bytes(8, "little"))
                digest.update(part)
    return digest.hexdigest()


def _terms(jobs: pa.Table) -> Terms:
    """Every job's terms; each word is one object, however many jobs have it."""
    read = jobs.select(["title", "city", "region", "skills"])
    return [list(map(sys.intern, tokens(job_lexical_text(row)))) for _, rows in _blocks(read) for row in rows]


def _blocks(jobs: pa.Table) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """First row number and rows of each block."""
    for first in range(0, jobs.num_rows, _BLOCK):
        yield first, jobs.slice(first, _BLOCK).to_pylist()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
