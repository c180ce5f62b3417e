"""The page: which sections there are, in which order, and what each says where its data is missing."""

from __future__ import annotations

from html import escape

from rlvr_limit.passk import GUESSABLE_BELOW
from rlvr_limit.report import html, tables, viewer, words
from rlvr_limit.report.analysis import Findings
from rlvr_limit.report.figures import METRICS, training_panels
from rlvr_limit.report.guessing import ANSWER_ONLY, MARGINAL, RULES
from rlvr_limit.report.study import Arm, Study, is_of_run

Images = dict[str, dict[tuple[bool, bool], str]]
SECTIONS = {
    "curves": "pass@k of every arm",
    "differences": "Paired differences",
    "histograms": "Accuracy per problem",
    "support": "Who solves what",
    "guessing": "Guessing",
    "chains": "Right answers by a wrong chain",
    "problems": "Problem by problem",
    "perplexity": "Perplexity",
    "efficiency": "Sampling efficiency",
    "training": "Training",
    "rates": "Truncated answers and answers without a result",
    "conditions": "Conditions of every arm",
    "reproduce": "How to reproduce this",
}
GUESS_SOURCES = {
    RULES: f"{RULES}: the chance that a policy is right which knows no more than these.",
    MARGINAL: f"{MARGINAL}: how often a right answer to a problem stands among the arm's answers to the "
    "other problems, by strict rules on texts. An answer that is written in another way is missed: the rate may be "
    "higher, and with it the correction.",
    ANSWER_ONLY: f"{ANSWER_ONLY}: the share of right answers of the arm that was asked so.",
}
QUARTERS = (("both", "both"), ("base_only", "first"), ("rl_only", "second"), ("neither", "none"))


def build(
    study: Study, found: Findings, images: Images, files: dict[str, str], kept: viewer.Kept | None = None
) -> str:
    """The whole page. images: a data URI per figure and (dark, narrow); files: what lies beside the page.

    kept: what viewer.write_samples has kept beside the page, None where there are no samples.
    """
    make = {
        "curves": _curves, "differences": _differences, "histograms": _histograms, "support": _support,
        "guessing": _guessing, "chains": _chains,
        "problems": lambda study, found, images: viewer.section(study, found, kept),
        "perplexity": _perplexity, "efficiency": _efficiency, "training": _training,
    }
    body = [
        f"<header><h1>{escape(study.title)}</h1>",
        html.paragraph(study.purpose, "purpose"),
        "</header>",
        html.section("unresolved", "What is not resolved", [html.items(words.not_resolved(study, found))], "box"),
        html.section("found", "What was found", [
            html.paragraph(" ".join(words.summary(study, found)), "lead"),
            html.paragraph(" ".join(words.other_arms(study, found))),
            html.paragraph(study.caveat, "caveat"),
        ]),
        "<nav>" + "".join(html.link(f"#{anchor}", title) for anchor, title in SECTIONS.items()) + "</nav>",
        *(html.section(name, SECTIONS[name], draw(study, found, images)) for name, draw in make.items()),
        html.section("rates", SECTIONS["rates"], _rates(study)),
        html.section("conditions", SECTIONS["conditions"], _conditions(study)),
        html.section("reproduce", SECTIONS["reproduce"], _reproduce(study, files)),
    ]
    return html.page(study.title, body)


def _figure(images: Images, name: str) -> str:
    """A figure by its number; they are drawn in the order of the page."""
    return f"Figure {list(images).index(name) + 1}"


def _picture(images: Images, name: str, alt: str, caption: str) -> str:
    return html.picture(images[name], alt, f"{_figure(images, name)}. {caption}")


def _curves(study: Study, found: Findings, images: Images) -> list[str]:
    dotted = "Dotted: a policy that only guesses. "
    if found.guess_K is None:
        dotted = "Dotted, in each arm's colour: a policy that gives the arm's own answers to other problems. "
    if not found.guess(study.base):
        dotted = "No guess rate is known. "
    caption = (
        f"Share of problems with at least one right answer among k, for every k up to n; {words.size(study)}."
        f" Shaded: 95 % population band (bootstrap over problems), pointwise in k. {dotted}"
        "Bands of two arms may overlap although their paired difference is clear: see "
        f"{_figure(images, 'differences')}."
    )
    head, rows = tables.headline_rows(study, found)
    corrected = "Guess-corrected: (pass@k \u2212 guessing) / (1 \u2212 guessing). " if found.guesses else ""
    return [
        _picture(images, "curves", "pass@k curves of all arms", caption),
        html.table(head, rows, "Below each number: its 95 % population band, percent."),
        html.paragraph(
            f"{corrected}Crossing: the least k from which the base stays level or ahead, with its 95 % interval, where "
            "the data resolve it.", "note"),
    ]


def _differences(study: Study, found: Findings, images: Images) -> list[str]:
    caption = (
        f"Differences of pass@k on the same problems, in percentage points; {words.size(study)}. "
        "Shaded: 95 % paired population band (the same problems drawn for both arms), pointwise in k. Where the band "
        "includes the zero line the order is not resolved. Ring and bar on the zero line: a resolved crossover and its "
        "95 % interval."
    )
    head, rows = tables.difference_rows(study, found)
    return [
        _picture(images, "differences", "paired differences of pass@k", caption),
        html.table(head, rows, "Below each number: its 95 % paired band. A question mark: the band includes 0."),
    ]


def _histograms(study: Study, found: Findings, images: Images) -> list[str]:
    caption = (
        f"Problems by the share of their samples that are right: none, (0, .1], (.1, .2] \u2026 (.9, 1]; "
        f"plain: {study.label(study.base)}, hatched: the other arm; {words.size(study)}. These are counts of these "
        "problems, drawn without a band. None right does not mean that the problem cannot be solved."
    )
    return [_picture(images, "histograms", "problems by share of right answers", caption)]


def _support(study: Study, found: Findings, images: Images) -> list[str]:
    base, ids = study.label(study.base), [name for name, _, _ in study.problems]
    head, rows = tables.support_rows(study, found)
    names = {"both": "both", "base_only": f"{base} only", "rl_only": "the other arm only", "neither": "neither"}
    keys = "".join(f'<span class="key {kind}"></span>{escape(names[field])}' for field, kind in QUARTERS)
    parts = [
        html.paragraph(f"A problem counts as solved where at least one sample is right; {words.size(study)}. "
                       "The lists fold open; each name leads to the problem and its samples."),
        html.table(head, rows),
        html.paragraph(
            f"SRR = both / all that {base} solves: how much is kept. NDR = arm only / all that the arm solves: how "
            "much is new. SDS: the harmonic mean of the two. NSCR = (arm only \u2212 base only) / solved by either: "
            "net gain. 0/0 is called undefined. A problem solved once may be missed in new samples, and the reverse.",
            "note"),
        f'<p class="note">{keys}</p>',
    ]
    for name, beside in found.against_base.items():
        parts.append(html.heading(f"{base} beside {study.label(name)}"))
        if beside.support is None:
            parts.append(html.paragraph("Not counted: the two arms have different n, and more samples solve more."))
            continue
        lists = {field: getattr(beside.support, field) for field, _ in QUARTERS}
        label = {**names, "rl_only": f"{study.label(name)} only"}
        parts.append(html.bar([(label[field], kind, len(lists[field])) for field, kind in QUARTERS]))
        parts.append(html.side_by_side(
            html.details(f"{escape(label[field])}: {len(places)}",
                         [html.links((f"#problem-{i}", ids[i]) for i in places) if places else "<p>None.</p>"])
            for field, places in lists.items()
        ))
    return parts


def _guessing(study: Study, found: Findings, images: Images) -> list[str]:
    parts = []
    if found.guesses:
        parts += [
            html.paragraph(
                "What a policy that cannot solve the problems would reach with k tries, and what is left of pass@k: "
                "(pass@k \u2212 guessing) / (1 \u2212 guessing), of the means over problems. 0 is guessing, 100 % is "
                "solving all; below 0 is worse than guessing."),
            html.table(*tables.guess_rows(study, found), "Guess-corrected; below each number: raw pass@k / guessing, "
                       "percent."),
            html.items(words.sentence(GUESS_SOURCES[name]) for name in dict.fromkeys(g.source for g in found.guesses)),
        ]
    else:
        parts.append(html.paragraph(
            "Missing: the task gives no guess rates, its answers are no texts that could be counted among the answers "
            "to other problems, and no arm was asked for the answer alone."))
    if found.guessable is None:
        return [*parts, html.paragraph(
            "Not filtered: no arm was asked for the answer alone (template answer_only), so it is not known which "
            "problems are sometimes answered without reasoning.", "note")]
    left = [study.problems[i][0] for i in found.guessable.problems]
    asked = words.sentence(study.label(found.guessable.asked))
    parts += [
        html.heading("Guessable problems"),
        html.paragraph(
            f"{asked} answers {len(left)} of {len(study.problems)} problems rightly, without reasoning, at a rate "
            f"above 0 and below {100 * GUESSABLE_BELOW:g} %: guessable by Yue et al. 2025, Fig. 12"
            f"{': ' if left else '.'}{words.join(left) + '.' if left else ''}"),
    ]
    if found.guessable.curves:
        return [*parts, html.table(*tables.guessable_rows(study, found))]
    return [*parts, html.paragraph("No problem is left without them.")]


def _chains(study: Study, found: Findings, images: Images) -> list[str]:
    if not found.chains:
        return [html.paragraph(
            "Not known: no person has judged a chain of thought in this study. --config.job=grade writes "
            "review/rare_wins.csv in the run folder, the right samples of problems that an arm solved at most 5 times; "
            "write right or wrong into its last column, then --config.job=report shows bounds of CoT-Pass@k here.")]
    without = [arm.label for arm in study.arms if arm.name not in found.chains]
    return [
        html.paragraph(
            "CoT-Pass@k counts a sample only where both its answer and its chain of thought are right. Lower: a right "
            "answer whose chain nobody judged counts as wrong. Upper: it counts as right. The truth lies between."),
        html.table(*tables.chain_rows(study, found)),
        html.paragraph(f"Missing: no chain of {words.join(without)} was judged.", "note") if without else "",
    ]


def _perplexity(study: Study, found: Findings, images: Images) -> list[str]:
    if not study.perplexity:
        return [html.paragraph("Missing: no answers were scored in this study, so there is no perplexity to show.")]
    counts = sorted({len(values) for values in study.perplexity.values()})
    scored = {name for pair in study.perplexity for name in pair}
    missing = [arm.label for arm in study.arms if arm.name not in scored]
    caption = (
        f"Perplexity per token of an arm's answers (text by) under a model (read by), the end token included; "
        "log scale. Box: quartiles and median, which is printed; whiskers: 5th to 95th percentile of "
        f"{words.join(f'{count:,}' for count in counts)} answers; M = {len(study.problems)} problems. No band: answers "
        "to one problem are alike. Text that the base finds likely is text that the base could have written."
    )
    parts = [_picture(images, "perplexity", "distributions of perplexity", caption)]
    if missing:
        parts.append(html.paragraph(f"Missing: nothing was scored for {words.join(missing)}."))
    return parts


def _efficiency(study: Study, found: Findings, images: Images) -> list[str]:
    head, rows = tables.delta_se_rows(study, found)
    k = next(iter(found.against_base.values())).delta_se_k
    note = "" if k == 256 else f" The paper takes k = 256; here it is k = {k}, so the numbers are not comparable."
    return [
        html.paragraph(
            "\u0394SE is the gap between what the base can reach with many samples and what the trained model reaches "
            f"with one. Lower is better; 0 would mean that one sample does as well as {k} of the base.{note}"),
        html.table(head, rows, "Below each number: its 95 % population band; below \u0394SE: its 95 % paired band."),
    ]


def _training(study: Study, found: Findings, images: Images) -> list[str]:
    if not any(study.training.values()):
        return [html.paragraph("Missing: no training rows were given, so there are no dynamics to show.")]
    parts = []
    if training_panels(study):
        caption = (
            "What the training runs recorded, against their steps. Thin: as recorded; thick: a moving mean "
            "over 1/20 of the run. One run each, so there is no band. Runs of very different length have panels of "
            "their own."
        )
        parts.append(_picture(images, "training", "training dynamics", caption))
    names = {run: list(dict.fromkeys(name for row in rows for name in row if name != "step"))
             for run, rows in study.training.items() if rows}
    lines = []
    for run, recorded in names.items():
        unseen = [name for name in recorded if name not in METRICS]
        also = f" Not drawn, in training.csv: {', '.join(unseen)}." if unseen else ""
        lines.append(f"{run}: {len(study.training[run])} rows of {words.join(recorded or ['steps only'])}.{also}")
    without = [arm.label for arm in study.arms if _no_run(study, arm)]
    if without:
        lines.append(f"Missing: no training rows under the name of {words.join(without)}.")
    return [*parts, html.items(lines)]


def _no_run(study: Study, arm: Arm) -> bool:
    """Whether no run is the arm's; the base may go by its stage's name instead."""
    return arm.name != study.base and not any(is_of_run(arm.name, run) for run, rows in study.training.items() if rows)


def _rates(study: Study) -> list[str]:
    return [
        html.table(*tables.rate_rows(study)),
        html.paragraph(
            "Truncated: stopped by the length limit. No answer: nothing that the verifier could read. No verdict: the "
            "verifier ran out of time or failed. All count as not right in pass@k, and none is the same as wrong. "
            "Duplicates: samples equal to an earlier one of the "
            "same problem. Entropy: mean of \u2212log p under the model at temperature 1.", "note"),
    ]


def _conditions(study: Study) -> list[str]:
    head, rows, differs = tables.condition_rows(study)
    return [
        html.paragraph("Marked, with \u2260: what is not the same in every arm."),
        html.table(head, rows, numbers=False, differs=differs),
    ]


def _reproduce(study: Study, files: dict[str, str]) -> list[str]:
    total = sum(study.timings.values())
    timings = [[stage, f"{seconds:,.1f}"] for stage, seconds in study.timings.items()]
    return [
        html.preformatted(study.command),
        html.paragraph(f"Seed: {tables.MISSING if study.seed is None else study.seed}."),
        html.items(study.notes) if study.notes else "",
        html.heading("Versions"),
        html.table(["what", "version"], [[name, version] for name, version in study.versions.items()])
        if study.versions else html.paragraph("Missing: no versions were recorded."),
        html.heading("Time taken"),
        html.table(["stage", "seconds"], [*timings, ["together", f"{total:,.1f}"]])
        if timings else html.paragraph("Missing: no timings were recorded."),
        html.heading("Files beside this page"),
        "<ul>" + "".join(f"<li>{html.link(name, name)}: {escape(what)}</li>" for name, what in files.items()) + "</ul>",
    ]

