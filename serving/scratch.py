"""A folder of its own for each serving process, for the private copies of indexes it opens.

A process that was killed leaves its copies behind: the next one on the same host removes them.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path


def process_scratch(root: Path, *, pid: int | None = None, host: str | None = None) -> Path:
    """Create this process's folder below `root`, empty, and remove those of dead processes of this host."""
    mine = _prefix(host)
    for folder in _dead(root, mine):
        shutil.rmtree(folder, ignore_errors=True)
    folder = root / f"{mine}{os.getpid() if pid is None else pid}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def leftovers(root: Path, *, host: str | None = None) -> list[Path]:
    """Folders that no living process of this host works in: those of dead servers, and of runs (none is under way)."""
    return [*_dead(root, _prefix(host)), *sorted([*root.glob("edge-*"), *root.glob("asof-*")])]


def _prefix(host: str | None) -> str:
    return f"serve-{host or socket.gethostname()}-"


def _dead(root: Path, mine: str) -> list[Path]:
    owners = {folder: folder.name.removeprefix(mine) for folder in sorted(root.glob(f"{mine}*"))}
    return [folder for folder, owner in owners.items() if owner.isdigit() and not _alive(int(owner))]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
