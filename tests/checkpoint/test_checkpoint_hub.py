"""A hub name becomes a local folder; the hub here is a server on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from rlvr_limit.checkpoint import resolve
from rlvr_limit.types import UserError
from tests.support import checkpoint_folders as made

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = """
import json, logging, sys
from rlvr_limit.checkpoint.hub import resolve
from rlvr_limit.types import UserError
logging.basicConfig()
for name, revision, with_weights in json.load(sys.stdin):
    try:
        print(resolve(name, revision, with_weights))
    except UserError as error:
        print(f"error: {error}")
"""


class Hub:
    """A hub with one model, owner/tiny, and one that is gated, owner/gated."""

    def __init__(self, files: dict[str, bytes]):
        self.files, self.sent = files, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(*hub.answer(unquote(urlsplit(self.path).path)))

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.sent.append(path.rpartition("/")[2])
                self._answer(*hub.answer(path))

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """The test's output is no access log."""

        return Handler

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a path, as far as huggingface_hub asks."""
        found = re.fullmatch(r"/api/models/(owner/\w+)(?:/(?:revision|tree)/([\w.-]+))?", path)
        if found and found[1] == "owner/tiny":
            if found[2] not in (None, "main", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            siblings = [{"rfilename": name} for name in self.files]
            tree = [{"type": "file", "path": n, "size": len(x), "oid": _etag(x)} for n, x in self.files.items()]
            info = {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
            body = json.dumps(tree if "/tree/" in path else info).encode()
            return 200, {"Content-Type": "application/json"}, body
        if found and found[1] == "owner/gated":
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        found = re.fullmatch(rf"/owner/tiny/resolve/(?:main|{COMMIT})/(.+)", path)
        if found and found[1] in self.files:
            body = self.files[found[1]]
            return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(body)}"'}, body
        return 404, {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"}, b""


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = made.write(tmp_path_factory.mktemp("tiny"), made.QWEN2, made.tensors(made.QWEN2), shards=2)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    others = ("pytorch_model.bin", "original/model.safetensors", "README.md")
    return found | {
        "tokenizer.json": b"{}",
        "generation_config.json": b'{"eos_token_id": 1}',
        **dict.fromkeys(others, b"no"),
    }


@pytest.fixture(scope="module")
def hub(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of huggingface_hub."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def answers(hub: Hub, home: Path) -> list[str]:
    """What `resolve` said to these requests, in order, while the hub was in reach."""
    lines, log = fetch(
        hub.endpoint,
        home,
        ("owner/tiny", "", False),
        ("owner/tiny", COMMIT, True),
        ("owner/tiny", "", True),
        ("owner/none", "", True),
        ("owner/tiny", "v2", True),
        ("owner/gated", "", True),
    )
    assert "out of reach" not in log
    return lines


@pytest.fixture(scope="module")
def answers_from_afar(answers: list[str], home: Path) -> tuple[list[str], str]:
    """And what it says, and logs, when nothing answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return fetch(
            f"http://127.0.0.1:{s.getsockname()[1]}", home, ("owner/tiny", "", True), ("owner/other", "", True)
        )


def fetch(endpoint: str, home: Path, *requests: tuple[str, str, bool]) -> tuple[list[str], str]:
    """(lines printed, log) of a fresh process: the hub's address is read when its library is imported."""
    env = {name: x for name, x in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", RESOLVE]
    done = subprocess.run(command, cwd=ROOT, env=env, input=json.dumps(requests), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    assert resolve(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("weights", ["", "/no/such/folder", "./model", "a/b/c", "model", "~/nowhere/at/all", "a/b--c"])
def test_what_is_neither_folder_nor_hub_name_is_refused(weights: str) -> None:
    with pytest.raises(UserError, match="no folder .* OWNER/NAME"):
        resolve(weights)


def test_files_of_a_model_are_fetched_once_and_no_others(hub: Hub, answers: list[str]) -> None:
    wanted = {name for name in hub.files if name.startswith("model")}
    wanted |= {"config.json", "generation_config.json", "tokenizer.json"}
    folder = Path(answers[1])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: hub.files[name] for name in wanted}
    assert {name: hub.sent.count(name) for name in hub.files} == {name: int(name in wanted) for name in hub.files}
    assert answers[0] == answers[1] == answers[2]


def test_unknown_model_and_revision_are_named_with_the_way_out(answers: list[str]) -> None:
    unknown, revision, gated = answers[3:]
    assert all(line.startswith("error: weights: ") and "give a local folder" in line for line in answers[3:])
    assert "owner/none" in unknown and "check the name" in unknown
    assert "owner/tiny" in revision and "'v2'" in revision
    assert "owner/gated" in gated and "terms" in gated


def test_hub_out_of_reach_says_how_to_give_a_local_folder(answers_from_afar: tuple[list[str], str]) -> None:
    line = answers_from_afar[0][1]
    assert line.startswith("error: weights: owner/other") and "in reach" in line and "give a local folder" in line


def test_what_was_fetched_serves_while_the_hub_is_out_of_reach_and_is_said(
    answers: list[str], answers_from_afar: tuple[list[str], str]
) -> None:
    (line, _), log = answers_from_afar
    assert line == answers[2]
    assert log.count("the hub is out of reach") == 1 and line in log
