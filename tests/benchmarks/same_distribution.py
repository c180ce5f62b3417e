"""Whether two arms of one run folder were drawn from the same distribution: one test a statistic, over all problems.

    python -m tests.benchmarks.same_distribution RUN FIRST SECOND [--weights MODEL] [--scored 8] [--level 0.01]

For an arm of a server beside the same weights sampled here. Answers are permuted between the arms within a problem,
so that no distribution is assumed. Statistics: the success rate and the mean length in characters (each the sum over
problems of the squared difference, by the variance of both together), and where --weights names the model, the mean
-log p of an answer's tokens under it at temperature 1, of the first --scored answers: whoever samples too sharply has
it too low. Each is printed per arm with its p value; exit code 1 where one is below --level over the number of tests.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from rlvr_limit import records

PERMUTATIONS = 10_000


def answers(run: Path, arms: list[str]) -> dict[str, dict[str, list[tuple[str, bool]]]]:
    """By problem and arm: text and verdict of each sample, by index."""
    right = {
        (row["arm"], row["problem_id"], row["index"]): row["correct"]
        for row in records.read(run, "verdicts", ["arm", "problem_id", "index", "correct"]).to_pylist()
    }
    drawn: dict[str, dict[str, list[tuple[str, bool]]]] = defaultdict(lambda: {arm: [] for arm in arms})
    rows = records.read(run, "samples", ["arm", "problem_id", "index", "text"]).to_pylist()
    for row in sorted(rows, key=lambda row: row["index"]):
        key = row["arm"], row["problem_id"], row["index"]
        if row["arm"] in arms and key in right:
            drawn[row["problem_id"]][row["arm"]].append((row["text"], right[key]))
    return {problem: of for problem, of in sorted(drawn.items()) if all(of.values())}


def surprise(run: Path, model: Path, drawn: dict[str, dict[str, list[tuple[str, bool]]]], scored: int) -> dict:
    """By problem and arm: mean -log p of the tokens of the first answers, by the weights in bfloat16."""
    from rlvr_limit import checkpoint
    from rlvr_limit.distributed.mesh import make_mesh
    from rlvr_limit.models.log_probs import score_pairs
    from rlvr_limit.settings import MeshConfig
    from rlvr_limit.tokenizer import load_tokenizer

    config, words = checkpoint.read_model_config(model, "bfloat16"), load_tokenizer(model)
    params = checkpoint.load_hf(model, config, make_mesh(MeshConfig()))
    prompts = {
        row["problem_id"]: row["prompt_ids"]
        for row in records.read(run, "prompts", ["problem_id", "prompt_ids"]).to_pylist()
        if row["prompt_ids"]
    }
    keys = [(problem, arm, text) for problem, of in drawn.items() for arm in of for text, _ in of[arm][:scored]]
    pairs = [(prompts[problem], words.encode(text) or [words.eos_id]) for problem, _, text in keys]
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for (problem, arm, _), score in zip(keys, score_pairs(params, config, pairs, tokens=2048), strict=True):
        values[problem][arm].append(-float(np.mean(score.logp)))
    return values


def compare(name: str, values: dict[str, dict[str, list[float]]], arms: list[str], scale: float) -> float:
    """The p value of one statistic, which is printed."""
    rng, seen, permuted = np.random.default_rng(0), 0.0, np.zeros(PERMUTATIONS)
    for of in values.values():
        first, second = (np.asarray(of[arm], float) for arm in arms)
        both = np.concatenate([first, second])
        if np.ptp(both) == 0:
            continue
        seen += (first.mean() - second.mean()) ** 2 / both.var()
        mixed = rng.permuted(np.broadcast_to(both, (PERMUTATIONS, len(both))), axis=1)
        permuted += (mixed[:, : len(first)].mean(1) - mixed[:, len(first) :].mean(1)) ** 2 / both.var()
    p = (1 + np.sum(permuted >= seen * (1 - 1e-9))) / (1 + PERMUTATIONS)
    means = [scale * float(np.mean([np.mean(of[arm]) for of in values.values()])) for arm in arms]
    print(f"{name}: {means[0]:.4g} and {means[1]:.4g}; p = {p:.4f} over {len(values)} problems", flush=True)
    return float(p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("arms", nargs=2)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--scored", type=int, default=8)
    parser.add_argument("--level", type=float, default=0.01)
    wanted = parser.parse_args()
    drawn = answers(wanted.run, wanted.arms)
    numbers = {arm: sum(len(of[arm]) for of in drawn.values()) for arm in wanted.arms}
    print(f"{len(drawn)} problems, answers: {numbers}", flush=True)
    if not drawn:
        sys.exit(f"{wanted.run}: no problem has graded answers of both arms")

    def by(value) -> dict[str, dict[str, list[float]]]:
        return {p: {arm: [float(value(x)) for x in of[arm]] for arm in of} for p, of in drawn.items()}

    tests = [
        compare("right answers, percent", by(lambda answer: answer[1]), wanted.arms, 100.0),
        compare("characters", by(lambda answer: len(answer[0].strip())), wanted.arms, 1.0),
    ]
    if wanted.weights:
        values = surprise(wanted.run, wanted.weights, drawn, wanted.scored)
        tests.append(compare("-log p a token, nats", values, wanted.arms, 1.0))
    if min(tests) < wanted.level / len(tests):
        sys.exit(f"not the same distribution: p = {min(tests):.2g}, below {wanted.level} over {len(tests)} tests")


if __name__ == "__main__":
    main()
