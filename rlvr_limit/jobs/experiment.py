"""What a config means: its frozen settings, its arms, and everything a job needs to know of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from jax.sharding import Mesh

from rlvr_limit.engine import EngineConfig
from rlvr_limit.mesh import MeshConfig
from rlvr_limit.model import ModelConfig
from rlvr_limit.rl import OptimizerConfig
from rlvr_limit.tasks.countdown import CountdownConfig
from rlvr_limit.tokenizer import TextTokenizer, WordTokenizer
from rlvr_limit.types import Grader, Problem, SamplingParams, UserError, Verdict

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of an answer to it."""

ORDER = ("base", "rl", "distilled", "control", "other")


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
    """A model to compare: given weights, or one of three recipes. group is base, rl, distilled, control or other.

    weights is a folder or a hub name, of which revision is taken. The rest is for such weights: prompt names a template
    of tasks/prompts.py, prompt_of[benchmark] another one for a benchmark, stop adds tokens (by their text) that end an
    answer to those of generation_config.json.
    """

    label: str
    group: str
    weights: str = ""
    revision: str = ""
    prompt: str = ""
    prompt_of: dict[str, str] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    pretrain: Supervised | None = None
    sft: Supervised | None = None
    rl: Reinforced | None = None

    @property
    def recipe(self) -> Supervised | Reinforced | None:
        """How the weights come about, if they are not given."""
        return self.pretrain or self.sft or self.rl


@dataclass(frozen=True)
class ModelShape:
    """The decoder that recipes train (its vocabulary is the task's), and what a plan assumes where no weights are."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    vocab_size: int = 0
    qkv_bias: bool = True
    tied_embedding: bool = False
    context: int = 0


@dataclass(frozen=True)
class Sampling:
    """How every arm is sampled: n answers a problem, or n_of[benchmark].

    Answers end at max_tokens, and where prompt and answer fill the model's context unless allow_beyond_context.
    """

    n: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    n_of: dict[str, int] = field(default_factory=dict)
    allow_beyond_context: bool = False


@dataclass(frozen=True)
class Score:
    """answers to a problem (all, where n is less) are scored under the base and the arm itself, `tokens` at a time."""

    answers: int = 16
    tokens: int = 65_536


@dataclass(frozen=True)
class Report:
    """k is that of Delta_SE = pass@k(base) - pass@1(RL), at most sampling.n; 0: the paper's 256, or n if less."""

    k: int


@dataclass(frozen=True)
class Grading:
    """Worker processes of the graders that can hang, and the seconds of CPU time after which a verdict is TIMEOUT.

    grader is math, exact, or module:function of one's own (grading/named.py); Countdown has its own.
    """

    workers: int = 2
    seconds: float = 10.0
    grader: str = "math"


@dataclass(frozen=True)
class Settings:
    """A whole config, frozen. Either task (Countdown) or benchmarks says what the problems are.

    data_dir holds the benchmarks' files ("": the hub's); limit takes the first problems of each (0: all).
    """

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
    dtype: str
    mesh: MeshConfig
    engine: EngineConfig
    sampling: Sampling
    grading: Grading
    score: Score
    report: Report
    arms: dict[str, Arm]
    task: CountdownConfig | None = None
    model: ModelShape | None = None
    benchmarks: tuple[str, ...] = ()
    data_dir: str = ""
    limit: int = 0
    target: str = ""


@dataclass(frozen=True)
class Evaluated:
    """One set of weights to sample: an arm, or one saved step of an arm that is trained by reinforcement."""

    name: str
    label: str
    group: str
    arm: str
    step: int | None = None


@dataclass(frozen=True)
class Task:
    """What the jobs ask of a kind of problem. A grader that is quick and cannot hang is called inline, while sampling.

    shorten gives a verdict at once, or a shorter answer that the grader judges alike (grading/pool.py).

    training and demonstrate ((problems, share of right ones, rng) -> endless pairs) are for tasks that teach; notes are
    what a reader of the page must know of the problems.
    """

    grade: Grader
    version: str
    inline: bool
    shorten: Callable[[Problem, str], Verdict | str] | None = None
    training: tuple[Problem, ...] = ()
    demonstrate: Callable[[Sequence[Problem], float, Random], Iterator[Pair]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """How an arm is asked: its decoder, its tokenizer, its rendered problems, and the tokens that end an answer.

    vocabulary and variant are digests of the tokenizer and of the prompts. folder holds config.json and tokenizer files
    where the weights are Hugging Face's.
    """

    model: ModelConfig
    tokenizer: WordTokenizer | TextTokenizer
    vocabulary: str
    variant: str
    problems: tuple[Problem, ...]
    stop_tokens: tuple[int, ...]
    folder: Path | None = None


@dataclass(frozen=True)
class Experiment:
    """Everything a job needs. root is the run folder; setups are by arm."""

    settings: Settings
    root: Path
    mesh: Mesh
    engine: EngineConfig
    task: Task
    setups: dict[str, Setup] = field(repr=False)

    @property
    def evaluated(self) -> list[Evaluated]:
        """All sets of weights that are compared, in the order in which they are shown."""
        return expand(self.settings.arms)

    @property
    def base(self) -> Evaluated:
        """The arm that all others are held against."""
        return next(e for e in self.evaluated if e.group == "base")

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems as the base is asked; other arms have the same ids and references."""
        return self.setups[self.base.arm].problems

    def n(self, problem: Problem) -> int:
        """Samples that a problem is to have."""
        return self.settings.sampling.n_of.get(benchmark_of(problem.id), self.settings.sampling.n)

    def sampling_params(self, setup: Setup, problem: Problem) -> SamplingParams:
        """The sampling conditions: the same for every arm, but for the tokens that end an answer and the context."""
        s = self.settings.sampling
        limit = answer_limit(s, setup.model, problem)
        return SamplingParams(s.temperature, s.top_p, limit, setup.stop_tokens, s.top_k, s.min_p)

    @property
    def row_places(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.engine.prompt_places + self.settings.sampling.max_tokens

    def weights(self, evaluated: Evaluated) -> Path:
        """The folder of an arm's weights in this run, there or to be made, where they are not given."""
        return self.root / "weights" / evaluated.name


def benchmark_of(problem_id: str) -> str:
    """The benchmark that a problem belongs to: "math500/17" to math500, problems of Countdown to ""."""
    return problem_id.rpartition("/")[0]


def answer_limit(sampling: Sampling, model: ModelConfig, problem: Problem) -> int:
    """Most new tokens of an answer: max_tokens, or what the model's context leaves after the prompt."""
    if not model.context or sampling.allow_beyond_context:
        return sampling.max_tokens
    return min(sampling.max_tokens, model.context - len(problem.prompt_ids))


def expand(arms: dict[str, Arm]) -> list[Evaluated]:
    """Arms in the order of ORDER; a reinforced arm becomes one for each of its saved steps."""
    found = []
    for name, arm in sorted(arms.items(), key=lambda item: (ORDER.index(item[1].group), item[0])):
        if arm.rl and not arm.weights:
            found += [Evaluated(f"{name}-{s}", f"{arm.label}, step {s}", arm.group, name, s) for s in arm.rl.save_at]
        else:
            found.append(Evaluated(name, arm.label, arm.group, name))
    return found


def check(s: Settings) -> None:
    """Raises UserError, one line that names the field, for settings that cannot be."""
    if bool(s.task) == bool(s.benchmarks):
        raise UserError("config: give either config.task (Countdown) or config.benchmarks, one of the two")
    if not 0 <= s.seed < 2**32:
        raise UserError(f"config.seed: found {s.seed}, 0 to {2**32 - 1} is right")
    groups = [arm.group for arm in s.arms.values()]
    if groups.count("base") != 1:
        raise UserError(f"config.arms: {groups.count('base')} arms have group 'base', exactly one is right")
    for name, arm in s.arms.items():
        _check_arm(s, name, arm)
    _check_sampling(s)
    _check_engine(s)


def _check_arm(s: Settings, name: str, arm: Arm) -> None:
    where = f"config.arms.{name}"
    if arm.group not in ORDER:
        raise UserError(f"{where}.group: found {arm.group!r}, but one of {', '.join(ORDER)} is right")
    if s.benchmarks and not arm.weights and s.job != "plan":
        raise UserError(
            f"{where}.weights: found nothing, but a folder or a hub name is right (recipes: Countdown only)"
        )
    if s.task and sum(r is not None for r in (arm.pretrain, arm.sft, arm.rl)) != 1 and not arm.weights:
        raise UserError(f"{where}: give weights, or exactly one of pretrain, sft and rl")
    start = arm.recipe.start if arm.recipe and not arm.weights else ""
    if start and (start not in s.arms or s.arms[start].rl):
        usable = ", ".join(other for other, a in s.arms.items() if not a.rl and other != name)
        raise UserError(f"{where}: starts from {start!r}, but one of {usable} is right")
    if arm.rl and (not arm.rl.save_at or max(arm.rl.save_at) > arm.rl.steps):
        raise UserError(f"{where}.rl.save_at: found {arm.rl.save_at}, steps from 1 to {arm.rl.steps} are right")
    if arm.rl and arm.rl.prompts * arm.rl.answers % arm.rl.minibatches:
        raise UserError(f"{where}.rl.minibatches: {arm.rl.minibatches} does not divide prompts x answers")


def _check_sampling(s: Settings) -> None:
    counts = {f"n_of.{name}": n for name, n in s.sampling.n_of.items() if name in s.benchmarks}
    counts["n"] = s.sampling.n
    for name, n in counts.items():
        if n < 1:
            raise UserError(f"config.sampling.{name}: found {n}, 1 or more is right")
    if s.limit < 0:
        raise UserError(f"config.limit: found {s.limit}, a number of problems, or 0 for all, is right")
    if s.score.answers < 1:
        raise UserError(f"config.score.answers: found {s.score.answers}, 1 or more is right")
    most = max(counts.values())
    if not 0 <= s.report.k <= most:
        raise UserError(f"config.report.k: found {s.report.k}, sampling.n = {most} allows 1 to {most}, or 0")


def _check_engine(s: Settings) -> None:
    e = s.engine
    for name in ("slots", "window", "page", "group_from", "prefill_rows", "prefix_rows"):
        if getattr(e, name) < 1:
            raise UserError(f"config.engine.{name}: found {getattr(e, name)}, 1 or more is right")
    if e.prompt_places < 0:
        raise UserError(
            f"config.engine.prompt_places: found {e.prompt_places}, 1 or more, or 0 for the prompts', is right"
        )
    if e.draft < 0 or (e.draft and e.reference):
        raise UserError(
            f"config.engine.draft: found {e.draft}, 0 (off) is right, or in no reference mode the tokens that are "
            "verified at once"
        )
    for rows in e.buckets:
        if not 1 <= rows <= e.slots:
            raise UserError(f"config.engine.buckets: found {rows}, 1 to engine.slots = {e.slots} is right")
    shards = s.mesh.data * s.mesh.fsdp
    least = 2 * shards * -(-e.page // e.window) * e.window
    if e.cache_tokens and e.cache_tokens < least:
        raise UserError(
            f"config.engine.cache_tokens: found {e.cache_tokens}, {least} or more (two pages on each of {shards} "
            "shards) is right, or 0 for room for every slot's longest sample"
        )
