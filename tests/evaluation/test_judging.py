"""A judge of chains of thought, through main.py as it is typed: a server that plays arms and judge by a script."""

from __future__ import annotations

import csv
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import main
from rlvr_limit import passk
from rlvr_limit.evaluation.others import endpoint_client
from rlvr_limit.evaluation.others.judging import says_yes
from rlvr_limit.report import numbers, tables
from rlvr_limit.report.analysis import analyse
from tests.support import others

N = 4
JUDGED = {"sound": "The sum is right. Yes.", "lucky": "It guesses.\n**no**", "odd": "I cannot say"}
"""What the judge says of chains with these words."""

CHAINS = {"base": ("sound", "lucky", "odd", ""), "rl": ("sound", "sound", "lucky", "sound")}
"""The chain of each sample of every problem; "": a wrong answer."""


class Scripted(BaseHTTPRequestHandler):
    """One request. An answer says its number, so that no two chains are alike."""

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][0]["content"]
        if body["model"] == "judge":
            self.server.asked.append(asked)
            texts = [next(said for word, said in JUDGED.items() if f"A {word} step" in asked)]
        else:
            right = next(answer for question, answer in others.PROBLEMS if question in asked)
            texts = []
            for i in range(body["n"]):
                word = CHAINS[body["model"]][i]
                texts.append(f"A {word} step of {body['model']} {i}: \\boxed{{{right if word else 0}}}")
        choices = [{"index": i, "finish_reason": "stop", "message": {"content": text}} for i, text in enumerate(texts)]
        data = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT", 0.001)
    served = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    served.daemon_threads, served.asked = True, []
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def words(folder: Path, server: ThreadingHTTPServer, *more: str) -> list[str]:
    (folder / "mine.jsonl").write_text("\n".join(json.dumps({"problem": q, "answer": a}) for q, a in others.PROBLEMS))
    url = f"http://127.0.0.1:{server.server_port}/v1"
    arms = {
        name: {"label": name, "group": name, "prompt": "chat", "endpoint": {"url": url, "model": name}}
        for name in CHAINS
    }
    config = folder / "judged.py"
    config.write_text(
        "from configs.lib import base\n\n\ndef get_config():\n"
        f"    config = base.released('judged', 'Judged', None, {{{str(folder / 'mine.jsonl')!r}: {N}}})\n"
        f"    config.arms, config.run_dir = {arms!r}, {str(folder / 'run')!r}\n"
        f"    config.judge = {{'endpoint': {{'url': {url!r}, 'model': 'judge'}}}}\n"
        "    config.report.every = 0\n    return config\n"
    )
    return ["main.py", f"--config={config}", *(f"--config.{word}" for word in more)]


def test_a_judge_is_asked_once_about_every_right_answer_and_a_person_calibrates_it(
    tmp_path, server, monkeypatch, capsys
):
    shown = others.graded_here(monkeypatch)
    assert main.main(words(tmp_path, server)) == 0
    assert shown[-1].judge == (0, 0, 0, 0) and all((arm.judge_yes_M == -1)[arm.c_M > 0].all() for arm in shown[-1].arms)
    typed = words(tmp_path, server, "job=judge")
    assert main.main(typed) == 0
    problems = len(others.PROBLEMS)
    assert len(server.asked) == problems * (3 + 4) == len(set(server.asked))
    assert "judge: 42 chains, 24 of them right; not calibrated" in capsys.readouterr().out
    assert "whose final answer is right" in server.asked[0] and "End with one word" in server.asked[0]
    assert main.main(typed) == 0 and len(server.asked) == 42, "what was answered is not asked again"
    assert main.main(words(tmp_path, server, "job=report")) == 0
    base, rl = shown[-1].arms
    assert base.judge_yes_M.tolist() == [1] * problems and rl.judge_yes_M.tolist() == [3] * problems

    # A person agrees about sound and lucky chains but one, and finds the odd one right.
    lines = [f"base,mine/{p},{i},{said}" for p in range(3) for i, said in ((0, "right"), (1, "wrong"), (2, "right"))]
    lines += ["rl,mine/0,1,wrong", "rl,mine/0,2,", "base,mine/0,3,wrong"]
    (tmp_path / "run" / "review").mkdir()
    (tmp_path / "run" / "review" / "rare_wins.csv").write_text("\n".join(["arm,problem_id,index,chain_is", *lines]))
    assert main.main(words(tmp_path, server, "job=report")) == 0
    # The last line is of a wrong answer, about whose chain nobody is asked.
    assert shown[-1].judge == passk.JudgeCounts(right_yes=3, right_no=3, wrong_yes=1, wrong_no=3)


def test_chosen_problems_alone_are_asked_about_and_long_answers_count_as_wrong(tmp_path, server, monkeypatch, capsys):
    shown = others.graded_here(monkeypatch)
    chosen = ("judge.problems=('mine/1','mine/4')", "judge.longest=32")
    assert main.main(words(tmp_path, server)) == 0
    assert main.main(words(tmp_path, server, "job=judge", "judge.problems=('mine/9',)")) == 2
    assert "config.judge.problems: 'mine/9' is not the id of a problem" in capsys.readouterr().err
    assert main.main(words(tmp_path, server, "job=judge", *chosen)) == 0
    about = {asked.partition("Problem:\n")[2].partition("\n")[0] for asked in server.asked}
    assert about == {others.PROBLEMS[1][0], others.PROBLEMS[4][0]}
    assert main.main(words(tmp_path, server, "job=report", *chosen)) == 0
    # Of the base only the odd chain is short enough to be asked about, and that is none that is right.
    assert len(server.asked) == 2 * (1 + 4)
    assert [arm.judge_yes_M.tolist() for arm in shown[-1].arms] == [[-1, 0, -1, -1, 0, -1], [-1, 3, -1, -1, 3, -1]]


def test_the_page_says_judged_corrected_and_bounds_or_not_calibrated(tmp_path, server, monkeypatch):
    shown = others.graded_here(monkeypatch)
    assert main.main(words(tmp_path, server)) == 0 and main.main(words(tmp_path, server, "job=judge")) == 0
    assert main.main(words(tmp_path, server, "job=report")) == 0
    bare, review = shown[-1], tmp_path / "run" / "review" / "rare_wins.csv"
    cells = tables.judged_chains(bare, analyse(bare)).rows
    assert cells[0] == ["base\n6 problems", *(f"not calibrated\n{x} % as judged" for x in ("25.0", "100.0"))]
    review.parent.mkdir()
    marked = [f"base,mine/{p},{i},{said}" for p in range(6) for i, said in ((0, "right"), (1, "wrong"))]
    review.write_text("\n".join(["arm,problem_id,index,chain_is", *marked]))
    assert main.main(words(tmp_path, server, "job=report")) == 0
    results = shown[-1]
    findings = analyse(results)
    assert "yes to 100 % (48 to 100) of 6 right chains and no to 100 % (48 to 100) of 6" in results.judge.in_words()
    for arm, expected in (("base", [0.25, 0.5, 0.75, 1]), ("rl", [0.75, 1, 1, 1])):
        problems, curves = findings.judged[arm]
        assert problems == 6
        np.testing.assert_allclose(curves.judged_K, expected)
        np.testing.assert_allclose(curves.corrected_K, expected, atol=1e-9)
        assert np.all(curves.low_K < curves.high_K + 1e-9)
    written = list(numbers._judged_chains(findings))
    assert [row[:4] for row in written[:2]] == [("base", 6, 1, 0.25), ("base", 6, 2, 0.5)] and len(written) == 2 * N
    assert tables.judged_chains(results, findings).rows[0][1].startswith("25.0 %\n")


@pytest.mark.slow
def test_the_page_is_drawn_with_what_the_judge_said(tmp_path, server, monkeypatch):
    verdicts = lambda grade, items, *_: (grade(problem, text) for problem, text in items)  # noqa: E731
    monkeypatch.setattr("rlvr_limit.evaluation.grade.map_verdicts", verdicts)
    for job in ("compare", "judge", "report"):
        assert main.main(words(tmp_path, server, f"job={job}")) == 0
    report = tmp_path / "run" / "report"
    page = (report / "index.html").read_text()
    assert "A judge model was asked" in page and "not calibrated" in page
    rows = list(csv.DictReader((report / "judged_chains.csv").open()))
    assert len(rows) == 2 * N and {row["corrected"] for row in rows} == {""}
    assert json.loads((report / "summary.json").read_text())["judge"]["right_yes"] == 0


def test_a_judge_needs_weights_or_an_endpoint(tmp_path, server, capsys):
    typed = words(tmp_path, server, "job=judge", "judge.weights=FOLDER")
    assert main.main(typed) == 2 and "config.judge: give either weights or endpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reply", "is_yes"),
    [
        ("yes", True),
        ("It holds.\n\n**Yes.**", True),
        ("Yes, but step 2 is wrong: no", False),
        ("", False),
        ("eyes", False),
    ],
)
def test_a_reply_is_yes_where_it_ends_so(reply, is_yes):
    assert says_yes(reply) is is_yes
