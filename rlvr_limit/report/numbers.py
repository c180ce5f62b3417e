"""The numbers as files beside the page: CSV and JSON.

Shape suffix: K runs over k = 1..n.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_limit.report.analysis import BINS, Findings, histogram, share_and_wilson, share_of_samples
from rlvr_limit.report.results import ArmResults, Results
from rlvr_limit.report.text import ResultTable, values_at


def write_numbers(
    results: Results, findings: Findings, further: Sequence[ResultTable], said: Mapping[str, Any], folder: Path
) -> dict[str, str]:
    """Write every number into folder; returns what each file holds, by file name.

    said: the findings in words, for summary.json. Raises OSError as writing does.
    """
    perplexities = ((*pair, float(x)) for pair, ppl in results.perplexity.items() for x in ppl)
    # (what the file holds, columns of a CSV, content); no content: no file.
    files: dict[str, tuple[str, str, Any]] = {
        "curves.csv": (
            "pass@k of every arm for every k, with bands, what guessing reaches, and the corrected value",
            "arm,k,pass@k,low,high,guess,guess_corrected",
            _curves(findings),
        ),
        "differences.csv": (
            "paired differences for every k, with bands",
            "first,second,k,first_minus_second,low,high",
            findings.comparisons and _differences(findings),
        ),
        "algorithms.csv": (
            "pass@k of algorithms over their runs, and the base minus it, with bands over runs and problems",
            "algorithm,runs,k,pass@k,low,high,deviation_between_runs,base_minus_algorithm,difference_low,difference_high",
            findings.algorithms and _algorithms(findings),
        ),
        "problems.csv": ("guess rate, right answers and samples of every problem", "", _problems(results)),
        "histogram.csv": (
            "problems of every arm by their share of right answers",
            "arm,right,problems,share_of_problems",
            _histograms(results),
        ),
        "support.json": (
            "which problems were solved by which arm",
            "",
            findings.comparisons and _support(results, findings),
        ),
        "summary.json": ("all headline numbers, conditions and versions", "", _summary(results, findings, said)),
        "chains.csv": (
            "CoT-Pass@k of every arm for every k, from below and from above",
            "arm,k,low,high",
            findings.chains and _chains(findings),
        ),
        "judged_chains.csv": (
            "CoT-Pass@k by a judge model, as judged and corrected for its errors, with bounds",
            "arm,problems,k,judged,corrected,low,high",
            findings.judged and _judged_chains(findings),
        ),
        "contamination.csv": (
            "what arms that were asked a question's beginning made of it, with Wilson intervals",
            "benchmark,arm,asked,problems,completed,completed_low,completed_high,right,right_low,right_high",
            any(arm.asked_first for arm in results.arms) and _contamination(results),
        ),
        "perplexity.csv": (
            "perplexity of every scored answer",
            "model,text_arm,perplexity",
            results.perplexity and perplexities,
        ),
        "training.csv": (
            "everything the training runs recorded",
            "run,step,name,value",
            any(results.training.values()) and _training(results),
        ),
        "further.csv": (
            "the further metrics as the page shows them; two lines of a cell are two rows",
            "table,arm,column,value",
            _cells(further),
        ),
    }
    files = {name: file for name, file in files.items() if file[2]}
    for name, (_, header, content) in files.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as stream:
            if name.endswith(".json"):
                json.dump(content, stream, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
                stream.write("\n")
            else:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerows([header.split(",")] if header else [])
                writer.writerows(content)
    return {name: about for name, (about, _, _) in files.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _curves(findings: Findings) -> Iterator[Sequence[Any]]:
    for arm, band in findings.curves.items():
        guess = findings.guess(arm)
        for k in range(1, len(band.mean_K) + 1):
            beside = (guess.guess_K[k - 1], guess.corrected_K[k - 1]) if guess else ()
            # The shortest text that reads back as the same number, with four decimals at least.
            cells = [np.format_float_positional(value, min_digits=4) for value in (*values_at(band, k), *beside)]
            yield arm, k, *cells, *[""] * (5 - len(cells))


def _differences(findings: Findings) -> Iterator[Sequence[Any]]:
    for comparison in findings.comparisons:
        for k in range(1, len(comparison.difference.mean_K) + 1):
            yield comparison.first, comparison.second, k, *values_at(comparison.difference, k)


def _algorithms(findings: Findings) -> Iterator[Sequence[Any]]:
    for name, found in findings.algorithms.items():
        for k, deviation in enumerate(found.deviation_K.tolist(), 1):
            ends = values_at(found.difference, k)
            yield name, len(found.differences), k, *values_at(found.curve, k), deviation, *ends


def _problems(results: Results) -> Iterator[Sequence[Any]]:
    """The header and the rows: an arm has columns of its own."""
    columns: dict[str, Sequence[Any]] = {
        "problem": [name for name, _, _ in results.problems],
        "guess_rate": ["" if guess is None else guess for _, _, guess in results.problems],
    }
    for arm in results.arms:
        columns |= {f"c_{arm.name}": arm.c_M.tolist(), f"n_{arm.name}": arm.n_M.tolist()}
    columns |= {f"marginal_{arm.name}": arm.marginal_M.tolist() for arm in results.arms if arm.marginal_M is not None}
    for arm in results.arms:
        if arm.second:
            columns[f"second_c_{arm.name}"] = arm.second.c_M.tolist()
            columns[f"second_n_{arm.name}"] = arm.second.n_M.tolist()
    yield list(columns)
    yield from zip(*columns.values(), strict=True)


def _histograms(results: Results) -> Iterator[Sequence[Any]]:
    for arm in results.arms:
        for name, count in zip(BINS, histogram(arm.n_M, arm.c_M).tolist(), strict=True):
            yield arm.name, name, count, count / len(results.problems)


def _chains(findings: Findings) -> Iterator[Sequence[Any]]:
    for arm, review in findings.chains.items():
        for k, (low, high) in enumerate(zip(review.low_K.tolist(), review.high_K.tolist(), strict=True), 1):
            yield arm, k, low, high


def _judged_chains(findings: Findings) -> Iterator[Sequence[Any]]:
    for arm, (problems, curves) in findings.judged.items():
        for k in range(1, len(curves.judged_K) + 1):
            yield arm, problems, k, *("" if curve_K is None else float(curve_K[k - 1]) for curve_K in curves)


def _contamination(results: Results) -> Iterator[Sequence[Any]]:
    for arm in results.arms:
        completed = ("", "", "") if arm.completed_M is None else share_and_wilson(arm, arm.completed_M)
        asked = results.benchmark, arm.name, arm.asked_first or 1.0, len(results.problems)
        yield *asked, *completed, *share_and_wilson(arm, arm.c_M)


def _training(results: Results) -> Iterator[Sequence[Any]]:
    for run, rows in results.training.items():
        for row in rows:
            yield from ((run, row["step"], name, value) for name, value in row.items() if name != "step")


def _cells(tables: Sequence[ResultTable]) -> Iterator[Sequence[Any]]:
    for table in tables:
        for arm, *cells in table.rows:
            for column, cell in zip(table.header[1:], cells, strict=True):
                yield from ((table.title, arm, column, line) for line in cell.split("\n"))


def _support(results: Results, findings: Findings) -> dict[str, Any]:
    """Per arm beside the base: four lists of problem ids, and the ratios; null where n differs or a ratio is 0/0."""
    ids = [name for name, _, _ in results.problems]
    content: dict[str, Any] = {}
    for name, beside in findings.against_base.items():
        fields = dataclasses.asdict(beside.support) if beside.support else {}
        lists = {field: [ids[i] for i in value] for field, value in fields.items() if isinstance(value, tuple)}
        content[name] = {"base": results.base, **fields, **lists} if fields else None
    return content


def _summary(results: Results, findings: Findings, said: Mapping[str, Any]) -> dict[str, Any]:
    own_guess = findings.guess_K
    return {
        "title": results.title,
        "interim": results.interim and dataclasses.asdict(results.interim),
        **said,
        "caveat": results.caveat,
        "problems": len(results.problems),
        "base": results.base,
        "headline": findings.headline,
        "guess": None if own_guess is None else {str(k): float(own_guess[k - 1]) for k in findings.ks()},
        "guessable": None if findings.guessable is None else list(findings.guessable.problems),
        "arms": {arm.name: _arm(arm, findings) for arm in results.arms},
        "judge": results.judge and results.judge._asdict(),
        "differences": [
            {
                "first": comparison.first,
                "second": comparison.second,
                "level": comparison.difference.level,
                "k": {
                    str(k): _named(values_at(comparison.difference, k))
                    for k in findings.ks(comparison.first, comparison.second)
                },
            }
            for comparison in findings.comparisons
        ],
        "command": results.command,
        "seed": results.seed,
        "versions": results.versions,
        "timings_seconds": results.timings,
        "notes": list(results.notes),
    }


def _arm(arm: ArmResults, findings: Findings) -> dict[str, Any]:
    ks, band = findings.ks(arm.name), findings.curves[arm.name]
    entry: dict[str, Any] = {
        "label": arm.label,
        "group": arm.group,
        "samples": int(arm.n_M.sum()),
        "pass@k": {str(k): _named(values_at(band, k)) for k in ks},
        "truncated": share_of_samples(arm, arm.truncated_M),
        "no_answer": share_of_samples(arm, arm.no_answer_M),
        "uses_given": share_of_samples(arm, arm.uses_given_M),
        "ungraded": share_of_samples(arm, arm.ungraded_M),
        "unreadable": share_of_samples(arm, arm.unreadable_M),
        **{name: getattr(arm, name) for name in ("mean_tokens", "duplicate_rate", "entropy", "entropy_error")},
        "conditions": arm.conditions,
        "weights_sha256": arm.weights_sha256 or None,
    }
    if arm.second_opinion:
        entry["second_opinion"] = dataclasses.asdict(arm.second_opinion)
    if arm.own_opinion:
        entry["own_opinion"] = dataclasses.asdict(arm.own_opinion)
    guess = findings.guess(arm.name)
    if guess:
        corrected = {str(k): float(guess.corrected_K[k - 1]) for k in ks}
        entry["guess_corrected"] = {k: value if np.isfinite(value) else None for k, value in corrected.items()}
        entry["guess_source"] = guess.source
    entry["rare_wins"] = findings.rare[arm.name]._asdict()
    if arm.name in findings.chains:
        review = findings.chains[arm.name]
        entry["cot_pass@k"] = {
            str(k): {"low": float(review.low_K[k - 1]), "high": float(review.high_K[k - 1])}
            for k in findings.chain_ks(arm.name)
        }
        entry["chains"] = {"right": review.right, "wrong": review.wrong, "unjudged": review.unjudged}
    if arm.name in findings.against_base:
        beside = findings.against_base[arm.name]
        entry["crossover"] = dataclasses.asdict(beside.crossover)
        entry["delta_se"] = {
            **_named(values_at(beside.delta_se_band, 1)),
            "k": beside.delta_se_k,
            "direction": "lower is better",
        }
    return entry


def _named(values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), values, strict=True))
