"""The page from nothing but counts: a CSV with the columns problem, arm, n and correct. Needs no model.

Shapes: M problems.
"""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import numpy as np

from rlvr_limit import passk, report
from rlvr_limit.report.analysis import AgainstBase, Comparison, Findings, analyse
from rlvr_limit.settings import CountsSettings, CountsSource
from rlvr_limit.tasks.counts import CountsRow, read_rows
from rlvr_limit.types import UserError, not_allowed

PAPERS_K = 256
ROUNDING = 1e-10


def results_of(s: CountsSettings, path: Path) -> report.Results:
    """The file as results. UserError, one line with the file and the line in it, where it contradicts itself."""
    counts: dict[tuple[str, str], CountsRow] = {}
    for row in read_rows(path):
        first = counts.setdefault((row.problem, row.arm), row)
        if first is not row:
            raise UserError(
                f"{path}, line {row.line}: problem {row.problem!r} of arm {row.arm!r} stands in line {first.line} "
                "already; there must be one line for each problem and arm"
            )
    problems, arms = (tuple(dict.fromkeys(names)) for names in zip(*counts, strict=True))
    if len(arms) < 2:
        raise UserError(f"{path}: found the one arm {arms[0]!r}, but a comparison needs at least two")
    if len(problems) < 2:
        raise UserError(f"{path}: found the one problem {problems[0]!r}, but bands over problems need at least two")
    for problem, arm in itertools.product(problems, arms):
        if (problem, arm) not in counts:
            known = next(row for row in counts.values() if row.problem == problem)
            raise UserError(
                f"{path}, line {known.line}: problem {problem!r} has arm {known.arm!r} but no line for arm {arm!r}; "
                "every arm needs every problem"
            )
    base, rl = _base_and_rl(s.counts, arms)
    return report.Results(
        title=s.title or path.stem,
        purpose=s.purpose,
        caveat=s.caveat,
        command=" ".join(["python main.py --config=configs/counts.py", *_overrides(s)]),
        problems=tuple((problem, "", s.counts.guess or None) for problem in problems),
        arms=tuple(
            report.ArmResults(
                name=arm,
                label=arm,
                group="base" if arm == base else "rl" if rl in (arm, "") else "other",
                n_M=np.array([counts[problem, arm].n for problem in problems]),
                c_M=np.array([counts[problem, arm].correct for problem in problems]),
            )
            for arm in (base, *(arm for arm in arms if arm != base))
        ),
        base=base,
        delta_se_k=s.report.k or PAPERS_K,
    )


def _overrides(s: CountsSettings) -> list[str]:
    given = {"path": s.counts.path, "base": s.counts.base, "rl": s.counts.rl, "guess": s.counts.guess or ""}
    said = [f"--config.counts.{name}={shlex.quote(str(value))}" for name, value in given.items() if value]
    return said + ([f"--config.report.k={s.report.k}"] if s.report.k else [])


def _base_and_rl(source: CountsSource, arms: tuple[str, ...]) -> tuple[str, str]:
    """The names of both; rl stays "" where none is named."""
    for field, name in (("base", source.base), ("rl", source.rl)):
        if name and name not in arms:
            raise not_allowed(f"config.counts.{field}", name, f"an arm of {source.path} ({', '.join(arms)})")
    base = source.base or arms[0]
    if source.rl == base:
        raise UserError(f"config.counts.rl: {base!r} is the base; name another arm")
    return base, source.rl


def lines(results: report.Results, found: Findings) -> list[str]:
    """What is printed: curves at powers of two, differences, categories, crossovers, and what would resolve them."""
    K = max(len(curve.mean_K) for curve in found.curves.values())
    ks = sorted({2**i for i in range(K.bit_length())} | {K})
    said = [f"{len(results.problems)} problems; base: {results.base}", ""]
    said += ["pass@k, percent, with 95 % bands over problems", *_table(ks, found.curves, ""), ""]
    said.append("paired differences, percentage points; ? where the 95 % band includes 0")
    said += _table(ks, {c.title(results): c.difference for c in found.comparisons}, "+")
    for comparison in found.comparisons:
        other = comparison.told_by
        beside = found.against_base[other]
        said += ["", f"{results.base} beside {other}", f"  {_categories(results, other, beside)}"]
        said.append(f"  crossover: {beside.crossover.sentence}")
        said += [f"  to resolve it: {line}" for line in _power(results, comparison, beside)]
    return [*said, ""]


def _table(ks: list[int], bands: dict[str, passk.Band], sign: str) -> list[str]:
    columns = [["k", *map(str, ks)]]
    for name, band in bands.items():
        cells = [name]
        for k in ks:
            if k > len(band.mean_K):
                cells.append("\u2013")
                continue
            mean, low, high = (100 * float(x_K[k - 1]) for x_K in (band.mean_K, band.low_K, band.high_K))
            unclear = " ?" if sign and low <= ROUNDING and high >= -ROUNDING else ""
            cells.append(f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f}){unclear}")
        columns.append(cells)
    widths = [max(map(len, column)) for column in columns]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _categories(results: report.Results, other: str, beside: AgainstBase) -> str:
    """Problems by who solved them (P, S, E, O of arXiv 2507.14843), and the ratios; expected ones where n differs."""
    if beside.support is None:
        base, arm = results.arm(results.base), results.arm(other)
        n = int(min(base.n_M.min(), arm.n_M.min()))
        both, first, second, neither = passk.expected_support(base.n_M, base.c_M, arm.n_M, arm.c_M, n)
        return (
            f"solved by both {both:.1f}, only {results.base} {first:.1f}, only {other} {second:.1f}, "
            f"neither {neither:.1f} (n differs: expected when every problem is cut to n = {n} at random)"
        )
    s = beside.support
    both, first, second, neither = map(len, (s.both, s.base_only, s.rl_only, s.neither))
    ratios = {"SRR": s.srr, "NDR": s.ndr, "SDS": s.sds, "NSCR": s.nscr}
    told = ", ".join(f"{name} {'undefined' if x is None else f'{x:.4f}'}" for name, x in ratios.items())
    return f"solved by both {both}, only {results.base} {first}, only {other} {second}, neither {neither}; {told}"


def _power(results: report.Results, comparison: Comparison, beside: AgainstBase) -> list[str]:
    """What would show the sign at the largest k, and the crossover, where the data do not."""
    base, arm = results.arm(results.base), results.arm(comparison.told_by)
    counts, names = (base.n_M, base.c_M, arm.n_M, arm.c_M), (base.label, arm.label)
    K = len(comparison.difference.mean_K)
    said = []
    if comparison.leader(K) is None:
        said.append(passk.power_at_k(*counts, K, names=names).sentence)
    if beside.crossover.verdict == "not resolved":
        said.append(passk.power_of_crossover(*counts, names=names).sentence)
    return list(dict.fromkeys(said))


def write_counts_report(s: CountsSettings) -> None:
    """Prints curves, bands, categories and crossovers of config.counts.path, and writes the page."""
    if not s.counts.path:
        raise UserError("config.counts.path is empty: name a CSV with the columns problem,arm,n,correct")
    path = Path(s.counts.path).expanduser()
    results = results_of(s, path)
    folder = Path(s.workdir).expanduser() if s.workdir else Path("runs") / "counts" / path.stem
    found = analyse(results)
    print("\n".join(lines(results, found)))
    print(f"report: {report.write(results, folder).absolute()}")
