"""From records to the page: what guessing reaches, guessable problems, and chains that a person has judged."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from fractions import Fraction
from html import unescape
from math import comb
from pathlib import Path

import jax
import numpy as np
import pytest

from rlvr_limit import checkpoint, records
from rlvr_limit.commands import grade, report
from rlvr_limit.evaluation.review import JUDGED, judged_chains
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.report.text import percent, signed_percent
from rlvr_limit.settings import Settings, command_line, schema
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY
from tests.support.studies import prepare_config
from tests.support.tokenizer_files import write_qwen2

N, ARMS = 100, ("base", "rl", "direct")
GOLD = ("2", "2", "3", "\\frac{1}{2}")
HALVES = {"0.5", "\\frac{1}{2}", "\\frac{2}{4}"}
RIGHT = ({"2"}, {"2"}, {"3"}, HALVES)
"""What is right for each problem, by hand."""

ODDS = {
    "base": [("2", "7", "3"), ("3", "3", "7", "3", "7", "", "2"), ("2", "\\frac{2}{4}", "7"), ("2", "7", "9")],
    "rl": [("2", "\\frac{2}{4}"), ("2", "3"), ("2",), ("2", "\\frac{2}{4}", "3")],
    "direct": [("7",), ("7", ""), ("3", "2"), ("9",)],
}
"""The answers that each arm gives to each problem, one drawn at random for a sample."""

HALF_AT = (1, 4, 9, 13)
"""The samples of the base that are right about the last problem."""


def drawn(arm: str) -> list[list[str]]:
    """[problem][sample] the answer, "" for none. The answer-only arm guesses the first problem once in N."""
    rng = np.random.default_rng(ARMS.index(arm))
    answers = [[str(rng.choice(options)) for _ in range(N)] for options in ODDS[arm]]
    if arm == "direct":
        answers[0][5] = "2"
    if arm == "base":
        answers[3] = ["0.5" if j in HALF_AT else a for j, a in enumerate(answers[3])]
    return answers


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A run of three arms whose samples are on record; the last arm is the base, asked for the answer alone."""
    root = tmp_path_factory.mktemp("guess")
    size = load_tokenizer(write_qwen2(root / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=16, layers=1, heads=2, kv_heads=1, head_width=8, ffn_width=16, context=300)
    checkpoint.export_hf(root / "model", init_params(shape, jax.random.key(0)), shape, root / "tokenizer")
    rows = [{"problem": f"Question {i}?", "answer": gold} for i, gold in enumerate(GOLD)]
    (root / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "main.py", f"--config={REPOSITORY / 'configs' / 'qwen7b_math.py'}", f"--config.sampling.n={N}",
        f"--config.benchmarks=('{root / 'mine.jsonl'}',)", "--config.sampling.max_tokens=8",
        *(f"--config.arms.{name}.weights={root / 'model'}" for name in ARMS[:2]), f"--config.run_dir={root / 'run'}",
        "--config.allow_differ=('template',)",
    ]  # fmt: skip
    before = jax.config.jax_compilation_cache_dir
    made = command_line.read_config(words, REPOSITORY / "configs" / "countdown.py")
    with made.unlocked():
        made.arms.direct = made.arms.base.copy_and_resolve_references()
        made.arms.direct.update(label="base without reasoning", group="other", prompt="answer_only")
    store(prepare_config(made).root)
    yield made
    jax.config.update("jax_compilation_cache_dir", before)


def store(root: Path) -> None:
    """What sampling would have left: samples, hashes of weights, timings."""
    with records.Writer(root, "samples") as samples:
        for arm in ARMS:
            records.update_manifest(root, f"arms.{arm}.weights_sha256", arm)
            for i, answers in enumerate(drawn(arm)):
                texts = [f"So \\boxed{{{answer}}}." if answer else "I do not\nknow." for answer in answers]
                row = {"arm": arm, "problem_id": f"mine/{i}", "tokens": [1], "logp": [-1.0], "logp_model": [-1.0]}
                row |= {"stop": "eos", "time": 0.0}
                samples.append([row | {"index": index, "text": text} for index, text in enumerate(texts)])
    (root / "timings.jsonl").write_text(json.dumps({"stage": "sample", "seconds": 1.0}) + "\n")


@pytest.fixture(scope="module")
def plain(config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the report after grading, before anyone has judged a chain."""
    grade.run(schema.from_config(Settings, config))
    report.run(schema.from_config(Settings, config))
    return shutil.copytree(Path(config.run_dir) / "report", tmp_path_factory.mktemp("plain") / "report")


def review(config) -> Path:
    return Path(config.run_dir) / "review" / "rare_wins.csv"


@pytest.fixture(scope="module")
def judged(config, plain: Path) -> Path:
    """The report after a person has judged one chain right and one wrong, and grading has written the file anew."""
    said = {("base", "mine/3", HALF_AT[0]): "right", ("base", "mine/3", HALF_AT[1]): "Wrong "}
    rows = list(csv.DictReader(review(config).open(newline="")))
    for row in rows:
        row[JUDGED] = said.get((row["arm"], row["problem_id"], int(row["index"])), "")
    with review(config).open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    grade.run(schema.from_config(Settings, config))
    # A sample that is not right has no say, whatever stands in the file.
    wrong = next(j for j, answer in enumerate(drawn("base")[3]) if answer not in HALVES)
    with review(config).open("a", newline="", encoding="utf-8") as file:
        row = rows[0] | {"arm": "base", "problem_id": "mine/3", "index": wrong, JUDGED: "right"}
        csv.DictWriter(file, rows[0]).writerow(row)
    report.run(schema.from_config(Settings, config))
    return Path(config.run_dir) / "report"


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def part(folder: Path, name: str) -> str:
    """A section of the page."""
    page = unescape((folder / "index.html").read_text(encoding="utf-8")).replace("\u00a0", " ")
    return re.search(rf'<section id="{name}".*?</section>', page, re.DOTALL)[0]


def wins(arm: str) -> list[list[int]]:
    """Indices of the right samples of each problem."""
    return [[j for j, a in enumerate(answers) if a in RIGHT[i]] for i, answers in enumerate(drawn(arm))]


def pass_at(counts: list[int], k: int) -> Fraction:
    return sum(1 - Fraction(comb(N - c, k), comb(N, k)) for c in counts) / len(counts)


def marginal(arm: str) -> list[Fraction]:
    """How often an arm's answers to the other problems are right here, whatever the spelling of a half."""
    answers, rates = drawn(arm), []
    for i, right in enumerate(RIGHT):
        rates.append(Fraction(sum(a in right for j in range(4) if j != i for a in answers[j]), 3 * N))
    return rates


def test_guess_rates_are_frequencies_among_answers_to_other_problems(plain):
    rows = table(plain / "problems.csv")
    for arm in ARMS:
        assert [float(row[f"marginal_{arm}"]) for row in rows] == pytest.approx([float(x) for x in marginal(arm)])
    assert all(row["guess_rate"] == "" for row in rows)


def test_corrected_curves_stand_beside_the_raw_ones(plain):
    for arm in ARMS:
        found = [row for row in table(plain / "curves.csv") if row["arm"] == arm]
        assert [int(row["k"]) for row in found] == list(range(1, N + 1))
        for row in found:
            raw = pass_at([len(right) for right in wins(arm)], int(row["k"]))
            alone = sum(1 - (1 - rate) ** int(row["k"]) for rate in marginal(arm)) / 4
            assert float(row["pass@k"]) == pytest.approx(float(raw), abs=1e-12)
            assert float(row["guess"]) == pytest.approx(float(alone), abs=1e-12)
            # 1 - guessing loses digits where guessing reaches nearly all.
            rel = 1e-12 + 1e-15 / float(1 - alone)
            assert float(row["guess_corrected"]) == pytest.approx(
                float((raw - alone) / (1 - alone)), abs=1e-12, rel=rel
            )


def test_the_page_shows_every_source_of_guesses_with_raw_and_corrected_values(plain):
    section = part(plain, "guessing")
    for arm, label in (("base", "Qwen2.5-7B"), ("rl", "SimpleRL-Zoo 7B")):
        raw = float(pass_at([len(right) for right in wins(arm)], N))
        asked = [len(right) / N for right in wins("direct")]
        for source, rates in (("own answers to other", marginal(arm)), ("answers without reasoning", asked)):
            alone = float(sum(1 - (1 - rate) ** N for rate in rates) / 4)
            row = re.search(rf"<th scope=row>{label}</th><td[^>]*>{source}.*", section)[0]
            cell = re.findall(r"<td[^>]*>(.*?)</td>", row)[-1]
            corrected = signed_percent((raw - alone) / (1 - alone))
            assert cell == f"{corrected}<br><small>{100 * raw:.1f} / {100 * alone:.1f}</small>"
    assert section.count("<th scope=row>") == 5 + 3
    assert "Dotted, in each arm" in part(plain, "found")


def test_problems_answered_rarely_without_reasoning_are_left_out_beside_all(plain):
    assert json.loads((plain / "summary.json").read_text())["guessable"] == ["mine/0"]
    counts = [len(right) for right in wins("rl")]
    shown = part(plain, "guessing").partition("without guessable")[2]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", re.search("<th scope=row>SimpleRL.*", shown)[0])
    for cell, k in zip(cells, (1, 4, 16, 64, N), strict=True):
        without, whole = (percent(float(pass_at(chosen, k))) for chosen in (counts[1:], counts))
        assert cell == f"{without}<br><small>{whole} on all</small>" and without != whole


def test_the_page_holds_the_authors_rules_beside_ours(plain):
    """They agree: all answers are boxed, and where nothing is, "I do not know." has no number either."""
    arms = json.loads((plain / "summary.json").read_text())["arms"]
    for name in ARMS:
        said, right = arms[name]["second_opinion"], sum(len(found) for found in wins(name))
        assert (said["both"], said["only_first"], said["only_second"]) == (right, 0, 0)
        assert said["neither"] == 4 * N - right and said["pass_1"] == pytest.approx(right / (4 * N))
    row = re.search("<th scope=row>Qwen2.5-7B</th>(.*)", part(plain, "rates").partition("paper's authors</h3>")[2])[1]
    right = sum(len(found) for found in wins("base"))
    share = percent(right / (4 * N))
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["100.0 %", str(right), "0", "0", share, share]


def test_without_judgments_the_page_says_how_to_judge(plain):
    assert "no person has judged" in part(plain, "chains") and not (plain / "chains.csv").exists()


def test_judged_chains_bound_cot_pass_at_k(judged):
    counts = [len(right) for right in wins("base")]
    rows = table(judged / "chains.csv")
    assert [(row["arm"], int(row["k"])) for row in rows] == [("base", k) for k in range(1, N + 1)]
    for row in rows:
        k = int(row["k"])
        assert float(row["low"]) == pytest.approx(float(pass_at([0, 0, 0, 1], k)), abs=1e-12)
        assert float(row["high"]) == pytest.approx(float(pass_at([*counts[:3], counts[3] - 1], k)), abs=1e-12)
    section = part(judged, "chains")
    row = re.search("<th scope=row>Qwen2.5-7B<br><small>(.*?)</small></th>(.*)", section)
    assert row[1] == f"1 right, 1 wrong, {sum(counts) - 2} not judged"
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row[2])
    low, high = (percent(float(pass_at(c, N))) for c in ([0, 0, 0, 1], [*counts[:3], counts[3] - 1]))
    assert cells[-1] == f"{low} to {high}<br><small>{percent(float(pass_at(counts, N)))} pass@{N}</small>"
    assert (
        f">CoT-Pass@{N}<" in section
        and "lower to upper" in section
        and "Lower: a right answer whose chain nobody judged" in section
    )
    assert "none of their chains was judged: SimpleRL-Zoo 7B and base without reasoning." in section


def test_a_rarely_solved_problem_counts_as_solved_where_a_chain_of_it_was_judged_right(plain, judged):
    """Of the base mine/3, 4 times in 100; of the answer-only arm mine/0, once."""
    for folder, valid in ((plain, 0), (judged, 1)):
        arms = json.loads((folder / "summary.json").read_text())["arms"]
        assert arms["base"]["rare_wins"] == {"problems": 1, "valid": valid, "invalid": 0}
        assert arms["direct"]["rare_wins"]["problems"] == 1 and arms["rl"]["rare_wins"]["problems"] == 0
        cells = re.search("<th scope=row>Qwen2.5-7B</th>(.*)", part(folder, "chains"))[1]
        assert re.findall(r"<td[^>]*>(.*?)</td>", cells) == ["1", str(valid), "0", str(1 - valid)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text.replace("base,mine/3", "base,mine/9"), "problem 'mine/9', sample"),
        (lambda text: text.replace("base,mine/3", "bsae,mine/3"), "arm 'bsae'"),
        (lambda text: text.replace(JUDGED, "chain"), "no column 'chain_is'"),
        (lambda text: re.sub(r"base,mine/3,\d+", "base,mine/3,x", text), "arm, problem_id and index name no sample"),
    ],
)
def test_judgments_that_name_nothing_are_refused_in_one_line(config, judged, spoil, said):
    good = review(config).read_text()
    try:
        review(config).write_text(spoil(good))
        with pytest.raises(UserError) as refused:
            judged_chains(prepare_config(config))
    finally:
        review(config).write_text(good)
    assert said in str(refused.value) and "\n" not in str(refused.value)
