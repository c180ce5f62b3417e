"""The mathematics benchmarks as one table, and their rows as questions with reference answers."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlvr_limit.grading.math.extract import last_box
from rlvr_limit.grading.math.latex import normalise, split
from rlvr_limit.tasks import files
from rlvr_limit.types import UserError

Reference = Literal["answer", "number", "hashes", "box", "answers", "own"]
"""How the reference is found: the field itself; a number without needless .0; behind ####; in the solution's last box;
the one entry of a list, taken apart at its commas where is_multiple_answer says so; a text, a number or a list."""


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's rows are and what their fields mean.

    hub and hub_files name the official data set and its files; stems are patterns of local file names without suffix.
    Of several field names the first that a row has counts. identity is the field that names a row, "" its index.
    In a training set rows without a reference, and rows that repeat a question, are left out and said.
    """

    name: str
    hub: str
    hub_files: tuple[str, ...]
    stems: tuple[str, ...]
    rows: int
    question: tuple[str, ...]
    answer: tuple[tuple[str, Reference], ...]
    identity: str = ""
    training: bool = False


# Hub names and files were not checked against the hub itself.
BENCHMARKS = (
    Benchmark(
        "gsm8k", "openai/gsm8k", ("main/test-*.parquet",), ("gsm8k_test", "gsm8k/*test*", "gsm8k"), 1319,
        ("question",), (("answer", "hashes"),),
    ),
    Benchmark(
        "math500", "HuggingFaceH4/MATH-500", ("test.jsonl", "*test*.parquet"),
        ("math500", "math-500*", "math500/*"), 500,
        ("problem",), (("answer", "answer"),),
    ),
    Benchmark(
        "minerva_math", "math-ai/minervamath", ("*test*.jsonl", "*test*.parquet"),
        ("minerva_math", "minerva*", "minerva*/*"), 272,
        ("problem", "question"), (("solution", "box"), ("answer", "answer")),
    ),
    Benchmark(
        "olympiadbench", "Hothan/OlympiadBench", ("*OE_TO_maths_en_COMP*.parquet",),
        ("olympiadbench", "olympiad*", "oe_to_maths_en_comp*", "olympiadbench/*"), 675,
        ("question",), (("final_answer", "answers"),), "id",
    ),
    Benchmark(
        "aime24", "HuggingFaceH4/aime_2024", ("data/train-*.parquet", "*.parquet"),
        ("aime24", "aime_2024*", "aime24/*"), 30,
        ("problem",), (("answer", "number"),), "id",
    ),
    Benchmark(
        "amc23", "math-ai/amc23", ("*test*.parquet", "*test*.jsonl"), ("amc23", "amc23/*"), 40,
        ("question", "problem"), (("answer", "number"),), "id",
    ),
    Benchmark(
        "omni_math", "KbsdJames/Omni-MATH", ("test.jsonl", "*test*.parquet"),
        ("omni_math_rule", "omni-math-rule*", "omni_math", "omni_math*", "omni-math*", "omni_math/*"), 2821,
        ("problem",), (("answer", "answer"),),
    ),
    Benchmark(
        "gsm8k_train", "openai/gsm8k", ("main/train-*.parquet",), ("gsm8k_train", "gsm8k/*train*"), 7473,
        ("question",), (("answer", "hashes"),), training=True,
    ),
    Benchmark(
        "math_train", "EleutherAI/hendrycks_math", ("*/train-*.parquet",), ("math_train",), 7500,
        ("problem",), (("answer", "answer"), ("solution", "box")), training=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One problem before it has a prompt: id is "<benchmark>/<row>", answer what the grader compares with."""

    id: str
    question: str
    answer: str | tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Questions to train on and to test on; label says whose split it is."""

    train: tuple[Question, ...]
    test: tuple[Question, ...]
    label: str


def load(name: str, data_dir: str | Path | None = None, limit: int | None = None) -> tuple[Question, ...]:
    """The first `limit` questions of a benchmark (all of them by default), in the order of the official file.

    Reads a local folder, or the hub's files where data_dir is empty or None. Raises UserError on an unknown benchmark,
    a missing file, a line that is no JSON, a missing or empty field, or a question or row name that occurs twice.
    """
    benchmark = next((entry for entry in BENCHMARKS if entry.name == name), None)
    if benchmark is None:
        known = ", ".join(entry.name for entry in BENCHMARKS)
        raise UserError(f"benchmark: found {name!r}, but one of {known} is right")
    if limit is not None and limit < 1:
        raise UserError(f"limit of {name}: found {limit}, but at least 1 question is right")
    if data_dir:
        paths = files.local(Path(data_dir), benchmark.stems)
    else:
        paths = files.download(benchmark.hub, benchmark.hub_files)
    questions = _questions(benchmark, paths)
    if len(questions) != benchmark.rows:
        logging.warning("%s: %d rows in %s, not %d", name, len(questions), paths[0], benchmark.rows)
    return questions[:limit]


def load_file(path: str | Path) -> tuple[Question, ...]:
    """A user's own problems, {"problem": text, "answer": text, number or list} a line; ids are "<file's name>/<row>".

    Raises UserError where the file is missing, and as `load` does.
    """
    path = Path(path)
    if path.suffix not in files.SUFFIXES or not path.is_file():
        raise UserError(f"file of problems: found no {path}; a file ending in {', '.join(files.SUFFIXES)} is right")
    return _questions(Benchmark(path.stem, "", (), (), 0, ("problem",), (("answer", "own"),)), [path])


def _questions(benchmark: Benchmark, paths: list[Path]) -> tuple[Question, ...]:
    found: list[Question] = []
    places: dict[str, str] = {}
    left_out: list[str] = []
    for row in files.read(paths):
        field, question = _first(row, benchmark.question)
        question = _text(row, field, question)
        if row.fields.get("context"):
            question = f"{row.fields['context'].strip()}\n{question}"
        name = row.index if not benchmark.identity else _first(row, (benchmark.identity,))[1]
        if benchmark.training and (question in places or _lacks_reference(benchmark, row)):
            left_out.append(row.place)
            continue
        entry = Question(f"{benchmark.name}/{name}", question, _answer(benchmark, row))
        for what, key in ((f"field {field!r}", question), ("row name", entry.id)):
            if key in places:
                raise UserError(f"{row.place}: {what} is the same as in {places[key]}: {key[:60]!r}")
            places[key] = row.place
        found.append(entry)
    if not found:
        raise UserError(f"{paths[0]}: no rows")
    if left_out:
        logging.warning(
            "%s: %d rows without a reference, or with a question met before, left out: %s%s",
            benchmark.name, len(left_out), "; ".join(left_out[:3]), " ..." if len(left_out) > 3 else "",
        )  # fmt: skip
    return tuple(found)


def _lacks_reference(benchmark: Benchmark, row: files.Row) -> bool:
    """Whether the field is there and says nothing; a field that is not there is an error like any other."""
    field = next((name for name, _ in benchmark.answer if name in row.fields), "")
    value = row.fields.get(field)
    if not isinstance(value, str):
        return field != "" and value is None
    return not (last_box(value) if dict(benchmark.answer)[field] == "box" else value.strip())


def _first(row: files.Row, names: tuple[str, ...]) -> tuple[str, Any]:
    for name in names:
        if row.fields.get(name) is not None:
            return name, row.fields[name]
    have = ", ".join(row.fields)
    raise UserError(f"{row.place}: field {' or '.join(map(repr, names))} is missing; there are {have or 'none'}")


def _text(row: files.Row, field: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{row.place}: field {field!r} is {value!r:.60}, but a text that is not empty is right")
    return value.strip()


def _answer(benchmark: Benchmark, row: files.Row) -> str | tuple[str, ...]:
    field, value = _first(row, tuple(name for name, _ in benchmark.answer))
    match dict(benchmark.answer)[field]:
        case "number":
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            return _text(row, field, str(value))
        case "hashes":
            before, marks, reference = _text(row, field, value).rpartition("####")
            if not marks or not reference.strip():
                raise UserError(f"{row.place}: field {field!r} does not end in '#### answer'")
            return reference.strip()
        case "box":
            reference = last_box(_text(row, field, value))
            if not reference:
                raise UserError(f"{row.place}: field {field!r} has no \\boxed{{...}} with an answer in it")
            return reference
        case "answers":
            if not isinstance(value, list) or not value:
                raise UserError(f"{row.place}: field {field!r} is {value!r:.60}, but a list of answers is right")
            answers = [_text(row, field, entry) for entry in value]
            if row.fields.get("is_multiple_answer"):
                answers = [part for entry in answers for part in split(normalise(entry), (",", ";")) if part]
            return answers[0] if len(answers) == 1 else tuple(answers)
        case "own":
            return _own(row, field, value)
        case _:
            return _text(row, field, value)


def _own(row: files.Row, field: str, value: Any) -> str | tuple[str, ...]:
    """What people write: a text, a number, or a list of these that are all asked for."""
    parts = value if isinstance(value, list) else [value]
    texts = [str(part) if isinstance(part, int | float) and not isinstance(part, bool) else part for part in parts]
    if not texts:
        raise UserError(f"{row.place}: field {field!r} is an empty list, but at least one answer is right")
    answers = tuple(_text(row, field, part) for part in texts)
    return answers if len(answers) > 1 else answers[0]


def split_omni_math(questions: tuple[Question, ...], data_dir: str | Path | None, seed: int) -> Split:
    """Train and test questions of Omni-MATH-Rule, 2,000 and 821 of the 2,821.

    data_dir/omni_math_split.json, {"train": [row, ...], "test": [row, ...]}, decides where it is there. Its
    membership was not published with the paper: otherwise the split is drawn by seed in the same proportion, and its
    label says so.
    """
    path = Path(data_dir) / "omni_math_split.json" if data_dir else None
    if path is None or not path.exists():
        order = list(questions)
        random.Random(f"omni_math/{seed}").shuffle(order)
        cut = round(len(order) * 2000 / 2821)
        return Split(tuple(order[:cut]), tuple(order[cut:]), f"drawn by seed {seed}, not the paper's split")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        train, test = ([int(row) for row in rows[part]] for part in ("train", "test"))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: {{"train": [row, ...], "test": [row, ...]}} is right ({error!r})') from error
    for row in (*train, *test):
        if not 0 <= row < len(questions):
            raise UserError(f"{path}: row {row} is not one of the {len(questions)} rows, counted from 0")
    twice = len(train) + len(test) - len({*train, *test})
    if twice:
        raise UserError(f"{path}: {twice} rows stand there twice; each row is in one part at most")
    return Split(tuple(questions[i] for i in train), tuple(questions[i] for i in test), f"from {path.name}")
