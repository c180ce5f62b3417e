"""The report: the page says what the numbers say, holds what it promises, and loads nothing from outside."""

from __future__ import annotations

import base64
import csv
import dataclasses
import functools
import json
import re
import struct
from fractions import Fraction
from html import unescape
from html.parser import HTMLParser
from math import comb
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from rlvr_limit import passk
from rlvr_limit.report import Example, Results, figures, style, write
from rlvr_limit.report.analysis import Findings, analyse, condition_fields
from rlvr_limit.report.page import SECTIONS, build
from rlvr_limit.report.results import check
from rlvr_limit.report.style import DARK, LIGHT, arm_styles, rc
from rlvr_limit.report.tables import conditions, support
from rlvr_limit.report.text import percent
from rlvr_limit.report.words import not_resolved, summary
from rlvr_limit.types import UserError
from tests.support.counted_arms import BASE, HALF, RL, SHARP, WIDE, M, N, arm, study

HOSTILE = '<script>alert("1")</script></pre> & <b>'
DRAWN = ("curves", "differences", "histograms", "perplexity", "efficiency", "steps", "training")
VARIANTS = [(dark, narrow) for dark in (False, True) for narrow in (False, True)]


@pytest.fixture(scope="module")
def full() -> Results:
    rng = np.random.default_rng(0)
    arms = [
        arm(
            "base",
            WIDE,
            "base",
            mean_tokens=20.5,
            duplicate_rate=0.25,
            entropy=0.5,
            weights_sha256="a" * 64,
            conditions={"temperature": "1.0", "top_p": "1.0"},
            truncated_M=np.full(M, 2),
        ),
        arm("rl-1", np.minimum(SHARP, 8), weights_sha256="b" * 64, conditions={"temperature": "1.0", "top_p": "0.95"}),
        arm("rl-2", SHARP, weights_sha256="c" * 64, conditions={"temperature": "1.0", "top_p": "1.0"}),
        arm("distilled", rng.integers(2, 9, M), "distilled"),
        arm("control", rng.permutation(WIDE), "control"),
    ]
    problems = ((f"p0 {HOSTILE}", HOSTILE, 0.01), *((f"p{i}", f"question {i}", 0.01) for i in range(1, M)))
    return study(
        arms,
        problems=problems,
        control_of={"distilled": "control"},
        examples=tuple(Example(problems[0][0], a.name, 3, HOSTILE, True, "eos", HOSTILE, -12.5) for a in arms),
        perplexity={("base", "base"): rng.uniform(1, 3, 40), ("rl-2", "ground truth"): rng.uniform(2, 9, 40)},
        training={
            "pretrain": [{"step": s, "loss": 3 - s / 100, "lr": 0.1} for s in range(100)],
            "control": [],
            "rl": [{"step": s, "reward": s / 20, "entropy": 1.0, "note": HOSTILE} for s in range(20)],
        },
        versions={"jax": "0"},
        timings={"train": 60.0, "sample": 2.5},
        seed=7,
        notes=(HOSTILE,),
    )


@pytest.fixture(scope="module")
def found(full: Results) -> Findings:
    return analyse(full)


@pytest.fixture(scope="module")
def folder(full: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(full, tmp_path_factory.mktemp("report") / "new").parent


@pytest.fixture(scope="module")
def markup(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def drawn_by_nobody(shown: Results) -> tuple[str, Findings]:
    """The page with stand-ins for the figures, and its findings: fast, for tests of words."""
    check(shown)
    found = analyse(shown)
    images = dict.fromkeys(figures.names(shown, found), dict.fromkeys(VARIANTS, "data:,"))
    return build("index.html.j2", shown, found, [], images, {}), found


class Tags(HTMLParser):
    """Collects tags, attributes and text; fails where a tag closes that was not the last to open."""

    def __init__(self, markup: str):
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "source", "br", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_page_holds_every_section_in_order(markup):
    ids = [attrs["id"] for tag, attrs in Tags(markup).seen if tag == "section"]
    absent = ("temperatures", "algorithms", "contamination")
    assert ids == ["found", "unresolved", *(name for name in SECTIONS if name not in absent)]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", markup)
    for i, caption in enumerate(captions):
        assert caption.startswith(f"Figure {i + 1}. ") and "band" in caption
        assert f"M&nbsp;=&nbsp;{M}" in caption or i == 6
    assert len(captions) == len(DRAWN)


def test_page_loads_nothing_from_outside(markup, folder):
    tags = Tags(markup)
    assert not {tag for tag, _ in tags.seen} & {"link", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in tags.seen:
        for name in ("src", "srcset"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, name)
        target = attrs.get("href") or "#found"
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in markup
        else:
            assert (folder / target).is_file()
    outside = re.sub(r'data:image/svg\+xml;base64,[^" ]+', "", markup)
    assert "http:" not in outside and "https:" not in outside and "url(" not in outside and "@import" not in outside
    assert "default-src 'none'" in markup


def test_text_of_others_is_escaped_and_tags_close(markup):
    tags = Tags(markup)
    names = [tag for tag, _ in tags.seen]
    assert tags.open == [] and names.count("script") == 1 and "b" not in names
    assert HOSTILE not in markup and "".join(tags.text).count(HOSTILE) >= 1 + 2 + 4


def test_every_svg_is_whole_and_dark_ones_are_light_ones_in_other_colours(full, markup):
    uris = re.findall(r"data:image/svg\+xml;base64,([^\" ]+)", markup)
    assert len(uris) == 4 * len(DRAWN)
    svgs = [base64.b64decode(uri).decode() for uri in uris]
    assert all(svg.startswith("<?xml") and svg.rstrip().endswith("</svg>") for svg in svgs)
    hexes = re.compile(r"#[0-9a-f]{6}\b")
    colours, shapes = [set(hexes.findall(svg)) for svg in svgs], [hexes.sub("#", svg) for svg in svgs]
    light_only = {LIGHT["ink"], LIGHT["faint"], LIGHT["grid"]} | {style.color for style in arm_styles(full).values()}
    assert len(light_only) == 3 + len(full.arms)
    for i in range(0, len(svgs), 4):
        dark_narrow, narrow, dark, light = range(i, i + 4)
        assert shapes[dark_narrow] == shapes[narrow] and shapes[dark] == shapes[light]
        assert not colours[dark] & light_only and not colours[dark_narrow] & light_only
        assert DARK["ink"] in colours[dark] and LIGHT["ink"] in colours[light]
        assert shapes[narrow] != shapes[light]


def test_same_study_gives_same_bytes(full, found):
    draw = functools.partial(figures.curves, full, found)
    assert style.render(draw, full) == style.render(draw, full)


def test_png_is_7_inches_at_160_dots(folder):
    for name in DRAWN:
        width, height = struct.unpack(">II", (folder / f"{name}.png").read_bytes()[16:24])
        assert width == 7 * 160 and height > 200


@pytest.mark.parametrize("narrow", [False, True])
def test_no_text_is_below_9_points_and_no_two_labels_overlap(full, found, narrow):
    for name in DRAWN:
        with matplotlib.rc_context(rc()):
            figure = figures.FIGURES[name](full, found, narrow)
            FigureCanvasAgg(figure).draw()
            shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
            assert min(text.get_fontsize() for text in shown) >= 9, name
            if name == "curves":
                boxes = [text.get_window_extent() for text in shown]
                for i, box in enumerate(boxes):
                    assert not any(box.overlaps(other) for other in boxes[i + 1 :]), shown[i].get_text()
                assert {f"{a.name} arm" for a in full.arms} | {"guessing"} <= {text.get_text() for text in shown}


def test_curves_csv_is_pass_at_k_in_exact_arithmetic_with_its_band(full, folder):
    rows = read(folder / "curves.csv")
    assert len(rows) == len(full.arms) * N
    bands = {a.name: passk.population_band(passk.pass_curves(a.n_M, a.c_M)) for a in full.arms}
    for row in rows:
        a, k = full.arm(row["arm"]), int(row["k"])
        exact = float(sum(1 - Fraction(comb(N - int(c), k), comb(N, k)) for c in a.c_M) / M)
        assert float(row["pass@k"]) == pytest.approx(exact, abs=1e-12)
        assert float(row["low"]) == bands[a.name].low_K[k - 1] and float(row["high"]) == bands[a.name].high_K[k - 1]
        assert float(row["guess_corrected"]) == pytest.approx((exact - 1 + 0.99**k) / 0.99**k, abs=1e-12)


def test_differences_csv_holds_each_pair_in_the_stated_direction(full, folder):
    rows = read(folder / "differences.csv")
    pairs = [(row["first"], row["second"]) for row in rows[::N]]
    assert pairs[:3] == [("base", "rl-1"), ("base", "rl-2"), ("distilled", "base")]
    assert pairs[3:] == [("distilled", "control"), ("control", "base")]
    values = {a.name: passk.pass_curves(a.n_M, a.c_M) for a in full.arms}
    for row in rows:
        band = passk.paired_band(values[row["first"]], values[row["second"]])
        k = int(row["k"])
        gap = (values[row["first"]] - values[row["second"]])[:, k - 1].mean()
        assert float(row["first_minus_second"]) == pytest.approx(gap, abs=1e-12)
        assert (float(row["low"]), float(row["high"])) == (band.low_K[k - 1], band.high_K[k - 1])


def test_histogram_csv_sums_to_all_problems_of_each_arm_and_its_ends_are_none_and_all(full, folder):
    rows = read(folder / "histogram.csv")
    for a in full.arms:
        found = {row["right"]: int(row["problems"]) for row in rows if row["arm"] == a.name}
        assert len(found) == 12 and sum(found.values()) == M
        assert found["0"] == (a.c_M == 0).sum() and found["1"] == (a.c_M == N).sum()
        assert found["(0.4, 0.5]"] == ((5 * a.c_M > 2 * N) & (2 * a.c_M <= N)).sum()
        shares = [float(row["share_of_problems"]) for row in rows if row["arm"] == a.name]
        assert sum(shares) == pytest.approx(1)


def test_problems_csv_and_support_json_count_by_hand(full, folder):
    rows = read(folder / "problems.csv")
    assert [int(row["c_rl-2"]) for row in rows] == SHARP.tolist() and {row["n_base"] for row in rows} == {str(N)}
    support = json.loads((folder / "support.json").read_text())
    solved_by = {a.name: {row["problem"] for row in rows if row[f"c_{a.name}"] != "0"} for a in full.arms}
    base = solved_by.pop("base")
    for name, solved in solved_by.items():
        found = support[name]
        assert set(found["both"]) == base & solved and set(found["base_only"]) == base - solved
        assert set(found["rl_only"]) == solved - base and len(found["neither"]) == M - len(base | solved)
        assert found["srr"] == pytest.approx(len(base & solved) / len(base))


def test_summary_json_holds_the_headline_numbers(full, folder):
    content = json.loads((folder / "summary.json").read_text())
    base_MK, rl_MK = (passk.pass_curves(full.arm(name).n_M, full.arm(name).c_M) for name in ("base", "rl-2"))
    crossing = passk.crossover(base_MK, rl_MK, names=("base arm", "rl-2 arm"))
    assert content["arms"]["rl-2"]["crossover"] == dataclasses.asdict(crossing)
    delta = content["arms"]["rl-2"]["delta_se"]
    assert (delta["value"], delta["k"]) == (pytest.approx(20 / 24 - 8 / 24), N) and delta["low"] < 0.5 < delta["high"]
    assert content["arms"]["base"]["truncated"] == pytest.approx(2 / N)
    assert content["arms"]["base"]["conditions"] == full.arms[0].conditions
    assert content["headline"] == "rl-2" and content["seed"] == 7
    assert len(read(folder / "perplexity.csv")) == 80
    assert {row["name"] for row in read(folder / "training.csv")} == {"loss", "lr", "reward", "entropy", "note"}


def test_expected_order_is_told_with_its_crossover():
    shown = study([BASE, RL])
    found = analyse(shown)
    said = " ".join(summary(shown, found))
    assert said.startswith("At k = 1 rl arm solves 33.3 % of the problems and base arm 5.2 %; at k = 16 it is 33.3 %")
    assert found.against_base["rl"].crossover.verdict == "resolved"
    assert found.against_base["rl"].crossover.sentence[5:] in said and "the order that the paper reports" in said


@pytest.mark.parametrize(
    ("base_c", "rl_c", "words"),
    [
        (SHARP, WIDE, "The order is the reverse of the paper's: base arm is ahead with few tries and rl arm with many"),
        (HALF, np.full(M, 8), "Rl arm is ahead at both ends, so the paper's loss at large k does not show here"),
        (np.full(M, 8), HALF, "Base arm is ahead at both ends: rl arm lost ground with few tries as well as with many"),
    ],
)
def test_an_order_other_than_the_papers_is_not_hidden(base_c, rl_c, words):
    markup, found = drawn_by_nobody(study([arm("base", base_c, "base"), arm("rl", rl_c)]))
    top = markup[markup.index('id="found"') : markup.index("<nav>")]
    assert words in unescape(top)
    assert "the order that the paper reports" not in top


def test_identical_arms_are_not_resolved_and_named_as_one_model():
    same = {"weights_sha256": "d" * 64}
    shown = study([arm("base", WIDE, "base", **same), arm("rl", WIDE, **same)])
    found = analyse(shown)
    assert all(found.comparisons[0].leader(k) is None for k in range(1, N + 1))
    lines = not_resolved(shown, found)
    assert "Base arm minus rl arm: not resolved at any k looked at; the 95 % band includes 0 there." in lines
    assert any("same weights" in line for line in lines)
    assert "is not resolved by these problems" in " ".join(summary(shown, found))
    assert found.against_base["rl"].crossover.verdict == "tie"
    assert support(shown, found).rows == [["rl arm", "20", "0", "0", "4", "1.000", "0.000", "0.000", "0.000"]]


def test_what_is_not_resolved_names_guessing_bounds_seed_truncation_and_conditions(full, found):
    text = " ".join(not_resolved(full, found))
    bound = percent(1 - 0.05 ** (1 / N))
    assert f"may still be up to {bound}" in text and "(95 %, about 3/n)" in text and "base arm: 4" in text
    assert f"only guesses reaches {percent(1 - 0.99**N)} at k = {N}" in text
    assert "One seed (seed 7)" in text and "nothing about other training runs" in text
    assert "12.5 % of base arm's answers were cut" in text
    assert "conditions: temperature (1.0 for base arm, rl-1 arm and rl-2 arm; not recorded for distilled arm" in text
    assert all(line in text for line in passk.coverage_caveats(M, N))


def test_conditions_that_differ_are_marked_and_others_are_not(full):
    table = conditions(full, analyse(full))
    assert table.rows[0][-1] == "not recorded" and table.marked[0]
    assert list(condition_fields(full)) == ["temperature", "top_p"]
    three = dataclasses.replace(full, arms=full.arms[:3], control_of={}, examples=())
    assert conditions(three, analyse(three)).marked == (False, True, True)
    assert Tags(drawn_by_nobody(three)[0]).seen.count(("tr", {"class": "differs"})) == 2


def test_unknown_guess_rate_draws_no_baseline_and_says_so():
    problems = tuple((f"p{i}", "q", None if i < 3 else 0.1) for i in range(M))
    shown = study([BASE, RL], problems=problems)
    markup, found = drawn_by_nobody(shown)
    assert found.guess_K is None and "3 of 24 problems have no guess rate" in markup


def test_one_arm_without_perplexity_or_training_still_gives_a_page_that_says_what_is_missing(tmp_path):
    markup = write(study([BASE, RL]), tmp_path).read_text(encoding="utf-8")
    assert "Missing: no answers were scored" in markup and "Missing: no training rows were given" in markup
    assert "Missing: no versions were recorded" in markup and "No samples were kept for this page" in markup
    assert {path.stem for path in tmp_path.glob("*.png")} == {*DRAWN} - {"perplexity", "steps", "training"}
    assert Tags(markup).open == []


def test_an_arm_alone_has_a_curve_with_its_band_and_no_comparison(tmp_path):
    page = write(study([BASE]), tmp_path / "alone").read_text(encoding="utf-8")
    absent = {"differences", "support", "efficiency"}
    assert absent.isdisjoint(re.findall(r'<section id="([a-z]+)"', page)) and 'id="curves"' in page
    assert not [path.name for path in (tmp_path / "alone").iterdir() if path.stem in absent]
    rows = list(csv.DictReader((tmp_path / "alone" / "curves.csv").open()))
    assert [row["arm"] for row in rows] == ["base"] * N
    among_two = write(study([BASE, RL]), tmp_path / "two").parent
    of_base = [row for row in csv.DictReader((among_two / "curves.csv").open()) if row["arm"] == "base"]
    assert rows == of_base
    said = (tmp_path / "alone" / "summary.md").read_text(encoding="utf-8")
    assert "Base arm solves 5.2 % of the problems at k = 1 and 83.3 % of the problems at k = 16." in said
    assert "One arm alone" in said and "there is nothing to compare it with" in page
    assert not [word for word in ("crossing", "paired", "arm-right") if word in (said + page).lower()]


def test_arms_that_were_not_scored_or_not_trained_are_named(markup):
    assert "Missing: nothing was scored for rl-1 arm, distilled arm and control arm." in markup
    assert "Missing: no training rows under the name of distilled arm and control arm." in markup
    assert "In training.csv but not drawn: lr." in markup and "control: 0 rows" not in markup


def test_unequal_n_is_compared_over_common_k_and_not_counted_as_support():
    shown = study([arm("base", WIDE, "base", n=20), arm("rl", SHARP, n=16)])
    markup, found = drawn_by_nobody(shown)
    assert (len(found.curves["base"].mean_K), len(found.comparisons[0].difference.mean_K)) == (20, 16)
    assert found.against_base["rl"].support is None and "n differs" in markup and "Not counted" in markup
    assert "Samples per problem range from 16 to 20" in markup


def test_small_shares_do_not_read_as_none_nor_large_ones_as_all():
    assert [percent(x) for x in (0, 0.0001, 0.9999, 1)] == ["0.0 %", "below 0.1 %", "above 99.9 %", "100.0 %"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="report folder .*file: cannot be written"):
        write(study([BASE, RL]), tmp_path / "file")
