"""How figures look: a light and a dark palette, one colour-and-line style per arm. No pyplot, no global state."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

from rlvr_limit.report.results import Results

TEXT_PT = 9.5


@dataclass(frozen=True)
class Palette:
    """Every colour a figure may use. All differ within a palette, so one palette can be exchanged for another."""

    ink: str
    faint: str
    grid: str
    paper: str
    base: str
    ramp: tuple[str, str, str]
    distilled: str
    control: str
    spare: tuple[str, str, str]


LIGHT = Palette(
    "#1c2733",
    "#6a7480",
    "#e3e7ec",
    "#ffffff",
    "#0b57a4",
    ("#eba548", "#d2600c", "#74290a"),
    "#00866c",
    "#93479a",
    ("#8a7a14", "#4f6275", "#a8404f"),
)
DARK = Palette(
    "#e6e9ef",
    "#8b95a5",
    "#323a46",
    "#1a2029",
    "#6db3ff",
    ("#a8612a", "#ee8b3a", "#ffd9ab"),
    "#43cfaa",
    "#d59adb",
    ("#c9b458", "#9fb0c3", "#e08a96"),
)


@dataclass(frozen=True)
class ArmStyle:
    """Colour, dash pattern and marker of one arm: any one of the three tells the arms apart, in grey print too."""

    color: str
    dash: Any
    marker: str
    width: float = 1.7


def arm_styles(results: Results, palette: Palette = LIGHT) -> dict[str, ArmStyle]:
    """One style per arm name. RL arms take a sequential ramp in the order listed; the base has the one strong blue."""
    rl = [arm.name for arm in results.arms if arm.group == "rl" and arm.name != results.base]
    ramp = LinearSegmentedColormap.from_list("ramp", palette.ramp)
    shades = [to_hex(ramp(i / (len(rl) - 1) if len(rl) > 1 else 0.5)) for i in range(len(rl))]
    styles, others = {}, 0
    for arm in results.arms:
        if arm.name == results.base:
            styles[arm.name] = ArmStyle(palette.base, "-", "o", 2.6)
        elif arm.group == "rl":
            i = rl.index(arm.name)
            styles[arm.name] = ArmStyle(shades[i], ("-", (0, (5, 1.2)), (0, (2, 1)))[i % 3], "s^PX*h"[i % 6])
        elif arm.group == "distilled":
            styles[arm.name] = ArmStyle(palette.distilled, (0, (7, 2, 1.5, 2)), "D")
        elif arm.group == "control":
            styles[arm.name] = ArmStyle(palette.control, (0, (3.5, 2)), "v")
        else:
            styles[arm.name] = ArmStyle(palette.spare[others % 3], (0, (1, 1)), "<>dp"[others % 4])
            others += 1
    return styles


def darkened(svg: str, results: Results) -> str:
    """The same drawing in the dark palette: drawn once, recoloured by name of colour, so the two cannot differ."""
    swap = {getattr(LIGHT, role): getattr(DARK, role) for role in ("ink", "faint", "grid", "paper")}
    dark = arm_styles(results, DARK)
    swap |= {style.color: dark[name].color for name, style in arm_styles(results).items()}
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: swap.get(found[0], found[0]), svg)


def rc() -> dict[str, Any]:
    """matplotlib's settings, for rc_context. hashsalt makes the SVG the same bytes every time."""
    return {
        "font.family": ["DejaVu Sans"],
        "font.size": TEXT_PT,
        "axes.titlesize": TEXT_PT + 0.5,
        "axes.labelsize": TEXT_PT,
        "xtick.labelsize": 9.0,
        "ytick.labelsize": 9.0,
        "legend.fontsize": 9.0,
        "legend.frameon": False,
        "text.color": LIGHT.ink,
        "text.parse_math": False,
        "axes.labelcolor": LIGHT.ink,
        "axes.edgecolor": LIGHT.faint,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "grid.color": LIGHT.grid,
        "grid.linewidth": 0.7,
        "xtick.color": LIGHT.faint,
        "ytick.color": LIGHT.faint,
        "xtick.labelcolor": LIGHT.ink,
        "ytick.labelcolor": LIGHT.ink,
        "figure.facecolor": "none",
        "hatch.linewidth": 0.7,
        "svg.hashsalt": "rlvr_limit",
        "svg.fonttype": "path",
    }


def panels(narrow: bool, count: int, columns: int, height: float, **share: Any) -> tuple[Figure, list[Axes]]:
    """A figure 7 inches wide, or 4 for a phone, with count axes in columns; each row is height inches high."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    figure = Figure(figsize=(4.0 if narrow else 7.0, height * rows + 0.35), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, hspace=0.05, wspace=0.04)
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel()
    for empty in axes[count:]:
        empty.remove()
    for ax in axes[max(0, count - columns) : count]:
        ax.tick_params(labelbottom=True)
    return figure, list(axes[:count])


def log2_axis(ax: Axes, k_max: int, most: int) -> None:
    """Label k at powers of two, at most so many of them."""
    powers = 1 << np.arange(int(np.log2(k_max)) + 1)
    ticks = powers[:: -(-len(powers) // most)]
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([str(k) for k in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(1, max(k_max, 2))


def percent_axis(ax: Axes, signed: bool = False) -> None:
    """Shares on the y axis: in percent, or in percentage points with their sign."""

    def shown(y: float, _: int) -> str:
        rounded = round(100 * y)
        return f"{rounded:+d}".replace("-", "\u2212").replace("+0", "0") if signed else f"{rounded} %"

    ax.yaxis.set_major_formatter(FuncFormatter(shown))


def spread(wanted: Sequence[float], gap: float) -> np.ndarray:
    """Positions as near to those wanted as can be, in the same order, at least gap apart (isotonic least squares)."""
    order = np.argsort(wanted, kind="stable")
    blocks: list[list[float]] = []
    for rank, i in enumerate(order):
        blocks.append([wanted[i] - rank * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (mean, weight), (above, more) = blocks[-2], blocks.pop()
            blocks[-1] = [(mean * weight + above * more) / (weight + more), weight + more]
    flat = np.concatenate([np.full(int(weight), mean) for mean, weight in blocks])
    placed = np.empty(len(order))
    placed[order] = flat + np.arange(len(order)) * gap
    return placed
