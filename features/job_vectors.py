"""The release's job vectors: int8 codes with one scale a row, given out as unit float32 rows.

Training, evaluation and serving all read these, never the embedder's float output, so that a
cosine is the same number everywhere.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Floats, Rows
from rolecall.platform.errors import IntegrityError

_BLOCK = 8192


class JobVectors:
    """`codes` int8[n, d], `scales` float32[n]: row r is `codes[r] * scales[r]`, given out with length 1, that is
    `codes[r] * inverse_norms[r]`."""

    def __init__(self, codes: npt.NDArray[np.int8], scales: Floats) -> None:
        if codes.ndim != 2 or scales.shape != (len(codes),):
            raise IntegrityError(f"vector codes {codes.shape} with scales {scales.shape}", "[n, d] and [n]")
        self.codes = codes
        self.scales = scales
        squares = np.einsum("nd,nd->n", codes, codes, dtype=np.float32)
        self.inverse_norms = (1.0 / np.sqrt(np.maximum(squares, 1.0))).astype(np.float32)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def width(self) -> int:
        return int(self.codes.shape[1])

    def rows(self, rows: Rows) -> Floats:
        """Unit vectors, float32[len(rows), d]."""
        return np.asarray(self.codes[rows].astype(np.float32) * self.inverse_norms[rows, None], np.float32)

    def cosines(self, rows: Rows, queries: Floats) -> Floats:
        """Products of the rows' unit vectors with `queries` [d, k]: float32[len(rows), k]."""
        if len(rows) > _BLOCK:  # a whole catalogue as float32 would be four times the release's vectors
            blocks = (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))
            return np.concatenate([self.cosines(block, queries) for block in blocks])
        products = self.codes[rows].astype(np.float32) @ queries
        return np.asarray(products * self.inverse_norms[rows, None], np.float32)

    @classmethod
    def load(cls, path: Path) -> JobVectors:
        """Read the release's `vectors.npz` (arrays `codes` and `scales`, no pickle)."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["codes"], arrays["scales"])
