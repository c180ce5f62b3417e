"""The numbers as files (CSV, JSON) and as the rows of the page's tables.

Shape suffix: K runs over k = 1..n.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.analysis import Findings, shares
from rlvr_limit.report.results import Results
from rlvr_limit.report.words import (
    condition_fields,
    field_differs,
    not_resolved,
    other_arms,
    percent,
    points,
    signed_percent,
    summary,
)

MISSING = "not recorded"
UNDEFINED = "undefined"
UNLIKE = "\u2260 "


def write_numbers(results: Results, found: Findings, folder: Path) -> dict[str, str]:
    """Write every table into folder; returns what each file holds, by file name."""
    curves = []
    for arm, band in found.curves.items():
        guess = found.guess(arm)
        for k in range(1, len(band.mean_K) + 1):
            beside = (guess.guess_K[k - 1], guess.corrected_K[k - 1]) if guess else ()
            cells = [_decimals(value) for value in (*_at(band, k), *beside)]
            curves.append((arm, k, *cells, *("" for _ in range(5 - len(cells)))))
    _csv(folder / "curves.csv", ("arm", "k", "pass@k", "low", "high", "guess", "guess_corrected"), curves)
    differences = [
        (comparison.first, comparison.second, k, *_at(comparison.difference, k))
        for comparison in found.comparisons
        for k in range(1, len(comparison.difference.mean_K) + 1)
    ]
    _csv(folder / "differences.csv", ("first", "second", "k", "first_minus_second", "low", "high"), differences)
    counts = [f"{what}_{arm.name}" for arm in results.arms for what in ("c", "n")]
    marginal = [arm for arm in results.arms if arm.marginal_M is not None]
    adaptive = [arm for arm in results.arms if arm.second]
    later = [f"second_{what}_{arm.name}" for arm in adaptive for what in ("c", "n")]
    problems = [
        (name, "" if guess is None else guess, *(int(x) for arm in results.arms for x in (arm.c_M[i], arm.n_M[i])))
        + tuple(float(arm.marginal_M[i]) for arm in marginal)
        + tuple(int(x) for arm in adaptive for x in (arm.second.c_M[i], arm.second.n_M[i]))
        for i, (name, _, guess) in enumerate(results.problems)
    ]
    columns = ("problem", "guess_rate", *counts, *(f"marginal_{arm.name}" for arm in marginal), *later)
    _csv(folder / "problems.csv", columns, problems)
    _json(folder / "support.json", _support(results, found))
    _json(folder / "summary.json", _summary(results, found))
    files = {
        "curves.csv": "pass@k of every arm for every k, with bands, what guessing reaches, and the corrected value",
        "differences.csv": "paired differences for every k, with bands",
        "problems.csv": "guess rate, right answers and samples of every problem",
        "support.json": "which problems were solved by which arm",
        "summary.json": "all headline numbers, conditions and versions",
    }
    if found.chains:
        bounds = [
            (arm, k + 1, float(c.low_K[k]), float(c.high_K[k]))
            for arm, c in found.chains.items()
            for k in range(len(c.low_K))
        ]
        _csv(folder / "chains.csv", ("arm", "k", "low", "high"), bounds)
        files["chains.csv"] = "CoT-Pass@k of every arm for every k, from below and from above"
    if results.perplexity:
        scored = [(model, text, float(x)) for (model, text), ppl in results.perplexity.items() for x in ppl]
        _csv(folder / "perplexity.csv", ("model", "text_arm", "perplexity"), scored)
        files["perplexity.csv"] = "perplexity of every scored answer"
    if any(results.training.values()):
        rows = [
            (run, row["step"], name, value)
            for run, rows in results.training.items()
            for row in rows
            for name, value in row.items()
            if name != "step"
        ]
        _csv(folder / "training.csv", ("run", "step", "name", "value"), rows)
        files["training.csv"] = "everything the training runs recorded"
    return files


def _at(band: passk.Band, k: int) -> tuple[float, float, float]:
    return float(band.mean_K[k - 1]), float(band.low_K[k - 1]), float(band.high_K[k - 1])


def _decimals(value: float) -> str:
    """The shortest text that reads back as the same number, with four decimals at least."""
    return np.format_float_positional(value, min_digits=4)


def _csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _support(results: Results, found: Findings) -> dict[str, Any]:
    """Per arm beside the base: four lists of problem ids, and the ratios; null where n differs or a ratio is 0/0."""
    ids = [name for name, _, _ in results.problems]
    content: dict[str, Any] = {}
    for name, beside in found.against_base.items():
        if beside.support is None:
            content[name] = None
            continue
        fields = dataclasses.asdict(beside.support)
        lists = {field: [ids[i] for i in value] for field, value in fields.items() if isinstance(value, tuple)}
        content[name] = {"base": results.base, **fields, **lists}
    return content


def write_further(further: Sequence[Any], folder: Path) -> dict[str, str]:
    """Writes further.csv, the tables of extras.py cell by cell; returns it with what is in it."""
    rows = [
        (extra.title, row[0], column, part)
        for extra in further
        for row in extra.rows
        for column, cell in zip(extra.head[1:], row[1:], strict=True)
        for part in cell.split("\n")
    ]
    _csv(folder / "further.csv", ("table", "arm", "column", "value"), rows)
    return {"further.csv": "the further metrics as the page shows them; two lines of a cell are two rows"}


def _summary(results: Results, found: Findings) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    rates = shares(results)
    for arm in results.arms:
        band = found.curves[arm.name]
        share = rates[arm.name]
        entry: dict[str, Any] = {
            "label": arm.label,
            "group": arm.group,
            "samples": share.samples,
            "pass@k": {
                str(k): dict(zip(("value", "low", "high"), _at(band, k), strict=True)) for k in found.ks(arm.name)
            },
            "truncated": share.truncated,
            "no_answer": share.no_answer,
            "ungraded": share.ungraded,
            "mean_tokens": arm.mean_tokens,
            "duplicate_rate": arm.duplicate_rate,
            "entropy": arm.entropy,
            "entropy_error": arm.entropy_error,
            "conditions": arm.conditions,
            "weights_sha256": arm.weights_sha256 or None,
            **({"drift": dataclasses.asdict(arm.cache_error)} if arm.cache_error else {}),
        }
        guess = found.guess(arm.name)
        if guess:
            entry["guess_corrected"] = {str(k): _finite(guess.corrected_K[k - 1]) for k in found.ks(arm.name)}
            entry["guess_source"] = guess.source
        if arm.name in found.chains:
            c = found.chains[arm.name]
            entry["cot_pass@k"] = {
                str(k): {"low": float(c.low_K[k - 1]), "high": float(c.high_K[k - 1])} for k in found.chain_ks(arm.name)
            }
            entry["chains"] = {"right": c.right, "wrong": c.wrong, "unjudged": c.unjudged}
        if arm.name in found.against_base:
            beside = found.against_base[arm.name]
            entry["crossover"] = dataclasses.asdict(beside.crossover)
            _, low, high = _at(beside.delta_se_band, 1)
            entry["delta_se"] = {
                "value": beside.delta_se,
                "low": low,
                "high": high,
                "k": beside.delta_se_k,
                "direction": "lower is better",
            }
        arms[arm.name] = entry
    own_guess = None
    if found.guess_K is not None:
        own_guess = {str(k): float(found.guess_K[k - 1]) for k in found.ks(*found.curves)}
    return {
        "title": results.title,
        "summary": [*summary(results, found), *other_arms(results, found)],
        "not_resolved": not_resolved(results, found),
        "caveat": results.caveat,
        "problems": len(results.problems),
        "base": results.base,
        "headline": found.headline,
        "guess": own_guess,
        "guessable": None if found.guessable is None else [results.problems[i][0] for i in found.guessable.problems],
        "arms": arms,
        "differences": [
            {
                "first": comparison.first,
                "second": comparison.second,
                "level": comparison.difference.level,
                "k": {
                    str(k): dict(zip(("value", "low", "high"), _at(comparison.difference, k), strict=True))
                    for k in found.ks(comparison.first, comparison.second)
                },
            }
            for comparison in found.comparisons
        ],
        "command": results.command,
        "seed": results.seed,
        "versions": results.versions,
        "timings_seconds": results.timings,
        "notes": list(results.notes),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def headline_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """pass@k of every arm at the k of interest with its band, guess-corrected at the largest where guess rates are
    known, and the verdict."""
    ks = found.ks(*found.curves)
    known = [f"guess-corrected pass@{ks[-1]}"] if found.guess(results.base) else []
    head = ["arm", *(f"pass@{k}" for k in ks), *known, f"crossing {results.label(results.base)}"]
    rows = []
    for arm in results.arms:
        cells = [_with_band(found.curves[arm.name], k) for k in ks]
        corrected = [signed_percent(found.guess(arm.name).corrected_K[ks[-1] - 1])] if known else []
        crossing = "\u2013"
        if arm.name in found.against_base:
            crossing = crossing_cell(found.against_base[arm.name].crossover)
        rows.append([arm.label, *cells, *corrected, crossing])
    return head, rows


def overview_rows(named: Mapping[str, tuple[Results, Findings]]) -> tuple[list[str], list[list[str]]]:
    """pass@1, pass@k at the largest k and the crossing of every arm of several studies, such as temperatures."""
    rows = []
    for name, (results, found) in named.items():
        k = found.ks(*found.curves)[-1]
        for arm in results.arms:
            curve, beside = found.curves[arm.name], found.against_base.get(arm.name)
            crossing = crossing_cell(beside.crossover) if beside else "\u2013"
            rows.append([f"{name}\n{arm.label}", _with_band(curve, 1), str(k), _with_band(curve, k), crossing])
    return ["", "pass@1", "k", "pass@k", "crossing its base"], rows


def guess_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """Corrected pass@k of every arm by every guess rate that is known, with the raw value and what guessing reaches."""
    ks = found.ks(*found.curves)
    rows = []
    for guess in found.guesses:
        cells = []
        for k in ks:
            raw, alone = 100 * found.curves[guess.arm].mean_K[k - 1], 100 * guess.guess_K[k - 1]
            cells.append(f"{signed_percent(guess.corrected_K[k - 1])}\n{raw:.1f} / {alone:.1f}")
        rows.append([results.label(guess.arm), guess.source, *cells])
    return ["arm", "guessing by", *(f"pass@{k}" for k in ks)], rows


def guessable_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """pass@k of every arm without the problems that can be guessed, with the value on all problems."""
    ks = found.ks(*found.curves)
    rows = []
    for name, curve_K in found.guessable.curves.items():
        whole_K = found.curves[name].mean_K
        cells = [f"{percent(curve_K[k - 1])}\n{percent(whole_K[k - 1])} on all" for k in ks]
        rows.append([results.label(name), *cells])
    return ["without guessable problems", *(f"pass@{k}" for k in ks)], rows


def chain_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """What a person said of the chains behind right answers, and both bounds of CoT-Pass@k beside pass@k."""
    ks = found.chain_ks(*found.chains)
    rows = []
    for name, c in found.chains.items():
        curve = found.curves[name]
        cells = [
            f"{percent(c.low_K[k - 1])} to {percent(c.high_K[k - 1])}\n{percent(curve.mean_K[k - 1])} pass@{k}"
            for k in ks
        ]
        # Beside the arm and not in columns of their own: on a narrow screen these would push the bounds out of sight.
        judged = f"{c.right:,} right, {c.wrong:,} wrong, {c.unjudged:,} not judged"
        rows.append([f"{results.label(name)}\n{judged}", *cells])
    return ["arm", *(f"CoT-Pass@{k}" for k in ks)], rows


def crossing_cell(crossover: passk.Crossover) -> str:
    """The crossover in a few words; a k is given only where it is resolved."""
    if crossover.verdict != "resolved":
        return {"never below": "base never below"}.get(crossover.verdict, crossover.verdict)
    return f"k = {crossover.k}\n{crossover.low or 'beyond n'}\u2013{crossover.high or 'beyond n'}"


def difference_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """Every paired difference at the k of interest, in points; "?" marks a band that includes 0."""
    ks = sorted({k for c in found.comparisons for k in found.ks(c.first, c.second)})
    rows = []
    for comparison in found.comparisons:
        cells = []
        for k in ks:
            if k > len(comparison.difference.mean_K):
                cells.append("\u2013")
                continue
            value, low, high = _at(comparison.difference, k)
            mark = " ?" if comparison.leader(k) is None else ""
            cells.append(f"{points(value)}{mark}\n{points(low)} to {points(high)}")
        rows.append([comparison.title(results), *cells])
    return ["points", *(f"k = {k}" for k in ks)], rows


def support_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """Counts and ratios of every arm beside the base."""
    head = ["arm beside base", "both", "base only", "arm only", "neither", "SRR", "NDR", "SDS", "NSCR"]
    rows = []
    for name, beside in found.against_base.items():
        cells = ["n differs"] * 8
        if beside.support is not None:
            s = beside.support
            cells = [str(len(group)) for group in (s.both, s.base_only, s.rl_only, s.neither)]
            cells += [
                UNDEFINED if ratio is None else f"{ratio:.3f}".replace("-", "\u2212")
                for ratio in (s.srr, s.ndr, s.sds, s.nscr)
            ]
        rows.append([results.label(name), *cells])
    return head, rows


def delta_se_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """pass@1, pass@k and Delta_SE of every arm, as in Table 2 and Fig. 8 of Yue et al. 2025; the base first."""
    k = next(iter(found.against_base.values())).delta_se_k
    rows = []
    for arm in results.arms:
        curve = found.curves[arm.name]
        cells = [_with_band(curve, at) if at <= len(curve.mean_K) else "\u2013" for at in (1, k)]
        gap = "\u2013"
        if arm.name in found.against_base:
            beside = found.against_base[arm.name]
            _, low, high = _at(beside.delta_se_band, 1)
            gap = f"{points(beside.delta_se)}\n{points(low)} to {points(high)}"
        rows.append([arm.label, *cells, gap])
    gap = f"\u0394SE: pass@{k} of {results.label(results.base)} minus pass@1 of the arm, points (lower is better)"
    return ["arm", "pass@1", f"pass@{k}", gap], rows


def entropy_rows(results: Results, found: Findings) -> tuple[list[str], list[list[str]]]:
    """Temperature, entropy and pass@k of every arm, as in Figs. 16 and 17 of Yue et al. 2025."""
    ks = found.ks(*found.curves)
    rows = []
    for arm in results.arms:
        entropy = MISSING if arm.entropy is None else f"{arm.entropy:.4f}"
        cells = [_with_band(found.curves[arm.name], k) for k in (1, ks[-1])]
        rows.append([arm.label, arm.conditions.get("temperature", MISSING), entropy, *cells])
    return ["arm", "temperature", "entropy, nats a token", "pass@1", f"pass@{ks[-1]}"], rows


def _with_band(band: passk.Band, k: int) -> str:
    value, low, high = _at(band, k)
    return f"{percent(value)}\n{100 * low:.1f}\u2013{100 * high:.1f}"


def rate_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """What the answers look like: truncated, without an answer, long, repeated, uncertain."""
    head = ["arm", "samples", "truncated", "no answer", "no verdict", "mean tokens", "duplicates"]
    head.append("entropy, nats per token")
    rows = []
    for arm in results.arms:
        share = shares(results)[arm.name]
        rows.append(
            [
                arm.label,
                f"{share.samples:,}",
                *(
                    MISSING if value is None else percent(value)
                    for value in (share.truncated, share.no_answer, share.ungraded)
                ),
                MISSING if arm.mean_tokens is None else f"{arm.mean_tokens:.1f}",
                MISSING if arm.duplicate_rate is None else percent(arm.duplicate_rate),
                MISSING if arm.entropy is None else f"{arm.entropy:.3f}",
            ]
        )
    return head, rows


def condition_rows(results: Results) -> tuple[list[str], list[list[str]], list[bool]]:
    """One row per condition, and whether the arms differ in it; the weights' hash last, shortened."""
    fields = condition_fields(results)
    differs = [field_differs(results, field) for field in fields]
    rows = [
        [(UNLIKE if unlike else "") + field, *(arm.conditions.get(field, MISSING) for arm in results.arms)]
        for field, unlike in zip(fields, differs, strict=True)
    ]
    hashes = [arm.weights_sha256[:12] or MISSING for arm in results.arms]
    unlike = len({arm.weights_sha256 for arm in results.arms}) > 1
    rows.append([(UNLIKE if unlike else "") + "weights SHA-256 (first 12)", *hashes])
    return ["condition", *(arm.label for arm in results.arms)], rows, [*differs, unlike]
