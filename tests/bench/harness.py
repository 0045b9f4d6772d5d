"""What every benchmark shares: where data lies, on which machine and commit it ran, and the last line it prints.

A benchmark prints a readable table, exits non-zero on failure, and its last line is one JSON object:
`{"bench": name, "commit": .., "machine": .., "metrics": {key: number}}`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Short id of the commit, with `+` where the working tree differs from it; `unknown` outside a repository."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def machine() -> str:
    """Processor, cores, memory and Python, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


def finish(
    name: str,
    metrics: Mapping[str, float],
    *,
    goals: Mapping[str, tuple[str, float]] | None = None,
    beside: Mapping[str, object] | None = None,
) -> str:
    """Print the metrics as a table, each beside its goal (`("<=", 3.0)`), then the JSON line, which is returned.

    `beside`: more for the line, next to the metrics; a `commit` or `machine` there stands for our own. A metric that
    is not a finite number is a failure of the benchmark: exits with 1.
    """
    width = max(map(len, metrics), default=0)
    for key, value in metrics.items():
        print(f"{key:<{width}}  {value:>12,.4g}{_beside(value, (goals or {}).get(key))}")
    bad = [key for key, value in metrics.items() if not math.isfinite(value)]
    if bad:
        sys.exit(f"not a finite number: {', '.join(bad)}")
    known = {"bench": name, "commit": commit(), "machine": machine(), "metrics": dict(metrics)}
    line = json.dumps({**known, **(beside or {})})
    print(line, flush=True)
    return line


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """`--data FOLDER`, the folder that holds `sjr/`."""
    parser.add_argument("--data", type=Path, help="folder that holds sjr/ (default $BENCH_DATA, else ../shared/data)")


def data_folder(given: Path | None, needs: str = "sjr") -> Path:
    """The data folder. Exits with 2 and the reason where it, or what the benchmark needs in it, does not exist."""
    named = given or (Path(os.environ["BENCH_DATA"]) if os.environ.get("BENCH_DATA") else None)
    folder = (named or ROOT.parent / "shared" / "data").resolve()
    if not (folder / needs).is_dir():
        print(f"no folder {folder / needs}: name the folder that holds {needs}/ with --data or BENCH_DATA")
        sys.exit(2)
    return folder


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _beside(value: float, goal: tuple[str, float] | None) -> str:
    if goal is None:
        return ""
    sign, bound = goal
    met = value <= bound if sign == "<=" else value >= bound
    return f"   goal {sign} {bound:g}: {'met' if met else 'MISSED'}"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
