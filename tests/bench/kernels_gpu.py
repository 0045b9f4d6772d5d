"""Every kernel on a GPU: its share of the measured limit of the device, and its speed against others' kernels.

Inputs are random and as many as fill four times the L2 cache, so that each call finds its own in memory; a walk over
them is captured as a CUDA graph and replayed, ours and the baselines' in turn (torch eager, `torch.compile`, the
attention of cuDNN and Flash through torch, Liger and FlashInfer where they can be imported). What a call gives is held
against each baseline before anything is timed.

`<op>_pct_limit`: max(bytes / bandwidth, operations / peak), rates measured in the same run, over the median time of a
call, at the worst of the operator's shapes. `<op>_vs_<baseline>_x`: median of the turns' ratios, at the worst shape;
`<op>_vs_best_torch_x` the least of those that are torch's own. Operators that did not run are named under `unmeasured`
with the reason, and their goals with them. The last line is kept as tests/bench/results/kernels_gpu.json, on a GPU
only. Exits with 2 where there is none, with 1 where an operator failed.

    python tests/bench/kernels_gpu.py
    python tests/bench/kernels_gpu.py --op rope --op attention --commit 1a2b3c4d5e6f
    python tests/bench/kernels_gpu.py --tune            # proposes configurations, see kernels_gpu_tuning.py
    python tests/bench/kernels_gpu.py --dry             # every call once, tiny, on the CPU: no metrics
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import ROOT, commit, finish, machine

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

import kernels_gpu_tuning
from kernels_gpu_baselines import BASELINES, OUTSIDE, UNLIKE, AbsentError

from rolecall.kernels import measured, roofline, stopwatch
from rolecall.kernels.case import Case, Scale
from rolecall.kernels.cases import OPERATORS, cases
from rolecall.kernels.dispatch import HAS_TRITON, INTERPRETED
from rolecall.kernels.roofline import Roofline

OPS = (
    "rms_norm", "add_rms_norm", "layer_norm", "swiglu", "softmax", "log_softmax", "rope", "attention", "paged_decode",
    "int8_gemm", "int8_gemv", "int4_gemv", "topk", "mol",
)  # fmt: skip
STREAMING = ("rms_norm", "add_rms_norm", "layer_norm", "swiglu", "softmax", "log_softmax")
GOALS: dict[str, tuple[str, float]] = {
    **{f"{op}_pct_limit": (">=", 88.0) for op in STREAMING},
    "rope_pct_limit": (">=", 75.0),
    "paged_decode_pct_limit": (">=", 80.0),
    "paged_decode_vs_best_torch_x": (">=", 1.0),
    "attention_tflops": (">=", 480.0),
    "attention_vs_cudnn_x": (">=", 0.9),
    "int8_gemm_vs_int_mm_x": (">=", 1.0),
    "int8_gemv_pct_limit": (">=", 80.0),
    "topk_pct_limit": (">=", 100 / 1.5),
    "mol_pct_limit": (">=", 50.0),
}
EITHER = ("attention_tflops", "attention_vs_cudnn_x")  # one of these is enough
RESULT = ROOT / "tests" / "bench" / "results" / "kernels_gpu.json"
TOLERANCE = 0.03  # of the largest value: bfloat16's steps, and the rounding of weights
PACKAGES = ("torch", "triton", "numpy", "liger_kernel", "flashinfer-python")


@dataclass(kw_only=True)
class Outcome:
    """What a run came to. `unmeasured`: operator -> why. `absent`: baseline of an operator -> why it was left out."""

    metrics: dict[str, float] = field(default_factory=dict)
    shapes: list[dict[str, Any]] = field(default_factory=list)
    unmeasured: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def main() -> None:
    options = arguments()
    if not options.dry and not torch.cuda.is_available():
        print("no CUDA device: these figures exist on a GPU only; --dry tries every call on the CPU")
        sys.exit(2)
    if options.commit and not unchanged_since(options.commit):
        print(f"kernels/ differs from what it was at {options.commit}: name a commit after which it did not change")
        sys.exit(2)
    device = torch.device("cpu" if options.dry else "cuda")
    torch.set_grad_enabled(False)
    if options.tune:
        kernels_gpu_tuning.tune(device, options.op or OPS, turns=options.turns, dry=options.dry)
        return
    if options.dry:
        roof = roofline.measure(device, size=2**16, edge=32, turns=1)
        outcome = run(options.op or OPS, device, roof, scale="tiny", turns=1)
    else:
        outcome = run(options.op or OPS, device, roofline.measure(device), scale="gpu", turns=options.turns)
    report(outcome, device, commit_named=options.commit, dry=options.dry)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", action="append", choices=OPS, help="may be repeated; default: all")
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--commit", help="where there is no git: the commit of main that kernels/ is of")
    parser.add_argument("--tune", action="store_true", help="propose configurations instead")
    parser.add_argument("--dry", action="store_true", help="try every call once on the CPU, at tiny shapes")
    return parser.parse_args()


def run(
    asked: tuple[str, ...] | list[str], device: torch.device, roof: Roofline, *, scale: Scale, turns: int
) -> Outcome:
    """Measure the operators asked for; the others, and those that fail, are unmeasured."""
    outcome = Outcome()
    for op in OPS:
        if op not in asked:
            outcome.unmeasured[op] = "not asked for"
        elif op not in OPERATORS:
            outcome.unmeasured[op] = "no such operator in kernels/"
        else:
            try:
                metrics, shapes = measure_operator(op, device, roof, scale, turns, outcome.absent)
                outcome.metrics |= metrics
                outcome.shapes += shapes
            except Exception as error:  # noqa: BLE001 (one operator's failure must not cost the others' figures)
                traceback.print_exc()
                outcome.unmeasured[op] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                outcome.failed.append(op)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    for kind, rate in {**roof.bandwidth, **roof.peak}.items():
        outcome.metrics[f"measured_{kind}_g_per_s"] = rate / 1e9
    return outcome


def measure_operator(
    op: str, device: torch.device, roof: Roofline, scale: Scale, turns: int, absent: dict[str, str]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The operator's metrics, each at its worst shape, and what was seen at each shape."""
    seen, shapes = [], []
    for case in cases(op, scale, device):
        arms = arms_of(case, device, absent)
        stopwatch.take_turns(arms, device, turns)
        found = measured.judged(case, arms["ours"], roof)
        values = {f"{op}_pct_limit": found.percent}
        for name, arm in arms.items():
            if name != "ours":
                values[f"{op}_vs_{name}_x"] = stopwatch.ratio(arm.seconds, arms["ours"].seconds)
        torchs = [values[f"{op}_vs_{name}_x"] for name in arms if name not in ("ours", *OUTSIDE)]
        if torchs:
            values[f"{op}_vs_best_torch_x"] = min(torchs)
        if op == "attention":
            values["attention_tflops"] = sum(case.work.operations.values()) / found.seconds / 1e12
        seen.append(values)
        shapes.append(
            {
                "op": op,
                "shape": case.shape,
                "bound": found.bound,
                "limit_us": found.limit * 1e6,
                "us": {name: arm.median * 1e6 for name, arm in arms.items()},
                "captured": {name: arm.captured for name, arm in arms.items()},
            }
        )
        print(
            f"{op:14} {case.shape:44} {found.seconds * 1e6:10.2f} us  {found.percent:6.1f}% of {found.bound}",
            flush=True,
        )
    keys = {key for values in seen for key in values}
    return {key: min(values[key] for values in seen if key in values) for key in sorted(keys)}, shapes


def arms_of(case: Case, device: torch.device, absent: dict[str, str]) -> dict[str, stopwatch.Arm]:
    """Ours and the baselines that can run here, each having given what ours gives."""
    inputs = measured.prepared(case, device) if device.type == "cuda" else [case.inputs(0)]
    arms = {"ours": measured.ours(case, inputs, device)}
    expected = measured.first_tensor(case.run(inputs[0], None)).clone()
    _compare_interpreted(case, inputs[0], device, expected)
    for name, prepare in BASELINES.get(case.op, {}).items():
        try:
            calls = [prepare(i) for i in inputs]
            given = calls[0]()
        except (ImportError, AbsentError, RuntimeError, NotImplementedError) as reason:
            absent[f"{case.op}_vs_{name}"] = f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}"
            continue
        if (case.op, name) not in UNLIKE and not measured.close(expected, given, tolerance=TOLERANCE):
            raise ArithmeticError(f"{case.op} at {case.shape} gives something other than {name}")
        arms[name] = stopwatch.arm_of(calls, device)
    return arms


def _compare_interpreted(case: Case, inputs: Any, device: torch.device, expected: torch.Tensor) -> None:
    """Where kernels are interpreted, the Triton kernel itself is called as it would be on a GPU."""
    if device.type == "cuda" or not (HAS_TRITON and INTERPRETED):
        return
    try:
        given = case.run(inputs, "triton")
    except ValueError as no_kernel:
        if "possible here" not in str(no_kernel):
            raise
        return
    if not measured.close(given, expected, tolerance=TOLERANCE):
        raise ArithmeticError(f"the kernel of {case.op} at {case.shape} gives something other than torch")


def report(outcome: Outcome, device: torch.device, *, commit_named: str | None, dry: bool) -> None:
    """Print everything, the JSON object last, and keep it where a GPU gave it; exits with 1 where something failed."""
    for op, reason in outcome.unmeasured.items():
        print(f"{op}: unmeasured ({reason})")
    for name, reason in outcome.absent.items():
        print(f"{name}: left out ({reason})")
    metrics = {} if dry else outcome.metrics
    goals = verdicts(metrics)
    for key, verdict in goals.items():
        print(f"goal {key} {GOALS[key][0]} {GOALS[key][1]:g}: {verdict}")
    beside = {
        "commit": commit_named or commit(),
        "machine": machine() + (f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""),
        "versions": versions(),
        "goals": goals,
        "unmeasured": outcome.unmeasured,
        "absent": outcome.absent,
        "shapes": outcome.shapes,
    }
    line = finish("kernels_gpu", metrics, beside={**beside, "dry": True} if dry else beside)
    if device.type == "cuda" and not dry:
        keep(line, RESULT)
    if outcome.failed:
        sys.exit(1)


def verdicts(metrics: Mapping[str, float]) -> dict[str, str]:
    """Each goal: met, missed, or unmeasured where its operator was not run."""
    found = {key: _verdict(metrics.get(key), bound) for key, (_, bound) in GOALS.items()}
    if any(found[key] == "met" for key in EITHER):
        found |= {key: "met (by the other)" for key in EITHER if found[key] != "met"}
    return found


def _verdict(value: float | None, bound: float) -> str:
    if value is None:
        return "unmeasured"
    return "met" if value >= bound else "missed"


def keep(line: str, path: Path) -> None:
    """The last line, unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")


def versions() -> dict[str, str]:
    """Of the packages that have a part in the figures, and of CUDA and cuDNN."""
    found = {"python": sys.version.split()[0], "cuda": str(torch.version.cuda), "cudnn": str(_cudnn())}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _cudnn() -> Any:
    version: Callable[[], Any] = torch.backends.cudnn.version
    return version()


def unchanged_since(name: str) -> bool:
    """Whether kernels/ is what it was at that commit; taken on trust where there is no repository."""
    command = ["git", "-C", str(ROOT), "diff", "--quiet", name, "--", "kernels"]
    try:
        inside = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--git-dir"], capture_output=True, check=False
        ).returncode
        return inside != 0 or subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return True


if __name__ == "__main__":
    main()
