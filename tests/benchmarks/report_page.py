"""How large the page of a whole study is and how fast it opens: python -m tests.benchmarks.report_page [--keep FOLDER]

500 problems, 1,024 samples of two arms, answers of some 500 words. Prints one JSON line: megabytes of the page and of
the samples beside it, seconds to write both, and, where a Chromium is installed, the medians over five visits of the
seconds until the page is drawn and of the seconds from a problem's name to its samples.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from rlvr_limit.evaluation.arm_results import EXAMPLES
from rlvr_limit.report import ArmResults, Example, Results, write
from tests.support import browser

M, N, WORDS = 500, 1024, 500


def study(seed: int = 0) -> Results:
    """Counts as of a base and a sharpened arm; texts of words as frequent as Zipf's law has them."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    words = ["".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(5000)]
    p_M = rng.beta(0.3, 0.8, M)
    arms, examples = [], []
    for name, sharpened in (("base", p_M), ("rl", np.clip(2 * p_M - 0.05, 0, 1))):
        c_M = rng.binomial(N, sharpened)
        zeros = np.zeros(M, int)
        answers = tuple((tuple((f"{a}", 60, 0) for a in range(12)), (30, 304)) for _ in range(M))
        arms.append(
            ArmResults(
                name,
                label=name,
                group=name,
                n_M=np.full(M, N),
                c_M=c_M,
                truncated_M=zeros,
                no_answer_M=zeros,
                ungraded_M=zeros,
                mean_tokens=500.0,
                duplicate_rate=0.01,
                entropy=0.5,
                conditions={"temperature": "0.6"},
                tokens_M=np.full(M, 500.0),
                answers_M=answers,
            )
        )
        for i in range(M):
            drawn = rng.zipf(1.2, (EXAMPLES, WORDS)) % len(words)
            right = rng.random(EXAMPLES) < c_M[i] / N
            examples += [
                Example(f"p{i}", name, j, " ".join(words[w] for w in row), bool(right[j]), "eos", "42", -100.0)
                for j, row in enumerate(drawn)
            ]
    problems = tuple((f"p{i}", " ".join(words[w] for w in rng.integers(0, 5000, 60)), None) for i in range(M))
    return Results("500 x 1,024", "", "", "", problems, tuple(arms), "base", examples=tuple(examples))


def visit(page: Path, width: int) -> tuple[float, float, list[str]]:
    """(seconds to open, seconds to the samples of a problem, what the console said) of one browser of its own."""
    with browser.Browser(width) as one:
        opened = one.open(page.as_uri())
        one.run(f"location.hash = 'problem-{M // 2}'")
        shown = one.wait_for("document.querySelectorAll('.list details').length >= 2")
        outside = [url for url in one.asked if not url.startswith(("file:", "data:"))]
        return opened, shown, one.console + outside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", help="where to leave the page; by default nothing is left")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder:
        made = study()
        start = time.perf_counter()
        page = write(made, Path(keep or folder))
        found = {"written_s": round(time.perf_counter() - start, 1)}
        samples = sum(path.stat().st_size for path in (page.parent / "samples").iterdir())
        found |= {"page_MB": round(page.stat().st_size / 1e6, 2), "samples_MB": round(samples / 1e6, 2)}
        if browser.find():
            visits = [visit(page, 1280) for _ in range(5)]
            opened, shown, said = zip(*visits, strict=True)
            found |= {"open_s": round(statistics.median(opened), 2), "open_slowest_s": round(max(opened), 2)}
            found |= {"samples_s": round(statistics.median(shown), 2), "console_or_outside": sum(said, [])}
        print(json.dumps(found))


if __name__ == "__main__":
    main()
