"""Arms behind an endpoint, through main.py as it is typed, against a server that fails in every way that servers do."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import main
from rlvr_limit import records
from rlvr_limit.evaluation.others import endpoint_client, endpoints
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings, schema
from rlvr_limit.settings.command_line import read_config
from rlvr_limit.tasks.prompts import filled, template
from rlvr_limit.types import UserError
from tests.support import others

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-0123456789-never-on-disk"
N, ANSWERS = 8, 3
BASE, RL = "small-base", "small rl/v2"


class Server(ThreadingHTTPServer):
    """Speaks as OpenAI's servers do. faults are taken by requests in turn, however they come; given counts answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.faults, self.bodies, self.paths, self.given, self.sent = threading.Lock(), [], [], [], 0, 0
        self.key = KEY
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            fault = server.faults.pop(0) if server.faults else ""
            first, server.given = server.given, server.given + body["n"]
            server.bodies.append(body)
            server.paths.append(self.path)
        if self.headers["Authorization"] != f"Bearer {server.key}":
            return self.reply(401, {"error": {"message": f"Incorrect API key {self.headers['Authorization']}"}})
        if body["model"] not in (BASE, RL):
            return self.reply(404, {"error": {"message": f"no {body['model']}\nfor {KEY}", "code": 404}})
        if fault in ("429", "500"):
            return self.reply(int(fault), {"error": "later"}, {"Retry-After": "0"} if fault == "429" else {})
        if fault == "gone":
            return self.close_connection
        choices = [self.choice(i, first + i, body) for i in range(body["n"])]
        if fault == "doubled":
            choices = [c for c in choices for _ in range(2)]
        if fault == "surplus":
            choices += [self.choice(len(choices), -1, body)]
        if fault == "fewer":
            choices = choices[:1]
        if fault == "none":
            choices = []
        usage = {"prompt_tokens": 10, "completion_tokens": 5 * len(choices)}
        with server.lock:
            server.sent += len(choices)
        return self.reply(200, {"choices": choices, "usage": usage}, cut=fault == "cut")

    def choice(self, index: int, number: int, body: dict) -> dict:
        """The RL arm is right, the base half of the time; each answer says its number."""
        asked = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        right = next(answer for question, answer in others.PROBLEMS if question in asked)
        is_right = body["model"] == RL or number % 2
        text = f"Answer {number}: \\boxed{{{right if is_right else 0}}}"
        said = {"text": text} if "prompt" in body else {"message": {"role": "assistant", "content": text}}
        return {"index": index, "finish_reason": "length" if number % 7 == 0 else "stop", **said}

    def reply(self, code: int, what: dict, headers: dict | None = None, cut: bool = False) -> None:
        data = json.dumps(what).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    served = Server()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    return others.graded_here(monkeypatch)


def words(folder: Path, server: Server, *more: str) -> list[str]:
    rows = [json.dumps({"problem": q, "answer": a}) for q, a in others.PROBLEMS]
    (folder / "mine.jsonl").write_text("\n".join(rows))
    config = folder / "asked.py"
    arms = {
        name: {"label": name, "group": name, "prompt": "chat", "endpoint": {"url": server.url, "model": model}}
        for name, model in (("base", BASE), ("rl", RL))
    }
    config.write_text(
        "from configs.lib import base\n\n\ndef get_config():\n"
        f"    config = base.released('asked', 'Asked', None, {{{str(folder / 'mine.jsonl')!r}: {N}}})\n"
        f"    config.arms, config.run_dir = {arms!r}, {str(folder / 'run')!r}\n"
        f"    for arm in config.arms.values():\n        arm['endpoint']['answers'] = {ANSWERS}\n"
        "    config.sampling.max_tokens, config.report.every = 99, 0\n    return config\n"
    )
    return ["main.py", f"--config={config}", *(f"--config.{word}" for word in more)]


def rows_of(folder: Path) -> list[dict]:
    return records.read(folder / "run", "samples").to_pylist()


def test_whatever_the_server_does_nothing_is_lost_nothing_doubled_and_no_key_is_in_any_file(
    tmp_path, server, shown, capsys
):
    server.faults = "429 500 cut doubled fewer gone none surplus 429 cut 500 fewer".split()
    prices = ("arms.rl.endpoint.prompt_price=2.0", "arms.rl.endpoint.answer_price=5.0")
    assert main.main(words(tmp_path, server, *prices)) == 0
    rows, wanted = rows_of(tmp_path), {(arm, i, j) for arm in ("base", "rl") for i in range(6) for j in range(N)}
    assert {(row["arm"], int(row["problem_id"].split("/")[1]), row["index"]) for row in rows} == wanted
    assert len(rows) == len(wanted) == len({row["text"] for row in rows}), "an answer stands under two indices"
    assert not server.faults
    (results,) = shown
    base, rl = results.arms
    assert rl.c_M.tolist() == [N] * 6 and 0 < base.c_M.sum() < 6 * N
    assert results.seed is None and rl.mean_tokens is None and rl.conditions["weights"] == f"unknown (endpoint, {RL})"
    stops = Counter("length" if int(row["text"].split()[1][:-1]) % 7 == 0 else "eos" for row in rows)
    assert Counter(row["stop"] for row in rows) == stops
    assert set(server.paths) == {"/v1/chat/completions"}
    sent = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 99}
    assert all(sent.items() <= body.items() and "stop" not in body for body in server.bodies)
    questions = {filled(template("chat"), question) for question, *_ in others.PROBLEMS}
    assert {body["messages"][0]["content"] for body in server.bodies} == questions
    usage = [json.loads(line) for line in (tmp_path / "run/usage.jsonl").read_text().splitlines()]
    mine = [line for line in usage if line["arm"] == "rl"]
    prompt, answer = (sum(line[name] for line in mine) for name in ("prompt_tokens", "completion_tokens"))
    assert sum(line["answers"] for line in mine) == 6 * N
    out = capsys.readouterr().out
    assert f"arm rl: {len(mine)} replies, {prompt} tokens of prompts and {answer} of answers" in out
    assert f"cost {(2 * prompt + 5 * answer) / 1e6:.4f}" in out
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_run_that_broke_off_asks_only_for_what_lacks_and_keeps_what_was_under_way(tmp_path, server, capsys):
    server.faults = [*[""] * 5, *["500"] * 60]
    typed = words(tmp_path, server, "job=sample", "arms.base.endpoint.retries=1")
    assert main.main(typed) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "500 later, 2 times in a row" in error
    before, asked = {(r["problem_id"], r["index"]): r["text"] for r in rows_of(tmp_path)}, server.given
    assert len(before) == server.sent >= 5
    server.faults.clear()
    assert main.main(typed) == 0
    after = {(r["arm"], r["problem_id"], r["index"]): r["text"] for r in rows_of(tmp_path)}
    assert server.given - asked == 2 * 6 * N - len(before) and len(after) == 2 * 6 * N
    assert all(after["base", *key] == text for key, text in before.items())
    asked = server.given
    assert main.main(typed) == 0 and server.given == asked, "a complete run asks nothing"


def test_base_models_are_sent_the_prompt_itself_and_stops_and_rules_that_are_no_default(tmp_path, server):
    more = ("job=sample", "sampling.top_k=5", "sampling.n=1", "limit=2")
    more += tuple(f"arms.{arm}.{word}" for arm in ("base", "rl") for word in ("prompt=verl_r1", "stop=('User:',)"))
    assert main.main(words(tmp_path, server, *more)) == 0
    assert set(server.paths) == {"/v1/completions"}
    for body in server.bodies:
        assert (body["stop"], body["top_k"], body["n"]) == (["User:"], 5, 1) and "min_p" not in body
    asked = {filled(template("verl_r1"), question) for question, *_ in others.PROBLEMS[:2]}
    assert {body["prompt"] for body in server.bodies} == asked


@pytest.mark.parametrize(
    ("key", "more", "said"),
    [
        ("sk-wrong", "name=a", "refused the key in OPENAI_API_KEY (401)"),
        ("", "name=a", "wants a key: set the environment variable OPENAI_API_KEY (401)"),
        (KEY, "arms.base.endpoint.model=big", "model 'big': 404 no big for ***"),
        (KEY, "arms.base.endpoint.url=http://127.0.0.1:9/v1", "no connection"),
        (f"{KEY}\n{KEY}", "name=a", "OPENAI_API_KEY: this environment variable holds no key that a header can carry"),
        (KEY, f"arms.base.endpoint.key={KEY}", "key: not the name of an environment variable"),
        (KEY, f"arms.base.endpoint.url=http://{KEY}@127.0.0.1/v1", "url: not http(s)://HOST/PATH"),
        (KEY, "arms.base.weights=FOLDER", "endpoint: beside weights"),
        (KEY, "job=plan", "take no machine"),
    ],
)
def test_what_cannot_be_asked_is_one_plain_line_without_the_key(tmp_path, server, capsys, monkeypatch, key, more, said):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    typed = words(tmp_path, server, "job=sample", more) if "job" not in more else words(tmp_path, server, more)
    assert main.main(typed) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error and KEY not in error
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_conditions_guard_an_endpoint_as_any_arm_and_price_and_pace_name_no_folder(tmp_path, server):
    def prepared(*more: str) -> str:
        typed = words(tmp_path, server, "run_dir=", f"runs={tmp_path / 'runs'}", *more)
        return prepare(schema.from_config(Settings, read_config(typed, ROOT / "configs/countdown.py"))).root.name

    plain = prepared()
    assert prepared("arms.base.endpoint.concurrency=2", "arms.rl.endpoint.answer_price=1.0") == plain
    assert prepared("arms.rl.endpoint.model=another") != plain != prepared("sampling.temperature=1.0")
    with pytest.raises(UserError, match="temperature is 1.0, that of base is 0.6"):
        prepared("arms.rl.sampling.temperature=1.0")
    with pytest.raises(UserError, match="template is verl_r1-"):
        prepared("arms.rl.prompt=verl_r1")


def test_another_process_on_the_folder_is_refused(tmp_path, server, capsys):
    (tmp_path / "run").mkdir()
    with endpoints._alone(tmp_path / "run"):
        assert main.main(words(tmp_path, server, "job=sample")) == 2
    assert "another process is asking" in capsys.readouterr().err and server.given == 0


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("", 0.0), ("soon", 0.0), (DATE, 0.0)])
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert endpoint_client._seconds(header) == seconds
