"""What each section of the page says: figures with captions, tables, and the reason where a section is absent."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from rlvr_limit.passk import GUESSABLE_BELOW
from rlvr_limit.report import html, tables, words
from rlvr_limit.report.analysis import Findings, shares
from rlvr_limit.report.extras import extras
from rlvr_limit.report.figures import METRICS, training_panels
from rlvr_limit.report.guessing import ANSWER_ONLY, MARGINAL, RULES
from rlvr_limit.report.results import ArmResults, Results, is_of_run
from rlvr_limit.report.sweeps import common_k, same_weights, saved_steps

Images = dict[str, dict[tuple[bool, bool], str]]
GUESS_SOURCES = {
    RULES: f"{RULES}: the chance that a policy is right which knows no more than these.",
    MARGINAL: f"{MARGINAL}: how often a right answer to a problem stands among the arm's answers to the "
    "other problems, by strict rules on texts. An answer that is written in another way is missed: the rate may be "
    "higher, and with it the correction.",
    ANSWER_ONLY: f"{ANSWER_ONLY}: the share of right answers of the arm that was asked so.",
}
QUARTERS = (("both", "both"), ("base_only", "first"), ("rl_only", "second"), ("neither", "none"))


def absent(results: Results, found: Findings, images: Images, samples: bool) -> dict[str, str]:
    """Sections without data and why, "" where the study has no use for them. samples: whether any are on the page."""
    reasons = {
        "guessing": "Missing: the task gives no guess rates, its answers are no texts that could be counted among the "
        "answers to other problems, and no arm was asked for the answer alone.",
        "chains": "Missing: no sample is at hand whose chain of thought a person could judge.",
        "perplexity": "Missing: no answers were scored in this study, so there is no perplexity to show.",
        "training": "Missing: no training rows were given, so there are no dynamics to show.",
        "rates": "Missing: nobody counted answers that were truncated or had no result.",
        "conditions": "Missing: the conditions under which the arms were sampled are not recorded.",
    }
    counted = any(share.truncated is not None or share.ungraded is not None for share in shares(results).values())
    described = any(arm.conditions or arm.weights_sha256 for arm in results.arms)
    present = {
        "guessing": bool(found.guesses) or found.guessable is not None,
        "chains": samples or bool(found.chains),
        "perplexity": bool(results.perplexity),
        "steps": "steps" in images and bool(saved_steps(results)),
        "temperatures": "temperatures" in images and bool(same_weights(results)),
        "training": any(results.training.values()),
        "rates": counted or any(arm.mean_tokens is not None for arm in results.arms),
        "conditions": described,
    }
    return {name: reasons.get(name, "") for name, there in present.items() if not there}


def _figure(images: Images, name: str) -> str:
    """A figure by its number; they are drawn in the order of the page."""
    return f"Figure {list(images).index(name) + 1}"


def _picture(images: Images, name: str, alt: str, caption: str) -> str:
    return html.picture(images[name], alt, f"{_figure(images, name)}. {caption}")


def _curves(results: Results, found: Findings, images: Images) -> list[str]:
    dotted = "Dotted: a policy that only guesses. "
    if found.guess_K is None:
        dotted = "Dotted, in each arm's colour: a policy that gives the arm's own answers to other problems. "
    if not found.guess(results.base):
        dotted = "No guess rate is known. "
    caption = (
        f"Share of problems with at least one right answer among k, for every k up to n; {words.size(results)}."
        f" Shaded: 95 % population band (bootstrap over problems), pointwise in k. {dotted}"
        "Bands of two arms may overlap although their paired difference is clear: see "
        f"{_figure(images, 'differences')}."
    )
    head, rows = tables.headline_rows(results, found)
    corrected = "Guess-corrected: (pass@k \u2212 guessing) / (1 \u2212 guessing). " if found.guesses else ""
    return [
        _picture(images, "curves", "pass@k curves of all arms", caption),
        html.table(head, rows, "Below each number: its 95 % population band, percent."),
        html.paragraph(
            f"{corrected}Crossing: the least k from which the base stays level or ahead, with its 95 % interval, where "
            "the data resolve it.",
            "note",
        ),
    ]


def _differences(results: Results, found: Findings, images: Images) -> list[str]:
    caption = (
        f"Differences of pass@k on the same problems, in percentage points; {words.size(results)}. "
        "Shaded: 95 % paired population band (the same problems drawn for both arms), pointwise in k. Where the band "
        "includes the zero line the order is not resolved. Ring and bar on the zero line: a resolved crossover and its "
        "95 % interval."
    )
    head, rows = tables.difference_rows(results, found)
    return [
        _picture(images, "differences", "paired differences of pass@k", caption),
        html.table(head, rows, "Below each number: its 95 % paired band. A question mark: the band includes 0."),
    ]


def _histograms(results: Results, found: Findings, images: Images) -> list[str]:
    caption = (
        f"Problems by the share of their samples that are right: none, (0, .1], (.1, .2] \u2026 (.9, 1]; "
        f"plain: {results.label(results.base)}, hatched: the other arm; {words.size(results)}. These are counts of "
        "these problems, drawn without a band. None right does not mean that the problem cannot be solved."
    )
    return [_picture(images, "histograms", "problems by share of right answers", caption)]


def _support(results: Results, found: Findings, images: Images) -> list[str]:
    base, ids = results.label(results.base), [name for name, _, _ in results.problems]
    head, rows = tables.support_rows(results, found)
    names = {"both": "both", "base_only": f"{base} only", "rl_only": "the other arm only", "neither": "neither"}
    keys = "".join(f'<span class="key {kind}"></span>{escape(names[field])}' for field, kind in QUARTERS)
    parts = [
        html.paragraph(
            f"A problem counts as solved where at least one sample is right; {words.size(results)}. "
            "The lists fold open; each name leads to the problem and its samples."
        ),
        html.table(head, rows),
        html.paragraph(
            f"SRR = both / all that {base} solves: how much is kept. NDR = arm only / all that the arm solves: how "
            "much is new. SDS: the harmonic mean of the two. NSCR = (arm only \u2212 base only) / solved by either: "
            "net gain. 0/0 is called undefined. A problem solved once may be missed in new samples, and the reverse.",
            "note",
        ),
        f'<p class="note">{keys}</p>',
    ]
    for name, beside in found.against_base.items():
        parts.append(html.heading(f"{base} beside {results.label(name)}"))
        if beside.support is None:
            parts.append(html.paragraph("Not counted: the two arms have different n, and more samples solve more."))
            continue
        lists = {field: getattr(beside.support, field) for field, _ in QUARTERS}
        label = {**names, "rl_only": f"{results.label(name)} only"}
        parts.append(html.bar([(label[field], kind, len(lists[field])) for field, kind in QUARTERS]))
        parts.append(
            html.side_by_side(
                html.details(
                    f"{escape(label[field])}: {len(places)}",
                    [html.links((f"#problem-{i}", ids[i]) for i in places) if places else "<p>None.</p>"],
                )
                for field, places in lists.items()
            )
        )
    return parts


def _guessing(results: Results, found: Findings, images: Images) -> list[str]:
    parts = []
    if found.guesses:
        parts += [
            html.paragraph(
                "What a policy that cannot solve the problems would reach with k tries, and what is left of pass@k: "
                "(pass@k \u2212 guessing) / (1 \u2212 guessing), of the means over problems. 0 is guessing, 100 % is "
                "solving all; below 0 is worse than guessing."
            ),
            html.table(
                *tables.guess_rows(results, found),
                "Guess-corrected; below each number: raw pass@k / guessing, percent.",
            ),
            html.items(words.sentence(GUESS_SOURCES[name]) for name in dict.fromkeys(g.source for g in found.guesses)),
        ]
    if found.guessable is None:
        return [
            *parts,
            html.paragraph(
                "Not filtered: no arm was asked for the answer alone (template answer_only), so it is not known which "
                "problems are sometimes answered without reasoning.",
                "note",
            ),
        ]
    left = [results.problems[i][0] for i in found.guessable.problems]
    asked = words.sentence(results.label(found.guessable.asked))
    parts += [
        html.heading("Guessable problems"),
        html.paragraph(
            f"{asked} answers {len(left)} of {len(results.problems)} problems rightly, without reasoning, at a rate "
            f"above 0 and below {100 * GUESSABLE_BELOW:g} %: guessable by Yue et al. 2025, Fig. 12"
            f"{': ' if left else '.'}{words.join(left) + '.' if left else ''}"
        ),
    ]
    if not found.guessable.curves:
        return [*parts, html.paragraph("No problem is left without them.")]
    if found.guessable.bands and "guessable" in images:
        caption = (
            f"pass@k without guessable problems; M = {len(results.problems) - len(left)} problems, "
            f"{words.samples(results)}. Shaded: 95 % population band. Dotted: on all {len(results.problems)} problems. "
            "Which problems are guessable was itself read off a finite number of samples."
        )
        parts.append(_picture(images, "guessable", "pass@k without guessable problems", caption))
    return [*parts, html.table(*tables.guessable_rows(results, found))]


def _chains(results: Results, found: Findings, images: Images) -> list[str]:
    if not found.chains:
        return [
            html.paragraph(
                "Not known: no person has judged a chain of thought in this study. --config.job=grade writes "
                "review/rare_wins.csv in the run folder, the right samples of problems that an arm solved at most 5 "
                "times; write right or wrong into its last column, then --config.job=report shows bounds of "
                "CoT-Pass@k here."
            )
        ]
    without = [arm.label for arm in results.arms if arm.name not in found.chains]
    return [
        html.paragraph(
            "CoT-Pass@k counts a sample only where both its answer and its chain of thought are right. Lower: a right "
            "answer whose chain nobody judged counts as wrong. Upper: it counts as right. The truth lies between."
        ),
        html.table(
            *tables.chain_rows(results, found),
            "CoT-Pass@k, lower to upper; below it: pass@k. Below an arm: what "
            "was said in review/rare_wins.csv of the chains behind its right answers.",
        ),
        html.paragraph(f"Missing, for none of their chains was judged: {words.join(without)}.", "note")
        if without
        else "",
    ]


def _perplexity(results: Results, found: Findings, images: Images) -> list[str]:
    counts = sorted({len(values) for values in results.perplexity.values()})
    scored = {name for pair in results.perplexity for name in pair}
    missing = [arm.label for arm in results.arms if arm.name not in scored]
    caption = (
        f"Perplexity per token of an arm's answers (text by) under a model (read by), the end token included; "
        "log scale. Box: quartiles and median, which is printed; whiskers: 5th to 95th percentile of "
        f"{words.join(f'{count:,}' for count in counts)} answers; M = {len(results.problems)} problems. No band: "
        "answers to one problem are alike. Text that the base finds likely is text that the base could have written."
    )
    parts = [_picture(images, "perplexity", "distributions of perplexity", caption)]
    if missing:
        parts.append(html.paragraph(f"Missing: nothing was scored for {words.join(missing)}."))
    return parts


def _efficiency(results: Results, found: Findings, images: Images) -> list[str]:
    head, rows = tables.delta_se_rows(results, found)
    k = next(iter(found.against_base.values())).delta_se_k
    caption = (
        f"pass@1 of every arm with its 95 % population band; line and shade: pass@{k} of {results.label(results.base)} "
        f"and its band; {words.size(results)}. Between them, in points: \u0394SE, whose own "
        "paired band is in the table."
    )
    note = "" if k == 256 else f" The paper takes k = 256; here it is k = {k}, so the numbers are not comparable."
    return [
        html.paragraph(
            "\u0394SE is the gap between what the base can reach with many samples and what the trained model reaches "
            f"with one. Lower is better; 0 would mean that one sample does as well as {k} of the base.{note}"
        ),
        _picture(images, "efficiency", "pass@1 of every arm and its gap to the base", caption),
        html.table(head, rows, "Below each number: its 95 % population band; below \u0394SE: its 95 % paired band."),
    ]


def _steps(results: Results, found: Findings, images: Images) -> list[str]:
    runs, k = saved_steps(results), common_k(results, found)
    caption = (
        f"pass@1 and pass@{k} of saved steps of {words.join(runs)}, step 0 being {results.label(results.base)}; "
        f"{words.size(results)}. Bars: 95 % population band. One run each: what another run would give is not shown."
    )
    return [_picture(images, "steps", "pass@k against training steps", caption)]


def _temperatures(results: Results, found: Findings, images: Images) -> list[str]:
    base, k = results.label(results.base), common_k(results, found)
    caption = (
        f"pass@1 and pass@{k} against the entropy of a token as it is drawn; {words.size(results)}. Joined: the same "
        f"weights at several temperatures T. Bars: 95 % population band. Vertical: the entropy of {base}; arms on that "
        "line are compared at equal entropy. Entropy is measured on each arm's own answers."
    )
    return [
        _picture(images, "temperatures", "pass@k against token entropy", caption),
        html.table(*tables.entropy_rows(results, found), "Below pass@k: its 95 % population band."),
    ]


def _extras(results: Results, found: Findings, images: Images) -> list[str]:
    return [
        html.paragraph(f"From the same samples; {words.size(results)}. Each table folds open."),
        *(
            html.details(
                f"<strong>{escape(extra.title)}</strong>",
                [html.paragraph(extra.meaning, "note"), html.table(extra.head, extra.rows)],
            )
            for extra in extras(results, found)
        ),
    ]


def _training(results: Results, found: Findings, images: Images) -> list[str]:
    parts = []
    if training_panels(results):
        caption = (
            "What the training runs recorded, against their steps. Thin: as recorded; thick: a moving mean "
            "over 1/20 of the run. One run each, so there is no band. Runs of very different length have panels of "
            "their own."
        )
        parts.append(_picture(images, "training", "training dynamics", caption))
    names = {
        run: list(dict.fromkeys(name for row in rows for name in row if name != "step"))
        for run, rows in results.training.items()
        if rows
    }
    lines = []
    for run, recorded in names.items():
        unseen = [name for name in recorded if name not in METRICS]
        also = f" Not drawn, in training.csv: {', '.join(unseen)}." if unseen else ""
        lines.append(f"{run}: {len(results.training[run])} rows of {words.join(recorded or ['steps only'])}.{also}")
    without = [arm.label for arm in results.arms if _no_run(results, arm)]
    if without:
        lines.append(f"Missing: no training rows under the name of {words.join(without)}.")
    return [*parts, html.items(lines)]


def _no_run(results: Results, arm: ArmResults) -> bool:
    """Whether no run is the arm's; the base may go by its stage's name instead."""
    return arm.name != results.base and not any(
        is_of_run(arm.name, run) for run, rows in results.training.items() if rows
    )


def _rates(results: Results, found: Findings, images: Images) -> list[str]:
    return [
        html.table(*tables.rate_rows(results)),
        html.paragraph(
            "Truncated: stopped by the length limit. No answer: nothing that the verifier could read. No verdict: the "
            "verifier ran out of time or failed. All count as not right in pass@k, and none is the same as wrong. "
            "Duplicates: samples equal to an earlier one of the "
            "same problem. Entropy: of the distribution that tokens are drawn from (after temperature and truncation), "
            "a mean over generated tokens, estimated without bias by \u2212log p of the tokens drawn.",
            "note",
        ),
    ]


def _conditions(results: Results, found: Findings, images: Images) -> list[str]:
    head, rows, differs = tables.condition_rows(results)
    return [
        html.paragraph("Marked, with \u2260: what is not the same in every arm."),
        html.table(head, rows, numbers=False, differs=differs),
        html.items(errors) if (errors := words.cache_errors(results)) else "",
    ]


def reproduce(results: Results, files: dict[str, str], missing: list[str]) -> list[str]:
    """Command, versions, time taken, files, and what is missing on the page."""
    total = sum(results.timings.values())
    timings = [[stage, f"{seconds:,.1f}"] for stage, seconds in results.timings.items()]
    return [
        html.preformatted(results.command),
        html.paragraph(f"Seed: {tables.MISSING if results.seed is None else results.seed}."),
        html.items(results.notes) if results.notes else "",
        html.heading("Versions"),
        html.table(["what", "version"], [[name, version] for name, version in results.versions.items()])
        if results.versions
        else html.paragraph("Missing: no versions were recorded."),
        html.heading("Time taken"),
        html.table(["stage", "seconds"], [*timings, ["together", f"{total:,.1f}"]])
        if timings
        else html.paragraph("Missing: no timings were recorded."),
        html.heading("Not on this page") if missing else "",
        html.items(missing) if missing else "",
        html.heading("Files beside this page"),
        "<ul>" + "".join(f"<li>{html.link(name, name)}: {escape(what)}</li>" for name, what in files.items()) + "</ul>",
    ]


MAKE: dict[str, Callable[[Results, Findings, Images], list[str]]] = {
    "curves": _curves,
    "differences": _differences,
    "histograms": _histograms,
    "support": _support,
    "guessing": _guessing,
    "chains": _chains,
    "perplexity": _perplexity,
    "efficiency": _efficiency,
    "steps": _steps,
    "temperatures": _temperatures,
    "training": _training,
    "extras": _extras,
    "rates": _rates,
    "conditions": _conditions,
}
