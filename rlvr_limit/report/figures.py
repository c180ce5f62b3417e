"""The figures: matplotlib's object-oriented API, one function per figure, the same drawing for page and PNG.

Shape suffix: K runs over k = 1..n; M problems.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from rlvr_limit.passk import Crossover
from rlvr_limit.report import sweeps
from rlvr_limit.report.analysis import Findings, histogram
from rlvr_limit.report.results import Results, is_of_run
from rlvr_limit.report.style import (
    LIGHT,
    TEXT_PT,
    ArmStyle,
    arm_styles,
    darkened,
    log2_axis,
    panels,
    percent_axis,
    rc,
    spread,
)

METRICS = {
    "loss": "loss",
    "reward": "mean reward",
    "length": "answer length, tokens",
    "entropy": "token entropy, nats",
    "kl": "KL(sampler \u2016 trainer), nats",
    "kl_sampler": "KL(sampler \u2016 trainer), nats",
    "grad_norm": "gradient norm",
    "truncated": "truncated answers, share",
    "no_answer": "answers without a result, share",
}
RUNS_IN_A_PANEL = 4
"""More runs than these are named once above the figure, since their names would hide the lines."""

Draw = Callable[[Results, Findings, bool], Figure]


def curves(results: Results, found: Findings, narrow: bool) -> Figure:
    """Figure 1: pass@k of every arm with its population band, and the guess baseline dotted: one, or each arm's own."""
    figure, (ax,) = panels(narrow, 1, 1, 4.1 if not narrow else 4.6)
    styles = arm_styles(results)
    k_max = max(len(curve.mean_K) for curve in found.curves.values())
    log2_axis(ax, k_max, 11 if not narrow else 6)
    ends: list[tuple[float, float, str, ArmStyle]] = []
    for i, arm in enumerate(results.arms):
        curve, style = found.curves[arm.name], styles[arm.name]
        k_K = np.arange(1, len(curve.mean_K) + 1)
        marks = [j for j in range(len(k_K)) if (j + 1).bit_count() == 1 and (len(k_K) < 32 or (j + 1).bit_length() % 2)]
        front = 3 if arm.name == results.base else 2
        ax.fill_between(k_K, curve.low_K, curve.high_K, color=style.color, alpha=0.13, linewidth=0)
        ax.plot(
            k_K,
            curve.mean_K,
            color=style.color,
            linestyle=style.dash,
            linewidth=style.width,
            marker=style.marker,
            markevery=marks,
            markersize=5.5,
            label=arm.label,
            zorder=front + i / 100,
            clip_on=False,
        )
        ends.append((k_K[-1], curve.mean_K[-1], arm.label, style))
        guess = found.guess(arm.name)
        if guess and found.guess_K is None:
            ax.plot(k_K, guess.guess_K, color=style.color, linestyle=":", linewidth=1.4)
    if found.guess_K is not None:
        k_K = np.arange(1, len(found.guess_K) + 1)
        ax.plot(k_K, found.guess_K, color=LIGHT.faint, linestyle=":", linewidth=2.0, label="guessing")
        ends.append((k_K[-1], found.guess_K[-1], "guessing", ArmStyle(LIGHT.faint, ":", "", 2.0)))
    ax.set_xlabel("k, samples per problem (log scale)")
    ax.set_ylabel("pass@k, share of problems solved")
    percent_axis(ax)
    ax.set_ylim(0, 1)
    if narrow:
        figure.legend(loc="outside lower center", ncols=2, handlelength=3.2, columnspacing=1.2)
    else:
        _label_ends(ax, ends, k_max)
    return figure


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, ArmStyle]], k_max: int) -> None:
    """Write each curve's name at its right end, moved apart where two would overlap, with a hairline to the curve."""
    labels = [textwrap.fill(label, 20) for _, _, label, _ in ends]
    gap = 0.052 * max(label.count("\n") + 1 for label in labels)
    placed = spread([y for _, y, _, _ in ends], gap)
    placed = placed - max(0.0, placed.max() - 1.0) + max(0.0, -placed.min())
    octaves = math.log2(max(k_max, 2))
    hook, start, end, text = (max(k_max, 2) * 2 ** (octaves * x) for x in (0.015, 0.035, 0.08, 0.09))
    for (k, y, _, style), label, at in zip(ends, labels, placed, strict=True):
        ax.plot([k, hook, start], [y, y, at], color=style.color, linewidth=0.7, clip_on=False)
        ax.plot(
            [start, (start * end) ** 0.5, end],
            [at] * 3,
            color=style.color,
            linestyle=style.dash,
            clip_on=False,
            linewidth=style.width,
            marker=style.marker,
            markevery=[1],
            markersize=5.5,
        )
        ax.text(text, at, label, va="center", ha="left", linespacing=1.0)


def differences(results: Results, found: Findings, narrow: bool) -> Figure:
    """Figure 2: one panel per paired difference, with its band, the zero line and the crossover's interval."""
    figure, axes = panels(narrow, len(found.comparisons), 2 if narrow else 3, 2.2, sharex=True, sharey=True)
    styles = arm_styles(results)
    k_max = max(len(comparison.difference.mean_K) for comparison in found.comparisons)
    for i, (ax, comparison) in enumerate(zip(axes, found.comparisons, strict=True)):
        color, gap = styles[comparison.told_by].color, comparison.difference
        k_K = np.arange(1, len(gap.mean_K) + 1)
        ax.axhline(0, color=LIGHT.ink, linewidth=1.0)
        ax.fill_between(k_K, gap.low_K, gap.high_K, color=color, alpha=0.25, linewidth=0)
        ax.plot(k_K, gap.mean_K, color=color, linewidth=1.9)
        if comparison.first == results.base:
            _mark_crossover(ax, found.against_base[comparison.second].crossover, k_max)
        ax.set_title("\n".join(textwrap.wrap(comparison.title(results), 17 if narrow else 25)))
        log2_axis(ax, k_max, 4 if narrow else 5)
        percent_axis(ax, signed=True)
        if i % (2 if narrow else 3) == 0:
            ax.set_ylabel("difference, points")
    figure.supxlabel("k, samples per problem (log scale)", fontsize=TEXT_PT)
    return figure


def _mark_crossover(ax: Axes, crossover: Crossover, k_max: int) -> None:
    """A resolved crossover: its k on the zero line as a ring, its interval as a thick bar."""
    if crossover.verdict == "resolved":
        low, high = crossover.low or k_max, crossover.high or k_max
        ax.plot([low, high], [0, 0], color=LIGHT.ink, linewidth=4.5, solid_capstyle="butt")
        ax.plot([crossover.k], [0], "o", color=LIGHT.paper, markeredgecolor=LIGHT.ink, markersize=7)


def histograms(results: Results, found: Findings, narrow: bool) -> Figure:
    """Figure 3: problems by share of right answers, the base beside each other arm (the paper's Figs. 5 and 13)."""
    others = [arm for arm in results.arms if arm.name != results.base]
    figure, axes = panels(narrow, len(others), 1 if narrow else 2, 2.0, sharex=True, sharey=True)
    styles, base = arm_styles(results), results.arm(results.base)
    x_B = np.concatenate([[-0.12], np.arange(10) / 10 + 0.05])
    for ax, arm in zip(axes, others, strict=True):
        for side, (shown, hatch) in enumerate(((base, None), (arm, "////"))):
            ax.bar(
                x_B + (side - 0.5) * 0.04,
                histogram(shown.n_M, shown.c_M),
                width=0.038,
                hatch=hatch,
                color=styles[shown.name].color,
                edgecolor=LIGHT.paper if hatch else "none",
                linewidth=0.0,
                label=shown.label,
            )
        ax.set_xticks([-0.12, 0, 0.2, 0.4, 0.6, 0.8, 1.0], ["none", "0", ".2", ".4", ".6", ".8", "1"])
        ax.grid(False, axis="x")
        ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.legend(loc="upper right", handlelength=1.4)
    for ax in axes if narrow else axes[::2]:
        ax.set_ylabel("problems")
    figure.supxlabel("share of a problem's samples that are right, c/n", fontsize=TEXT_PT)
    return figure


def perplexities(results: Results, found: Findings, narrow: bool) -> Figure:
    """Figure 4: perplexity of one model on another's answers; box: quartiles, whiskers: 5th to 95th percentile."""
    pairs = list(results.perplexity)
    figure, (ax,) = panels(narrow, 1, 1, 0.9 + 0.48 * len(pairs))
    styles = arm_styles(results)
    for row, pair in enumerate(pairs):
        model, text = pair
        p5, q1, middle, q3, p95 = np.percentile(results.perplexity[pair], (5, 25, 50, 75, 95))
        color = styles[text].color if text in styles else LIGHT.faint
        box = {"whislo": p5, "q1": q1, "med": middle, "q3": q3, "whishi": p95, "fliers": []}
        ax.bxp(
            [box],
            positions=[row],
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": color, "alpha": 0.55, "edgecolor": LIGHT.ink, "linewidth": 0.8},
            medianprops={"color": LIGHT.ink, "linewidth": 2.0},
            whiskerprops={"color": LIGHT.faint},
            capprops={"color": LIGHT.faint},
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


def training_panels(results: Results) -> list[tuple[str, list[str]]]:
    """(metric, runs drawn together): runs share a panel if their last steps lie within a factor of two."""
    found: list[tuple[str, list[str]]] = []
    last = {run: max((row["step"] for row in rows), default=0) for run, rows in results.training.items()}
    for metric in METRICS:
        groups: list[list[str]] = []
        for run in sorted(results.training, key=lambda run: -last[run]):
            if sum(_is_number(row.get(metric)) for row in results.training[run]) < 2:
                continue
            if groups and last[run] * 2 >= last[groups[-1][0]]:
                groups[-1].append(run)
            else:
                groups.append([run])
        found += [(metric, group) for group in groups]
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def training(results: Results, found: Findings, narrow: bool) -> Figure:
    """Figure 5: what training recorded against steps; thin: as recorded, thick: a moving mean over 1/20 of the run."""
    shown = training_panels(results)
    figure, axes = panels(narrow, len(shown), 1 if narrow else 2, 1.75)
    styles = arm_styles(results)
    last_first = list(reversed(styles))
    hue = {run: next((styles[n].color for n in last_first if is_of_run(n, run)), LIGHT.ink) for run in results.training}
    for ax, (metric, runs) in zip(axes, shown, strict=True):
        for i, run in enumerate(runs):
            rows = [row for row in results.training[run] if _is_number(row.get(metric))]
            step, value = np.array([[row["step"], row[metric]] for row in rows], dtype=float).T
            window = max(1, len(step) // 20) | 1
            smooth = _moving_mean(value, window)
            ax.plot(step, value, color=hue[run], linewidth=0.7, alpha=0.45)
            ax.plot(step, smooth, color=hue[run], linewidth=1.9, linestyle=("-", "--", "-.", ":")[i % 4], label=run)
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


FIGURES: dict[str, Draw] = {
    "curves": curves,
    "differences": differences,
    "histograms": histograms,
    "guessable": sweeps.guessable,
    "perplexity": perplexities,
    "efficiency": sweeps.efficiency,
    "steps": sweeps.steps,
    "temperatures": sweeps.temperatures,
    "training": training,
}
"""In the order of the page, which numbers them so."""


def has_data(name: str, results: Results, found: Findings) -> bool:
    """Whether there is anything to draw: some figures need more than counts."""
    return {
        "guessable": bool(found.guessable and found.guessable.bands),
        "perplexity": bool(results.perplexity),
        "steps": bool(sweeps.saved_steps(results)),
        "temperatures": bool(sweeps.same_weights(results)),
        "training": bool(training_panels(results)),
    }.get(name, True)


def render(draw: Draw, results: Results, found: Findings) -> tuple[dict[tuple[bool, bool], str], str, bytes]:
    """(data URIs as SVG by (dark, narrow), the wide light figure as SVG, and as PNG, 160 dots per inch on white).

    Text in the SVG is outlines, so it looks the same everywhere; there is no date inside.
    """
    uris = {}
    with matplotlib.rc_context(rc()):
        for narrow in (True, False):
            figure, stream = draw(results, found, narrow), io.StringIO()
            FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
            for dark in (False, True):
                svg = darkened(stream.getvalue(), results) if dark else stream.getvalue()
                plain = stream.getvalue()
                uris[dark, narrow] = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        # The wide figure is laid out by now; laying it out again for the PNG would take as long as drawing it.
        figure.set_layout_engine("none")
        figure.set_facecolor("white")
        figure.set_dpi(160)
        image = io.BytesIO()
        FigureCanvasAgg(figure).print_png(image)
    return uris, plain, image.getvalue()
