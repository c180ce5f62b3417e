"""What a config means: its frozen settings, its arms, and everything a job needs to know of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from jax.sharding import Mesh

from rlvr_limit import records
from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.mesh import mesh_of_all_hosts, row_devices
from rlvr_limit.distributed.preemption import PreemptionNotice
from rlvr_limit.grading.math.string_rules import normal_form
from rlvr_limit.grading.named import NamedGrader
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.records.storage import Place
from rlvr_limit.settings import TOKEN_SAMPLING, Arm, EngineConfig, Reinforced, Sampling, Settings, Supervised
from rlvr_limit.study import recipes
from rlvr_limit.study.arms import EvaluatedArm, expand
from rlvr_limit.study.recipes import answer_len
from rlvr_limit.tokenizer import TextTokenizer
from rlvr_limit.types import Grader, Problem, SamplingParams, Verdict

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of an answer to it."""


@dataclass(frozen=True)
class Task:
    """What the jobs ask of a kind of problem."""

    grade: Grader
    version: str  # of the grader
    inline: bool  # it is quick and cannot hang: called while sampling, in this process
    shorten: Callable[[Problem, str], Verdict | str] | None = None  # a verdict, or a shorter answer judged alike
    demonstrate: Callable[[Sequence[Problem], float, Random], Iterator[Pair]] | None = None  # (problems, share right)
    exact_chains: bool = False  # the detail of a verdict, also of a right answer, says what is wrong with its steps
    notes: tuple[str, ...] = ()  # what a reader of the page must know of the problems
    second: NamedGrader | None = None  # a second opinion, which never counts
    spelling: Callable[[str], str] = normal_form  # one text for answers that are one vote
    uses_given: Callable[[Problem, str], bool] | None = None  # whether an answer is made of what its problem gives


@dataclass(frozen=True)
class Setup:
    """How an arm is asked, and what it learns from."""

    model: ModelConfig | None  # None, as the tokenizer, where the samples are others' or an endpoint draws them
    tokenizer: TextTokenizer | None
    vocabulary: str  # digest of the tokenizer
    benchmark: str  # digest of the problems with their references
    variant: str  # digest of the prompts, behind the template's name
    problems: tuple[Problem, ...]
    stop_tokens: tuple[int, ...]  # tokens that end an answer
    sampling: Sampling
    folder: Path | None = None  # of config.json and tokenizer files, where the weights are Hugging Face's
    training: tuple[Problem, ...] = ()  # problems that a recipe learns from, and nobody is compared on
    lessons: tuple[Problem, ...] = ()  # the same as its teacher is asked
    shown: tuple[Pair, ...] = ()  # demonstrations


@dataclass(frozen=True)
class ImportedArm:
    """What is known of an arm whose samples others drew."""

    recorded: Mapping[str, str]  # conditions that the files record, by names of settings.COMPARED, and the model
    counts: Mapping[str, int]  # samples of each problem
    own: str = ""  # the grader's name under which their own verdicts stand, "" for none


@dataclass(frozen=True)
class ImportedSamples:
    """What a study of others' samples has besides; it has neither models nor tokenizers, and no prompts."""

    arms: Mapping[str, ImportedArm]
    allow_unknown: tuple[str, ...]
    command: str  # which imports and draws it
    notes: tuple[str, ...]  # what a reader of the page must know of the files


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
    imported: ImportedSamples | None = None

    @property
    def evaluated(self) -> list[EvaluatedArm]:
        """All sets of weights that are compared, in the order in which they are shown."""
        return expand(self.settings.arms)

    @property
    def base(self) -> EvaluatedArm:
        """The base of the first panel, which in most configs all others are held against."""
        return next(e for e in self.evaluated if e.group == "base")

    @property
    def panels(self) -> dict[str, list[EvaluatedArm]]:
        """Arms that are compared with each other, the base first, by panel."""
        panels: dict[str, list[EvaluatedArm]] = {}
        for entry in self.evaluated:
            panels.setdefault(entry.panel, []).append(entry)
        return panels

    def named(self, name: str) -> EvaluatedArm:
        """The evaluated arm of that name; raises KeyError where there is none."""
        return {entry.name: entry for entry in self.evaluated}[name]

    def source(self, entry: EvaluatedArm) -> EvaluatedArm:
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
        said = {name: getattr(setup.sampling, name) for name in TOKEN_SAMPLING}
        limit = answer_limit(setup.sampling, setup.model, problem)
        return SamplingParams(**said, max_tokens=limit, stop_tokens=setup.stop_tokens)

    @property
    def training_mesh(self) -> Mesh:
        """Where what is trained lies: the mesh of all hosts."""
        return mesh_of_all_hosts(self.mesh)

    def row_places(self, recipe: Supervised | Reinforced) -> int:
        """Tokens of the longest prompt and answer together that a recipe learns from."""
        return self.engine.max_prompt_len + answer_len(recipe, self.settings.sampling)

    def microbatch(self, recipe: Supervised | Reinforced) -> tuple[int, int]:
        """(rows, places) of a microbatch of training.tokens. UserError where they hold no whole prompt and answer."""
        s = self.settings
        lengths = self.engine.max_prompt_len, answer_len(recipe, s.sampling)
        return recipes.microbatch(recipe, s.training.tokens, row_devices(self.training_mesh), *lengths)

    def weights_sha256(self, entry: EvaluatedArm) -> str:
        """What an arm is; "" where its weights have not been loaded yet, or are an endpoint's."""
        fact = f"{entry.name}.weights_sha256"
        said = self.hosts.checked_values("arms.").get(fact, "")
        if said or not (self.root / "manifest.json").exists():
            return said
        return records.read_manifest(self.root)["facts"].get(f"arms.{fact}", "")

    def weights(self, evaluated: EvaluatedArm) -> Place:
        """The folder of an arm's weights in this run, there or to be made, where they are not given."""
        return self.root / "weights" / (evaluated.weights_of or evaluated.name)


def benchmark_of(problem_id: str) -> str:
    """The benchmark that a problem belongs to: "math500/17" to math500, problems of Countdown to ""."""
    return problem_id.rpartition("/")[0]


def prompt_name(arm: Arm, problem_id: str) -> str:
    """The template in which an arm is asked a problem."""
    return arm.prompt_of.get(benchmark_of(problem_id), arm.prompt)


def answer_limit(sampling: Sampling, model: ModelConfig | None, problem: Problem) -> int:
    """Most new tokens of an answer: max_tokens, or what the model's context, where known, leaves after the prompt."""
    if not model or not model.context or sampling.allow_beyond_context:
        return sampling.max_tokens
    return min(sampling.max_tokens, model.context - len(problem.prompt_ids))
