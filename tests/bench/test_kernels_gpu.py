"""What can be known of the GPU benchmark without a GPU: every call it makes, what it refuses, and how it judges."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).with_name("kernels_gpu.py")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    path = list(sys.path)
    sys.path.insert(0, str(BENCH.parent))
    spec = importlib.util.spec_from_file_location("kernels_gpu", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernels_gpu"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


def started(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCH), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def test_a_dry_run_makes_every_call_and_claims_nothing(bench: ModuleType) -> None:
    """Ours gives what each baseline gives, or the run fails."""
    done = started("--dry")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["bench"] == "kernels_gpu"
    assert line["dry"] is True
    assert line["metrics"] == {}
    assert set(line["goals"].values()) == {"unmeasured"}
    assert {shape["op"] for shape in line["shapes"]} | set(line["unmeasured"]) == set(bench.OPS)
    for shape in line["shapes"]:
        asked = {"ours", *bench.BASELINES.get(shape["op"], {})}
        left_out = {name.removeprefix(f"{shape['op']}_vs_") for name in line["absent"]}
        assert set(shape["us"]) == asked - left_out
    reasons = [reason for reason in line["absent"].values() if "needs a GPU" not in reason]
    assert all("ModuleNotFoundError" in reason for reason in reasons)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_exits_with_2_and_the_reason(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kernels_gpu.py"])
    with pytest.raises(SystemExit) as exit:
        bench.main()
    assert exit.value.code == 2
    assert "no CUDA device" in capsys.readouterr().out


def test_a_goal_without_its_metric_is_unmeasured_never_met(bench: ModuleType) -> None:
    verdicts = bench.verdicts({"rope_pct_limit": 80.0, "int8_gemv_pct_limit": 79.9, "attention_vs_cudnn_x": 0.95})
    assert verdicts["rope_pct_limit"] == "met"
    assert verdicts["int8_gemv_pct_limit"] == "missed"
    assert verdicts["attention_tflops"].startswith("met")  # either of the two is enough
    others = set(verdicts) - {"rope_pct_limit", "int8_gemv_pct_limit", *bench.EITHER}
    assert {verdicts[key] for key in others} == {"unmeasured"}
    assert bench.verdicts({"attention_tflops": 479.0})["attention_vs_cudnn_x"] == "unmeasured"


def test_goals_are_keys_the_benchmark_can_give(bench: ModuleType) -> None:
    for key in bench.GOALS:
        op, _, rest = next((op, *key.partition(f"{op}_")[1:]) for op in bench.OPS if key.startswith(f"{op}_"))
        baselines = {f"vs_{name}_x" for name in bench.BASELINES.get(op, {})}
        assert rest in {"pct_limit", "tflops", "vs_best_torch_x", *baselines}


def test_a_failing_operator_costs_no_other_its_figures(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setitem(bench.BASELINES, "swiglu", {"torch": lambda _: lambda: torch.zeros(5, 64)})
    roof = bench.Roofline(device="none", bandwidth=dict.fromkeys(("read", "copy", "gather", "stride"), 1e9), peak={})
    outcome = bench.run(["rms_norm", "swiglu"], cpu, roof, scale="tiny", turns=1)
    assert outcome.failed == ["swiglu"]
    assert "something other than torch" in outcome.unmeasured["swiglu"]
    assert outcome.metrics["rms_norm_pct_limit"] > 0
    assert "swiglu_pct_limit" not in outcome.metrics
    assert outcome.unmeasured["rope"] == "not asked for"


def test_the_line_is_kept_unchanged(bench: ModuleType, tmp_path: Path) -> None:
    bench.keep('{"bench": "kernels_gpu"}', tmp_path / "results" / "kernels_gpu.json")
    assert (tmp_path / "results" / "kernels_gpu.json").read_text() == '{"bench": "kernels_gpu"}\n'


def test_kernels_changed_since_a_commit_are_noticed(bench: ModuleType) -> None:
    assert not bench.unchanged_since("no-such-commit")


def test_tuning_tries_what_fits_and_leaves_the_table_as_it_was(bench: ModuleType) -> None:
    tuning = bench.kernels_gpu_tuning
    table = tuning.configurations.TABLE
    found = tuning.tune(torch.device("cpu"), ["rms_norm", "swiglu"], turns=1, dry=True)
    assert tuning.configurations.TABLE is table
    assert all(one["gain_x"] >= tuning.GAIN for one in found)
    default = tuning.Configuration(blocks=tuning.blocks(QUERIES=128, KEYS=64), warps=8, stages=3)
    tried = list(tuning.candidates(default))
    assert len({(tuple(c.blocks.items()), c.warps, c.stages) for c in tried}) == len(tried) == 9 * 5 * 4
    assert all(c.tuned for c in tried)
