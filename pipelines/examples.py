"""A training set: feature rows in whole requests, with labels and the fold each request belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.platform.errors import InputError

LABELS = {"impression": 0, "dismiss": 0, "view": 1, "click": 1, "save": 2, "apply": 3}
"""How relevant a job is by the strongest thing the candidate did with it."""

APPLY_LABEL = LABELS["apply"]

TOP_LABEL = 4
"""The largest label of either direction: what both sides wanted (`people_outcomes.MUTUAL`)."""


RECORDED = "training_set"
"""The value of a step that says what its training set was read from: see `recorded`."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the rows come from: to audit a training set by, never to learn from, and in no file.

    `requests` and `askers` [g]: names of the requests and of who asked, candidates or jobs; `items` int32[n]: what each
    row is about, by catalogue row (or row of the people).
    """

    requests: tuple[str, ...]
    askers: tuple[str, ...]
    items: npt.NDArray[np.int32]

    def select(self, requests: npt.NDArray[np.bool_], rows: npt.NDArray[np.bool_]) -> Origin:
        """Of some requests and their rows."""
        return Origin(
            requests=tuple(name for name, kept in zip(self.requests, requests, strict=True) if kept),
            askers=tuple(name for name, kept in zip(self.askers, requests, strict=True) if kept),
            items=self.items[rows],
        )


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """n rows in g requests, rows of a request together.

    `features` float32[n, c] by `columns`; `labels` int8[n] (LABELS); `shown` bool[n]: the candidate saw the job, it
    was not sampled; `groups` int32[g]: rows a request; `times` int64[g]: microseconds since 1970;
    `held_out` bool[g]: for calibration, never for learning; `origin`: None once it was read from a file.
    """

    features: npt.NDArray[np.float32]
    columns: tuple[str, ...]
    labels: npt.NDArray[np.int8]
    shown: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int32]
    times: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]
    origin: Origin | None = None

    def __post_init__(self) -> None:
        rows, requests = len(self.features), len(self.groups)
        if (
            self.features.shape != (rows, len(self.columns))
            or {len(self.labels), len(self.shown), int(self.groups.sum())} != {rows}
            or {len(self.times), len(self.held_out)} != {requests}
        ):
            raise InputError(
                f"{self.features.shape} features, {len(self.labels)} labels, {requests} requests of "
                f"{int(self.groups.sum())} rows",
                "one row a label, groups that add up to the rows",
            )

    @property
    def requests(self) -> int:
        return len(self.groups)

    def learnable(self) -> TrainingSet:
        """Requests outside the calibration fold with something to prefer: two different labels."""
        starts = np.concatenate(([0], np.cumsum(self.groups)[:-1])).astype(np.int64)
        if not self.requests:
            return self
        differ = np.maximum.reduceat(self.labels, starts) > np.minimum.reduceat(self.labels, starts)
        return self.select(differ & ~self.held_out)

    def calibration(self) -> TrainingSet:
        """Requests kept from learning."""
        return self.select(self.held_out)

    def shard(self, rank: int, of: int) -> TrainingSet:
        """Every `of`-th request from `rank`: whole requests, as LambdaRank needs them."""
        return self if of == 1 else self.select(np.arange(self.requests) % of == rank)

    def select(self, requests: npt.NDArray[np.bool_]) -> TrainingSet:
        """Only the requests marked."""
        rows = np.repeat(requests, self.groups)
        return replace(
            self,
            features=self.features[rows],
            labels=self.labels[rows],
            shown=self.shown[rows],
            groups=self.groups[requests],
            times=self.times[requests],
            held_out=self.held_out[requests],
            origin=None if self.origin is None else self.origin.select(requests, rows),
        )

    def rows(self, kept: npt.NDArray[np.bool_]) -> TrainingSet:
        """Only the rows marked, of the requests that keep any."""
        groups = np.bincount(np.repeat(np.arange(self.requests), self.groups)[kept], minlength=self.requests)
        some = groups > 0
        return replace(
            self,
            features=self.features[kept],
            labels=self.labels[kept],
            shown=self.shown[kept],
            groups=groups[some].astype(np.int32),
            times=self.times[some],
            held_out=self.held_out[some],
            origin=None if self.origin is None else self.origin.select(some, kept),
        )

    def columns_only(self, columns: Sequence[str]) -> TrainingSet:
        """Only these feature columns, in this order. Raises InputError on one that is not there."""
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise InputError(f"training columns {missing}", f"{self.columns}")
        places = [self.columns.index(name) for name in columns]
        return replace(self, features=np.ascontiguousarray(self.features[:, places]), columns=tuple(columns))

    def save(self, path: Path) -> None:
        """Write one .npz without pickle; a crash leaves either the old file or the new one."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            features=self.features,
            columns=np.frombuffer(json.dumps(self.columns).encode(), np.uint8),
            labels=self.labels,
            shown=self.shown,
            groups=self.groups,
            times=self.times,
            held_out=self.held_out,
        )
        temporary.replace(path)

    def digest(self) -> str:
        """sha256 of every row in order: two sets with the same digest are the same set."""
        digest = hashlib.sha256(json.dumps(self.columns).encode())
        arrays = (self.features, self.labels, self.shown, self.groups, self.times, self.held_out)
        for array in arrays:
            plain = np.where(np.isnan(array), np.float32("nan"), array) if array.dtype.kind == "f" else array
            digest.update(f"{plain.dtype.str}{plain.shape}".encode() + np.ascontiguousarray(plain).tobytes())
        return digest.hexdigest()

    @classmethod
    def load(cls, path: Path) -> TrainingSet:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(
                features=arrays["features"],
                columns=tuple(json.loads(arrays["columns"].tobytes())),
                labels=arrays["labels"],
                shown=arrays["shown"],
                groups=arrays["groups"],
                times=arrays["times"],
                held_out=arrays["held_out"],
            )


def recorded(examples: TrainingSet, versions: Mapping[str, int | None]) -> dict[str, Any]:
    """What a training set was read from and what came of it: from these versions of the tables, as of the same instant
    and with the same code and settings, the same rows come again."""
    return {
        "tables": {name: version for name, version in sorted(versions.items()) if version is not None},
        "sha256": examples.digest(),
        "rows": len(examples.features),
        "requests": examples.requests,
    }
