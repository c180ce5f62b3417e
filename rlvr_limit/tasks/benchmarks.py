"""The benchmarks as one table, and what is read of them."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rlvr_limit.tasks import files
from rlvr_limit.tasks.files import FileRow
from rlvr_limit.tasks.questions import (
    LiveCodeRows,
    MathRows,
    Question,
    after_hashes,
    boxed,
    evalplus,
    listed,
    number,
    written,
)
from rlvr_limit.types import UserError, not_allowed


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's rows are and how each becomes a question."""

    name: str
    hub: str  # the official data set
    hub_files: tuple[str, ...]  # patterns of its files, of which the first that fits any counts
    stems: tuple[str, ...]  # the same for names of local files, without their suffix
    rows: int
    read: Callable[[FileRow], Question | None]  # its id is the row's own name; None: left out
    several: bool = False  # may come in more files than one
    training: bool = False  # rows without a reference, or that repeat a question, are left out and said
    part: str = ""  # "train" or "test" of a benchmark that is split here


# Hub names and files were not checked against the hub itself. Release v5 of LiveCodeBench is test.jsonl to test5.jsonl.
OMNI_ROWS = 2821
OMNI = (
    "KbsdJames/Omni-MATH", ("test.jsonl", "*test*.parquet"),
    ("omni_math_rule", "omni-math-rule*", "omni_math", "omni_math*", "omni-math*", "omni_math/*"),
)  # fmt: skip
LIVECODEBENCH = (
    "livecodebench/code_generation_lite", ("tes*[t2345].jsonl",), ("livecodebench*", "livecodebench*/test*")
)  # fmt: skip
HUB_TEST = ("data/test-*.parquet",)
PLAIN = MathRows(("problem",), {"answer": FileRow.text})
WITH_HASHES = MathRows(("question",), {"answer": after_hashes})
BENCHMARKS = (
    Benchmark(
        "gsm8k", "openai/gsm8k", ("main/test-*.parquet",), ("gsm8k_test", "gsm8k/*test*", "gsm8k"), 1319, WITH_HASHES,
    ),
    Benchmark(
        "math500", "HuggingFaceH4/MATH-500", ("test.jsonl", "*test*.parquet"),
        ("math500", "math-500*", "math500/*"), 500, PLAIN,
    ),
    Benchmark(
        "minerva_math", "math-ai/minervamath", ("*test*.jsonl", "*test*.parquet"),
        ("minerva_math", "minerva*", "minerva*/*"), 272,
        MathRows(("problem", "question"), {"solution": boxed, "answer": FileRow.text}),
    ),
    Benchmark(
        "olympiadbench", "Hothan/OlympiadBench", ("*OE_TO_maths_en_COMP*.parquet",),
        ("olympiadbench", "olympiad*", "oe_to_maths_en_comp*", "olympiadbench/*"), 675,
        MathRows(("question",), {"final_answer": listed}, "id"),
    ),
    Benchmark(
        "aime24", "HuggingFaceH4/aime_2024", ("data/train-*.parquet", "*.parquet"),
        ("aime24", "aime_2024*", "aime24/*"), 30, MathRows(("problem",), {"answer": number}, "id"),
    ),
    Benchmark(
        "amc23", "math-ai/amc23", ("*test*.parquet", "*test*.jsonl"), ("amc23", "amc23/*"), 40,
        MathRows(("question", "problem"), {"answer": number}, "id"),
    ),
    Benchmark("omni_math", *OMNI, OMNI_ROWS, PLAIN),
    Benchmark("omni_train", *OMNI, 2000, PLAIN, part="train"),
    Benchmark("omni_test", *OMNI, 821, PLAIN, part="test"),
    Benchmark(
        "gsm8k_train", "openai/gsm8k", ("main/train-*.parquet",), ("gsm8k_train", "gsm8k/*train*"), 7473,
        WITH_HASHES, training=True,
    ),
    Benchmark(
        "math_train", "EleutherAI/hendrycks_math", ("*/train-*.parquet",), ("math_train",), 7500,
        MathRows(("problem",), {"answer": FileRow.text, "solution": boxed}), training=True,
    ),
    Benchmark(
        "humanevalplus", "evalplus/humanevalplus", HUB_TEST, ("humanevalplus*", "humanevalplus*/*"), 164,
        evalplus, several=True,
    ),
    Benchmark(
        "mbppplus", "evalplus/mbppplus", HUB_TEST, ("mbppplus*", "mbppplus*/*"), 378, evalplus, several=True,
    ),
    Benchmark("livecodebench_v5", *LIVECODEBENCH, 279, LiveCodeRows("2024-08-01", "2025-01-31"), several=True),
    Benchmark("livecodebench_v5_all", *LIVECODEBENCH, 880, LiveCodeRows("2023-05-01", "2025-01-31"), several=True),
)  # fmt: skip
BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}


def load(name: str, data_dir: str | Path | None = None, seed: int = 0) -> tuple[tuple[Question, ...], str]:
    """(the questions of a benchmark in the order of its files, what a reader must know of them or "").

    Reads a local folder, or the hub's files where data_dir is empty or None. A name that ends like a file is a file of
    one's own problems, {"problem": text, "answer": text, number or list} a line. Raises UserError on an unknown
    benchmark, a missing file, a line that is no JSON, a missing or empty field, or a row that is there twice.
    """
    if name.endswith(files.SUFFIXES):
        rows = files.read_file(name, "file of problems")
        own = MathRows(("problem",), {"answer": written})
        benchmark = Benchmark(files.stem_of(Path(name)), "", (), (), len(rows), own)
        return _questions(benchmark, rows, name), f"{Path(name).name}: problems of one's own."
    if name not in BY_NAME:
        raise not_allowed("benchmark", name, f"one of {', '.join(BY_NAME)}, nor a file ending in .jsonl")
    benchmark = BY_NAME[name]
    if data_dir:
        paths = files.local(Path(data_dir), benchmark.stems, benchmark.several)
    else:
        paths = files.download(benchmark.hub, benchmark.hub_files)
    questions = _questions(benchmark, files.read(paths), str(paths[0]))
    expected = OMNI_ROWS if benchmark.part else benchmark.rows
    if len(questions) != expected:
        logging.warning("%s: %d rows in %s, not %d", name, len(questions), paths[0], expected)
    return split_omni_math(questions, benchmark, data_dir, seed) if benchmark.part else (questions, "")


def _questions(benchmark: Benchmark, rows: Iterable[FileRow], where: str) -> tuple[Question, ...]:
    questions: list[Question] = []
    places: dict[str, str] = {}
    left_out: list[str] = []
    for row in rows:
        lacking = benchmark.training and benchmark.read.lacks_reference(row)
        entry = None if lacking else benchmark.read(row)
        if entry is None or (benchmark.training and entry.question in places):
            left_out.append(row.place)
            continue
        entry = dataclasses.replace(entry, id=f"{benchmark.name}/{entry.id}")
        unique = {"row name": entry.id} if entry.is_code else {"question": entry.question, "row name": entry.id}
        for what, key in unique.items():
            if key in places:
                raise UserError(f"{row.place}: its {what} is that of {places[key]} too: {key!r:.60}")
            places[key] = row.place
        questions.append(entry)
    if not questions:
        raise UserError(f"{where}: no rows")
    if left_out and benchmark.training:
        logging.warning(
            "%s: %d rows without a reference, or with a question met before, left out: %s%s",
            benchmark.name, len(left_out), "; ".join(left_out[:3]), " ..." if len(left_out) > 3 else "",
        )  # fmt: skip
    return tuple(questions)


def split_omni_math(
    questions: tuple[Question, ...], part: Benchmark, data_dir: str | Path | None, seed: int
) -> tuple[tuple[Question, ...], str]:
    """(one part of Omni-MATH-Rule, whose split it is): of the 2,821 rows 2,000 are to train on and 821 to test on.

    data_dir/omni_math_split.json, {"train": [row, ...], "test": [row, ...]}, decides where it is there. Its
    membership was not published with the paper: otherwise the split is drawn by seed in the same proportion.
    """
    path = Path(data_dir) / "omni_math_split.json" if data_dir else None
    if path is None or not path.exists():
        order = list(range(len(questions)))
        random.Random(f"omni_math/{seed}").shuffle(order)
        cut = round(len(order) * 2000 / OMNI_ROWS)
        rows, label = {"train": order[:cut], "test": order[cut:]}, f"drawn by seed {seed}, not the paper's split"
    else:
        rows, label = _split_of_file(path, len(questions)), f"from {path.name}"
    chosen = tuple(questions[row] for row in rows[part.part])
    return chosen, f"{part.name}: {len(chosen)} problems, {label}."


def _split_of_file(path: Path, count: int) -> dict[str, list[int]]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        rows = {part: [int(row) for row in stored[part]] for part in ("train", "test")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}: it must be {{"train": [row, ...], "test": [row, ...]}} ({error!r})') from error
    both = [*rows["train"], *rows["test"]]
    for row in both:
        if not 0 <= row < count:
            raise UserError(f"{path}: row {row} is not one of the {count} rows, counted from 0")
    if len(both) > len(set(both)):
        raise UserError(f"{path}: {len(both) - len(set(both))} rows stand there twice; each is in one part at most")
    return rows
