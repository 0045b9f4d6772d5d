"""Real services that tests start for themselves: PostgreSQL, Redis and an S3 server, each on a free port.

Where a binary is missing the test is skipped with the reason; where ROLECALL_TEST_SERVICES=required is set (as
`.ci/run` does after it has installed them) it fails.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from moto.server import ThreadedMotoServer
from pyarrow import fs

from rolecall.pipelines.demo import free_ports

REQUIRED = "ROLECALL_TEST_SERVICES"
START_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A server without passwords on a loopback port."""

    port: int

    def database(self) -> str:
        """The SQLAlchemy URL of a new, empty database."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def answers(self) -> None:
        """Raises psycopg.OperationalError while the server does not take connections."""
        psycopg.connect(self._address("postgres")).close()

    def _address(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


@dataclass(frozen=True, kw_only=True)
class S3Bucket:
    """An empty bucket, and the options that reach it as `deltalake` takes them."""

    name: str
    options: dict[str, str]

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    @property
    def filesystem(self) -> fs.S3FileSystem:
        return _filesystem(self.options)

    def keys(self, prefix: str = "") -> list[str]:
        """Every object below a prefix, without the bucket's name."""
        found = self.filesystem.get_file_info(
            fs.FileSelector(f"{self.name}/{prefix}".rstrip("/"), recursive=True, allow_not_found=True)
        )
        return [info.path.removeprefix(f"{self.name}/") for info in found if info.type == fs.FileType.File]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """A PostgreSQL server with a data folder of its own; `database()` gives a test an empty database."""
    binaries = _binary("postgres", "/usr/lib/postgresql").parent
    folder = Path(tempfile.mkdtemp(prefix="rcpg", dir="/tmp"))
    prefix = _as_other_user(folder)
    port = free_ports(1)[0]
    made = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run([*prefix, *made, "--locale=C"], check=True, capture_output=True, cwd="/")
    command = [binaries / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder]
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off"]
    server = PostgresServer(port=port)
    with _running([*prefix, *command, *options], folder, stop=signal.SIGQUIT) as process:
        _wait_until(server.answers, process, folder, psycopg.OperationalError)
        yield server


@pytest.fixture(scope="session")
def ledger_database(postgresql: PostgresServer) -> str:
    """The URL of one database that tests of the ledger share, each dropping its tables first."""
    return postgresql.database()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis server that keeps nothing on disk."""
    folder = Path(tempfile.mkdtemp(prefix="rcredis", dir="/tmp"))
    port = free_ports(1)[0]
    command = [_binary("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    client = redis.Redis(host="127.0.0.1", port=port)
    with _running([*command, "--appendonly", "no"], folder, stop=signal.SIGTERM) as process:
        _wait_until(client.ping, process, folder, redis.ConnectionError)
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a Redis server that was emptied."""
    redis.Redis.from_url(redis_server).flushall()
    return redis_server


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, str]]:
    """Options that reach an S3 server in this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    server.stop()


@pytest.fixture
def s3_bucket(s3_options: dict[str, str]) -> S3Bucket:
    return new_bucket(s3_options)


def new_bucket(options: dict[str, str]) -> S3Bucket:
    """A bucket that no other test has."""
    name = f"bucket-{uuid4().hex}"
    _filesystem(options).create_dir(name)
    return S3Bucket(name=name, options=options)


def unavailable(reason: str) -> None:
    """Skip with the reason, or fail where this machine must have every service."""
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{reason}, and {REQUIRED}=required")
    pytest.skip(reason)


def _binary(name: str, packages: str = "") -> Path:
    """From PATH, else the newest of Debian's versioned folders."""
    if found := shutil.which(name):
        return Path(found)  # not resolved: Debian's redis-server is a link that its binary goes by
    versions = sorted(Path(packages).glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3])) if packages else []
    if not versions:
        unavailable(f"{name} is not installed")
    return versions[-1]


def _as_other_user(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: give it the folder and the words that start it as user `postgres`."""
    if os.geteuid():
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        unavailable("there is no user postgres to run PostgreSQL as")
        raise
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@contextlib.contextmanager
def _running(command: Sequence[object], folder: Path, *, stop: signal.Signals) -> Iterator[subprocess.Popen[bytes]]:
    """A server that logs into its folder; ended, and the folder removed, at the end of the block."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, cwd="/")
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until(
    answers: Callable[[], object], process: subprocess.Popen[bytes], folder: Path, *refusals: type[Exception]
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answers()
        except refusals:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)
        else:
            return


def _filesystem(options: dict[str, str]) -> fs.S3FileSystem:
    return fs.S3FileSystem(
        access_key=options["AWS_ACCESS_KEY_ID"],
        secret_key=options["AWS_SECRET_ACCESS_KEY"],
        region=options["AWS_REGION"],
        endpoint_override=options["AWS_ENDPOINT_URL"].removeprefix("http://"),
        scheme="http",
        allow_bucket_creation=True,
    )
