"""Loading mathematics benchmarks: what each official layout becomes, what is refused, and the way to the hub."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from rlvr_limit.grading.math.grade import grade
from rlvr_limit.tasks import benchmarks
from rlvr_limit.tasks.benchmarks import BENCHMARKS, BY_NAME
from rlvr_limit.tasks.pictures import PictureRows
from rlvr_limit.tasks.questions import Question
from rlvr_limit.types import Problem, UserError

ROOT = Path(__file__).resolve().parents[2]

# One row in the official layout of each benchmark, with the file it comes in and what is to be made of it.
OFFICIAL = {
    "gsm8k": ("gsm8k_test.jsonl", {"question": "How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 1,005"}, "0", "1,005"),
    "math500": (
        "math500.jsonl",
        {"problem": "Polar?", "solution": "...", "answer": r"\left( 3, \frac{\pi}{2} \right)", "unique_id": "a/1.json"},
        "0",
        r"\left( 3, \frac{\pi}{2} \right)",
    ),
    "minerva_math": (
        "minerva_math.jsonl",
        {"problem": "Image?", "solution": r"\[ s=\frac{\boxed{2}}{1} \] so $\boxed{1.6} \mathrm{~cm}$", "idx": 0},
        "0",
        "1.6",
    ),
    "olympiadbench": (
        "olympiadbench.jsonl",
        {
            "id": 1664,
            "question": "Find all.",
            "context": None,
            "final_answer": ["$69$,$84$"],
            "is_multiple_answer": True,
        },
        "1664",
        ("69", "84"),
    ),
    "aime24": ("aime24.jsonl", {"id": 60, "problem": "Aya?", "answer": "025"}, "60", "025"),
    "aime25": ("aime25.jsonl", {"id": "0", "problem": "Base?", "answer": "70"}, "0", "70"),
    "amc23": ("amc23.jsonl", {"id": 7, "question": "Miles?", "answer": 27.0}, "7", "27"),
    "omni_math": ("omni_math_rule.jsonl", {"problem": "Sum?", "solution": "", "answer": "64"}, "0", "64"),
    "gsm8k_train": ("gsm8k_train.jsonl", {"question": "How many?", "answer": "2 + 3 = 5\n#### 5"}, "0", "5"),
    "math_train": (
        "math_train.json",
        {"problem": "Solve.", "solution": r"Thus $\boxed{\frac{1}{2}}$."},
        "0",
        r"\frac{1}{2}",
    ),
}


def write(folder, name, rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def load(name, data_dir):
    """The questions of files that have not as many rows as were published."""
    return benchmarks.load(name, data_dir, allow_rows=BY_NAME)[0]


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_official_layout_is_read_from_every_kind_of_file(tmp_path, name, suffix):
    file, row, identity, answer = OFFICIAL[name]
    (found,) = load(name, write(tmp_path, Path(file).stem + suffix, [row]))
    question = row.get("problem") or row["question"]
    assert found == Question(f"{name}/{identity}", question, answer)


@pytest.mark.parametrize("name", OFFICIAL)
def test_reference_of_every_benchmark_grades_itself_right(tmp_path, name):
    file, row, _, answer = OFFICIAL[name]
    (found,) = load(name, write(tmp_path, file, [row]))
    given = Problem(found.id, found.question, "", (), found.answer)
    text = answer if isinstance(answer, str) else " and ".join(answer)
    assert grade(given, rf"so $\boxed{{{text}}}$").correct
    assert not grade(given, r"so $\boxed{-17}$").correct


def test_every_benchmark_of_the_table_is_tested():
    own = [entry for entry in BENCHMARKS if not entry.part and not entry.several]
    mathematics = [entry for entry in own if not isinstance(entry.read, PictureRows)]
    assert {entry.name for entry in mathematics} == set(OFFICIAL)


def test_ids_and_order_are_those_of_the_file(tmp_path):
    write(tmp_path, "math500.jsonl", [{"problem": f"{i}?", "answer": str(i)} for i in range(20)])
    everything = load("math500", tmp_path)
    assert [entry.id for entry in everything] == [f"math500/{i}" for i in range(20)]
    assert load("math500", str(tmp_path)) == everything


def test_shards_and_folders_are_found(tmp_path):
    for part in range(2):
        rows = [{"problem": f"{part}-{i}?", "answer": str(i)} for i in range(3)]
        write(tmp_path, f"math500/test-0000{part}-of-00002.parquet", rows)
    assert [entry.question for entry in load("math500", tmp_path)][2:4] == ["0-2?", "1-0?"]


def test_a_folder_of_folders_of_files_is_found_as_they_are_called(tmp_path):
    write(tmp_path, "math/math500.jsonl", [{"problem": "?", "answer": "1"}])
    assert [entry.answer for entry in load("math500", tmp_path)] == ["1"]
    write(tmp_path, "old/math500.jsonl", [{"problem": "?", "answer": "2"}])
    with pytest.raises(UserError, match="has math/math500.jsonl, old/math500.jsonl; exactly one"):
        load("math500", tmp_path)
    write(tmp_path, "math500.jsonl", [{"problem": "?", "answer": "3"}])
    assert [entry.answer for entry in load("math500", tmp_path)] == ["3"]


def test_gsm8k_test_is_taken_though_its_training_set_lies_beside_it(tmp_path):
    write(tmp_path, "gsm8k_train.jsonl", [{"question": "train", "answer": "#### 1"}])
    write(tmp_path, "gsm8k_test.jsonl", [{"question": "test", "answer": "#### 2"}])
    assert [entry.question for entry in load("gsm8k", tmp_path)] == ["test"]


def test_context_goes_before_the_question(tmp_path):
    row = {**OFFICIAL["olympiadbench"][1], "context": "Let $x>0$."}
    assert load("olympiadbench", write(tmp_path, "olympiadbench.jsonl", [row]))[0].question == "Let $x>0$.\nFind all."


def test_separators_inside_a_string_do_not_end_a_line(tmp_path):
    write(tmp_path, "math500.jsonl", [{"problem": "a\u2028b\x85c", "answer": "1"}, {"problem": "d", "answer": "2"}])
    assert load("math500", tmp_path)[0].question == "a\u2028b\x85c"


def numbered(count):
    return [{"problem": f"Question {i}?", "answer": str(i)} for i in range(count)]


def test_another_number_of_rows_than_were_published_is_refused_unless_it_is_allowed(tmp_path):
    write(tmp_path, "math500.jsonl", numbered(499))
    for allow_rows in ((), ("gsm8k",)):
        with pytest.raises(UserError, match="math500.jsonl has 499 rows, but 500 were published; ") as error:
            benchmarks.load("math500", tmp_path, 0, allow_rows)
    assert "\n" not in str(error.value) and "--config.allow_rows=\"('math500',)\"" in str(error.value)
    found, notes = benchmarks.load("math500", tmp_path, 0, ("math500",))
    assert len(found) == 499 and len(notes) == 1 and "499 rows, but 500" in notes[0] and "allowed" in notes[0]
    found, notes = benchmarks.load("math500", write(tmp_path, "math500.jsonl", numbered(500)))
    assert len(found) == 500 and notes == ()


def test_a_row_that_repeats_another_is_left_out_and_said_and_counts_as_a_row(tmp_path):
    rows = numbered(498)
    rows[3:3] = [rows[1], rows[2]]
    found, notes = benchmarks.load("math500", write(tmp_path, "math500.jsonl", rows))
    assert [entry.id for entry in found[:5]] == [f"math500/{i}" for i in (0, 1, 2, 5, 6)] and len(found) == 498
    assert notes == ("math500.jsonl: 2 of 500 rows repeat another one and are left out (at 4, 5).",)


def test_what_is_said_of_rows_names_no_folder(tmp_path):
    for part in range(2):
        write(tmp_path, f"math500/test-0000{part}-of-00002.parquet", numbered(250))
    _, notes = benchmarks.load("math500", tmp_path)
    assert "(at test-00001-of-00002.parquet, row 0, test-00001-of-00002.parquet, row 1, " in notes[0]
    assert notes[0].startswith("test-00000-of-00002.parquet: 250 of 500 rows repeat another one")


def test_rows_of_other_names_that_ask_and_answer_the_same_are_one_problem(tmp_path):
    rows = [{"id": i, "problem": "a", "answer": "1"} for i in range(3)]
    found = load("aime24", write(tmp_path, "aime24.jsonl", rows))
    assert [entry.id for entry in found] == ["aime24/0"]


def test_a_training_set_leaves_out_what_has_no_reference_or_another_one_and_says_so(tmp_path):
    rows = [{"problem": f"{i}?", "answer": a} for i, a in enumerate(["1", "", None, "4"])]
    rows += [{"problem": "0?", "answer": "1"}, {"problem": "3?", "answer": "5"}]
    found, notes = benchmarks.load("math_train", write(tmp_path, "math_train.json", rows), 0, ("math_train",))
    assert [(entry.id, entry.answer) for entry in found] == [("math_train/0", "1"), ("math_train/3", "4")]
    assert [note.split(" rows ")[1] for note in notes[:3]] == [
        "have no reference and are left out (at row 1, row 2).",
        "repeat another one and are left out (at row 4).",
        "repeat a question with another answer and are left out (at row 5).",
    ]
    with pytest.raises(UserError, match="'answer' or 'solution' is missing"):
        load("math_train", write(tmp_path, "math_train.json", [{"problem": "?"}]))


GOOD = '{"problem": "p", "answer": "1"}'


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([GOOD, "{broken"], ["math500.jsonl:2", "no JSON", "column 2"]),
        ([GOOD, "", "[1, 2]"], ["math500.jsonl:3", "list", "object"]),
        ([GOOD, '{"problem": "q"}'], ["math500.jsonl:2", "'answer'", "missing", "problem"]),
        ([GOOD, '{"answer": "q"}'], ["math500.jsonl:2", "'problem'", "missing"]),
        ([GOOD, '{"problem": "q", "answer": null}'], ["math500.jsonl:2", "'answer'", "missing"]),
        ([GOOD, '{"problem": " ", "answer": "1"}'], ["math500.jsonl:2", "'problem'", "not empty"]),
        ([GOOD, '{"problem": "q", "answer": 5}'], ["math500.jsonl:2", "'answer'", "5", "text"]),
        ([GOOD, '{"problem": "p", "answer": "2"}'], ["math500.jsonl:2", "its question", "math500.jsonl:1", "differ"]),
        ([], ["math500.jsonl", "no rows"]),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(tmp_path, lines, said):
    (tmp_path / "math500.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError) as caught:
        load("math500", tmp_path)
    assert all(word in str(caught.value) for word in said), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("gsm8k", {"question": "q", "answer": "no marks"}, "#### answer"),
        ("minerva_math", {"problem": "q", "solution": r"no \boxed{"}, "no \\boxed"),
        ("olympiadbench", {"id": 1, "question": "q", "final_answer": "5"}, "a list of answers"),
        ("aime24", {"problem": "q", "answer": "5"}, "'id' is missing"),
    ],
)
def test_a_reference_that_is_not_where_it_should_be_is_refused(tmp_path, name, row, said):
    with pytest.raises(UserError, match=said.replace("\\", r"\\")):
        load(name, write(tmp_path, OFFICIAL[name][0], [row]))


def test_the_same_row_name_twice_is_refused(tmp_path):
    rows = [{"id": 60, "problem": "a", "answer": "1"}, {"id": 60, "problem": "b", "answer": "2"}]
    with pytest.raises(UserError, match="aime24.jsonl:2: its row name is that of .*aime24.jsonl:1 too: 'aime24/60'"):
        load("aime24", write(tmp_path, "aime24.jsonl", rows))


def test_what_cannot_be_found_is_said(tmp_path):
    with pytest.raises(UserError, match="benchmark: 'math5000' is not one of gsm8k, math500, .*, nor a file"):
        load("math5000", tmp_path)
    with pytest.raises(UserError, match="has no file math500"):
        load("math500", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        load("math500", tmp_path / "nowhere")
    for suffix in (".jsonl", ".parquet"):
        write(tmp_path, f"amc23{suffix}", [OFFICIAL["amc23"][1]])
    with pytest.raises(UserError, match="exactly one of them"):
        load("amc23", tmp_path)
    (tmp_path / "aime24.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match="no readable Parquet file"):
        load("aime24", tmp_path)


HUB_FILES = {"README.md": b"not data", "data/train-00000-of-00001.parquet": b""}


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as downloading one data set needs."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        commit, path = "c" * 40, self.path.partition("?")[0]
        if "/api/datasets/HuggingFaceH4/aime_2024/tree/" in path:
            listed = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in HUB_FILES.items()]
            content, kind = json.dumps(listed).encode(), "application/json"
        elif "/api/datasets/HuggingFaceH4/aime_2024" in path:
            siblings = [{"rfilename": name} for name in HUB_FILES]
            info = {"id": "HuggingFaceH4/aime_2024", "sha": commit, "siblings": siblings, "private": False}
            content, kind = json.dumps(info).encode(), "application/json"
        elif "/resolve/" in path:
            content, kind = HUB_FILES[path.split(f"/resolve/{commit}/")[1]], "application/octet-stream"
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{len(content):040x}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def load_from(endpoint, home):
    code = (
        "from rlvr_limit.tasks.benchmarks import load\nfrom rlvr_limit.types import UserError\n"
        "try:\n    print([(q.id, q.question, q.answer) for q in load('aime24', allow_rows=('aime24',))[0]])\n"
        "except UserError as error:\n    print('error:', error)"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hub_files_are_downloaded_kept_and_found_again_without_the_hub(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([OFFICIAL["aime24"][1]]), tmp_path / "rows.parquet")
    HUB_FILES["data/train-00000-of-00001.parquet"] = (tmp_path / "rows.parquet").read_bytes()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        out = load_from(endpoint, tmp_path / "home")
    finally:
        server.shutdown()
        server.server_close()
    assert out == "[('aime24/60', 'Aya?', '025')]\n"
    assert load_from(endpoint, tmp_path / "home") == out
    refused = load_from(endpoint, tmp_path / "empty")
    assert refused.startswith("error: hub data set HuggingFaceH4/aime_2024 cannot be had")
    assert "--config.data_dir=FOLDER" in refused and refused.count("\n") == 1
