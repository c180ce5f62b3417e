"""configs/toy/countdown_sharpened.py as small as the smoke run: likelier answers, their cost, a page that says so."""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_limit import records
from tests.support.smoke import run_here

SMALL = """
from configs.toy import countdown_sharpened, countdown_smoke


def get_config():
    config, small = countdown_sharpened.get_config(), countdown_smoke.get_config()
    for name in ("task", "model", "sampling", "engine", "score"):
        config[name] = small[name]
    config.arms.base = small.arms.base
    config.arms.grpo.rl.update({"steps": 2, "save_at": (2,), "prompts": 4, "answers": 8})
    config.arms.power4.sharpen.block = 3
    config.report.k, config.flush_seconds = 4, 0.05
    return config
"""


def run(root: Path, n: int) -> Path:
    done = run_here(f"--config={root / 'small.py'}", f"--config.runs={root}", f"--config.sampling.n={n}")
    assert done.returncode == 0, done.stderr
    return Path(re.search(r"^run folder: (.+)$", done.stdout, re.MULTILINE)[1])


def rows(folder: Path, table: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    found = records.read(folder, table).to_pylist()
    return {tuple(row.pop(name) for name in ("arm", "problem_id", "index")): row for row in found}


@pytest.mark.slow
def test_an_arm_of_p_to_the_alpha_goes_all_the_way_to_the_page_and_is_drawn_alike_again(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    folder = run(tmp_path, 24)
    first, costs = rows(folder, "samples"), rows(folder, "costs")
    assert Counter(arm for arm, *_ in first) == {name: 8 * 24 for name in ("base", "grpo-2", "power2", "power4")}
    assert costs.keys() == {key for key in first if key[0].startswith("power")}
    assert all(row["drawn"] > len(first[key]["tokens"]) for key, row in costs.items())
    likely = defaultdict(list)
    for (arm, *_), row in first.items():
        likely[arm].append(sum(row["logp_model"]))
    assert np.mean(likely["base"]) + 0.1 < np.mean(likely["power2"]) < np.mean(likely["power4"])
    page = (folder / "report" / "index.html").read_text()
    assert "Without training, for the tokens of pass@1" in page and "p^4, 10 steps of Metropolis-Hastings" in page
    # Lost, and drawn again beside others.
    shutil.rmtree(folder / "records" / "samples")
    assert run(tmp_path, 26) == folder
    again = rows(folder, "samples")
    assert len(again) == len(rows(folder, "verdicts")) == 4 * 8 * 26
    for key, row in first.items():
        assert row | {"time": 0} == again[key] | {"time": 0}
