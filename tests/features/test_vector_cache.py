"""The vector cache: what is stored is found, and only under its own keys."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rolecall.features.text import text_hash
from rolecall.features.vector_cache import VectorCache
from rolecall.platform.errors import InputError


@pytest.fixture
def cache(tmp_path: Path) -> VectorCache:
    return VectorCache(tmp_path / "deep" / "vectors.db")


def _keys(count: int) -> list[bytes]:
    return [text_hash(str(i)) for i in range(count)]


def test_stored_vectors_come_back_bit_for_bit(cache: VectorCache) -> None:
    keys, vectors = _keys(1200), np.random.default_rng(0).standard_normal((1200, 7)).astype(np.float32)
    cache.store("e", keys, vectors)
    found = cache.lookup("e", keys)
    assert all((found[key] == vector).all() for key, vector in zip(keys, vectors, strict=True))


def test_unknown_texts_and_other_embedders_find_nothing(cache: VectorCache) -> None:
    cache.store("e", _keys(2), np.ones((2, 3), np.float32))
    assert cache.lookup("e", [text_hash("other")]) == {}
    assert cache.lookup("f", _keys(2)) == {}
    assert (cache.count("e"), cache.count("f")) == (2, 0)


def test_a_text_keeps_the_first_vector_it_was_given(cache: VectorCache) -> None:
    cache.store("e", _keys(1), np.ones((1, 3), np.float32))
    cache.store("e", _keys(1), np.zeros((1, 3), np.float32))
    assert cache.lookup("e", _keys(1))[_keys(1)[0]].tolist() == [1, 1, 1]


def test_texts_and_vectors_of_different_number_are_refused(cache: VectorCache) -> None:
    with pytest.raises(InputError):
        cache.store("e", _keys(2), np.ones((1, 3), np.float32))


def test_many_writers_at_once_lose_nothing(cache: VectorCache) -> None:
    keys = _keys(400)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: cache.store("e", keys[i::4], np.ones((100, 3), np.float32)), range(4)))
    assert cache.count("e") == 400


def test_a_vector_takes_little_more_room_than_its_own_bytes(cache: VectorCache) -> None:
    cache.store("e" * 64, _keys(2000), np.ones((2000, 384), np.float32))
    assert cache.path.stat().st_size < 1.6 * 2000 * 384 * 4


_KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from rolecall.features.vector_cache import VectorCache
cache = VectorCache(Path(sys.argv[1]))
cache.store("e", [bytes([i]) for i in range(50)], np.ones((50, 3), np.float32))
with cache._connected() as database:
    database.execute("INSERT INTO vectors VALUES ('e', ?, ?)", (b"half", b"written"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_last_commit(cache: VectorCache) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", _KILLED, str(cache.path)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert cache.count("e") == 50
