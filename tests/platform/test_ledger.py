"""The ledger: safe first opening, one writer at a time, locks that die with their holder."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert, inspect, select, text, update

from rolecall.platform.errors import SettingsError
from rolecall.platform.ledger import METADATA, WATERMARKS, exclusive, open_ledger, write

OPEN = "import sys; from rolecall.platform.ledger import open_ledger; open_ledger(sys.argv[1]).dispose()"
HOLD = """
import sys
from rolecall.platform.ledger import METADATA, exclusive, open_ledger
with exclusive(open_ledger(sys.argv[1]), "mirror"):
    print("held", flush=True)
    sys.stdin.read()
"""


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'home' / 'ledger.db'}"


def test_processes_that_open_a_new_ledger_at_once_all_succeed(tmp_path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", OPEN, url(tmp_path)], stderr=subprocess.PIPE) for _ in range(4)]
    outcomes = [(child.communicate()[1].decode(), child.returncode) for child in children]
    assert outcomes == [("", 0)] * 4
    assert set(inspect(open_ledger(url(tmp_path))).get_table_names()) == set(METADATA.tables)


def test_opening_twenty_times_in_threads_leaves_one_set_of_tables(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(lambda _: open_ledger(url(tmp_path)), range(20)))
    assert sorted(inspect(engines[0]).get_table_names()) == sorted(METADATA.tables)


def test_every_connection_commits_to_disk(tmp_path: Path) -> None:
    with open_ledger(url(tmp_path)).connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///:memory:", "mysql://host/db"])
def test_a_url_that_keeps_nothing_or_is_unknown_is_refused(bad: str) -> None:
    with pytest.raises(SettingsError):
        open_ledger(bad)


def test_nobody_writes_between_a_read_and_its_write(tmp_path: Path) -> None:
    engine = open_ledger(url(tmp_path))
    with write(engine, WATERMARKS) as connection:
        connection.execute(insert(WATERMARKS).values(name="n", sequence=0))

    def increment(_: int) -> None:
        with write(engine, WATERMARKS) as connection:
            seen = connection.scalar(select(WATERMARKS.c.sequence))
            connection.execute(update(WATERMARKS).values(sequence=(seen or 0) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(100)))
    with engine.connect() as connection:
        assert connection.scalar(select(WATERMARKS.c.sequence)) == 100


def test_a_block_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = open_ledger(url(tmp_path))

    def fail_half_way() -> None:
        with write(engine, WATERMARKS) as connection:
            connection.execute(insert(WATERMARKS).values(name="n", sequence=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    with engine.connect() as connection:
        assert connection.scalar(select(WATERMARKS.c.sequence)) is None


def test_a_reader_is_not_kept_waiting_by_a_writer(tmp_path: Path) -> None:
    engine = open_ledger(url(tmp_path))
    with write(engine, WATERMARKS) as writer:
        writer.execute(insert(WATERMARKS).values(name="n", sequence=1))
        with engine.connect() as reader:
            assert reader.scalar(select(WATERMARKS.c.sequence)) is None


def test_a_named_lock_admits_one_at_a_time(tmp_path: Path) -> None:
    engine = open_ledger(url(tmp_path))
    inside: list[int] = []
    most: list[int] = []

    def enter(number: int) -> None:
        with exclusive(engine, "mirror"):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(200)))
    assert max(most) == 1


def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, url(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.send_signal(signal.SIGKILL)
    with exclusive(open_ledger(url(tmp_path)), "mirror"):
        assert child.wait() == -signal.SIGKILL
