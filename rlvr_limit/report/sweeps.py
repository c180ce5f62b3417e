"""Arms along a line: saved steps of one training run, temperatures of the same weights, and pass@1 with its gap.

Shape suffix: K runs over k = 1..n.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from rlvr_limit.passk import Band
from rlvr_limit.report.analysis import Findings
from rlvr_limit.report.results import ArmResults, Results
from rlvr_limit.report.style import TEXT_PT, arm_styles, log2_axis, panels, percent_axis
from rlvr_limit.report.words import points

WHOLE = (1, 2, 5, 10)
"""Steps between ticks that read well in whole per cent."""


def saved_steps(results: Results) -> dict[str, list[tuple[int, ArmResults]]]:
    """(step, arm) in order of steps, by training run: "grpo-40" is step 40 of "grpo". Only runs of two or more."""
    runs: dict[str, list[tuple[int, ArmResults]]] = {}
    for arm in results.arms:
        run, _, step = arm.name.rpartition("-")
        if run and step.isascii() and step.isdigit() and arm.name != results.base:
            runs.setdefault(run, []).append((int(step), arm))
    return {run: sorted(found, key=lambda pair: pair[0]) for run, found in runs.items() if len(found) > 1}


def same_weights(results: Results) -> list[list[ArmResults]]:
    """Arms that are alike but for the temperature, weights included, and whose entropy is known; by entropy."""
    groups: dict[tuple[object, ...], list[ArmResults]] = {}
    for arm in results.arms:
        if arm.weights_sha256 and arm.entropy is not None:
            rest = sorted(pair for pair in arm.conditions.items() if pair[0] != "temperature")
            groups.setdefault((arm.weights_sha256, *rest), []).append(arm)
    return [
        sorted(group, key=lambda arm: arm.entropy or 0.0)
        for group in groups.values()
        if len({arm.conditions.get("temperature") for arm in group}) > 1
    ]


def steps(results: Results, found: Findings, narrow: bool) -> Figure:
    """pass@1 and pass@k against the training step; step 0 is the base (the paper's Fig. 1, right, and Table 3)."""
    runs, styles = saved_steps(results), arm_styles(results)
    k = common_k(results, found)
    figure, axes = panels(narrow, 2, 1 if narrow else 2, 2.6)
    for ax, at in zip(axes, (1, k), strict=True):
        base = found.curves[results.base]
        for i, (run, saved) in enumerate(runs.items()):
            style = styles[saved[-1][1].name]
            curves = [(0, base), *((step, found.curves[arm.name]) for step, arm in saved)]
            _with_bars(ax, [step for step, _ in curves], [curve for _, curve in curves], at, style.color,
                       ("-", "--", "-.", ":")[i % 4], run)  # fmt: skip
        ax.set_title(f"pass@{at}")
        ax.xaxis.set_major_locator(MaxNLocator(6, steps=WHOLE, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=WHOLE))
        percent_axis(ax)
        ax.set_ylim(bottom=0)
    if len(runs) > 1:
        axes[0].legend(loc="best")
    figure.supxlabel("training step; 0 is the base", fontsize=TEXT_PT)
    return figure


def common_k(results: Results, found: Findings) -> int:
    """The largest k that every arm has."""
    return found.ks(*(arm.name for arm in results.arms))[-1]


def _with_bars(
    ax: Axes, x: Sequence[float], curves: Sequence[Band], k: int, color: str, dash: object, label: str
) -> None:
    """A line through the values at k, each with its band as a bar."""
    value, low, high = (
        np.array([getattr(curve, end)[k - 1] for curve in curves]) for end in ("mean_K", "low_K", "high_K")
    )
    bars = np.maximum([value - low, high - value], 0)
    ax.errorbar(x, value, bars, color=color, linestyle=dash, marker="o", markersize=5, capsize=3, label=label)


def temperatures(results: Results, found: Findings, narrow: bool) -> Figure:
    """pass@1 and pass@k against the entropy of a token; arms of the same weights are joined (the paper's Fig. 17)."""
    groups, styles = same_weights(results), arm_styles(results)
    joined = {arm.name for group in groups for arm in group}
    alone = [[arm] for arm in results.arms if arm.name not in joined and arm.entropy is not None]
    k = common_k(results, found)
    figure, axes = panels(narrow, 2, 1 if narrow else 2, 2.8)
    for ax, at in zip(axes, (1, k), strict=True):
        for group in [*groups, *alone]:
            style = styles[group[0].name]
            x = [arm.entropy or 0.0 for arm in group]
            _with_bars(ax, x, [found.curves[arm.name] for arm in group], at, style.color, style.dash, "")
            for arm in group:
                said = f"T = {arm.conditions['temperature'].split(',')[0]}" if "temperature" in arm.conditions else ""
                value = found.curves[arm.name].mean_K[at - 1]
                ax.annotate(said, (arm.entropy or 0.0, value), (6, 5), textcoords="offset points", fontsize=9)
        base = results.arm(results.base)
        if base.entropy is not None:
            ax.axvline(base.entropy, color=styles[base.name].color, linewidth=0.9, linestyle=":")
        ax.set_title(f"pass@{at}")
        ax.margins(x=0.18)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=WHOLE))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=WHOLE))
        percent_axis(ax)
    handles = [axes[0].plot([], [], color=styles[g[0].name].color, marker="o", label=g[0].label)[0]
               for g in [*groups, *alone]]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=1 if narrow else 3)
    figure.supxlabel("entropy of a token as it is drawn, nats", fontsize=TEXT_PT)
    return figure


def efficiency(results: Results, found: Findings, narrow: bool) -> Figure:
    """pass@1 of every arm, and what is left to pass@k of the base: Delta_SE (the paper's Fig. 8)."""
    arms, styles = results.arms, arm_styles(results)
    figure, (ax,) = panels(narrow, 1, 1, 0.7 + 0.34 * len(arms))
    k = next(iter(found.against_base.values())).delta_se_k
    reach = found.curves[results.base]
    value, low, high = (float(ends[k - 1]) for ends in (reach.mean_K, reach.low_K, reach.high_K))
    ax.axvspan(low, high, color=styles[results.base].color, alpha=0.13, linewidth=0)
    ax.axvline(value, color=styles[results.base].color, linewidth=1.6)
    for row, arm in enumerate(arms):
        curve, style = found.curves[arm.name], styles[arm.name]
        at = float(curve.mean_K[0])
        bars = np.maximum([[at - curve.low_K[0]], [curve.high_K[0] - at]], 0)
        ax.errorbar([at], [row], xerr=bars, color=style.color, marker=style.marker, markersize=6, capsize=3)
        if arm.name in found.against_base:
            gap = found.against_base[arm.name].delta_se
            ax.plot([at, value], [row, row], color=style.color, linewidth=0.8, linestyle=":")
            ax.annotate(points(gap).lstrip("+"), ((at + value) / 2, row), (0, 2), textcoords="offset points",
                        ha="center", fontsize=9)  # fmt: skip
    ax.yaxis.set_major_locator(FixedLocator(range(len(arms))))
    ax.set_yticklabels([textwrap.fill(arm.label, 16 if narrow else 26) for arm in arms])
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.grid(False, axis="y")
    ax.xaxis.set_major_formatter(lambda x, _: f"{round(100 * x)} %")
    ax.set_xlim(left=0)
    said = f"point: pass@1; line: pass@{k} of {results.label(results.base)}"
    ax.set_xlabel(textwrap.fill(said, 34 if narrow else 70))
    return figure


def guessable(results: Results, found: Findings, narrow: bool) -> Figure:
    """pass@k without the guessable problems, and thin and dotted on all of them (the paper's Fig. 12)."""
    figure, (ax,) = panels(narrow, 1, 1, 3.2)
    styles = arm_styles(results)
    for name, curve in found.guessable.bands.items():
        style, k_K = styles[name], np.arange(1, len(curve.mean_K) + 1)
        ax.fill_between(k_K, curve.low_K, curve.high_K, color=style.color, alpha=0.13, linewidth=0)
        ax.plot(k_K, curve.mean_K, color=style.color, linewidth=style.width, linestyle=style.dash,
                label=results.label(name))  # fmt: skip
        ax.plot(k_K, found.curves[name].mean_K, color=style.color, linewidth=1.1, linestyle=":")
    log2_axis(ax, max(len(curve.mean_K) for curve in found.guessable.bands.values()), 6 if narrow else 11)
    percent_axis(ax)
    ax.set_ylim(0, 1)
    ax.set_xlabel("k, samples per problem (log scale)")
    ax.set_ylabel("share of problems solved")
    figure.legend(loc="outside lower center" if narrow else "outside right upper", ncols=1)
    return figure
