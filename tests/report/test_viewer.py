"""Samples side by side: what a sample file holds, what is cut where they would be too many, and what the page says."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rlvr_limit.evaluation.arm_results import ANSWERS, EXAMPLES, examples_of_arm, frequent_answers
from rlvr_limit.report import Results
from rlvr_limit.report.analysis import analyse
from rlvr_limit.report.page import build
from rlvr_limit.report.results import check
from rlvr_limit.report.viewer import TEXT_CHARACTERS, write_samples
from rlvr_limit.types import UserError
from tests.support.result_pages import HOSTILE, M, N, example, study


def unpacked(path: Path) -> tuple[int, dict]:
    place, packed = re.fullmatch(r'rlvrSamples\((\d+),"([A-Za-z0-9+/=]+)"\);\n', path.read_text("ascii")).groups()
    return int(place), json.loads(zlib.decompress(base64.b64decode(packed)))


def page(shown: Results, folder: Path) -> str:
    found, drawn = analyse(shown), {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    images = dict.fromkeys(("curves", "differences", "histograms", "efficiency"), drawn)
    return build("index.html.j2", shown, found, [], images, {}, write_samples(shown, folder))


def test_a_sample_file_holds_one_problem_of_every_arm_and_no_character_of_markup(tmp_path):
    examples = [
        example(0, "rl", 5, HOSTILE, correct=True),
        example(0, "base", 3, status="timeout", logp=None),
        example(0, "base", 1, extracted="", status="no_answer"),
        example(0, "base", 2),
    ]
    kept = write_samples(study(examples), tmp_path)
    place, content = unpacked(tmp_path / "samples" / "0.js")
    assert place == 0 and content["question"] == f"question 0 {HOSTILE}"
    base, rl = content["arms"]
    assert (base["n"], base["c"], base["others"]) == (N, 3, [0, 0]) and base["answers"][1] == [HOSTILE, 3, 1]
    assert [row[:5] for row in base["samples"]] == [
        [1, "no answer", "", -1.23, "eos"],
        [2, "wrong", "7", -1.23, "eos"],
        [3, "no verdict: timeout", "7", None, "eos"],
    ]
    assert rl["samples"] == [[5, "right", "7", -1.23, "eos", HOSTILE]]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"{i}.js" for i in range(M)]
    assert (kept.samples, kept.of, kept.cut) == (4, 2 * M * N, 0)
    assert kept.bytes == sum(path.stat().st_size for path in (tmp_path / "samples").iterdir())


def test_files_stay_within_the_budget_by_leaving_out_the_last_samples_and_then_the_middle_of_texts(tmp_path):
    rng = np.random.default_rng(0)
    texts = {(arm, i): "".join(map(chr, rng.integers(97, 123, 4000))) for arm in ("base", "rl") for i in range(N)}
    examples = [example(p, arm, N - 1 - i, text) for p in range(M) for (arm, i), text in texts.items()]
    shown = study(examples)
    for budget, most in ((M * 120_000, 8), (M * 30_000, 4), (M * 16_000, 2), (M * 3_000, 1)):
        kept = write_samples(shown, tmp_path, budget)
        assert kept.bytes <= budget and kept.most == kept.fewest == most and kept.cut == (2 * M if most == 1 else 0)
        samples = unpacked(tmp_path / "samples" / "2.js")[1]["arms"][0]["samples"]
        assert [row[0] for row in samples] == list(range(N - most, N))
    text = samples[0][5]
    head, missing, tail = re.fullmatch(r"([a-z]+) \[… ([\d,]+) characters left out …\] ([a-z]+)", text).groups()
    assert texts["base", 0].startswith(head) and texts["base", 0].endswith(tail)
    assert len(head) + len(tail) + int(missing.replace(",", "")) == 4000


def test_the_page_says_what_was_cut_and_leads_to_every_problem(tmp_path):
    long = example(0, "base", 0, "x" * (TEXT_CHARACTERS + 1))
    markup = page(study([long, example(1, "rl", 0)]), tmp_path)
    said = unescape(markup).replace("\u00a0", " ")
    assert "Cut: of 64 samples, 2 lie beside this page in samples/" in said and "0 to 1 per problem and arm" in said
    assert "Texts whose middle is left out, as marked there: 1." in said
    rows = re.findall(r'<tr id="problem-(\d)" data-solved="(\d\d)"><td[^>]*><a href="#problem-(\d)">', markup)
    assert rows == [("0", "11", "0"), ("1", "00", "1"), ("2", "11", "2"), ("3", "00", "3")]
    whole = [example(p, arm, i) for p in range(M) for arm in ("base", "rl") for i in range(N)]
    assert "All 64 samples lie beside this page" in page(study(whole), tmp_path)


def test_without_samples_there_is_a_table_and_no_viewer(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "0.js").write_text("left by an earlier page")
    markup = page(study([]), tmp_path)
    assert 'id="problem-3"' in markup and 'id="viewer"' not in markup and '<td data-value="p3">p3 <' in markup
    assert list((tmp_path / "samples").iterdir()) == []


def test_images_of_a_question_lie_in_its_file_and_take_nothing_from_its_samples(tmp_path):
    text = "".join(chr(97 + i * i % 23) for i in range(4000))
    examples = [example(0, "base", i, text) for i in range(4)]
    bare = write_samples(study(examples), tmp_path, budget=M * 9_000)
    seen = ("data:image/jpeg;base64," + "A" * 20_000, "data:image/jpeg;base64,B")
    kept = write_samples(study(examples, images={"p0": seen}), tmp_path, budget=M * 9_000)
    _, content = unpacked(tmp_path / "samples" / "0.js")
    assert tuple(content["images"]) == seen and len(content["arms"][0]["samples"]) == kept.most
    assert (kept.samples, kept.cut) == (bare.samples, bare.cut)
    assert unpacked(tmp_path / "samples" / "1.js")[1]["images"] == []


def test_every_input_has_a_label_and_every_column_a_button(tmp_path):
    markup = page(study([example(0, "base", 0)]), tmp_path)
    assert len(re.findall("<(?:input|select) ", markup)) == 5
    assert len(re.findall("<label>[^<]+<(?:input|select) ", markup)) == 5
    section = markup[markup.index('id="problem-table"') :].partition("</thead>")[0]
    assert section.count("<th ") == section.count("<button") == 3


def test_right_and_other_samples_are_kept_in_turns_and_answers_are_counted():
    right = [{2, 5}, set(range(100)), set(range(0, 200, 2))]
    n, rare = 200, ["a"] * 150 + ["b"] * 30 + [f"c{i}" for i in range(20)]
    row = np.repeat(np.arange(3), n)
    keys = [(p, j) for p in range(3) for j in range(n)]
    samples = pa.Table.from_pylist(
        [{"problem_id": f"p{p}", "index": j, "text": "", "stop": "eos", "logp": [-1.0]} for p, j in keys]
    )
    verdicts = pa.Table.from_pylist(
        [{"correct": j in right[p], "status": "graded", "extracted": "a" if p else rare[j]} for p, j in keys]
    )
    kept = examples_of_arm("rl", row, samples, verdicts)
    by_problem = [[e for e in kept if e.problem_id == f"p{p}"] for p in range(3)]
    assert [len(found) for found in by_problem] == [EXAMPLES] * 3
    assert [e.index for e in by_problem[0]] == [2, 0, 5, 1, 3, 4, *range(6, EXAMPLES)]
    for found in by_problem[1:]:
        assert [e.correct for e in found] == [True, False] * (EXAMPLES // 2)
    assert [e.index for e in by_problem[2]] == list(range(EXAMPLES))
    listed, others = frequent_answers(row, verdicts, 3)[0]
    assert listed[:2] == (("a", 148, 0), ("b", 30, 0)) and ("a", 2, 1) in listed
    assert len(listed) == ANSWERS and others == (23 - ANSWERS, n - sum(count for _, count, _ in listed))


@pytest.mark.parametrize("column", ["answers_M", "votes_M", "tokens_M"])
def test_a_column_of_another_number_of_problems_is_one_clear_line(column):
    shown = study([])
    arms = (shown.arms[0], dataclasses.replace(shown.arms[1], **{column: (1.0,)}))
    with pytest.raises(UserError, match=f"arm rl: {column} has 1 entries, should be 4"):
        check(dataclasses.replace(shown, arms=arms))
