"""Texts to vectors through the cache: what is unknown is encoded by Ray Data actors, and kept chunk by chunk.

A killed run loses at most the chunk each actor was at. The result depends on the texts alone: not on
what the cache held, on the number of actors, nor on the order in which they finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.features.embedder import Embedder
from rolecall.features.text import text_hash
from rolecall.features.vector_cache import VectorCache
from rolecall.platform.ray_runtime import actor_env
from rolecall.platform.settings import EmbedderSettings

Progress = Callable[[int, int], None]
"""Called with (texts done, texts to do) after each chunk."""

_CHARACTERS_A_TOKEN = 6
CHUNK = 256
"""Texts that are encoded and kept at a time."""
FEW = 4 * CHUNK
"""So many unknown texts are done here before a Ray of this machine has started its actors."""


def embed_texts(
    texts: Sequence[str],
    embedder: Embedder,
    cache: VectorCache,
    *,
    distributed: Callable[[], object] | None = None,
    few: int = FEW,
    threads_per_actor: int = 1,
    progress: Progress | None = None,
) -> npt.NDArray[np.float32]:
    """Unit vectors in the order of `texts`, float32 [n, dimension].

    `distributed` starts Ray where none runs; it is called where more than `few` texts are unknown, which actors then
    encode. Fewer, and all without it, are encoded in this process.
    """
    keys = [text_hash(text) for text in texts]
    unique = dict(zip(keys, texts, strict=True))
    found = cache.lookup(embedder.hash, list(unique))
    missing = sorted((key for key in unique if key not in found), key=lambda key: _order(unique[key], embedder))
    chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
    if distributed and len(missing) > few:
        distributed()
        encoded = _with_ray(chunks, unique, embedder.settings, threads_per_actor)
    else:
        encoded = ((chunk, embedder.encode([unique[key] for key in chunk])) for chunk in chunks)
    done = 0
    for chunk, vectors in encoded:
        cache.store(embedder.hash, chunk, vectors)
        found.update(zip(chunk, vectors, strict=True))
        done += len(chunk)
        if progress is not None:
            progress(done, len(missing))
    if not keys:
        return np.zeros((0, embedder.dimension), dtype=np.float32)
    return np.stack([found[key] for key in keys]).astype(np.float32, copy=False)


def _order(text: str, embedder: Embedder) -> tuple[int, str]:
    """Texts of one length make full batches. Where `max_tokens` cuts, texts that begin alike make one chunk: they may
    be the same tokens."""
    return min(len(text), _CHARACTERS_A_TOKEN * embedder.settings.max_tokens), text


def _with_ray(
    chunks: Sequence[Sequence[bytes]], texts: dict[bytes, str], settings: EmbedderSettings, threads: int
) -> Iterator[tuple[list[bytes], npt.NDArray[np.float32]]]:
    """Chunks as actors finish them. Fewer actors than logical CPUs, so that reading never waits for one."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    blocks = [pa.table({"key": list(chunk), "text": [texts[key] for key in chunk]}) for chunk in chunks]
    free = int(ray.cluster_resources().get("CPU", 2)) - 1
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # progress is ours to show
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    encoded = ray.data.from_arrow(blocks).map_batches(
        ChunkEncoder,
        fn_constructor_kwargs={"settings": settings, "threads": threads},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=max(1, min(settings.actors, len(chunks), free))),
        num_cpus=1,
        runtime_env=actor_env(threads),
    )
    batches: Iterator[Any] = iter(encoded.iter_batches(batch_size=None, batch_format="pyarrow"))
    for batch in batches:
        flat = batch["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        yield batch["key"].to_pylist(), flat.reshape(batch.num_rows, -1)


class ChunkEncoder:
    """The actor: loads the model once, then turns tables of (key, text) into (key, vector)."""

    def __init__(self, settings: EmbedderSettings, threads: int) -> None:
        self.embedder = Embedder(settings, threads=threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self.embedder.encode(batch["text"].to_pylist())
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        return pa.table({"key": batch["key"], "vector": lists})
