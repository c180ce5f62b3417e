"""Tables of what training changed say what the counts do, and are left out where nothing is known."""

from math import comb
from pathlib import Path

import numpy as np
import pytest

from rlvr_limit import passk
from rlvr_limit.passk import Sharpened
from rlvr_limit.report import ArmResults, Results
from rlvr_limit.report.analysis import analyse
from rlvr_limit.report.learned import learned_tables, papers_numbers
from rlvr_limit.report.text import points
from rlvr_limit.settings.command_line import parse_command_line
from rlvr_limit.study.arms import expand

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
M, N = 8, 40
COUNTS = {
    "base": [0, 1, 2, 4, 8, 12, 16, 20],
    "rl": [10, 12, 14, 16, 20, 26, 30, 34],
    "toss": [0, 2, 2, 5, 8, 12, 17, 20],
    "high": [10, 12, 14, 16, 20, 26, 31, 34],
    "other": [0, 2, 2, 5, 8, 12, 17, 20],
}


def arm(name: str, group: str, **fields) -> ArmResults:
    return ArmResults(name, name.upper(), group, np.full(M, N), np.array(COUNTS[name]), **fields)


def shown(*arms: ArmResults) -> dict[str, list[list[str]]]:
    results = Results("t", "", "", "", tuple((f"p{i}", "", None) for i in range(M)), arms, "base")
    return {table.title: table.rows for table in learned_tables(results, analyse(results))}


def test_what_nobody_recorded_has_no_table() -> None:
    assert set(shown(arm("base", "base"), arm("toss", "other"))) == set()


def test_a_learner_of_format_is_told_from_a_learner_of_the_task() -> None:
    none_M = np.array([20, 20, 20, 20, 20, 20, 20, 20])
    rows = shown(arm("base", "base", no_answer_M=none_M), arm("rl", "rl", no_answer_M=np.zeros(M, int)))
    mean = np.mean(COUNTS["base"]) / N
    assert rows["Format and solving"][0] == ["BASE", "50.0 %", f"{100 * mean:.1f} %", f"{200 * mean:.1f} %"]
    assert rows["Format and solving"][1][2] == rows["Format and solving"][1][3]


def test_an_arm_that_uses_what_is_given_is_told_from_one_that_does_not() -> None:
    none_M = np.zeros(M, int)
    arms = (arm(name, "base", no_answer_M=none_M, uses_given_M=none_M + n) for name, n in (("base", 39), ("toss", 3)))
    rows = shown(*arms)["Format and solving"]
    assert [row[-1] for row in rows] == ["97.5 %", "7.5 %"]


def test_a_control_stands_beside_the_gain_that_it_reaches_of_each_trained_arm() -> None:
    base, rl, toss = (np.array(COUNTS[name]) / N for name in ("base", "rl", "toss"))
    ((name, gain, share, *at_most),) = shown(arm("base", "base"), arm("rl", "rl"), arm("toss", "control"))[
        "How much of the gain controls reach"
    ]
    exact = passk.gain_share(base, rl, toss)
    assert (name, gain) == ("TOSS", f"+{100 * (toss - base).mean():.1f}")
    assert share.startswith(f"{100 * exact.share:.0f} %") and f"to {100 * exact.high:.0f}" in share
    # Of eight problems all arms but for one problem solve everything within 40 samples: no gain to share.
    assert at_most == ["0.0", "undefined"]


@pytest.mark.parametrize(("worth", "said"), [(20.0, "25.0 %"), (9.0, "not resolved")])
def test_an_estimate_that_is_worth_few_samples_is_not_told(worth: float, said: str) -> None:
    sharper = Sharpened(2.0, np.full(M, 0.25), np.full(M, worth))
    rows = shown(arm("base", "base", sharpened=(sharper,)), arm("rl", "rl"))["Sharpened without training"]
    assert rows == [["BASE", f"{said}\n{worth:.1f} of 40"]]


def voted(right_M: list[int], k: int) -> float:
    """Right answers against equal wrong ones: the share of k-subsets in which they are more, ties counting half."""
    wins = [sum(comb(c, j) * comb(N - c, k - j) * (1 + np.sign(2 * j - k)) / 2 for j in range(k + 1)) for c in right_M]
    return float(np.mean(wins) / comb(N, k))


def test_the_base_and_its_likelier_answers_stand_at_the_cost_of_a_trained_arms_first_answer() -> None:
    def fields(name: str, tokens: float, **more) -> dict:
        votes_M = tuple(passk.Votes(right, (N - right,) if right < N else (), 0) for right in COUNTS[name])
        return {"votes_M": votes_M, "tokens_M": np.full(M, tokens), **more}

    rows = shown(
        arm("base", "base", **fields("base", 5.0)),
        arm("rl", "rl", **fields("rl", 12.0)),
        arm("toss", "other", **fields("toss", 5.0, drawn_M=np.full(M, 30.0))),
        arm("high", "other", **fields("high", 5.0, drawn_M=np.full(M, 47.9))),
        arm("other", "other", **fields("toss", 5.0, drawn_M=np.full(M, 30.0), weights_sha256="others")),
    )["Without training, for the tokens of pass@1"]
    rl_M = np.array(COUNTS["rl"]) / N
    aim = f"{100 * rl_M.mean():.1f} %\n12.0 tokens"
    assert [row[:3] for row in rows] == [
        ["BASE for RL", "5.0 tokens", aim],
        ["TOSS for RL", "30.0 tokens", aim],
        ["HIGH for RL", "47.9 tokens", aim],
    ]
    for name, row, ks in (("base", rows[0], (2, 10)), ("toss", rows[1], (1, 7, 28)), ("high", rows[2], (1, 4, 17))):
        cells = [cell.split("\n")[0] for cell in row[3:7] if cell != "\u2013"]
        assert [cell.split(": ")[0] for cell in cells] == [f"maj@{k}" for k in ks]
        for cell, k in zip(cells, ks, strict=True):
            exact = 100 * voted(COUNTS[name], k)
            assert abs(float(cell.split(": ")[1].removesuffix(" %")) - exact) < (0.051 if k == 1 else 1.0)
    # No base has such votes; the other arm's first answers are as good by themselves.
    assert rows[0][7] == "not up to maj@33\n165 tokens, 13.8 \u00d7"
    assert rows[2][7] == "maj@1\n48 tokens, 4.0 \u00d7"
    below = passk.paired_band(np.array(COUNTS["high"])[:, None] / N, rl_M[:, None])
    assert rows[2][4].split("\n")[1] == f"{points(below.low_K[0])} to {points(below.high_K[0])}"


def test_problems_move_between_bins_beside_what_chance_moves() -> None:
    rows = shown(arm("base", "base"), arm("rl", "rl"))["From BASE to RL, problem by problem"]
    cells = [[tuple(cell.split("\n")) for cell in row[1:]] for row in rows]
    assert sum(int(there) for row in cells for there, _ in row) == M
    assert sum(int(alike.strip("()")) for row in cells for _, alike in row) == M
    # All that the base solves never or rarely is solved more often than one time in twenty afterwards.
    assert all(int(there) == 0 for row in cells for there, _ in row[:2])


def test_the_papers_numbers_stand_beside_ours_and_never_in_their_place() -> None:
    arms = [arm(name, group) for name, group in (("base", "base"), ("rl", "rl"))]
    problems = tuple((f"p{i}", "", None) for i in range(M))
    results = Results("t", "", "", "", problems, tuple(arms), "base", study="qwen7b_math", benchmark="aime24")
    table = next(t for t in learned_tables(results, analyse(results)) if t.title == "Beside the paper")
    measured = {(row[0], row[1]): row[4].split("\n")[0] for row in table.rows}
    assert measured["BASE", "pass@1"] == f"{100 * np.mean(COUNTS['base']) / N:.1f} %"
    # n is 40 here.
    assert measured["BASE", "pass@1024"] == measured["RL", "pass@1024"] == "not measured"
    assert [row[2] for row in table.rows] == ["7.4 %", "15.4 %", "76.7 %", "63.3 %"]


def test_the_papers_numbers_name_configs_with_these_arms_and_benchmarks() -> None:
    for row in papers_numbers():
        (path,) = CONFIGS.rglob(f"{row['config']}.py")
        settings = parse_command_line(["main.py", f"--config={path}"], CONFIGS / "countdown.py")
        assert row["benchmark"] in settings.benchmarks
        assert row["arm"] in {entry.name for entry in expand(settings.arms)}
        assert 0 < float(row["percent"]) <= 100 and row["where"]
