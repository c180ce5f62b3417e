"""The figures: matplotlib's object-oriented API, one function per figure, the same drawing for page and PNG.

Shape suffix: K runs over k = 1..n.
"""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from rlvr_limit.passk import Band, Crossover
from rlvr_limit.report.analysis import (
    METRICS,
    Findings,
    histogram,
    is_number,
    same_weights,
    saved_steps,
    training_panels,
)
from rlvr_limit.report.results import Results, is_of_run
from rlvr_limit.report.style import (
    DASHES,
    LIGHT,
    TEXT_PT,
    ArmStyle,
    arm_styles,
    k_axis,
    panels,
    percent_axis,
    render,
    spread,
)
from rlvr_limit.report.text import points, values_at

RUNS_IN_A_PANEL = 4
"""More runs than these are named once above the figure, since their names would hide the lines."""

WHOLE = (1, 2, 5, 10)
"""Steps between ticks that read well in whole per cent."""


def curves(results: Results, findings: Findings, narrow: bool) -> Figure:
    """pass@k of every arm with its population band, and the guess baseline dotted: one, or each arm's own."""
    figure, (ax,) = panels(narrow, 1, 1, 4.6 if narrow else 4.1)
    styles = arm_styles(results)
    k_max = max(len(curve.mean_K) for curve in findings.curves.values())
    k_axis(ax, k_max, 6 if narrow else 11, label=True)
    ends: list[tuple[float, float, str, ArmStyle]] = []
    for i, arm in enumerate(results.arms):
        curve, style = findings.curves[arm.name], styles[arm.name]
        k_K = _shade(ax, curve, style.color)
        marks = [j for j in range(len(k_K)) if (j + 1).bit_count() == 1 and (len(k_K) < 32 or (j + 1).bit_length() % 2)]
        front = (3 if arm.name == results.base else 2) + i / 100
        ax.plot(k_K, curve.mean_K, **style.line, markevery=marks, label=arm.label, zorder=front, clip_on=False)
        ends.append((k_K[-1], curve.mean_K[-1], arm.label, style))
        guess = findings.guess(arm.name)
        if guess and findings.guess_K is None:
            ax.plot(k_K, guess.guess_K, color=style.color, linestyle=":", linewidth=1.4)
    if findings.guess_K is not None:
        style, k_K = ArmStyle(LIGHT["faint"], ":", "", 2.0), np.arange(1, len(findings.guess_K) + 1)
        ax.plot(k_K, findings.guess_K, **style.line, label="guessing")
        ends.append((k_K[-1], findings.guess_K[-1], "guessing", style))
    ax.set_ylabel("pass@k, share of problems solved")
    percent_axis(ax)
    ax.set_ylim(0, 1)
    if narrow:
        handles, labels = ax.get_legend_handles_labels()
        short = [textwrap.fill(label, 20) for label in labels]
        figure.legend(handles, short, loc="outside lower center", ncols=2, handlelength=3.2, columnspacing=1.2)
    else:
        _label_ends(ax, ends, k_max)
    return figure


def _shade(ax: Axes, band: Band, color: str, alpha: float = 0.13) -> np.ndarray:
    """Draws a band and returns its k: [K]."""
    k_K = np.arange(1, len(band.mean_K) + 1)
    ax.fill_between(k_K, band.low_K, band.high_K, color=color, alpha=alpha, linewidth=0)
    return k_K


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, ArmStyle]], k_max: int) -> None:
    """Write each curve's name at its right end, moved apart where two would overlap, with a hairline to the curve."""
    labels = [textwrap.fill(label, 20) for _, _, label, _ in ends]
    gap = 0.052 * max(label.count("\n") + 1 for label in labels)
    placed = spread([y for _, y, _, _ in ends], gap)
    placed = placed - max(0.0, placed.max() - 1.0) + max(0.0, -placed.min())
    octaves = math.log2(max(k_max, 2))
    hook, start, end, text = (max(k_max, 2) * 2 ** (octaves * x) for x in (0.015, 0.035, 0.08, 0.09))
    for (k, y, _, style), label, at in zip(ends, labels, placed, strict=True):
        # From a curve that ends early the hairline is long, and must not look like its rest.
        far = {"linestyle": (0, (1, 6))} if k < k_max else {}
        ax.plot([k, hook, start], [y, y, at], color=style.color, linewidth=0.7, clip_on=False, **far)
        ax.plot([start, (start * end) ** 0.5, end], [at] * 3, **style.line, markevery=[1], clip_on=False)
        ax.text(text, at, label, va="center", ha="left", linespacing=1.0)


def differences(results: Results, findings: Findings, narrow: bool) -> Figure:
    """One panel per paired difference, with its band, the zero line and the crossover's interval."""
    columns = 2 if narrow else 3
    figure, axes = panels(narrow, len(findings.comparisons), columns, 2.2, sharex=True, sharey=True)
    styles = arm_styles(results)
    k_max = max(len(comparison.difference.mean_K) for comparison in findings.comparisons)
    for i, (ax, comparison) in enumerate(zip(axes, findings.comparisons, strict=True)):
        color, gap = styles[comparison.told_by].color, comparison.difference
        ax.axhline(0, color=LIGHT["ink"], linewidth=1.0)
        ax.plot(_shade(ax, gap, color, alpha=0.25), gap.mean_K, color=color, linewidth=1.9)
        if comparison.first == results.base:
            _mark_crossover(ax, findings.against_base[comparison.second].crossover, k_max)
        ax.set_title(textwrap.fill(comparison.title(results), 17 if narrow else 25))
        k_axis(ax, k_max, 4 if narrow else 5)
        percent_axis(ax, signed=True)
        if i % columns == 0:
            ax.set_ylabel("difference, points")
    figure.supxlabel("k, samples per problem (log scale)", fontsize=TEXT_PT)
    return figure


def _mark_crossover(ax: Axes, crossover: Crossover, k_max: int) -> None:
    """A resolved crossover: its k on the zero line as a ring, its interval as a thick bar."""
    if crossover.verdict == "resolved":
        low, high = crossover.low or k_max, crossover.high or k_max
        ax.plot([low, high], [0, 0], color=LIGHT["ink"], linewidth=4.5, solid_capstyle="butt")
        ax.plot([crossover.k], [0], "o", color=LIGHT["paper"], markeredgecolor=LIGHT["ink"], markersize=7)


def histograms(results: Results, findings: Findings, narrow: bool) -> Figure:
    """Problems by share of right answers, base beside each arm, in counts and percent (Yue et al. 2025, Fig. 5)."""
    others = [arm for arm in results.arms if arm.name != results.base] or [results.arm(results.base)]
    figure, axes = panels(narrow, len(others), 1 if narrow else 2, 2.0, sharex=True, sharey=True)
    styles, base = arm_styles(results), results.arm(results.base)
    x_B, M = np.concatenate([[-0.12], np.arange(10) / 10 + 0.05, [1.12]]), len(results.problems)
    for i, (ax, arm) in enumerate(zip(axes, others, strict=True)):
        beside = ((arm, "////"),) if arm is not base else ()
        for side, (shown, hatch) in enumerate(((base, None), *beside)):
            look = {"hatch": hatch, "color": styles[shown.name].color, "edgecolor": LIGHT["paper"] if hatch else "none"}
            height_B = histogram(shown.n_M, shown.c_M)
            ax.bar(x_B + (side - 0.5) * 0.04, height_B, width=0.038, linewidth=0.0, label=shown.label, **look)
        ax.set_xticks([-0.12, 0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.12], ["none", "0", ".2", ".4", ".6", ".8", "1", "all"])
        ax.grid(False, axis="x")
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.legend(loc="upper center", handlelength=1.4)
        if not narrow and (i % 2 or arm is others[-1]):
            right = ax.secondary_yaxis("right", functions=(lambda y: 100 * y / M, lambda share: share * M / 100))
            right.spines["right"].set_visible(False)
            right.yaxis.set_major_locator(MaxNLocator(5))
            right.set_ylabel("percent")
    for ax in axes if narrow else axes[::2]:
        ax.set_ylabel("problems")
    figure.supxlabel("share of a problem's samples that are right, c/n", fontsize=TEXT_PT)
    return figure


def perplexities(results: Results, findings: Findings, narrow: bool) -> Figure:
    """Perplexity of one model on another's answers; box: quartiles, whiskers: 5th to 95th percentile."""
    pairs = list(results.perplexity)
    figure, (ax,) = panels(narrow, 1, 1, 0.9 + 0.48 * len(pairs))
    styles = arm_styles(results)
    for row, (model, text) in enumerate(pairs):
        p5, q1, middle, q3, p95 = np.percentile(results.perplexity[model, text], (5, 25, 50, 75, 95))
        color = styles[text].color if text in styles else LIGHT["faint"]
        ax.bxp(
            [{"whislo": p5, "q1": q1, "med": middle, "q3": q3, "whishi": p95, "fliers": []}],
            positions=[row],
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": color, "alpha": 0.55, "edgecolor": LIGHT["ink"], "linewidth": 0.8},
            medianprops={"color": LIGHT["ink"], "linewidth": 2.0},
            whiskerprops={"color": LIGHT["faint"]},
            capprops={"color": LIGHT["faint"]},
            manage_ticks=False,
        )
        number = f"{middle:#.3g}" if middle < 100 else f"{middle:,.0f}"
        ax.annotate(number, (p95, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
    labels = [f"text by {results.label(text)}\nread by {results.label(model)}" for model, text in pairs]
    ax.set_yticks(range(len(pairs)), labels)
    ax.set_ylim(len(pairs) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.12)
    ax.grid(False, axis="y")
    ax.set_xlabel("perplexity per token (log scale)")
    return figure


def training(results: Results, findings: Findings, narrow: bool) -> Figure:
    """What training recorded against steps; thin: as recorded, thick: a moving mean over 1/20 of the run."""
    shown = training_panels(results)
    figure, axes = panels(narrow, len(shown), 1 if narrow else 2, 1.75)
    styles = arm_styles(results)
    last_first = list(reversed(styles))
    hue = {
        run: next((styles[name].color for name in last_first if is_of_run(name, run)), LIGHT["ink"])
        for run in results.training
    }
    for ax, (metric, runs) in zip(axes, shown, strict=True):
        for i, run in enumerate(runs):
            rows = [row for row in results.training[run] if is_number(row.get(metric))]
            step, value = np.array([[row["step"], row[metric]] for row in rows], dtype=float).T
            smooth = _moving_mean(value, max(1, len(step) // 20) | 1)
            ax.plot(step, value, color=hue[run], linewidth=0.7, alpha=0.45)
            ax.plot(step, smooth, color=hue[run], linewidth=1.9, linestyle=DASHES[i % 4], label=run)
        ax.set_title(METRICS[metric])
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.margins(x=0.01)
    figure.supxlabel("training step", fontsize=TEXT_PT)
    if max((len(runs) for _, runs in shown), default=0) <= RUNS_IN_A_PANEL:
        for ax in axes:
            ax.legend(loc="best", handlelength=2.2)
    else:
        lines = {line.get_label(): line for ax in axes for line in ax.get_lines() if line.get_label() in hue}
        figure.legend(lines.values(), lines, loc="outside upper center", ncols=2 if narrow else 4, handlelength=2.2)
    return figure


def _moving_mean(value: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over an odd window, which is cut where it would reach past either end."""
    reach = window // 2
    return np.array([value[max(0, i - reach) : i + reach + 1].mean() for i in range(len(value))])


def steps(results: Results, findings: Findings, narrow: bool) -> Figure:
    """pass@1 and pass@k against the training step; step 0 is the base (Yue et al. 2025, v5, Fig. 1 and Table 4)."""
    runs, styles = saved_steps(results), arm_styles(results)
    k = findings.ks()[-1]
    figure, axes = panels(narrow, 2, 1 if narrow else 2, 2.6)
    for ax, at in zip(axes, (1, k), strict=True):
        base = findings.curves[results.base]
        for i, (run, saved) in enumerate(runs.items()):
            style = styles[saved[-1][1].name]
            curves = [(0, base), *((step, findings.curves[arm.name]) for step, arm in saved)]
            _with_bars(ax, [step for step, _ in curves], [curve for _, curve in curves], at, style.color,
                       DASHES[i % 4], run)  # fmt: skip
        _pass_at_k(ax, at)
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=WHOLE, integer=True))
        ax.set_ylim(bottom=0)
    if len(runs) > 1:
        axes[0].legend(loc="best")
    figure.supxlabel("training step; 0 is the base", fontsize=TEXT_PT)
    return figure


def _pass_at_k(ax: Axes, k: int) -> None:
    ax.set_title(f"pass@{k}")
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=WHOLE))
    percent_axis(ax)


def _with_bars(
    ax: Axes, x: Sequence[float], curves: Sequence[Band], k: int, color: str, dash: object, label: str
) -> None:
    """A line through the values at k, each with its band as a bar."""
    value, low, high = np.array([values_at(curve, k) for curve in curves]).T
    bars = np.maximum([value - low, high - value], 0)
    ax.errorbar(x, value, bars, color=color, linestyle=dash, marker="o", markersize=5, capsize=3, label=label)


def algorithms(results: Results, findings: Findings, narrow: bool) -> Figure:
    """Of each algorithm its runs and their mean, and the base minus each at both ends of k."""
    figure, axes = panels(narrow, 3 * len(results.algorithms), 1 if narrow else 3, 2.6)
    styles = arm_styles(results)
    for i, (name, runs) in enumerate(results.algorithms.items()):
        found, color, K = findings.algorithms[name], styles[runs[0]].color, len(findings.algorithms[name].curve.mean_K)
        ax = axes[3 * i]
        k_K = _shade(ax, found.curve, color, alpha=0.2)
        for curve in (*(findings.curves[run] for run in runs), found.curve):
            ax.plot(k_K, curve.mean_K[:K], color=color, linewidth=2.2 if curve is found.curve else 0.7)
        ax.plot(k_K, findings.curves[results.base].mean_K[:K], color=styles[results.base].color, linewidth=2.2)
        k_axis(ax, K, 5, label=True)
        percent_axis(ax)
        ax.set_title(textwrap.fill(f"pass@k of {name} and {results.label(results.base)}", 30))
        for ax, k in zip(axes[3 * i + 1 : 3 * i + 3], (1, K), strict=True):
            _with_bars(ax, range(len(runs)), found.differences, k, color, "", "")
            _with_bars(ax, [len(runs)], [found.difference], k, LIGHT["ink"], "", "")
            ax.axhline(0, color=LIGHT["ink"], linewidth=1.0)
            ax.set_xticks(range(len(runs) + 1), [*map(str, range(len(runs))), "all"])
            ax.set_title(f"{results.label(results.base)} minus seed, k = {k}")
            percent_axis(ax, signed=True)
    return figure


def temperatures(results: Results, findings: Findings, narrow: bool) -> Figure:
    """pass@1 and pass@k against token entropy; arms of the same weights are joined (Yue et al. 2025, v5, Fig. 18)."""
    groups, styles = same_weights(results), arm_styles(results)
    joined = {arm.name for group in groups for arm in group}
    alone = [[arm] for arm in results.arms if arm.name not in joined and arm.entropy is not None]
    k = findings.ks()[-1]
    figure, axes = panels(narrow, 2, 1 if narrow else 2, 2.8)
    for ax, at in zip(axes, (1, k), strict=True):
        for group in [*groups, *alone]:
            style = styles[group[0].name]
            x = [arm.entropy or 0.0 for arm in group]
            _with_bars(ax, x, [findings.curves[arm.name] for arm in group], at, style.color, style.dash, "")
            for arm in group:
                said = f"T = {arm.conditions['temperature'].split(',')[0]}" if "temperature" in arm.conditions else ""
                value = findings.curves[arm.name].mean_K[at - 1]
                ax.annotate(said, (arm.entropy or 0.0, value), (6, 5), textcoords="offset points", fontsize=9)
        base = results.arm(results.base)
        if base.entropy is not None:
            ax.axvline(base.entropy, color=styles[base.name].color, linewidth=0.9, linestyle=":")
        _pass_at_k(ax, at)
        ax.margins(x=0.18)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=WHOLE))
    handles = [axes[0].plot([], [], color=styles[g[0].name].color, marker="o", label=g[0].label)[0]
               for g in [*groups, *alone]]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=1 if narrow else 3)
    figure.supxlabel("entropy of a token as it is drawn, nats", fontsize=TEXT_PT)
    return figure


def efficiency(results: Results, findings: Findings, narrow: bool) -> Figure:
    """pass@1 of every arm, and what is left to pass@k of the base: Delta_SE (Yue et al. 2025, Fig. 8)."""
    arms, styles = results.arms, arm_styles(results)
    figure, (ax,) = panels(narrow, 1, 1, 0.7 + 0.34 * len(arms))
    k = findings.delta_se_k
    value, low, high = values_at(findings.curves[results.base], k)
    ax.axvspan(low, high, color=styles[results.base].color, alpha=0.13, linewidth=0)
    ax.axvline(value, color=styles[results.base].color, linewidth=1.6)
    for row, arm in enumerate(arms):
        style = styles[arm.name]
        at, below, above = values_at(findings.curves[arm.name], 1)
        bars = np.maximum([[at - below], [above - at]], 0)
        ax.errorbar([at], [row], xerr=bars, color=style.color, marker=style.marker, markersize=6, capsize=3)
        if arm.name in findings.against_base:
            gap = findings.against_base[arm.name].delta_se
            ax.plot([at, value], [row, row], color=style.color, linewidth=0.8, linestyle=":")
            ax.annotate(points(gap).lstrip("+"), ((at + value) / 2, row), (0, 2), textcoords="offset points",
                        ha="center", fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(arms)), [textwrap.fill(arm.label, 16 if narrow else 26) for arm in arms])
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
    ax.set_xlim(left=0)
    said = f"point: pass@1; line: pass@{k} of {results.label(results.base)}"
    ax.set_xlabel(textwrap.fill(said, 34 if narrow else 70))
    return figure


def guessable(results: Results, findings: Findings, narrow: bool) -> Figure:
    """pass@k without the guessable problems, and thin and dotted on all of them (Yue et al. 2025, v5, Fig. 13)."""
    figure, (ax,) = panels(narrow, 1, 1, 3.2)
    styles = arm_styles(results)
    for name, curve in findings.guessable.bands.items():
        style = styles[name]
        k_K = _shade(ax, curve, style.color)
        ax.plot(k_K, curve.mean_K, **style.line | {"marker": ""}, label=results.label(name))
        ax.plot(k_K, findings.curves[name].mean_K, color=style.color, linewidth=1.1, linestyle=":")
    k_axis(ax, max(len(curve.mean_K) for curve in findings.guessable.bands.values()), 6 if narrow else 11, label=True)
    percent_axis(ax)
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of problems solved")
    figure.legend(loc="outside lower center" if narrow else "outside right upper", ncols=1)
    return figure


FIGURES: dict[str, Callable[[Results, Findings, bool], Figure]] = {
    "curves": curves,
    "differences": differences,
    "histograms": histograms,
    "guessable": guessable,
    "perplexity": perplexities,
    "efficiency": efficiency,
    "steps": steps,
    "temperatures": temperatures,
    "algorithms": algorithms,
    "training": training,
}
"""In the order of the page, which numbers them so."""


def names(results: Results, findings: Findings) -> list[str]:
    """The figures that there is anything to draw for."""
    there = {
        **dict.fromkeys(("differences", "efficiency"), bool(findings.comparisons)),
        "guessable": bool(findings.guessable and findings.guessable.bands),
        "perplexity": bool(results.perplexity),
        "steps": bool(saved_steps(results)),
        "temperatures": bool(same_weights(results)),
        "algorithms": bool(results.algorithms),
        "training": bool(training_panels(results)),
    }
    return [name for name in FIGURES if there.get(name, True)]


def drawn(name: str, results: Results, findings: Findings) -> tuple[dict[tuple[bool, bool], str], str, bytes]:
    """One figure as style.render gives it."""
    return render(functools.partial(FIGURES[name], results, findings), results)
