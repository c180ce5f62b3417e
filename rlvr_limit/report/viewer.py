"""Problem by problem: the table, and samples side by side that the page loads one problem at a time.

The samples of a problem lie in a file of their own beside the page, samples/<place>.js: a call with deflated JSON,
which a <script> element loads from a disk as well as from a server. All files together stay below SAMPLES_BYTES, and
the images of all questions below IMAGES_BYTES.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_limit.report.results import Example, Results

SAMPLES_BYTES = 24_000_000
IMAGES_BYTES = 24_000_000
TEXT_CHARACTERS = 8_000
SHORT = 80
VERDICTS = {"no_answer": "no answer", "timeout": "no verdict: timeout", "error": "no verdict: error"}


@dataclass(frozen=True)
class StoredSamples:
    """What the sample files hold."""

    samples: int
    of: int  # samples that were drawn
    most: int  # a problem and arm
    fewest: int
    cut: int  # texts that lost their middle
    bytes: int


def write_samples(results: Results, folder: Path, budget: int = SAMPLES_BYTES) -> StoredSamples | None:
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
            script = _script(i, content)
            if len(script) <= budget // len(results.problems) or (most <= 1 and characters < 200):
                break
            most, characters = (most // 2, characters) if most > 1 else (most, characters // 2)
        if name in results.images:
            script = _script(i, content | {"images": results.images[name]})
        (folder / "samples" / f"{i}.js").write_text(script, encoding="ascii")
        written += len(script)
        chosen = [examples[arm.name][:most] for arm in results.arms]
        counts += [len(some) for some in chosen]
        cut += sum(len(example.text) > characters for some in chosen for example in some)
    total = sum(int(arm.n_M.sum()) for arm in results.arms)
    return StoredSamples(sum(counts), total, max(counts), min(counts), cut, written)


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
                "answers": [[_without_middle(text, SHORT), count, right] for text, count, right in answers],
                "others": others,
                "samples": [_sample(example, characters) for example in some],
            }
        )
    return {"question": results.problems[place][1], "images": (), "arms": arms}


def _script(place: int, content: dict[str, Any]) -> str:
    packed = zlib.compress(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), 6)
    return f'rlvrSamples({place},"{base64.b64encode(packed).decode()}");\n'


def _sample(example: Example, characters: int) -> list[Any]:
    verdict = "right" if example.correct else VERDICTS.get(example.status, "wrong")
    read, text = _without_middle(example.extracted, SHORT), _without_middle(example.text, characters)
    logp = None if example.logp is None else round(example.logp, 2)
    return [example.index, verdict, read, logp, example.stop, text]


def _without_middle(text: str, most: int) -> str:
    """text, or where it is longer its head and tail, and between them how much is missing."""
    if len(text) <= most:
        return text
    head, tail = most * 5 // 8, most * 3 // 8
    return f"{text[:head]} [\u2026 {len(text) - head - tail:,} characters left out \u2026] {text[-tail:]}"
