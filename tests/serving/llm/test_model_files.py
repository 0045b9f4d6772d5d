"""Models from the hub: fetched once, whole, and never asked for again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

SHA = "0123456789" * 4
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "model.gguf": b"GGUF" * 99,
    "notes.bin": b"no part of a model",
}


class Hub(ThreadingHTTPServer):
    """What the hub's client asks of the hub, for one repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.sent: list[str] = []


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/owner/little/tree/"):
            listed = [{"type": "file", "path": n, "size": len(d), "oid": oid(d)} for n, d in FILES.items()]
            self.answer(json.dumps(listed).encode())
        elif path.startswith("/api/models/owner/little"):
            self.answer(
                json.dumps({"id": "owner/little", "sha": SHA, "siblings": [{"rfilename": n} for n in FILES]}).encode()
            )
        elif path.startswith("/owner/little/resolve/") and name in FILES:
            if self.command == "GET":
                self.server.sent.append(name)
            self.answer(FILES[name], etag=f'"{oid(FILES[name])}"')
        else:
            self.send_error(404)

    def answer(self, data: bytes, *, etag: str = '""') -> None:
        self.send_response(200)
        for header, value in (("ETag", etag), ("X-Repo-Commit", SHA), ("Content-Length", str(len(data)))):
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def found(name: str, home: Path, hub: Hub) -> subprocess.CompletedProcess[str]:
    """`find` in a process of its own, which reads its settings of the hub when it starts."""
    env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}"}
    code = "import sys; from rolecall.serving.llm.model_files import find; print(find(sys.argv[1]))"
    return subprocess.run(
        [sys.executable, "-c", code, name], env={**env, "HF_HUB_DISABLE_XET": "1"}, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("hf://owner/little", ["config.json", "model.safetensors"]),
        (f"hf://owner/little/model.gguf@{SHA}", ["model.gguf"]),
    ],
)
def test_a_model_of_the_hub_is_fetched_once_and_found_without_the_hub_from_then_on(
    tmp_path: Path, hub: Hub, name: str, held: list[str]
) -> None:
    first = found(name, tmp_path, hub)
    assert first.returncode == 0, first.stderr
    place = Path(first.stdout.strip())
    folder = place if place.is_dir() else place.parent
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {file: FILES[file] for file in held}
    assert sorted(hub.sent) == held
    hub.shutdown()
    hub.server_close()
    assert found(name, tmp_path, hub).stdout == first.stdout


def test_what_the_hub_has_not_is_refused_by_name(tmp_path: Path, hub: Hub) -> None:
    refused = found("hf://owner/other", tmp_path, hub)
    assert "FileNotFoundError: got model 'hf://owner/other'" in refused.stderr
