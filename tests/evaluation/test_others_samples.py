"""Samples that others drew, through main.py as it is typed: arms, refusals, second runs, and the way back."""

import csv
import json
from pathlib import Path

import pytest

import main
from rlvr_limit import records
from rlvr_limit.grading.math.grade import VERSION
from tests.support import others

ROOT = Path(__file__).resolve().parents[2]
BASE = [(str(2 * i + 1), "0", "0", "0") if i % 2 else ("0", "0", "0", "0") for i in range(6)]
RL = [(str(2 * i + 1), str(2 * i + 1), "0", "0") if i != 3 else ("0", "0", "0", "0") for i in range(6)]
"""Right of each problem: 0 1 0 1 0 1 by the base, 2 2 2 0 2 2 by the other."""


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    return others.graded_here(monkeypatch)


def typed(folder: Path, *arms: str, more: tuple[str, ...] = ()) -> int:
    listed = "(" + ",".join(repr(arm) for arm in arms) + ",)"
    words = [f"--config.imported={listed}", f"--config.workdir={folder / 'work'}", *more]
    return main.main(["main.py", f"--config={ROOT / 'configs/imported.py'}", *words])


@pytest.mark.parametrize("name", others.WRITERS)
def test_every_format_is_an_arm_beside_any_other(tmp_path, capsys, shown, name):
    file, write = others.WRITERS[name]
    rl = others.put(tmp_path / "rl", file, write(RL))
    base = others.put(tmp_path, "base.jsonl", others.plain(BASE))
    assert typed(tmp_path, f"base={base}", f"rl={rl}") == 0
    (results,) = shown
    counts = {arm.name: (arm.n_M.tolist(), arm.c_M.tolist()) for arm in results.arms}
    assert counts == {"base": ([4] * 6, [0, 1, 0, 1, 0, 1]), "rl": ([4] * 6, [2, 2, 2, 0, 2, 2])}
    assert [arm.group for arm in results.arms] == ["base", "rl"] and results.base == "base"
    assert [question for _, question, _ in results.problems] == [question for question, _ in others.PROBLEMS]
    out = capsys.readouterr().out
    assert f"rl: 1 file ({file}) read as" in out and "24 samples of 6 problems, 4 each" in out
    unknown = next(note for note in results.notes if note.startswith("Unknown"))
    assert ("temperature (base)" in unknown) == (name in ("lm-eval", "openai", "inspect json", "inspect eval"))


def test_several_files_are_one_arm_and_their_own_verdicts_stand_beside_ours(tmp_path, capsys, shown):
    for seed in range(4):
        others.put(tmp_path / "rl", f"output-rs{seed}.jsonl", others.nemo_skills(RL, seed))
    wrong = others.nemo_skills(RL, 3).replace(b'"symbolic_correct": false', b'"symbolic_correct": true', 1)
    others.put(tmp_path / "rl", "output-rs3.jsonl", wrong)
    assert typed(tmp_path, f"only={tmp_path}/rl") == 0
    (results,) = shown
    (arm,) = results.arms
    assert arm.group == "base" and arm.c_M.tolist() == [2, 2, 2, 0, 2, 2]
    own = arm.own_opinion
    assert (own.grader, own.both, own.only_first, own.only_second, own.neither) == ("own-nemo-skills", 10, 0, 1, 13)
    assert own.agreement == 23 / 24 and own.pass_1 == pytest.approx(11 / 24)
    assert f"own-nemo-skills agrees with {VERSION}-bare2 on 95.83 % of 24 samples" in capsys.readouterr().out
    assert arm.conditions["temperature"] == "unknown" and arm.mean_tokens is None and arm.truncated_M is None


def test_names_alone_take_references_from_a_benchmark_and_questions_find_it_inside_a_prompt(tmp_path, shown):
    mine = others.put(tmp_path, "mine.jsonl", others.plain(BASE))
    base = others.put(tmp_path, "batch.jsonl", others.batch(BASE))
    rows = [{"prompt": f"Solve: {q} Think.", "completion": f"#### {a}"} for q, a in others.PROBLEMS]
    rl = others.put(tmp_path, "rl.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert typed(tmp_path, f"base={base}", f"rl={rl}", more=(f"--config.benchmarks=('{mine}',)",)) == 0
    (results,) = shown
    assert [name for name, _, _ in results.problems] == [f"mine/{i}" for i in range(6)]
    assert [arm.c_M.tolist() for arm in results.arms] == [[0, 1, 0, 1, 0, 1], [1] * 6]


def test_the_input_of_a_batch_says_what_its_output_answers(tmp_path, shown):
    mine = others.put(tmp_path, "mine.jsonl", others.plain(BASE))
    asked = [
        {"custom_id": f"mine/{i}", "method": "POST", "url": "/v1/chat/completions"}
        | {"body": {"temperature": 0.6, "messages": [{"role": "user", "content": f"Think. {q}"}]}}
        for i, (q, _) in enumerate(reversed(others.PROBLEMS))
    ]
    others.put(tmp_path / "rl", "requests.jsonl", "\n".join(map(json.dumps, asked)).encode())
    others.put(tmp_path / "rl", "answers.jsonl", others.batch(RL[::-1]))
    assert typed(tmp_path, f"rl={tmp_path / 'rl'}", more=(f"--config.benchmarks=('{mine}',)",)) == 0
    (results,) = shown
    (arm,) = results.arms
    # The names are those of other problems of the benchmark: what counts is the question.
    found = dict(zip([name for name, _, _ in results.problems], arm.c_M.tolist(), strict=True))
    assert found == {f"mine/{i}": 0 if i == 3 else 2 for i in range(6)}
    assert arm.conditions["temperature"] == "0.6"


def test_a_long_chain_of_equations_that_was_cut_is_no_bare_answer(tmp_path, shown):
    chain = r"We have $\frac{3}{20} = " + " = ".join([r"\frac{1}{2} \cdot \frac{3}{10}"] * 40)
    rows = [{"problem": name, "answer": "0.15", "response": [r"\frac{3}{20}", chain]} for name in "ab"]
    assert typed(tmp_path, f"a={others.put(tmp_path, 'a.jsonl', chr(10).join(map(json.dumps, rows)).encode())}") == 0
    assert shown[0].arms[0].c_M.tolist() == [1, 1]


def test_answers_without_a_sentence_and_ragged_n_count_and_problems_of_one_arm_are_left_out(tmp_path, capsys, shown):
    rows = [{"problem": q, "answer": a, "responses": [a] * (1 + i)} for i, (q, a) in enumerate(others.PROBLEMS)]
    base = others.put(tmp_path, "base.jsonl", "\n".join(map(json.dumps, rows)).encode())
    rl = others.put(tmp_path, "rl.jsonl", b"\n".join(others.plain(RL).splitlines()[2:]))
    assert typed(tmp_path, f"a={base}", f"b={rl}") == 0
    (results,) = shown
    assert [arm.n_M.tolist() for arm in results.arms] == [[3, 4, 5, 6], [4] * 4]
    assert results.arms[0].c_M.tolist() == [3, 4, 5, 6] and results.interim is None
    assert "a: 2 problems that not all arms have are left out, the first of them '0' (1 samples)" in " ".join(
        results.notes
    )


def test_a_second_run_reads_and_grades_nothing_and_other_files_need_another_folder(
    tmp_path, capsys, shown, monkeypatch
):
    base = others.put(tmp_path, "base.jsonl", others.plain(BASE))
    assert typed(tmp_path, f"base={base}") == 0

    def not_again(*_):
        raise AssertionError("read or graded again")

    monkeypatch.setattr("rlvr_limit.evaluation.others.importing.read_rows", not_again)
    assert typed(tmp_path, f"base={base}", more=("--config.job=grade",)) == 0  # asks math_verify too
    monkeypatch.setattr("rlvr_limit.evaluation.grade.map_verdicts", not_again)
    for job in ("imported", "report"):
        assert typed(tmp_path, f"base={base}", more=(f"--config.job={job}",)) == 0
    assert [results.arms[0].c_M.tolist() for results in shown] == [[0, 1, 0, 1, 0, 1]] * 3
    assert (tmp_path / "work" / "review" / "disagreements.csv").exists()
    base.write_bytes(others.plain(RL))
    assert typed(tmp_path, f"base={base}") == 2
    assert "was made under other conditions: imported.base" in capsys.readouterr().err


LINE = json.dumps({"problem": "p", "answer": "1", "response": "1"}).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{broken\n" + LINE, ["base.jsonl:1: no JSON", "--config.skip_lines"]),
        (LINE + b'\n{"problem": "p"}\n[]', ["base.jsonl:2: not understood", "base.jsonl:3: a JSON list"]),
        (LINE + b'\n{"problem": "p", "response": 3}', ["base.jsonl:2: a response that is no text: 3"]),
        (
            b'{"problem": "p", "response": "1"}\n' + LINE.replace(b'"p"', b'"o"'),
            ["base.jsonl:1: problem '0' has no reference"],
        ),
        (LINE, ["1 problems that all arms have", "at least two"]),
        (
            LINE
            + b'\n{"problem": "p", "answer": "2", "response": "1"}\n{"problem": "o", "answer": 1, "response": "1"}',
            ["problem '0' has two references: '1' (", "base.jsonl:1) and '2' (", "base.jsonl:2)"],
        ),
        (
            LINE + b'\n{"problem": "o", "answer": "Add them.\\n\\nThat is all.", "response": "1"}',
            ["base.jsonl:2: the reference 'Add them.", "is a whole solution"],
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_the_place_and_leaves_nothing_behind(tmp_path, capsys, content, words):
    base = others.put(tmp_path, "base.jsonl", content)
    assert typed(tmp_path, f"base={base}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words)
    assert not list((tmp_path / "work").glob("*"))


def test_bad_rows_are_left_out_and_said_where_that_is_asked_for(tmp_path, shown):
    base = others.put(tmp_path, "base.jsonl", b"{broken\n" + others.plain(BASE))
    assert typed(tmp_path, f"base={base}", more=("--config.skip_lines",)) == 0
    (results,) = shown
    assert results.arms[0].c_M.tolist() == [0, 1, 0, 1, 0, 1]
    assert any("1 rows could not be read and are left out, the first of them" in note for note in results.notes)


def test_recorded_conditions_must_agree_and_unknown_ones_must_be_allowed_by_name(tmp_path, capsys, shown):
    hot = others.chat(RL).replace(b'"temperature": 0.6', b'"temperature": 1')
    base = others.put(tmp_path, "base.jsonl", others.chat(BASE))
    rl = others.put(tmp_path, "rl.jsonl", hot)
    assert typed(tmp_path, f"base={base}", f"rl={rl}") == 2
    assert "arm rl: temperature is 1.0, that of base is 0.6; arms that differ so are compared only under config." in (
        capsys.readouterr().err
    )
    assert typed(tmp_path, f"base={base}", f"rl={rl}", more=("--config.allow_differ=('temperature',)",)) == 0
    (results,) = shown
    assert "Allowed to differ: temperature. base: 0.6; rl: 1.0." in results.notes
    assert typed(tmp_path, f"base={base}", more=("--config.allow_unknown=('eos',)",)) == 2
    assert typed(tmp_path / "b", f"base={base}", more=("--config.allow_unknown=('eos',)",)) == 2
    assert "arm base: its files do not record its lengths" in capsys.readouterr().err


def test_what_is_exported_comes_back_as_the_same_counts(tmp_path, capsys, shown):
    base = others.put(tmp_path, "base.jsonl", others.plain(BASE))
    rl = others.put(tmp_path, "rl.jsonl", others.qwen_math(RL))
    arms = (f"base={base}", f"rl={rl}")
    assert typed(tmp_path, *arms) == 0 and typed(tmp_path, *arms, more=("--config.job=export",)) == 0
    folder = tmp_path / "work" / "export"
    rows = list(csv.DictReader((folder / "counts.csv").read_text().splitlines()))
    assert [(row["arm"], row["n"]) for row in rows] == [("base", "4")] * 6 + [("rl", "4")] * 6
    assert [int(row["correct"]) for row in rows] == [0, 1, 0, 1, 0, 1, 2, 2, 2, 0, 2, 2]
    for i, tool in enumerate(("lm_eval", "inspect")):
        back = tmp_path / f"back{i}"
        assert typed(back, *(f"{arm}={folder}/{tool}/{arm}" for arm in ("base", "rl"))) == 0
        assert [arm.c_M.tolist() for arm in shown[-1].arms] == [[0, 1, 0, 1, 0, 1], [2, 2, 2, 0, 2, 2]]
        texts = (
            records.read(place, "samples", ["text"])["text"].to_pylist() for place in (tmp_path / "work", back / "work")
        )
        first, second = texts
        assert first == second
    agreed = capsys.readouterr().out
    assert f"own-inspect_ai agrees with {VERSION}-bare2 on 100.00 % of 24 samples; right by both 10" in agreed


@pytest.mark.slow
def test_the_typed_command_with_processes_and_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()
    base = others.put(tmp_path, "base.jsonl", others.plain(BASE))
    rl = others.put(tmp_path, "rl.jsonl", others.lm_eval(RL))
    assert typed(tmp_path, f"base={base}", f"rl={rl}") == 0
    page = (tmp_path / "work" / "report" / "index.html").read_text()
    assert "<title>base and rl</title>" in page and "Unknown, as the files" in page and "temperature for base" in page
    assert f"report: {tmp_path / 'work' / 'report' / 'index.html'}" in capsys.readouterr().out
