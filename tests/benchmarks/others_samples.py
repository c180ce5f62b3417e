"""How long files of others' samples take to import, and how much memory.

    python -m tests.benchmarks.others_samples [SAMPLES] [--rows]

writes 500 problems' samples, of about 1,200 characters, to a file in the manner of Qwen2.5-Math, all of a problem in a
row (with --rows one a row, in the manner of NeMo-Skills), imports it and prints one JSON line. Grading is not part of
it. The aim for 1,000,000 samples is 300 s and 2 GB on two cores.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from rlvr_limit.evaluation.others.importing import import_samples
from rlvr_limit.settings import ImportedSettings

PROBLEMS, WORDS = 500, ("the", "value", "of", r"\frac{3}{4}", "we", "add", "$x^2$", "so", "gives", "12", "\n", "equals")


def response(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=250)) + rf" The answer is $\boxed{{{rng.randrange(4)}}}$."


def write(path: Path, samples: int, one_a_row: bool) -> None:
    rng = random.Random(0)
    pool = [response(rng) for _ in range(4096)]
    each = samples // PROBLEMS
    with path.open("w", encoding="utf-8") as file:
        for i in range(PROBLEMS):
            question = f"Problem {i}. " + response(rng)[:300]
            drawn = [f"{j}. {rng.choice(pool)}" for j in range(each)]
            if one_a_row:
                row = {"id": i, "problem": question, "expected_answer": "1", "predicted_answer": "1"}
                rows = [row | {"generation": text, "symbolic_correct": rng.random() < 0.5} for text in drawn]
            else:
                row = {"idx": i, "question": question, "gt_cot": "", "gt": "1", "answer": "1", "pred": ["1"] * each}
                rows = [row | {"code": drawn, "score": [rng.random() < 0.5 for _ in drawn]}]
            file.writelines(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    samples = numbers[0] if numbers else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "samples.jsonl")
        write(path, samples, "--rows" in sys.argv)
        settings = ImportedSettings(imported=(f"base={path}",), workdir=f"{folder}/run")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.perf_counter(), time.process_time()
        import_samples(settings)
        row = {
            "samples": samples,
            "rows": "one a sample" if "--rows" in sys.argv else "one a problem",
            "file_gb": round(path.stat().st_size / 1e9, 2),
            "kept_gb": round(sum(f.stat().st_size for f in Path(folder, "run").rglob("*") if f.is_file()) / 1e9, 2),
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            "peak_before_gb": round(before / 1e6, 2),
            "cores": len(os.sched_getaffinity(0)),
            "load": round(os.getloadavg()[0], 1),
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
