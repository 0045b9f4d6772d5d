"""A damaged file of a model is refused with what is wrong, or loaded whole: nothing else ever comes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.gguf import ModelFileError
from rolecall.serving.llm.loading import load_model
from rolecall.serving.llm.model_runner import ModelRunner

from . import tiny

FILES = ("model.gguf", "model.safetensors", "config.json")
SIZES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    model = tiny.llama(num_key_value_heads=1, max_position_embeddings=32, **SIZES)
    model.save_pretrained(folder)
    tiny.write_gguf(model, folder / "model.gguf", "Q8_0")
    return folder


def loaded(folder: Path, file: str) -> torch.Tensor:
    path = folder / file if file.endswith(".gguf") else folder
    return tiny.logits(ModelRunner(load_model(path, compute="exact"), blocks=2), [1, 2, 3])


def damaged(whole: Path, file: str, data: bytes) -> Path:
    """A copy in which `file` holds `data`."""
    folder = whole.parent / f"{whole.name} damaged"
    shutil.rmtree(folder, ignore_errors=True)  # a file that is mapped may not shrink
    shutil.copytree(whole, folder)
    (folder / file).write_bytes(data)
    return folder


@pytest.mark.parametrize("file", FILES)
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_refused(whole: Path, file: str, share: float) -> None:
    data = (whole / file).read_bytes().rstrip(b"\n")
    cut = damaged(whole, file, data[: int(share * len(data))])
    with pytest.raises(ModelFileError):
        loaded(cut, file)


@pytest.mark.parametrize("file", FILES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_with_wrong_bytes_is_refused_or_loaded_whole(whole: Path, file: str, data: st.DataObject) -> None:
    held = bytearray((whole / file).read_bytes())
    head = {"model.gguf": held.find(b"blk.0.ffn_down") + 60, "model.safetensors": 8 + held[0] + 256 * held[1]}
    places = st.integers(0, head.get(file, len(held)) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=3)):
        held[place] = byte
    try:
        rows = loaded(damaged(whole, file, bytes(held)), file)
    except ModelFileError:
        return
    assert rows.shape[0] == 3
