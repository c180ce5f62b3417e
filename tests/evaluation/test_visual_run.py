"""A whole comparison of models that see, on image files: sampled, graded by both rules, scored, shown, and resumed."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest

from rlvr_limit import records
from rlvr_limit.grading import mathruler, visual
from tests.support.smoke import run_here
from tests.support.visual_study import words_of, write_visual


@pytest.mark.slow
def test_models_that_see_are_compared_on_image_files_and_the_page_shows_them(tmp_path):
    root = write_visual(tmp_path)
    first = run_here(*words_of(root))
    assert first.returncode == 0, first.stderr
    folder = Path(re.search(r"^run folder: (.+)$", first.stdout, re.MULTILINE)[1])
    samples = records.read(folder, "samples").to_pylist()
    assert Counter((row["arm"], row["problem_id"]) for row in samples) == {
        (arm, f"mathvista/{i}"): 4 for arm in ("base", "rl") for i in range(3)
    }
    # One text, other images: other numbers.
    drawn = {(row["arm"], row["problem_id"]): [] for row in samples}
    for row in samples:
        drawn[row["arm"], row["problem_id"]].append(tuple(row["tokens"]))
    assert len({tuple(answers) for answers in drawn.values()}) == len(drawn)
    verdicts = records.read(folder, "verdicts").to_pylist()
    assert Counter(row["grader"] for row in verdicts) == {visual.VERSION: 24, mathruler.VERSION: 24}
    assert len(records.read(folder, "scores")) == 36  # both by the base, the arm's own by itself
    script = (folder / "report" / "samples" / "0.js").read_text()
    content = json.loads(zlib.decompress(base64.b64decode(script.split('"')[1])))
    assert len(content["images"]) == 1 and content["images"][0].startswith("data:image/jpeg;base64,")
    assert "Of pid 479" in (folder / "report" / "index.html").read_text()
    again = run_here(*words_of(root))
    assert again.returncode == 0, again.stderr
    assert records.read(folder, "samples").to_pylist() == samples
