"""What a config means: its frozen settings, its arms, and everything a job needs to know of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from jax.sharding import Mesh

from rlvr_limit import rl
from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.joining import HostsConfig
from rlvr_limit.distributed.mesh import MeshConfig, mesh_of_all_hosts, row_devices
from rlvr_limit.distributed.preemption import PreemptionNotice
from rlvr_limit.engine.config import EngineConfig
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.records.storage import Place
from rlvr_limit.study.recipes import Reinforced, Supervised
from rlvr_limit.tasks.countdown import CountdownConfig
from rlvr_limit.tokenizer import TextTokenizer
from rlvr_limit.types import Grader, Problem, SamplingParams, UserError, Verdict

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of an answer to it."""

ORDER = ("base", "rl", "distilled", "control", "other")


@dataclass(frozen=True)
class ArmSampling:
    """Where one arm is sampled otherwise than config.sampling says.

    match_entropy names the evaluated arm whose token entropy this one's temperature is raised or lowered to, within
    match_within nats (evaluation/entropy_matching.py; Yue et al. 2025, Fig. 17).
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    match_entropy: str = ""
    match_within: float = 0.01


@dataclass(frozen=True)
class Arm:
    """A model to compare: given weights, one of three recipes, or the weights of another arm.

    group is base, rl, distilled, control or other. Arms of one panel are compared with its base, on a page of their
    own; most configs have one panel, "".

    weights is a folder or a hub name, of which revision is taken. The rest is for such weights: prompt names a template
    of tasks/prompts.py, prompt_of[benchmark] another one for a benchmark, stop adds tokens (by their text) that end an
    answer to those of generation_config.json.

    weights_of names an evaluated arm ("base", "grpo-40") of which this is another view: the same weights, sampled or
    asked otherwise; the fields of how it is asked are that arm's where this one leaves prompt empty.
    """

    label: str
    group: str
    panel: str = ""
    weights: str = ""
    revision: str = ""
    weights_of: str = ""
    prompt: str = ""
    prompt_of: dict[str, str] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    sampling: ArmSampling = ArmSampling()
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
    """How arms are sampled that do not say otherwise: n answers a problem, or n_of[benchmark].

    Answers end at max_tokens, and where prompt and answer fill the model's context unless allow_beyond_context.
    adaptive: only so many at first, and n where none of them is right (evaluation/adaptive.py); 0: n everywhere.
    """

    n: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    n_of: dict[str, int] = field(default_factory=dict)
    adaptive: int = 0
    allow_beyond_context: bool = False


@dataclass(frozen=True)
class Score:
    """answers to a problem (all, where n is less) are scored under the base and the arm itself, `tokens` at a time on
    each device.

    references names a file of other people's answers, {"problem": question or id, "text": ...} a line ("": none), which
    every arm scores.
    """

    answers: int = 16
    tokens: int = 4_096
    references: str = ""


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
class Training:
    """How a training step is computed; without influence on it but for rounding.

    tokens: places of a microbatch on each device, several sequences packed into a row (0: a minibatch at once, one
    sequence a row). remat: one of model.REMAT. param_dtype: the dtype that weights are kept in while they are
    trained, and steps add up in ("": that of the model).
    """

    tokens: int = 0
    remat: str = "none"
    param_dtype: str = ""


@dataclass(frozen=True)
class Settings:
    """A whole config, frozen. Either task (Countdown) or benchmarks says what the problems are.

    data_dir holds the benchmarks' files ("": the hub's); limit takes the first problems of each (0: all).
    wandb names a Weights & Biases project that training reports to ("": none). allow_differ names the conditions in
    which compared arms may differ (study/comparability.py). share_weights: what recipes make is kept in
    runs/trained besides, where another config with an equal recipe finds it (training/weight_cache.py).
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
    wandb: str = ""
    training: Training = Training()
    hosts: HostsConfig = HostsConfig()
    allow_differ: tuple[str, ...] = ()
    share_weights: bool = False


@dataclass(frozen=True)
class Evaluated:
    """One set of weights to sample in one way: an arm, or one saved step of an arm that is trained by reinforcement.

    weights_of names the evaluated arm whose weights these are, "" where they are its own.
    """

    name: str
    label: str
    group: str
    arm: str
    step: int | None = None
    panel: str = ""
    weights_of: str = ""


@dataclass(frozen=True)
class Task:
    """What the jobs ask of a kind of problem. A grader that is quick and cannot hang is called inline, while sampling.

    shorten gives a verdict at once, or a shorter answer that the grader judges alike (grading/pool.py).

    demonstrate ((problems, share of right ones, rng) -> endless pairs) is for tasks that teach; notes are what a reader
    of the page must know of the problems.
    """

    grade: Grader
    version: str
    inline: bool
    shorten: Callable[[Problem, str], Verdict | str] | None = None
    demonstrate: Callable[[Sequence[Problem], float, Random], Iterator[Pair]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setup:
    """How an arm is asked: its decoder, its tokenizer, its rendered problems, the tokens that end an answer, sampling.

    vocabulary, benchmark and variant are digests of the tokenizer, of the problems with their references, and of the
    prompts. folder holds config.json and tokenizer files
    where the weights are Hugging Face's. A recipe learns from training, problems that nobody is compared on; from
    lessons, the same as its teacher is asked; or from the pairs of shown.
    """

    model: ModelConfig
    tokenizer: TextTokenizer
    vocabulary: str
    benchmark: str
    variant: str
    problems: tuple[Problem, ...]
    stop_tokens: tuple[int, ...]
    sampling: Sampling
    folder: Path | None = None
    training: tuple[Problem, ...] = ()
    lessons: tuple[Problem, ...] = ()
    shown: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Study:
    """Everything a job needs. root is the run folder; setups are by arm; mesh is that of this host."""

    settings: Settings
    root: Place
    mesh: Mesh
    engine: EngineConfig
    task: Task
    setups: dict[str, Setup] = field(repr=False)
    hosts: Hosts = field(default_factory=Hosts)
    notice: PreemptionNotice = field(default_factory=PreemptionNotice)

    @property
    def evaluated(self) -> list[Evaluated]:
        """All sets of weights that are compared, in the order in which they are shown."""
        return expand(self.settings.arms)

    @property
    def base(self) -> Evaluated:
        """The base of the first panel, which in most configs all others are held against."""
        return next(e for e in self.evaluated if e.group == "base")

    @property
    def panels(self) -> dict[str, list[Evaluated]]:
        """Arms that are compared with each other, the base first, by panel."""
        found: dict[str, list[Evaluated]] = {}
        for entry in self.evaluated:
            found.setdefault(entry.panel, []).append(entry)
        return found

    def named(self, name: str) -> Evaluated:
        """The evaluated arm of that name; raises KeyError where there is none."""
        return {entry.name: entry for entry in self.evaluated}[name]

    def source(self, entry: Evaluated) -> Evaluated:
        """The arm whose weights are sampled: entry itself, or the one it is another view of."""
        return self.named(entry.weights_of) if entry.weights_of else entry

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems as the base is asked; other arms have the same ids and references."""
        return self.setups[self.base.arm].problems

    def first(self, problem: Problem) -> int:
        """Samples that a problem is to have whatever they show: n, or those of the first stage of adaptive sampling."""
        return self.settings.sampling.adaptive or self.n(problem)

    def n(self, problem: Problem) -> int:
        """Samples that a problem is to have at most."""
        return self.settings.sampling.n_of.get(benchmark_of(problem.id), self.settings.sampling.n)

    def sampling_params(self, setup: Setup, problem: Problem) -> SamplingParams:
        """The sampling conditions of an arm; a temperature that is to be matched is config.sampling's here."""
        s = setup.sampling
        limit = answer_limit(s, setup.model, problem)
        return SamplingParams(s.temperature, s.top_p, limit, setup.stop_tokens, s.top_k, s.min_p)

    @property
    def training_mesh(self) -> Mesh:
        """Where what is trained lies: the mesh of all hosts."""
        return mesh_of_all_hosts(self.mesh)

    @property
    def row_places(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.engine.max_prompt_len + self.settings.sampling.max_tokens

    @property
    def microbatch(self) -> tuple[int, int]:
        """(rows, places) of a microbatch of training.tokens. UserError where they hold no whole prompt and answer."""
        s = self.settings
        return rl.microbatch_shape(self.row_places, s.training.tokens, row_devices(self.training_mesh))

    def weights(self, evaluated: Evaluated) -> Place:
        """The folder of an arm's weights in this run, there or to be made, where they are not given."""
        return self.root / "weights" / (evaluated.weights_of or evaluated.name)


def benchmark_of(problem_id: str) -> str:
    """The benchmark that a problem belongs to: "math500/17" to math500, problems of Countdown to ""."""
    return problem_id.rpartition("/")[0]


def answer_limit(sampling: Sampling, model: ModelConfig, problem: Problem) -> int:
    """Most new tokens of an answer: max_tokens, or what the model's context leaves after the prompt."""
    if not model.context or sampling.allow_beyond_context:
        return sampling.max_tokens
    return min(sampling.max_tokens, model.context - len(problem.prompt_ids))


def sampling_of(common: Sampling, arm: Arm) -> Sampling:
    """config.sampling with what the arm says otherwise."""
    said = {name: getattr(arm.sampling, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    return replace(common, **{name: value for name, value in said.items() if value is not None})


def expand(arms: dict[str, Arm]) -> list[Evaluated]:
    """Arms by panel, in the order of ORDER; a reinforced arm becomes one for each of its saved steps."""
    found = []
    by_place = sorted(arms.items(), key=lambda item: (item[1].panel, ORDER.index(item[1].group), item[0]))
    for name, arm in by_place:
        where = {"group": arm.group, "arm": name, "panel": arm.panel}
        if arm.rl and not arm.weights:
            several = len(arm.rl.save_at) > 1
            for step in arm.rl.save_at:
                label = f"{arm.label}, step {step}" if several else arm.label
                found.append(Evaluated(f"{name}-{step}", label, step=step, **where))
        else:
            found.append(Evaluated(name, arm.label, weights_of=arm.weights_of, **where))
    return found


def lender(arms: dict[str, Arm], name: str) -> str:
    """The arm that holds the weights of `name`: itself, or the one that its weights_of belongs to."""
    wanted = arms[name].weights_of
    return next(e.arm for e in expand(arms) if e.name == wanted) if wanted else name


def views_asked_as_lenders(arms: dict[str, Arm]) -> dict[str, Arm]:
    """Arms where another view of an arm's weights is asked as that arm is, unless it has a prompt of its own."""
    found = {}
    for name, arm in arms.items():
        if arm.weights_of and not arm.prompt:
            own = arms[lender(arms, name)]
            arm = replace(arm, prompt=own.prompt, prompt_of=own.prompt_of, stop=arm.stop or own.stop)
        found[name] = arm
    return found


def origin(arms: dict[str, Arm], name: str) -> Arm:
    """The arm whose given weights a recipe starts from in the end. UserError where there is none."""
    path = [lender(arms, name)]
    while not arms[path[-1]].weights:
        recipe = arms[path[-1]].recipe
        path.append(recipe.start if recipe else "")
        if path[-1] not in arms or path[-1] in path[:-1]:
            raise UserError(f"config.arms.{name}: {' starts from '.join(path)}: an arm with weights must come last")
    return arms[path[-1]]
