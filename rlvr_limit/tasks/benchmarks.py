"""The benchmarks as one table, and what is read of them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from rlvr_limit.grading import reasoning_gym
from rlvr_limit.images import Image
from rlvr_limit.tasks import files
from rlvr_limit.tasks.files import FileRow
from rlvr_limit.tasks.pictures import PictureRows
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
    hub: str  # the official data set; "": the hub does not have it
    hub_files: tuple[str, ...]  # patterns of its files, of which the first that fits any counts
    stems: tuple[str, ...]  # the same for names of local files, without their suffix
    rows: int  # of its files, as published
    read: Callable[[FileRow], Question | None]  # its id is the row's own name; None: left out
    several: bool = False  # may come in more files than one
    training: bool = False  # to learn from: rows without a reference, or with another one, are left out and said
    part: str = ""  # "train" or "test" of a benchmark that is split here
    distinct: int = 0  # problems, where that is not one a row
    home: str = ""  # of a benchmark without hub
    other_rows: tuple[int, ...] = ()  # of other files of it that are in use
    note: str = ""  # what every page must say of it

    @property
    def problems(self) -> int:
        """As many as its published files make."""
        return self.distinct or self.rows


OMNI_TRAINING = 2000
"""Problems of Omni-MATH-Rule that Yue et al. 2025 train on."""

OMNI_HOME = (
    "omni_math_rule.jsonl of https://github.com/KbsdJames/omni-math-rule, 2,821 rows, which the hub does not have: its "
    "KbsdJames/Omni-MATH is another set, of 4,428 rows"
)
OMNI = (
    "", (), ("omni_math_rule*", "omni-math-rule*", "omni_math", "omni-math", "omni_math/*", "omni-math/*"), 2821,
)  # fmt: skip
# Hub names and files were not checked against the hub itself. Release v5 of LiveCodeBench is test.jsonl to test5.jsonl.
LIVECODEBENCH = (
    "livecodebench/code_generation_lite", ("tes*[t2345].jsonl",), ("livecodebench*", "livecodebench*/test*")
)  # fmt: skip
HUB_TEST = ("data/test-*.parquet",)
PLAIN = MathRows(("problem",), {"answer": FileRow.text})
HUB_IMAGE = ("decoded_image", "image")  # the Parquet files have both, a file of annotations the name alone
GEOMETRY = PictureRows(("problem",), {"answer": FileRow.text})
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
        "aime25", "math-ai/aime25", ("test.jsonl", "*test*.parquet"), ("aime25", "aime_2025*", "aime25/*"), 30,
        MathRows(("problem",), {"answer": number}, "id"),
    ),
    Benchmark(
        "amc23", "math-ai/amc23", ("*test*.parquet", "*test*.jsonl"), ("amc23", "amc23/*"), 40,
        MathRows(("question", "problem"), {"answer": number}, "id"),
    ),
    Benchmark("omni_math", *OMNI, PLAIN, distinct=2816, home=OMNI_HOME),
    Benchmark("omni_train", *OMNI, PLAIN, part="train", distinct=OMNI_TRAINING, home=OMNI_HOME),
    Benchmark("omni_test", *OMNI, PLAIN, part="test", distinct=816, home=OMNI_HOME),
    Benchmark(
        "gsm8k_train", "openai/gsm8k", ("main/train-*.parquet",), ("gsm8k_train", "gsm8k/*train*"), 7473,
        WITH_HASHES, training=True,
    ),
    Benchmark(
        "math_train", "EleutherAI/hendrycks_math", ("*/train-*.parquet",), ("math_train",), 7500,
        MathRows(("problem",), {"answer": FileRow.text, "solution": boxed}), training=True, other_rows=(7474,),
    ),
    Benchmark(
        "humanevalplus", "evalplus/humanevalplus", HUB_TEST, ("humanevalplus*", "humanevalplus*/*"), 164,
        evalplus, several=True,
    ),
    Benchmark(
        "mbppplus", "evalplus/mbppplus", HUB_TEST, ("mbppplus*", "mbppplus*/*"), 378, evalplus, several=True,
    ),
    Benchmark(
        "mathvista", "AI4Math/MathVista", ("data/testmini-*.parquet",), ("mathvista*", "mathvista/*testmini*"), 460,
        PictureRows(
            ("question",), {"answer": FileRow.text}, "pid", HUB_IMAGE, tagged=False, choices="choices"
        ),
        note="mathvista: without multiple choice. Of pid 479 the published reference is 2.54; its chart says 2.55.",
    ),
    Benchmark(
        "mathvision", "MathLLMs/MathVision", ("data/testmini-*.parquet",), ("mathvision*", "mathvision/*testmini*"),
        114,
        PictureRows(
            ("question",), {"answer": FileRow.text}, "id", HUB_IMAGE, tagged=False, choices="options"
        ),
        note="mathvision: without multiple choice. The reference of id 59 is a letter, C, though it lists no choices.",
    ),
    Benchmark(
        "geometry3k", "hiyouga/geometry3k", HUB_TEST, ("geometry3k_test", "geometry3k/*test*", "geometry3k"), 601,
        GEOMETRY,
    ),
    Benchmark(
        "geometry3k_train", "hiyouga/geometry3k", ("data/train-*.parquet",), ("geometry3k_train", "geometry3k/*train*"),
        2101, GEOMETRY, training=True,
    ),
    Benchmark("livecodebench_v5", *LIVECODEBENCH, 279, LiveCodeRows("2024-08-01", "2025-01-31"), several=True),
    Benchmark("livecodebench_v5_all", *LIVECODEBENCH, 880, LiveCodeRows("2023-05-01", "2025-01-31"), several=True),
)  # fmt: skip
BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS}


def load(
    name: str, data_dir: str | Path | None = None, seed: int = 0, allow_rows: Collection[str] = ()
) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """(the questions of a benchmark in the order of its files, what a reader must know of them).

    Reads a local folder, or the hub's files where data_dir is empty or None. A name that ends like a file is a file of
    one's own problems, {"problem": text, "answer": text, number or list} a line, with "image" or "images" where it
    has some: names of files beside it, or their bytes. One that begins with reasoning_gym.PREFIX is drawn by that
    package. A row that repeats another, with the same answer, is left out and said. Raises UserError on an unknown
    benchmark, a missing file, a line that is no JSON, a missing or empty field, a question that is there with two
    answers, or another number of rows than was published, unless allow_rows names the benchmark.
    """
    if name.endswith(files.SUFFIXES):
        own = Benchmark(called(name), "", (), (), 0, PictureRows(("problem",), {"answer": written}, needed=False))
        found = _read(own, files.read_file(name, "file of problems"), Path(name))
        return found.questions, (f"{Path(name).name}: problems of one's own.", *found.notes)
    if name.startswith(reasoning_gym.PREFIX):
        return _drawn(name, seed)
    if name not in BY_NAME:
        drawn = f"{reasoning_gym.PREFIX}NAME"
        raise not_allowed("benchmark", name, f"one of {', '.join(BY_NAME)}, {drawn}, nor a file ending in .jsonl")
    benchmark = BY_NAME[name]
    if data_dir:
        paths = files.local(Path(data_dir), benchmark.stems, benchmark.several)
    elif benchmark.hub:
        paths = files.download(benchmark.hub, benchmark.hub_files)
    else:
        raise UserError(f"{name}: it is {benchmark.home}; give the file's folder: --config.data_dir=FOLDER")
    found = _read(benchmark, files.read(paths), paths[0])
    questions, notes = found.questions, [*filter(None, [benchmark.note]), *found.notes]
    if found.rows not in (benchmark.rows, *benchmark.other_rows):
        said = f"has {found.rows:,} rows, but {benchmark.rows:,} were published"
        if name not in allow_rows:
            home = f"; the benchmark is {benchmark.home}" if benchmark.home else ""
            advice = f"to take it as it is: --config.allow_rows=\"('{name}',)\""
            raise UserError(f"{name}: {paths[0]} {said}{home}; {advice}")
        # Without its folder: what is said counts among a run's conditions.
        notes.append(f"{name}: {paths[0].name} {said}; allowed by config.allow_rows.")
    if benchmark.part:
        questions, said = split_omni_math(questions, found.rows, benchmark, data_dir, seed)
        notes.append(said)
    return questions, tuple(notes)


def _drawn(name: str, seed: int) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """The problems of a data set of reasoning-gym, those asked in the same words once."""
    by_words: dict[str, Question] = {}
    for i, entry in enumerate(reasoning_gym.entries(name, seed)):
        # Some data sets take many answers and name none.
        question = Question(f"{name}/{seed}-{i}", entry["question"], str(entry["answer"] or "any that is right"))
        by_words.setdefault(question.question, question)
    version = importlib.metadata.version("reasoning-gym")
    return tuple(by_words.values()), (f"{name}: {len(by_words)} problems drawn by reasoning-gym {version}.",)


def called(name: str) -> str:
    """What a benchmark's problems are called by, before the slash of their ids: a file of one's own by its own name."""
    return files.stem_of(Path(name)) if name.endswith(files.SUFFIXES) else name


@dataclass(frozen=True)
class _Rows:
    """What was read of a benchmark's files."""

    questions: tuple[Question, ...]
    rows: int  # those left out below included
    notes: tuple[str, ...]


def _read(benchmark: Benchmark, rows: Iterable[FileRow], path: Path) -> _Rows:
    count = 0
    by_key: dict[tuple[str, tuple[Image, ...]], tuple[Question, str]] = {}
    places: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    for row in rows:
        if benchmark.training and benchmark.read.lacks_reference(row):
            count += 1
            left_out.setdefault("have no reference", []).append(row.place)
            continue
        entry = benchmark.read(row)
        if entry is None:
            continue
        count += 1
        entry = dataclasses.replace(entry, id=f"{benchmark.name}/{entry.id}")
        # Two tasks of code may be told in the same words.
        said, what = (entry.id, "row name") if entry.is_code else (entry.question, "question")
        first, place = by_key.setdefault((said, entry.images), (entry, row.place))
        if first is not entry and (first.question, first.answer) == (entry.question, entry.answer):
            left_out.setdefault("repeat another one", []).append(row.place)
        elif first is not entry and benchmark.training:
            left_out.setdefault("repeat a question with another answer", []).append(row.place)
        elif first is not entry:
            raise UserError(f"{row.place}: its {what} is that of {place} too, but they differ: {said!r:.60}")
        elif entry.id in places:
            raise UserError(f"{row.place}: its row name is that of {places[entry.id]} too: {entry.id!r:.60}")
        else:
            places[entry.id] = row.place
    if not by_key:
        raise UserError(f"{path}: no rows")
    notes = [
        f"{path.name}: {len(where)} of {count:,} rows {why} and are left out (at {_listed(where, path)})."
        for why, where in left_out.items()
    ]
    return _Rows(tuple(entry for entry, _ in by_key.values()), count, tuple(notes))


def _listed(places: list[str], path: Path) -> str:
    """The first places, without the file where it is this one, and without any folder."""
    short = [Path(place.removeprefix(str(path)).strip(":, ")).name for place in places[:5]]
    return ", ".join(short) + ", ..." * (len(places) > 5)


def split_omni_math(
    questions: tuple[Question, ...], rows: int, part: Benchmark, data_dir: str | Path | None, seed: int
) -> tuple[tuple[Question, ...], str]:
    """(one part of Omni-MATH-Rule, whose split it is): 2,000 of its 2,816 problems to train on, 816 to test on.

    data_dir/omni_math_split.json, {"train": [row, ...], "test": [row, ...]}, decides where it is there; of a problem
    whose rows are in both parts the first row counts. Who was in which half is not published with the paper: otherwise
    the split is drawn by seed, of a file of another size in the same proportion. questions are named by their rows.
    """
    path = Path(data_dir) / "omni_math_split.json" if data_dir else None
    if path is None or not path.exists():
        order = list(questions)
        random.Random(f"omni_math/{seed}").shuffle(order)
        cut = round(len(order) * OMNI_TRAINING / BY_NAME["omni_math"].problems)
        chosen = order[:cut] if part.part == "train" else order[cut:]
        label = f"drawn by seed {seed}, not the paper's split"
    else:
        split, label = _split_of_file(path, rows), f"from {path.name}"
        by_row = {int(question.id.rpartition("/")[2]): question for question in questions}
        chosen = [by_row[row] for row in split[part.part] if row in by_row]
    return tuple(chosen), f"{part.name}: {len(chosen):,} problems, {label}."


def _split_of_file(path: Path, count: int) -> dict[str, list[int]]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8-sig"))
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
