"""The shell around the application, as far as it needs no cluster. `test_serve.py` starts one."""

from __future__ import annotations

import os
import signal
import socket
import threading

import cloudpickle
import pytest

from rolecall.platform.errors import ConflictError, InputError
from rolecall.platform.settings import RegistrySettings, ServeSettings, Settings
from rolecall.serving.app import OPERATION_SLOTS, app, build, most_ongoing, run_server, wait_for_signal


def test_a_taken_port_is_refused_before_anything_is_started() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(serve=ServeSettings(port=taken.getsockname()[1]))
        with pytest.raises(ConflictError, match=r"serve\.port"):
            run_server(settings, blocking=False)


def test_a_replica_has_room_for_operators_when_both_lanes_are_full() -> None:
    serving = ServeSettings(max_ongoing_requests=8, max_queued_requests=4)
    assert most_ongoing(serving) == 2 * 12 + OPERATION_SLOTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_waiting_ends_at_a_signal_and_gives_the_handlers_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    wait_for_signal()
    assert signal.getsignal(number) is before


def test_on_a_cluster_no_setting_travels_with_the_application() -> None:
    registry = RegistrySettings(ledger_url="postgresql+psycopg://u:hunter2@db/ledger")
    assert b"hunter2" in cloudpickle.dumps(build(Settings(registry=registry)))
    assert b"hunter2" not in cloudpickle.dumps(build(Settings(registry=registry, mode="cluster")))


def test_arguments_in_a_serve_configuration_are_refused() -> None:
    with pytest.raises(InputError, match="replicas"):
        app({"replicas": "2"})
