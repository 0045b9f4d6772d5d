"""Copies of killed processes do not pile up; those of living ones and of other hosts stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rolecall.serving.scratch import process_scratch


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_folders_of_dead_processes_of_this_host_are_removed(tmp_path: Path) -> None:
    dead = dead_pid()
    killed = process_scratch(tmp_path, pid=dead, host="here")
    (killed / "edge-1").mkdir()
    elsewhere = process_scratch(tmp_path, pid=dead, host="there")
    living = process_scratch(tmp_path, pid=os.getppid(), host="here")
    foreign = tmp_path / "serve-here-notes"
    foreign.mkdir()
    mine = process_scratch(tmp_path, host="here")
    assert not killed.exists()
    assert all(folder.is_dir() for folder in (elsewhere, living, foreign, mine))


def test_a_process_gets_the_same_folder_again(tmp_path: Path) -> None:
    assert process_scratch(tmp_path) == process_scratch(tmp_path)
