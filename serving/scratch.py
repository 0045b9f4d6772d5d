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
    mine = f"serve-{host or socket.gethostname()}-"
    for folder in root.glob(f"{mine}*"):
        owner = folder.name.removeprefix(mine)
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
    folder = root / f"{mine}{os.getpid() if pid is None else pid}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
