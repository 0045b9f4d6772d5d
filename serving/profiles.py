"""From a profile to its vector: the embedder is the slowest thing a request can ask for, so vectors are kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

import numpy as np

from rolecall.features.catalogue import Floats
from rolecall.features.context import CandidateContext
from rolecall.features.text import candidate_text


class Encoder(Protocol):
    """Turns texts into unit vectors float32[n, d]."""

    def encode(self, texts: Sequence[str]) -> Floats: ...


class TextVectors:
    """Vectors of texts, the last few kept: the embedder is the slowest thing a request can ask for."""

    def __init__(self, encoder: Encoder, *, kept: int = 20_000) -> None:
        self._encoder = encoder
        self._kept = kept
        self._vectors: OrderedDict[bytes, Floats] = OrderedDict()
        self._lock = Lock()

    def vector(self, text: str) -> Floats:
        """Unit vector float32[d]."""
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        with self._lock:
            if key in self._vectors:
                self._vectors.move_to_end(key)
                return self._vectors[key]
        vector = np.asarray(self._encoder.encode([text])[0], np.float32)
        with self._lock:
            self._vectors[key] = vector
            while len(self._vectors) > self._kept:
                self._vectors.popitem(last=False)
        return vector


class ProfileVectors(TextVectors):
    """Vectors of profile texts."""

    def of(self, context: CandidateContext) -> Floats | None:
        """Unit vector float32[d] of the profile's text, None where the profile says nothing."""
        text = candidate_text(context)
        return self.vector(text) if text else None
