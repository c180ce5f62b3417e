"""Scores are put on record while more are computed: by their number, or by the time that has passed."""

from types import SimpleNamespace

import pytest

from rlvr_limit.evaluation import score
from rlvr_limit.evaluation.score_inputs import ScoreInput
from rlvr_limit.models.log_probs import TokenScores


@pytest.mark.parametrize(("rows", "seconds", "parts"), [(256, 1e9, [6]), (256, -1.0, [1] * 6 + [0]), (4, 1e9, [4, 2])])
def test_a_part_holds_so_many_rows_or_what_there_is_after_so_long(monkeypatch, rows, seconds, parts):
    monkeypatch.setattr(score, "ROWS", rows)
    monkeypatch.setattr(score, "SECONDS", seconds)
    computed = ((i, TokenScores((-1.0,), (0.5,))) for i in range(6))
    monkeypatch.setattr(score.log_probs, "iter_scores", lambda *_: computed)
    study = SimpleNamespace(
        setups={"base": SimpleNamespace(model=None)}, settings=SimpleNamespace(score=SimpleNamespace(tokens=64))
    )
    todo = [ScoreInput("p", i, (0,), (1,), ()) for i in range(6)]
    found = list(score.score(study, SimpleNamespace(arm="base", name="base"), "base", todo, params={}))
    assert list(map(len, found)) == parts
    assert [row["index"] for part in found for row in part] == list(range(6))
