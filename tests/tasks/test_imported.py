"""Rows of others' samples: each format is told by its fields, and says what its tool meant."""

import gzip
import json

import pytest

from rlvr_limit.tasks.imported.formats import read_row
from rlvr_limit.tasks.imported.sources import arms_of, natural, read_rows
from rlvr_limit.types import UserError
from tests.support import others

ANSWERS = [(str(2 * i + 1), "-1") for i in range(6)]
"""Of each problem the first right, the second wrong."""

RECORDED = {"lm-eval": {"temperature": "0.6"}, "openai": {"temperature": "0.6", "model": "m"}}
LOG = {"temperature": "0.6", "lengths": "64", "model": "openai/m"}
RECORDED |= {"inspect json": LOG, "inspect eval": LOG}


@pytest.mark.parametrize("name", others.WRITERS)
def test_every_format_gives_questions_references_responses_and_what_was_recorded(tmp_path, name):
    file, write = others.WRITERS[name]
    rows = [read_row(fields) for _, fields in read_rows(others.put(tmp_path, file, write(ANSWERS)))]
    assert {kind for kind, _ in rows} == {
        name.replace("one a row", "plain").replace("inspect", "inspect_ai").split()[0]
    }
    rows = [row for _, row in rows if row.variant in ("", "strict-match")]
    assert list(dict.fromkeys(row.question for row in rows)) == [question for question, _ in others.PROBLEMS]
    drawn = [text for row in rows for text in row.responses]
    assert drawn == [others.response(answer) for given in ANSWERS for answer in given]
    for row in rows:
        wanted = dict(others.PROBLEMS)[row.question]
        assert str(row.reference).strip().endswith(wanted)
        assert dict(row.recorded) == RECORDED.get(name, {})
        assert len(row.stops) == len(row.verdicts) == len(row.responses)
    stops = {stop for row in rows for stop in row.stops}
    ends = {"openai": {"length"}} | dict.fromkeys(("qwen-math", "vllm", "inspect json", "inspect eval"), {"eos"})
    assert stops == ends.get(name, {"unknown"})
    verdicts = [right for row in rows for right in row.verdicts]
    judged = name in ("qwen-math", "inspect json", "inspect eval")
    assert verdicts == ([True, False] * 6 if judged else [None] * 12)


def test_a_score_of_one_response_is_its_verdict_and_a_share_is_none():
    row = {"problem": "q", "response": "r", "answer": "1"}
    for score, verdict in ((True, True), (0.0, False), (1, True), (0.5, None), ("C", True), (None, None)):
        assert read_row(row | {"score": score})[1].verdicts == (verdict,)
    nemo = {"problem": "q", "generation": "r", "expected_answer": "1", "symbolic_correct": False}
    assert read_row(nemo)[0] == "nemo-skills" and read_row(nemo)[1].verdicts == (False,)
    for said, verdict in (("Both are 4.\n\nJudgement: Yes", True), ("**Judgement**: No", False), ("Yes and no.", None)):
        judged = {"problem": "q", "generation": "r", "expected_answer": "1", "judgement": said}
        assert read_row(judged)[1].verdicts == (verdict,)
    lm_eval = {"doc_id": 3, "doc": {"problem": "q"}, "target": "1", "resps": [["r"]], "filter": "none"}
    for value, verdict in ((1.0, True), (0, False), (["1", ["r"]], None)):
        assert read_row(lm_eval | {"metrics": ["exact_match"], "exact_match": value})[1].verdicts == (verdict,)
    both = {"metrics": ["exact_match", "math_verify"], "exact_match": 0, "math_verify": 1}
    assert read_row(lm_eval | both)[1].verdicts == (True,)


SOLUTION = r"Both have $b$, so it is $\boxed{(b+5)(a+2)}.$"


@pytest.mark.parametrize(
    ("altered", "solution", "spelt", "reference"),
    [
        ("(+5)(a+2)", SOLUTION, "(b+5)(a+2)", "(b+5)(a+2)"),
        ("(+5)(a+2)", SOLUTION, None, SOLUTION),
        ("(b+5)(a+2)", SOLUTION, "0", "(b+5)(a+2)"),
        ("18", "They are 18.", "They are 18.\n#### 18", "18"),
        ("B", "", 1, "B"),
    ],
)
def test_a_reference_that_lost_letters_is_taken_from_its_solution(altered, solution, spelt, reference):
    row = {"question": "q", "gt_cot": solution, "gt": altered, "answer": spelt, "code": ["r"], "pred": ["r"]}
    assert read_row(row)[0] == "qwen-math" and read_row(row)[1].reference == reference
    if spelt is None:
        doc = {"problem": "q", "solution": solution, "answer": altered}
        row = {"doc_id": 0, "doc": doc, "target": altered, "resps": [["r"]], "filter": "none"}
        assert read_row(row)[1].reference == reference


def test_programs_of_lm_eval_are_those_with_the_prompt_and_have_the_names_of_their_benchmarks():
    doc = {"task_id": "HumanEval/3", "prompt": "def f():\n", "test": "check(f)", "entry_point": "f"}
    row = {"doc_id": 3, "doc": doc, "target": "check(f)", "filter": "create_test", "metrics": ["pass@1"], "pass@1": 1.0}
    bodies = ["    return 1", "    pass"]
    whole = [f"def f():\n{body}" for body in bodies]
    _, read = read_row(row | {"resps": [bodies], "filtered_resps": [whole]})
    assert read.name == "HumanEval/3" and read.responses == tuple(whole)
    doc = {"task_id": 11, "text": "Write f.", "test_list": ["assert f()"]}
    mbpp = {"doc_id": 0, "doc": doc, "target": "assert f()"}
    _, read = read_row(mbpp | {"resps": [["a", "b"]], "filtered_resps": ["a"], "filter": "none"})
    assert read.name == "Mbpp/11" and read.responses == ("a", "b")


def test_what_servers_call_their_replies_is_no_name_of_a_problem():
    reply = {"choices": [{"index": 1, "text": "b"}, {"index": 0, "text": "a", "finish_reason": "stop"}]}
    _, row = read_row({"id": "cmpl-77", "problem_id": "p/3", **reply})
    assert row.name == "p/3" and row.responses == ("a", "b") and row.stops == ("eos", "unknown")
    reasoned = {"message": {"content": "42", "reasoning_content": "six times seven"}}
    _, row = read_row({"problem": "q", "choices": [reasoned]})
    assert row.responses == ("<think>\nsix times seven\n</think>\n\n42",)
    _, row = read_row(
        {"custom_id": "c", "error": None, "response": {"body": {"choices": [{"message": {"content": None}}]}}}
    )
    assert row.responses == ("",)
    reply = {"body": {"model": "m-2026", "choices": [{"text": "r"}]}}
    asked = {"custom_id": "c", "body": {"model": "m", "prompt": "q", "temperature": 1}}
    _, row = read_row({"custom_id": "c", "error": None, "response": reply, "request": asked})
    assert row.question == "q" and row.recorded == {"temperature": "1.0", "model": "m-2026"}
    _, row = read_row({"task_id": "HumanEval/3", "solution": "def f(): pass"})
    assert row.name == "HumanEval/3" and row.responses == ("def f(): pass",) and row.reference is None


def test_greedy_decoding_is_temperature_zero_and_no_limit_is_zero():
    row = {"doc_id": 0, "resps": [["r"]], "target": "1", "filter": "none", "doc": {"problem": "q"}}
    for arguments in ([["p", {"do_sample": False}]], {"gen_args_0": {"arg_0": "p", "arg_1": {"do_sample": False}}}):
        assert read_row(row | {"arguments": arguments})[1].recorded == {"temperature": "0.0"}
    said = {"sampling_params": {"temperature": 1, "top_k": -1, "max_tokens": 8, "stop": ["</s>"]}}
    assert read_row({"problem": "q", "response": "r", **said})[1].recorded == {
        "temperature": "1.0", "top_k": "0", "lengths": "8", "eos": '["</s>"]',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"problem": "q"}, "not understood: there is none of the fields responses, response"),
        ({"question": "q", "solution": "s"}, "not understood"),
        ({"response": "r"}, "no problem: it needs one of the fields problem"),
        ({"problem": "q", "responses": []}, "no response: the list of them is empty"),
        ({"problem": "q", "responses": ["a", 3]}, "a response that is no text: 3"),
        ({"problem": "q", "response": {"a": 1}}, "a response that is no text"),
        ({"problem": "q", "response": {"body": {}}}, "no reply with choices"),
        ({"doc_id": 0, "doc": {"query": "q"}, "resps": [[[-3.2, False]], [[-1.0, True]]]}, "log-likelihoods"),
        ({"custom_id": "c", "response": None, "error": {"message": "too many requests"}}, "failed: too many requests"),
        ({"log": {}, "sample": {"id": 1, "error": {"message": "timed out"}}}, "ended in an error: timed out"),
        (
            {"__doc__": {"query": "q"}, "__model_response__": {"text": [], "logprobs": [1]}},
            "compared by their likelihood",
        ),
        (
            {
                "log": {},
                "sample": {"id": 1, "target": ["1", "2"], "output": {"choices": [{"message": {"content": "r"}}]}},
            },
            "several references of which any is right",
        ),
    ],
)
def test_what_is_missing_or_not_understood_is_said(fields, words):
    with pytest.raises(UserError, match="(?s)" + words.replace("(", r"\(")):
        read_row(fields)


def test_halves_of_a_surrogate_pair_are_joined_or_replaced():
    _, row = read_row(json.loads('{"problem": "q", "response": "\\ud83d\\ude00 \\ud83d"}'))
    assert row.responses == ("\U0001f600 \ufffd",)


def test_lines_that_are_no_json_are_named_and_the_others_read(tmp_path):
    good = json.dumps({"problem": "q", "response": "r"}).encode()
    path = others.put(
        tmp_path, "x.jsonl.gz", gzip.compress(b"\xef\xbb\xbf" + good + b"\n\n{broken\n[1]\n\xff\n" + good)
    )
    rows = list(read_rows(path))
    assert [place for place, _ in rows] == [f"{path}:{line}" for line in (1, 3, 4, 5, 6)]
    assert [isinstance(fields, UserError) for _, fields in rows] == [False, True, True, True, False]
    assert [str(rows[i][1]).partition(" ")[0] for i in (1, 2, 3)] == [f"{path}:{line}:" for line in (3, 4, 5)]
    first = others.put(tmp_path, "first.jsonl", b"{broken\n" + good)
    assert [isinstance(fields, UserError) for _, fields in read_rows(first)] == [True, False]
    whole = others.put(tmp_path, "whole.json", json.dumps([{"a": 1}, 2], indent=1).encode())
    assert [isinstance(fields, UserError) for _, fields in read_rows(whole)] == [False, True]
    for content in (b"", b"PAR1 no more", b"PK\x03\x04 no zip"):
        with pytest.raises(UserError, match="bad.x"):
            list(read_rows(others.put(tmp_path, "bad.x", content)))


def test_a_pattern_or_a_folder_is_one_arm_in_the_order_of_its_numbers(tmp_path):
    for seed in (10, 9, 1):
        others.put(tmp_path / "rl", f"output-rs{seed}.jsonl", b"{}")
    for name in ("output.jsonl", "metrics.json"):
        others.put(tmp_path / "rl", name, b"{}")
    by_folder, by_pattern = arms_of((f"a={tmp_path}/rl", f"b={tmp_path}/r?/output-rs*.jsonl"))
    assert [path.name for path in by_folder.paths] == [f"output-rs{seed}.jsonl" for seed in (1, 9, 10)]
    assert by_pattern.paths == by_folder.paths and by_folder.digests[0][1] == by_folder.digests[1][1]
    assert sorted(["b2", "b10", "a"], key=natural) == ["a", "b2", "b10"]
    file = f"{tmp_path}/rl/output.jsonl"
    for entries, words in (
        ((), "config.imported: empty"),
        ((file,), "is not NAME=FILE"),
        ((f"a={file}", f"a={file}"), "two arms are called 'a'"),
        ((f"a={tmp_path}/none.jsonl",), "found no .*none.jsonl"),
        ((f"a={tmp_path}/*.none",), r"found no .*\*.none"),
    ):
        with pytest.raises(UserError, match=words):
            arms_of(entries)
