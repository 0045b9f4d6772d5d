"""The compiled operators: built once, whole or not at all, and done without where they cannot be."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rolecall.kernels.cpp import build
from rolecall.kernels.int8_topk import int8_topk
from rolecall.kernels.quantization import quantize_rows
from rolecall.kernels.weight_formats import FORMATS, dequantize_weight, quantize_weight, tile_weight
from rolecall.kernels.weight_only import Mode, reference, weight_only_linear

ROOT = Path(__file__).resolve().parents[2]
MODES: list[Mode] = ["exact", "fast"]
compiled = pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")


@pytest.fixture
def small_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One quick source in place of the real ones, with the functions that are looked up."""
    folder = tmp_path / "sources"
    folder.mkdir()
    functions = "".join(f'extern "C" int {name}() {{ return 7; }}\n' for name in build.SIGNATURES)
    (folder / "all.cpp").write_text(functions)
    monkeypatch.setattr(build, "HERE", folder)
    return folder


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()


@compiled
def test_what_was_built_is_found_again_and_new_sources_are_another_build(small_sources: Path, tmp_path: Path) -> None:
    first = build.load(tmp_path / "kept").path
    stamp = first.stat().st_mtime_ns
    assert build.load(tmp_path / "kept").path == first
    assert first.stat().st_mtime_ns == stamp
    (small_sources / "all.cpp").write_text((small_sources / "all.cpp").read_text() + "// changed\n")
    assert build.load(tmp_path / "kept").path != first


@compiled
@pytest.mark.usefixtures("small_sources")
def test_a_build_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / f"operators-{build.fingerprint(build.find_compiler())}.so"
    path.write_bytes(b"\x7fELF")
    assert build.load(tmp_path).lasting.read_bytes(None, 0, 1) == 7


@compiled
@pytest.mark.usefixtures("small_sources")
def test_users_that_come_together_all_get_one_build(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        paths = {library.path for library in threads.map(lambda _: build.load(tmp_path / "kept"), range(4))}
    assert len(paths) == 1
    left = {path.name for path in (tmp_path / "kept").iterdir()}
    assert left == {paths.pop().name, "lock"}


@compiled
def test_a_build_that_fails_leaves_nothing_and_says_why(small_sources: Path, tmp_path: Path) -> None:
    (small_sources / "all.cpp").write_text("no C++\n")
    with pytest.raises(RuntimeError, match="failed with"):
        build.load(tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["lock"]


@pytest.mark.usefixtures("without_compiler")
def test_without_a_compiler_one_line_is_logged_and_torch_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    weight = tile_weight(quantize_weight(torch.eye(32), "int8_channel"))
    try:
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                y = weight_only_linear(torch.ones(1, 32), weight)
    finally:
        build.library.cache_clear()
    assert torch.allclose(y, torch.ones(1, 32))
    assert len(caplog.records) == 1
    assert "no C++ compiler" in caplog.records[0].getMessage()
    assert "\n" not in caplog.records[0].getMessage()


@compiled
def test_a_forked_child_computes_without_the_threads_it_lost() -> None:
    program = """
import os, torch
from rolecall.kernels.weight_formats import quantize_weight, tile_weight
from rolecall.kernels.weight_only import weight_only_linear
torch.set_num_threads(2)
weight = tile_weight(quantize_weight(torch.randn(4096, 256), "int8_channel"))
x = torch.randn(1, 256)
y = weight_only_linear(x, weight)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(weight_only_linear(x, weight), y) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "infra/import_root"), "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


@compiled
def test_callers_at_the_same_time_each_get_their_own_result() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = tile_weight(quantize_weight(torch.randn(4096, 512, generator=generator), "int4_group"))
    xs = [torch.randn(3, 512, generator=generator) for _ in range(40)]
    alone = [weight_only_linear(x, weight, mode="fast") for x in xs]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda x: weight_only_linear(x, weight, mode="fast"), xs))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["x86-64", "haswell"])
def test_processors_with_fewer_instructions_give_right_results(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform.machine() != "x86_64" or "avx2" not in build.processor():
        pytest.skip("needs an x86-64 with AVX2")
    flags = tuple(f"-march={architecture}" if flag == "-march=native" else flag for flag in build.FLAGS)
    monkeypatch.setattr(build, "FLAGS", flags)
    operators = build.load(tmp_path)
    monkeypatch.setattr(build, "library", lambda: operators)
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(6, 100, generator=generator), torch.randn(40, 100, generator=generator)
    for format in FORMATS:
        weight = quantize_weight(w, format)
        for mode in MODES:
            y = weight_only_linear(x, tile_weight(weight), mode=mode, backend="cpp")
            right = reference(x, dequantize_weight(weight).double(), mode)
            assert torch.allclose(y.double(), right, atol=2e-5)
    items = quantize_rows(torch.randn(5000, 100, generator=generator))
    ours, right = int8_topk(x, items, 60), int8_topk(x, items, 60, backend="torch")
    assert torch.equal(ours.rows, right.rows)
    assert torch.equal(ours.scores, right.scores)
