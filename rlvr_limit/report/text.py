"""Numbers as text: percent, points, lists of names, and what a table is to the page, to Markdown and to CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rlvr_limit.passk import Band
from rlvr_limit.report.results import ArmResults

NOT_RECORDED = "not recorded"
DASH = "\u2013"


Cells = Callable[[ArmResults], Iterable[str]]


@dataclass(frozen=True)
class ResultTable:
    """One table, the same on the page, in Markdown and in CSV. A cell's second line, such as a band, is set small."""

    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    marked: tuple[bool, ...] = ()  # rows that stand out on the page
    numbers: bool = True  # whether cells are set to the right


def by_arm(title: str, caption: str, header: list[str], arms: Sequence[ArmResults], cells: Cells) -> ResultTable:
    """A table with a row for each arm, which starts with its label."""
    return ResultTable(title, caption, ["arm", *header], [[arm.label, *cells(arm)] for arm in arms])


def percent(share: float) -> str:
    """A share as "12.3 %"; what is above 0 never reads as 0, what is below 1 never as 100."""
    if 0 < share < 0.0005:
        return "below 0.1 %"
    return "above 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def signed_percent(share: float) -> str:
    """A share that may be below 0, as one corrected for guessing may be, or nan where it is undefined.

    Where guessing reaches nearly all, the corrected share falls without bound and its size says nothing.
    """
    if np.isnan(share):
        return "undefined"
    if share < -1:
        return "below \u2212100 %"
    return f"\u2212{percent(-share)}" if share <= -0.0005 else percent(max(share, 0.0))


def points(difference: float) -> str:
    """A difference of shares in percentage points, signed, with a true minus; what rounds to 0 has no sign."""
    value = 100 * difference
    return f"{value:+.1f}".replace("-", "\u2212") if abs(value) >= 0.05 else "0.0"


def values_at(band: Band, k: int) -> tuple[float, float, float]:
    """(value, low, high) at k."""
    return float(band.mean_K[k - 1]), float(band.low_K[k - 1]), float(band.high_K[k - 1])


def percent_and_band(band: Band, k: int) -> str:
    """A table's cell: the value at k, and below it its band."""
    value, low, high = values_at(band, k)
    return f"{percent(value)}\n{100 * low:.1f}\u2013{100 * high:.1f}"


def points_and_band(band: Band, k: int, mark: str = "") -> str:
    """The same of a difference, in points."""
    value, low, high = map(points, values_at(band, k))
    return f"{value}{mark}\n{low} to {high}"


def join(names: Iterable[object]) -> str:
    """a, b and c; with semicolons where a name has a comma of its own."""
    texts = [str(name) for name in names]
    if any("," in text for text in texts):
        return "; ".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]


def sentence(text: str) -> str:
    """text with a capital at its start."""
    return text[:1].upper() + text[1:]


def shortened(text: str, most: int) -> str:
    """text, or where it is longer its start."""
    return text if len(text) <= most else text[: most - 1] + "\u2026"
