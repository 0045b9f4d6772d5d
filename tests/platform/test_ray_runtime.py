"""Ray start-up: what is decided before it starts, and what a started one shows."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.ray_runtime import (
    RayHandle,
    _session_folder,
    actor_env,
    environment,
    ray_session,
    runtime_folder,
    start_ray,
)
from rolecall.platform.settings import RaySettings

LONG_HOME = Path("/tmp") / ("a-rather-long-name-" * 6) / ".rolecall"


def test_sockets_of_any_home_fit_into_107_bytes() -> None:
    for home in (Path("/h"), LONG_HOME):
        names = environment(RaySettings(), home)
        for key in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
            folder, name = os.path.split(names[key])
            assert len(f"{folder}/{'f' * 56}/{name}.1234567.tmp") <= 107


@pytest.mark.parametrize("name", ["plain", "with spaces", "Büro", "long" * 40])
def test_session_files_lie_in_a_short_ascii_folder_of_the_homes_own(name: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = _session_folder(Path(short) / name)
        assert str(folder).isascii()
        assert len(f"{folder}/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store") <= 107
        assert folder == _session_folder(Path(short) / name) != _session_folder(Path(short) / "other")


def test_each_home_has_one_private_folder_of_its_own() -> None:
    folder = runtime_folder(LONG_HOME)
    assert folder == runtime_folder(LONG_HOME)
    assert folder != runtime_folder(LONG_HOME / "other")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_proxy_folder_too_long_for_a_socket_is_refused_with_the_limit() -> None:
    with pytest.raises(InputError, match="at most"):
        environment(RaySettings(haproxy_folder="/tmp/" + "x" * 40), Path("/h"))


def test_ports_and_auth_mode_are_said_outright() -> None:
    settings = RaySettings(haproxy_metrics_port=19101, haproxy_stats_port=18404, auth_mode="token")
    names = environment(settings, Path("/h"))
    assert names["RAY_SERVE_HAPROXY_METRICS_PORT"] == "19101"
    assert names["RAY_SERVE_HAPROXY_STATS_PORT"] == "18404"
    assert names["RAY_AUTH_MODE"] == "token"
    assert names["RAY_USAGE_STATS_ENABLED"] == "0"


def test_without_the_proxy_serve_is_left_as_it_is() -> None:
    assert not any("SERVE" in name for name in environment(RaySettings(haproxy=False), Path("/h")))


def test_workers_find_the_package_by_an_absolute_path() -> None:
    roots = environment(RaySettings(), Path("/h"))["PYTHONPATH"].split(os.pathsep)
    assert all(Path(root).is_absolute() for root in roots)
    assert any((Path(root) / "rolecall").is_dir() for root in roots)


def test_an_address_nobody_answers_at_is_unavailable(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rolecall.platform.errors import UnavailableError\n"
        "from rolecall.platform.ray_runtime import start_ray\n"
        "from rolecall.platform.settings import RaySettings\n"
        "try: start_ray(RaySettings(address='127.0.0.1:1'), Path(sys.argv[1]))\n"
        "except UnavailableError as error: print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_gcs_rpc_server_connect_timeout_s": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=True
    )
    assert "no Ray answers at 127.0.0.1:1" in done.stdout
    assert issubclass(UnavailableError, ConnectionError)


@pytest.fixture(scope="module")
def ray_handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHandle]:
    with pytest.MonkeyPatch.context() as patch:
        for name in environment(RaySettings(), Path("/h")):
            patch.setenv(name, os.environ.get(name, ""))
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_session(RaySettings(haproxy=False, object_store_mb=80), tmp_path_factory.mktemp("home")) as handle:
            yield handle


def test_a_local_cluster_listens_on_the_loopback_only(ray_handle: RayHandle) -> None:
    host, _, port = ray_handle.address.rpartition(":")
    assert host == "127.0.0.1"
    outside = _outside_address()
    if outside is None:
        pytest.skip("this machine has no address besides the loopback")
    with pytest.raises(OSError), socket.create_connection((outside, int(port)), timeout=2):
        pass


def test_workers_import_the_package_and_have_the_threads_asked_for(ray_handle: RayHandle) -> None:
    import ray

    def look() -> tuple[str, str]:
        from rolecall.platform.errors import RoleCallError

        return RoleCallError.__name__, os.environ["OMP_NUM_THREADS"]

    task = ray.remote(look).options(runtime_env=actor_env(3))
    assert ray.get(task.remote()) == ("RoleCallError", "3")


def test_there_are_at_least_four_logical_cpus(ray_handle: RayHandle) -> None:
    import ray

    assert ray.cluster_resources()["CPU"] >= 4


def test_a_second_start_joins_the_first_and_does_not_end_it(ray_handle: RayHandle, tmp_path: Path) -> None:
    import ray

    with ray_session(RaySettings(), tmp_path) as second:
        assert second.address == ray_handle.address
        assert not second.owned
    assert ray.is_initialized()


def test_a_process_attaches_to_a_running_cluster_and_leaves_it_running(ray_handle: RayHandle, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from rolecall.platform.ray_runtime import start_ray\n"
        "from rolecall.platform.settings import RaySettings\n"
        "handle = start_ray(RaySettings(), Path(sys.argv[1]))\n"
        "print(handle.address); handle.stop()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": ray_handle.address}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith(ray_handle.address)
    assert start_ray(RaySettings(), tmp_path).address == ray_handle.address


def _outside_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address
