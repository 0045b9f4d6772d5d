"""The release's index and vectors, and the digest that names them.

Index files differ from build to build, so what counts for the release's id is their content: the
configuration and, in row order, each job's id, vector, terms and payload.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class BuiltIndex:
    """What `build_index` wrote below its folder. `content_digest` stands for both parts in the release's id."""

    index: Path
    vectors: Path
    content_digest: str
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What an index is built from, in row order: jobs by job_id, or people by candidate_id. One of each a row."""

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    terms: Sequence[Sequence[str]]
    payloads: Sequence[Payload]


def build_index(jobs: pa.Table, vectors: npt.NDArray[np.float32], settings: VectorSettings, folder: Path) -> BuiltIndex:
    """Write `index.tar` and `vectors.npz` (int8 `codes` [n, d], float32 `scales` [n]) for a catalogue.

    `jobs`: rows of the jobs table in catalogue order, that is by job_id; `vectors`: one unit vector each.
    """
    rows = jobs.to_pylist()
    wanted = Indexed(
        ids=[row["job_id"] for row in rows],
        vectors=vectors,
        terms=[tokens(job_lexical_text(row)) for row in rows],
        payloads=[job_payload(row) for row in rows],
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
    points, config = _points(wanted, settings)
    digest = content_digest(wanted.ids, points, config)
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
    try:
        index = create_index(settings, config, scratch=scratch, name=f"{name}-{digest[:16]}")
        try:
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
    rows = quantize_rows(torch.from_numpy(np.ascontiguousarray(vectors)))
    np.savez(path, codes=rows.codes.numpy(), scales=rows.scales.numpy())


def content_digest(ids: Sequence[str], points: IndexPoints, config: IndexConfig) -> str:
    """SHA-256 over the configuration and the ordered (id, vector, terms, payload) of every row."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for row_id, vector, terms, payload in zip(ids, points.dense, points.terms, points.payloads, strict=True):
        for part in (row_id.encode(), np.asarray(vector, dtype="<f4").tobytes(), _canonical([terms, payload])):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def _points(wanted: Indexed, settings: VectorSettings) -> tuple[IndexPoints, IndexConfig]:
    ids = wanted.ids
    if len(wanted.vectors) != len(ids) or any(a >= b for a, b in pairwise(ids)):
        raise InputError(f"{len(ids)} rows with {len(wanted.vectors)} vectors", "one vector each, rows in order of id")
    average = sum(map(len, wanted.terms)) / max(len(wanted.terms), 1)
    points = IndexPoints(
        rows=np.arange(len(ids), dtype=np.int32),
        dense=np.asarray(wanted.vectors, dtype=np.float32),
        terms=wanted.terms,
        payloads=wanted.payloads,
    )
    return points, index_config(settings, dimension=int(wanted.vectors.shape[1]), average_terms=average)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
