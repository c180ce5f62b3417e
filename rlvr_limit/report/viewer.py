"""Problem by problem: the table, and samples side by side that the page loads one problem at a time.

The samples of a problem lie in a file of their own beside the page, samples/<place>.js: a call with deflated JSON,
which a <script> element loads from a disk as well as from a server. All files together stay below SAMPLES_BYTES.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rlvr_limit.report import html
from rlvr_limit.report.analysis import Findings
from rlvr_limit.report.results import ArmResults, Example, Results

SAMPLES_BYTES = 24_000_000
TEXT_CHARACTERS = 8_000
SHORT = 80
VERDICTS = {"no_answer": "no answer", "timeout": "no verdict: timeout", "error": "no verdict: error"}


@dataclass(frozen=True)
class Kept:
    """What the sample files hold: samples of all samples, at most so many a problem and arm, texts that were cut."""

    samples: int
    of: int
    most: int
    fewest: int
    cut: int
    bytes: int


def write_samples(results: Results, folder: Path, budget: int = SAMPLES_BYTES) -> Kept | None:
    """One file a problem in folder/samples; None where the study holds no samples.

    A problem has budget / M bytes: where its samples take more, the last of them in the order given are left out, half
    of them at a time, and what is left of the texts is shortened in the middle. Raises OSError as writing does.
    """
    for old in (folder / "samples").glob("*.js"):
        old.unlink()
    if not results.examples:
        return None
    (folder / "samples").mkdir(exist_ok=True)
    by_problem: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for example in results.examples:
        by_problem[example.problem_id][example.arm].append(example)
    counts, written, cut = [], 0, 0
    for i, (name, _, _) in enumerate(results.problems):
        examples = by_problem[name]
        most, characters = max(map(len, examples.values()), default=0), TEXT_CHARACTERS
        while True:
            content = _content(results, i, examples, most, characters)
            packed = zlib.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 6)
            script = f'rlvrSamples({i},"{base64.b64encode(packed).decode()}");\n'
            if len(script) <= budget // len(results.problems) or (most <= 1 and characters < 200):
                break
            most, characters = (most // 2, characters) if most > 1 else (most, characters // 2)
        (folder / "samples" / f"{i}.js").write_text(script, encoding="ascii")
        written += len(script)
        chosen = [examples[arm.name][:most] for arm in results.arms]
        counts += [len(some) for some in chosen]
        cut += sum(len(example.text) > characters for some in chosen for example in some)
    total = sum(int(arm.n_M.sum()) for arm in results.arms)
    return Kept(sum(counts), total, max(counts), min(counts), cut, written)


def _content(
    results: Results, place: int, examples: dict[str, list[Example]], most: int, characters: int
) -> dict[str, Any]:
    """One problem as the script reads it; samples in the order of their index."""
    arms = []
    for arm in results.arms:
        some = sorted(examples[arm.name][:most], key=lambda example: example.index)
        answers, others = arm.answers_M[place] if arm.answers_M else ((), (0, 0))
        arms.append(
            {
                "n": int(arm.n_M[place]),
                "c": int(arm.c_M[place]),
                "answers": [[_shortened(text, SHORT), count, right] for text, count, right in answers],
                "others": others,
                "samples": [
                    [
                        e.index,
                        _verdict(e),
                        _shortened(e.extracted, SHORT),
                        None if e.logp is None else round(e.logp, 2),
                        e.stop,
                        _shortened(e.text, characters),
                    ]
                    for e in some
                ],
            }
        )
    return {"question": results.problems[place][1], "arms": arms}


def _verdict(example: Example) -> str:
    if example.correct:
        return "right"
    return VERDICTS.get(example.status, "wrong")


def _shortened(text: str, most: int) -> str:
    """text, or where it is longer its head and tail, and between them how much is missing."""
    if len(text) <= most:
        return text
    head, tail = most * 5 // 8, most * 3 // 8
    return f"{text[:head]} [\u2026 {len(text) - head - tail:,} characters left out \u2026] {text[-tail:]}"


def section(results: Results, found: Findings, kept: Kept | None) -> list[str]:
    """The table of problems with its filter, and below it, where samples were kept, two arms' samples side by side."""
    known = any(guess is not None for _, _, guess in results.problems)
    head = ["problem", *(["guess rate"] if known else []), *(f"{arm.label}, c/n" for arm in results.arms)]
    rows = []
    for i, (name, question, guess) in enumerate(results.problems):
        rate = [("unknown", -1.0) if guess is None else (f"{guess:.4f}", guess)] if known else []
        scores = [(_score(arm, i), arm.c_M[i] / arm.n_M[i]) for arm in results.arms]
        short = question if len(question) <= SHORT else question[: SHORT - 1] + "\u2026"
        title = html.link(f"#problem-{i}", name) if kept else escape(name)
        solved = "".join("1" if arm.solved_M[i] else "0" for arm in results.arms)
        about = f' <span class="short">{escape(short)}</span>' if short else ""
        rows.append((f"problem-{i}", solved, [(title + about, name), *rate, *scores]))
    names = [(str(i), arm.label) for i, arm in enumerate(results.arms)]
    at = {arm.name: str(i) for i, arm in enumerate(results.arms)}
    kinds = [
        ("all", "all"),
        ("lr", "both solve"),
        ("l", "only the left arm solves"),
        ("r", "only the right arm solves"),
        ("", "neither solves"),
    ]
    controls = html.controls(
        [
            html.search("problem-words", "Words in name or question"),
            html.select("arm-left", "Left arm", names, at[results.base]),
            html.select("arm-right", "Right arm", names, at[found.headline]),
            html.select("problem-kind", "Problems that", kinds, "all"),
            '<output id="problem-count" aria-live="polite"></output>',
        ]
    )
    parts = [
        html.paragraph("A column's name sorts by it." + (" A problem's name opens its samples below." if kept else "")),
        controls,
        html.problem_table(head, rows),
    ]
    if kept is None:
        return [*parts, html.paragraph("No samples were kept for this page.", "note")]
    return [*parts, html.paragraph(_said(kept), "note"), _viewer()]


def _score(arm: ArmResults, i: int) -> str:
    """Right samples of all of a problem; those of the second stage behind a plus."""
    score = f"{arm.c_M[i]}/{arm.n_M[i]}"
    return f"{score} + {arm.second.c_M[i]}/{arm.second.n_M[i]}" if arm.second and arm.second.n_M[i] else score


def _said(kept: Kept) -> str:
    """What of the samples is on the page and what is not."""
    if kept.samples == kept.of and not kept.cut:
        return f"All {kept.of:,} samples lie beside this page in samples/ ({kept.bytes / 1e6:.1f} MB)."
    most = f"{kept.most}" if kept.most == kept.fewest else f"{kept.fewest} to {kept.most}"
    cut = f" Long texts have lost their middle, which is marked there: {kept.cut:,}." if kept.cut else ""
    return (
        f"Cut: of {kept.of:,} samples {kept.samples:,} lie beside this page in samples/ ({kept.bytes / 1e6:.1f} MB): "
        f"{most} a problem and arm, right and other ones in turns, the lowest index first.{cut} Counts and answers "
        "read are of all samples; all of them are in records/samples of the run folder."
    )


def _viewer() -> str:
    kinds = [("all", "all"), ("right", "right"), ("other", "not right")]
    buttons = "".join(
        f'<button type="button" data-step="{by}">{name}</button>'
        for by, name in (("-1", "previous problem"), ("1", "next problem"), ("", "close"))
    )
    bar = html.controls([html.select("sample-kind", "Samples that are", kinds, "all"), buttons])
    return (
        '<div id="viewer" tabindex="-1" role="region" aria-label="samples of a problem" hidden>'
        f'<h3></h3>{bar}<pre class="said" aria-live="polite"></pre><div class="columns"></div></div>'
        "<noscript><p class=note>To see samples here the page's script must run.</p></noscript>"
    )
