"""How figures look: a light and a dark palette, one colour-and-line style per arm. No pyplot, no global state."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlvr_limit.report.results import Results

TEXT_PT = 9.5
DASHES = ("-", "--", "-.", ":")

COLORS = {
    "ink": ("#1c2733", "#e6e9ef"),
    "faint": ("#6a7480", "#8b95a5"),
    "grid": ("#e3e7ec", "#323a46"),
    "paper": ("#ffffff", "#1a2029"),
    "base": ("#0b57a4", "#6db3ff"),
    "ramp0": ("#eba548", "#a8612a"),
    "ramp1": ("#d2600c", "#ee8b3a"),
    "ramp2": ("#74290a", "#ffd9ab"),
    "distilled": ("#00866c", "#43cfaa"),
    "control": ("#93479a", "#d59adb"),
    "spare0": ("#8a7a14", "#c9b458"),
    "spare1": ("#4f6275", "#9fb0c3"),
    "spare2": ("#a8404f", "#e08a96"),
}
"""Every colour of the figures, (light, dark). All differ within a palette, so one can be exchanged for the other."""
LIGHT = {role: light for role, (light, _) in COLORS.items()}
DARK = {role: dark for role, (_, dark) in COLORS.items()}


@dataclass(frozen=True)
class ArmStyle:
    """Colour, dash pattern and marker of one arm: any one of the three tells the arms apart, in grey print too."""

    color: str
    dash: Any
    marker: str
    width: float = 1.7

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of Axes.plot; markers are drawn where it is told."""
        look = {"color": self.color, "linestyle": self.dash, "linewidth": self.width}
        return look | {"marker": self.marker, "markersize": 5.5}


def arm_styles(results: Results, palette: dict[str, str] = LIGHT) -> dict[str, ArmStyle]:
    """One style per arm name. RL arms take a sequential ramp in the order listed; the base has the one strong blue."""
    rl = [arm.name for arm in results.arms if arm.group == "rl" and arm.name != results.base]
    ramp = LinearSegmentedColormap.from_list("ramp", [palette[f"ramp{i}"] for i in range(3)])
    shades = [to_hex(ramp(i / (len(rl) - 1) if len(rl) > 1 else 0.5)) for i in range(len(rl))]
    styles, others, controls = {}, 0, 0
    for arm in results.arms:
        if arm.name == results.base:
            styles[arm.name] = ArmStyle(palette["base"], "-", "o", 2.6)
        elif arm.group == "rl":
            i = rl.index(arm.name)
            styles[arm.name] = ArmStyle(shades[i], ("-", (0, (5, 1.2)), (0, (2, 1)))[i % 3], "s^PX*h"[i % 6])
        elif arm.group == "distilled":
            styles[arm.name] = ArmStyle(palette["distilled"], (0, (7, 2, 1.5, 2)), "D")
        elif arm.group == "control":
            i, controls = controls, controls + 1
            dash = ((3.5, 2), (7, 1.5, 1, 1.5), (1.5, 1), (8, 3))[i % 4]
            styles[arm.name] = ArmStyle(palette["control"], (0, dash), "v8H1"[i % 4])
        else:
            styles[arm.name] = ArmStyle(palette[f"spare{others % 3}"], (0, (1, 1)), "<>dp"[others % 4])
            others += 1
    return styles


def darkened(svg: str, results: Results) -> str:
    """The same drawing in the dark palette: drawn once, recoloured by name of colour, so the two cannot differ."""
    swap = {LIGHT[role]: DARK[role] for role in ("ink", "faint", "grid", "paper")}
    dark = arm_styles(results, DARK)
    swap |= {style.color: dark[name].color for name, style in arm_styles(results).items()}
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: swap.get(match[0], match[0]), svg)


def rc() -> dict[str, Any]:
    """matplotlib's settings, for rc_context. hashsalt makes the SVG the same bytes every time."""
    ink = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    faint = ("axes.edgecolor", "xtick.color", "ytick.color")
    small = ("xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    no = ("legend.frameon", "text.parse_math", "axes.spines.top", "axes.spines.right")
    return {
        **dict.fromkeys(ink, LIGHT["ink"]),
        **dict.fromkeys(faint, LIGHT["faint"]),
        **dict.fromkeys(small, 9.0),
        **dict.fromkeys(no, False),
        **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
        "font.family": ["DejaVu Sans"],
        "font.size": TEXT_PT,
        "axes.titlesize": TEXT_PT + 0.5,
        "axes.labelsize": TEXT_PT,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LIGHT["grid"],
        "grid.linewidth": 0.7,
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


def k_axis(ax: Axes, k_max: int, most: int, label: bool = False) -> None:
    """k on a log scale, with ticks at powers of two, at most so many of them."""
    powers = 1 << np.arange(int(np.log2(k_max)) + 1)
    ticks = powers[:: -(-len(powers) // most)]
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(k) for k in ticks])
    ax.minorticks_off()
    ax.set_xlim(1, max(k_max, 2))
    if label:
        ax.set_xlabel("k, samples per problem (log scale)")


def percent_axis(ax: Axes, signed: bool = False) -> None:
    """Shares on the y axis: in percent, or in percentage points with their sign."""

    def change(y: float, _: int) -> str:
        return f"{round(100 * y):+d}".replace("-", "\u2212").replace("+0", "0")

    ax.yaxis.set_major_formatter(change if signed else PercentFormatter(1, 0, " %"))


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


def render(draw: Callable[[bool], Figure], results: Results) -> tuple[dict[tuple[bool, bool], str], str, bytes]:
    """(data URIs as SVG by (dark, narrow), the wide light figure as SVG, and as PNG) of what draw(narrow) draws.

    The PNG has 160 dots per inch on white. Text in the SVG is outlines: it looks the same everywhere. It has no date.
    """
    uris = {}
    with matplotlib.rc_context(rc()):
        for narrow in (True, False):
            figure, stream = draw(narrow), io.StringIO()
            FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
            light = stream.getvalue()
            for dark, svg in ((False, light), (True, darkened(light, results))):
                uris[dark, narrow] = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        # The wide figure is laid out by now; laying it out again for the PNG would take as long as drawing it.
        figure.set_layout_engine("none")
        figure.set_facecolor("white")
        figure.set_dpi(160)
        image = io.BytesIO()
        FigureCanvasAgg(figure).print_png(image)
    return uris, light, image.getvalue()
