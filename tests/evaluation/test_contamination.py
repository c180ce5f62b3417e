"""An audit of contamination from the config to the page: what is asked, what counts, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jax
import pytest
from scipy import stats

from rlvr_limit import checkpoint, records
from rlvr_limit.commands import grade, report
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.settings import Settings, command_line, schema
from rlvr_limit.study.checks import check
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY
from tests.support.studies import prepare_config
from tests.support.tokenizer_files import write_qwen2

ARMS = ("base", "base_first_40", "base_first_60", "base_first_80")
QUESTION = "In year {} Ann has {} apples and eats none, how many are left?"
ASKED = {"base_first_40": "Ann has {}", "base_first_60": "and eats", "base_first_80": "none, how"}
"""The end of what is asked, by hand: within 24, 36 and 48 of 60 and 61 characters."""


def config_of(root: Path):
    """The config on four problems and a model of random weights."""
    size = load_tokenizer(write_qwen2(root / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=16, layers=1, heads=2, kv_heads=1, head_width=8, ffn_width=16, context=300)
    checkpoint.export_hf(root / "model", init_params(shape, jax.random.key(0)), shape, root / "tokenizer")
    rows = [{"problem": QUESTION.format(i, i + 5), "answer": str(i + 5)} for i in range(4)]
    (root / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["main.py", f"--config={REPOSITORY / 'configs' / 'real' / 'contamination.py'}"]
    words += ["--config.sampling.max_tokens=64"]
    words += [f"--config.benchmarks=('{root / 'mine.jsonl'}',)", f"--config.arms.base.weights={root / 'model'}"]
    return command_line.read_config([*words, f"--config.run_dir={root / 'run'}"], REPOSITORY / "configs/countdown.py")


@pytest.mark.slow
def test_an_audit_counts_completed_questions_and_right_answers(tmp_path):
    config = config_of(tmp_path)
    study = prepare_config(config)
    root = study.root
    for arm, end in ASKED.items():
        for j, problem in enumerate(study.setups[arm].problems):
            start, found, _ = QUESTION.format(j, j + 5).partition(end.format(j + 5))
            assert problem.prompt == start + found
    completed = {"base_first_40": 0, "base_first_60": 1, "base_first_80": 3}
    right = {"base": 4, "base_first_40": 0, "base_first_60": 1, "base_first_80": 2}
    with records.Writer(root, "samples") as samples:
        for arm in ARMS:
            records.update_manifest(root, f"arms.{arm}.weights_sha256", "same")
            for i in range(4):
                question = QUESTION.format(i, i + 5)
                rest = question.partition(ASKED.get(arm, "?").format(i + 5))[2]
                text = rest if i < completed.get(arm, 0) else rest.replace("left", "gone")
                text += rf" The answer is \boxed{{{i + 5 if i < right[arm] else 1}}}."
                row = {"arm": arm, "problem_id": f"mine/{i}", "tokens": [1], "logp": [-1.0], "logp_model": [-1.0]}
                samples.append([row | {"stop": "eos", "time": 0.0, "index": 0, "text": text}])
    (root / "timings.jsonl").write_text(json.dumps({"stage": "sample", "seconds": 1.0}) + "\n")
    for job in (grade, report):
        job.run(schema.from_config(Settings, config))
    rows = list(csv.DictReader((root / "report" / "contamination.csv").open()))
    assert [(row["benchmark"], row["arm"], float(row["asked"])) for row in rows] == [
        ("mine", arm, asked) for arm, asked in zip(ARMS, (1.0, 0.4, 0.6, 0.8), strict=True)
    ]
    for row in rows:
        counts = {"completed": completed.get(row["arm"]), "right": right[row["arm"]]}
        for name, count in counts.items():
            found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
            if count is None:
                assert found == ["", "", ""]
                continue
            exact = stats.binomtest(count, 4).proportion_ci(0.95, "wilson")
            assert [float(x) for x in found] == pytest.approx([count / 4, exact.low, exact.high], abs=1e-12)
    page = (root / "report" / "index.html").read_text()
    assert '<section id="contamination"' in page and "75.0&nbsp;%" in page.replace(" %", "&nbsp;%")


@pytest.mark.parametrize("field", ["temperature=0.6", "n=2", "n_of.math500=3"])
def test_an_audit_that_is_not_greedy_is_refused(field):
    words = ["main.py", f"--config={REPOSITORY / 'configs' / 'real' / 'contamination.py'}"]
    settings = command_line.parse_command_line(
        [*words, f"--config.sampling.{field}"], REPOSITORY / "configs/countdown.py"
    )
    with pytest.raises(UserError, match="asked_first: an audit draws one answer, the likeliest"):
        check(settings)
