"""What a config means: its frozen settings, its arms, its problems and its run folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rlvr_limit import records
from rlvr_limit.engine import EngineConfig
from rlvr_limit.grading import countdown as grading
from rlvr_limit.jobs import settings
from rlvr_limit.mesh import MeshConfig, make_mesh
from rlvr_limit.model import ModelConfig
from rlvr_limit.rl import OptimizerConfig
from rlvr_limit.tasks import countdown
from rlvr_limit.tokenizer import WordTokenizer
from rlvr_limit.types import Problem, SamplingParams, UserError


@dataclass(frozen=True)
class Supervised:
    """Training on demonstrations of which a share `right` reach the target. start names an arm, "" a fresh model."""

    steps: int
    batch: int
    right: float
    optimizer: OptimizerConfig
    start: str = ""


@dataclass(frozen=True)
class Reinforced:
    """GRPO: `prompts` problems a step, `answers` samples each, split into `minibatches` updates with ratio clip `clip`.

    The weights after each step in save_at are arms of their own, evaluated like the others.
    """

    start: str
    steps: int
    save_at: tuple[int, ...]
    prompts: int
    answers: int
    minibatches: int
    clip: float
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class Arm:
    """A model to compare: weights in a folder, or one of three recipes. group is base, rl, distilled or control."""

    label: str
    group: str
    weights: str = ""
    pretrain: Supervised | None = None
    sft: Supervised | None = None
    rl: Reinforced | None = None

    @property
    def recipe(self) -> Supervised | Reinforced | None:
        """How the weights come about, if they are not given."""
        return self.pretrain or self.sft or self.rl


@dataclass(frozen=True)
class ModelShape:
    """The decoder without its vocabulary, which the task decides."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int


@dataclass(frozen=True)
class Sampling:
    """How every arm is sampled: n answers a problem."""

    n: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Score:
    """answers of every arm per problem are scored under the base and under the arm itself."""

    answers: int = 16


@dataclass(frozen=True)
class Report:
    """k is that of Delta_SE = pass@k(base) - pass@1(RL), at most sampling.n (the paper's is 256)."""

    k: int


@dataclass(frozen=True)
class Settings:
    """A whole config, frozen."""

    name: str
    job: str
    title: str
    purpose: str
    caveat: str
    seed: int
    runs: str
    run_dir: str
    checkpoint_seconds: float
    flush_seconds: float
    task: countdown.CountdownConfig
    model: ModelShape
    mesh: MeshConfig
    engine: EngineConfig
    sampling: Sampling
    score: Score
    report: Report
    arms: dict[str, Arm]


@dataclass(frozen=True)
class Evaluated:
    """One set of weights to sample: an arm, or one saved step of an arm that is trained by reinforcement."""

    name: str
    label: str
    group: str
    arm: str
    step: int | None = None


@dataclass(frozen=True)
class Experiment:
    """Everything a job needs. root is the run folder."""

    settings: Settings
    root: Path
    model: ModelConfig
    mesh: Mesh
    tokenizer: WordTokenizer
    rules: countdown.Rules
    problems: list[Problem]
    training: list[Problem] = field(repr=False)

    @property
    def evaluated(self) -> list[Evaluated]:
        """All sets of weights that are compared, in the order in which they are shown."""
        return expand(self.settings.arms)

    @property
    def base(self) -> Evaluated:
        """The arm that all others are held against."""
        return next(e for e in self.evaluated if e.group == "base")

    def sampling_params(self) -> SamplingParams:
        """The sampling conditions, the same for every arm."""
        s = self.settings.sampling
        return SamplingParams(s.temperature, s.top_p, s.max_tokens, (self.tokenizer.eos_id,))

    @property
    def row_places(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.settings.engine.prompt_places + self.settings.sampling.max_tokens

    def weights(self, evaluated: Evaluated) -> Path:
        """The folder of an arm's weights, there or to be made."""
        given = self.settings.arms[evaluated.arm].weights
        return Path(given) if given else self.root / "weights" / evaluated.name


ORDER = ("base", "rl", "distilled", "control")


def expand(arms: dict[str, Arm]) -> list[Evaluated]:
    """Arms in the order base, rl, distilled, control; a reinforced arm becomes one for each of its saved steps."""
    found = []
    for name, arm in sorted(arms.items(), key=lambda item: (ORDER.index(item[1].group), item[0])):
        if arm.rl and not arm.weights:
            found += [Evaluated(f"{name}-{s}", f"{arm.label}, step {s}", arm.group, name, s) for s in arm.rl.save_at]
        else:
            found.append(Evaluated(name, arm.label, arm.group, name))
    return found


def prepare(config: ConfigDict) -> Experiment:
    """Checks a config, makes or opens its run folder and lays out the problems. Raises UserError, one line."""
    s = settings.from_config(Settings, config)
    _check(s)
    jax.config.update("jax_compilation_cache_dir", str((Path(s.runs) / ".compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    rules = countdown.Rules(s.task)
    problems, training = countdown.problems(s.task, rules, s.seed)
    tokenizer = countdown.tokenizer(s.task)
    shape = settings.to_jsonable(s.model)
    conditions = _conditions(s, problems)
    root = Path(s.run_dir or Path(s.runs) / s.name / settings.digest(conditions))
    records.open_run(root, conditions, _info(config))
    decoder = ModelConfig(len(tokenizer.vocabulary), **shape)
    experiment = Experiment(s, root, decoder, make_mesh(s.mesh), tokenizer, rules, problems, training)
    _store_prompts(experiment)
    return experiment


def prompt_sha256(problem: Problem) -> str:
    """Identity of a rendered prompt."""
    return hashlib.sha256(problem.prompt.encode()).hexdigest()


def _check(s: Settings) -> None:
    groups = [arm.group for arm in s.arms.values()]
    if groups.count("base") != 1:
        raise UserError(f"config.arms: {groups.count('base')} arms have group 'base', exactly one is right")
    for name, arm in s.arms.items():
        where = f"config.arms.{name}"
        if arm.group not in ORDER:
            raise UserError(f"{where}.group: found {arm.group!r}, but one of {', '.join(ORDER)} is right")
        if sum(r is not None for r in (arm.pretrain, arm.sft, arm.rl)) != 1 and not arm.weights:
            raise UserError(f"{where}: give weights, or exactly one of pretrain, sft and rl")
        start = arm.recipe.start if arm.recipe and not arm.weights else ""
        if start and (start not in s.arms or s.arms[start].rl):
            usable = ", ".join(other for other, a in s.arms.items() if not a.rl and other != name)
            raise UserError(f"{where}: starts from {start!r}, but one of {usable} is right")
        if arm.rl and (not arm.rl.save_at or max(arm.rl.save_at) > arm.rl.steps):
            raise UserError(f"{where}.rl.save_at: found {arm.rl.save_at}, steps from 1 to {arm.rl.steps} are right")
        if arm.rl and arm.rl.prompts * arm.rl.answers % arm.rl.minibatches:
            raise UserError(f"{where}.rl.minibatches: {arm.rl.minibatches} does not divide prompts x answers")
    if s.sampling.n < 1:
        raise UserError(f"config.sampling.n: found {s.sampling.n}, 1 or more is right")
    if s.score.answers > s.sampling.n:
        raise UserError(f"config.score.answers: found {s.score.answers}, sampling.n = {s.sampling.n} allows no more")
    if not 1 <= s.report.k <= s.sampling.n:
        raise UserError(f"config.report.k: found {s.report.k}, sampling.n = {s.sampling.n} allows 1 to {s.sampling.n}")


def _conditions(s: Settings, problems: list[Problem]) -> dict[str, Any]:
    """All that decides what a sample is; n may grow, and how many are scored may change, in the same folder."""
    free = {"job", "title", "purpose", "caveat", "runs", "run_dir", "score", "report"}
    free |= {"checkpoint_seconds", "flush_seconds"}
    conditions = {name: value for name, value in settings.to_jsonable(s).items() if name not in free}
    del conditions["sampling"]["n"]
    digest = hashlib.sha256("\n".join(problem.prompt for problem in problems).encode()).hexdigest()
    return conditions | {"prompts_sha256": digest, "grader": grading.VERSION}


def _info(config: ConfigDict) -> dict[str, Any]:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow")
    return {
        "config": config.to_dict(),
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        "device": f"{jax.devices()[0].device_kind} x {jax.device_count()}",
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def _store_prompts(experiment: Experiment) -> None:
    rows = [
        {
            "problem_id": p.id,
            "question": p.question,
            "prompt": p.prompt,
            "prompt_ids": list(p.prompt_ids),
            "prompt_sha256": prompt_sha256(p),
            "answer": str(p.answer.target),
            "guess_rate": p.guess_rate,
        }
        for p in experiment.problems
    ]
    there = set(records.read(experiment.root, "prompts", columns=["problem_id"])["problem_id"].to_pylist())
    with records.Writer(experiment.root, "prompts") as writer:
        writer.append([row for row in rows if row["problem_id"] not in there])
