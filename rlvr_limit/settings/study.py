"""Settings of a study: its problems, its arms, how they are sampled, graded, scored and reported."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, get_type_hints

from rlvr_limit.settings.machine import EngineConfig, HostsConfig, MeshConfig
from rlvr_limit.settings.training import Reinforced, Supervised, Training
from rlvr_limit.types import AtLeast, Interval, OneOf, TokenSampling

GROUPS = OneOf("base", "rl", "distilled", "control", "other")
"""Kinds of arms, in the order in which they are shown."""

TOKEN_SAMPLING = tuple(TokenSampling.__dataclass_fields__)

COMPARED = OneOf(
    "question", "benchmark", "images", "template", "eos", "lengths", *TOKEN_SAMPLING, "grader", "engine", "dtype"
)
"""Conditions that must agree between arms that are compared."""

JOBS = {
    "compare": "train what is missing, then sample, grade, score and report",
    "sample": "draw the samples that the run folder still lacks",
    "grade": "give a verdict on every stored sample that has none",
    "score": "log-likelihoods of stored samples under each arm",
    "judge": "ask config.judge whether the chains of thought behind right answers are right",
    "train": "train the arms that are recipes, not weights",
    "report": "draw the page, figures and tables from the records",
    "counts": "draw the page from a file of counts (problem,arm,n,correct): no samples, no models",
    "imported": "the page from files of samples that others drew, graded here; see config.imported",
    "export": "write the samples on record as logs of lm-eval and inspect_ai, and their counts as CSV",
    "plan": "what the config takes on config.target, without weights or accelerator",
}


@dataclass(frozen=True)
class CountdownConfig:
    """Which problems of Countdown there are. A problem is evaluated on when its hash says so, else trained on."""

    numbers: Annotated[int, AtLeast(1)] = 5  # numbers of a problem
    low: Annotated[int, AtLeast(1)] = 1  # the smallest
    high: Annotated[int, AtLeast(1)] = 9  # the largest
    max_value: Annotated[int, AtLeast(1)] = 99  # of a result on the way
    targets: tuple[Annotated[int, AtLeast(1)], ...] = (24, 36, 48, 60)
    guess_max: Annotated[float, Interval("(0, 1]")] = 0.004  # most of a random legal policy's success, evaluation
    train_guess_max: Annotated[float, Interval("(0, 1]")] = 1.0  # the same of training problems
    eval_problems: Annotated[int, AtLeast(1)] = 96
    train_problems: Annotated[int, AtLeast(0)] = 2048
    one_in: Annotated[int, AtLeast(1)] = 4  # problems of which one is for evaluation
    seen: bool = False  # the numbers are in an image


@dataclass(frozen=True)
class CompositionConfig:
    """Which problems of composed functions there are; those of a depth are a benchmark: depth1, depth2 and so on."""

    depths: tuple[Annotated[int, AtLeast(1)], ...] = (1, 2, 3, 4)  # functions of a problem
    functions: Annotated[int, Interval("[1, 26]")] = 8
    length: Annotated[int, AtLeast(1)] = 4  # symbols of a string
    symbols: Annotated[int, AtLeast(2)] = 10
    shared: Annotated[int, AtLeast(0)] = 2  # symbols of a function's table that get the image of another one
    eval_problems: Annotated[int, AtLeast(1)] = 48  # of each depth, as the next
    train_problems: Annotated[int, AtLeast(0)] = 2048
    one_in: Annotated[int, AtLeast(2)] = 4  # problems of which one is for evaluation


@dataclass(frozen=True)
class TowerShape:
    """A vision tower before the decoder, as Qwen2.5-VL has it."""

    width: Annotated[int, AtLeast(1)]
    layers: Annotated[int, AtLeast(1)]
    heads: Annotated[int, AtLeast(1)]
    ffn_width: Annotated[int, AtLeast(1)]
    full_layers: tuple[Annotated[int, AtLeast(0)], ...]  # that attend to the whole image; the others to windows
    image_token: Annotated[int, AtLeast(0)] = 151_655
    rope_sections: tuple[Annotated[int, AtLeast(0)], ...] = (16, 24, 24)  # frequencies by frame, row and column
    window: Annotated[int, AtLeast(1)] = 112  # pixels of a side
    patch: Annotated[int, AtLeast(1)] = 14  # likewise
    merge: Annotated[int, AtLeast(1)] = 2  # patches of a side that become one token


@dataclass(frozen=True)
class ModelShape:
    """The decoder that recipes train (its vocabulary is the task's), and what a plan assumes where no weights are."""

    width: Annotated[int, AtLeast(1)]
    layers: Annotated[int, AtLeast(1)]
    heads: Annotated[int, AtLeast(1)]
    kv_heads: Annotated[int, AtLeast(1)]
    head_width: Annotated[int, AtLeast(1)]
    ffn_width: Annotated[int, AtLeast(1)]
    vocab_size: Annotated[int, AtLeast(0)] = 0
    qkv_bias: bool = True
    tied_embedding: bool = False
    context: Annotated[int, AtLeast(0)] = 0  # tokens of prompt and answer; 0: no limit
    vision: TowerShape | None = None


@dataclass(frozen=True)
class Sampling(TokenSampling):
    """How arms are sampled that do not say otherwise."""

    n: Annotated[int, AtLeast(1)] = 128  # answers to a problem
    n_of: dict[str, Annotated[int, AtLeast(1)]] = field(default_factory=dict)  # the same of single benchmarks
    adaptive: Annotated[int, AtLeast(0)] = 0  # answers at first, and n where none of them is right; 0: n everywhere
    max_tokens: Annotated[int, AtLeast(1)] = 16_384  # most tokens of an answer
    allow_beyond_context: bool = False  # else answers end where prompt and answer fill the model's context


def _own_token_sampling() -> type:
    """TokenSampling with fields that are None where an arm says nothing."""
    hints = get_type_hints(TokenSampling, include_extras=True)
    fields = [(name, hints[name] | None, field(default=None)) for name in TOKEN_SAMPLING]
    return dataclasses.make_dataclass("OwnTokenSampling", fields, frozen=True)


OwnTokenSampling = _own_token_sampling()


@dataclass(frozen=True)
class ArmSampling(OwnTokenSampling):
    """Where one arm is sampled otherwise than config.sampling says."""

    match_entropy: str = ""  # the evaluated arm whose token entropy this one's temperature is to reach (v5, Fig. 18)
    match_within: Annotated[float, Interval("(0, inf)")] = 0.01  # nats


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks OpenAI's API and has the weights that are not here. Its key is in the environment only."""

    url: str  # before /chat/completions: https://api.mistral.ai/v1
    model: str  # its name there
    key: str = "OPENAI_API_KEY"  # the environment variable that holds the key; where it is not set, none is sent
    concurrency: Annotated[int, AtLeast(1)] = 8  # requests at a time
    answers: Annotated[int, AtLeast(1)] = 8  # most answers that one request asks for
    retries: Annotated[int, AtLeast(0)] = 8  # of a request, at growing intervals, before the run ends
    seconds: Annotated[float, Interval("(0, inf)")] = 1_800.0  # without a word, after which a request is cut
    prompt_price: Annotated[float, AtLeast(0)] = 0.0  # of a million tokens, in any currency; 0: not known
    answer_price: Annotated[float, AtLeast(0)] = 0.0  # likewise


@dataclass(frozen=True)
class Sharpen:
    """Answers from p^alpha, p the model at temperature 1, by Metropolis-Hastings over suffixes (arXiv 2510.14901)."""

    alpha: Annotated[float, Interval("[1, inf)")] = 4.0  # suffixes are proposed at temperature 1 / alpha
    steps: Annotated[int, AtLeast(1)] = 10  # proposals after each block
    block: Annotated[int, AtLeast(0)] = 0  # tokens that answers may have more after each such steps; 0: all at once


@dataclass(frozen=True)
class Arm:
    """A model to compare: given weights, one of three recipes, the weights of another arm, or an endpoint's."""

    label: str
    group: Annotated[str, GROUPS]
    panel: str = ""  # arms of one panel are compared with its base, on a page of their own
    weights: str = ""  # a folder, a .gguf file or a hub name
    revision: str = ""  # of a hub name
    endpoint: Endpoint | None = None  # a server that is asked, in place of weights
    weights_of: str = ""  # the evaluated arm ("grpo-40") of which this is another view, sampled or asked otherwise
    prompt: str = ""  # a template of tasks/prompts.py; "" with weights_of: that arm's
    prompt_of: dict[str, str] = field(default_factory=dict)  # another template for a benchmark
    stop: tuple[str, ...] = ()  # tokens that end an answer besides those that the model names; of an endpoint strings
    swap_images: bool = False  # a control: asked with another problem's images
    asked_first: Annotated[float, Interval("[0, 1)")] = 0.0  # an audit: so much of a question is asked; 0: all of it
    sampling: ArmSampling = ArmSampling()
    sharpen: Sharpen | None = None  # answers are likelier ones than the model draws, without training
    pretrain: Supervised | None = None
    sft: Supervised | None = None
    rl: Reinforced | None = None
    seeds: Annotated[int, AtLeast(1)] = 1  # training runs of rl, which differ in their random numbers alone

    @property
    def recipe(self) -> Supervised | Reinforced | None:
        """How the weights come about, if they are not given."""
        return self.pretrain or self.sft or self.rl


@dataclass(frozen=True)
class Score:
    """Log-likelihoods of stored answers under the base and the arm itself."""

    answers: Annotated[int, AtLeast(1)] = 16  # answers to a problem; all, where n is less
    tokens: Annotated[int, AtLeast(1)] = 4_096  # at a time on each device
    references: str = ""  # a file of others' answers, {"problem": question or id, "text"} a line, which all arms score


@dataclass(frozen=True)
class Judge:
    """A model that is asked whether the chain of thought behind a right answer is right; weights or an endpoint."""

    weights: str = ""  # a folder, a .gguf file or a hub name
    revision: str = ""  # of a hub name
    endpoint: Endpoint | None = None
    prompt: str = "judge"  # a template of tasks/prompts.py, whose answers end in yes or no
    max_tokens: Annotated[int, AtLeast(1)] = 2_048  # of its reply
    problems: tuple[str, ...] = ()  # ids of those whose right answers it is asked about; (): of all
    longest: Annotated[int, AtLeast(1)] = 32_000  # characters of an answer; of a longer one its chain counts as wrong


@dataclass(frozen=True)
class ReportSettings:
    """What the page shows."""

    k: Annotated[int, AtLeast(0)] = 0  # of Delta_SE = pass@k(base) - pass@1(RL); 0: the paper's 256, or n if less
    every: Annotated[int, AtLeast(0)] = 600  # seconds between interim pages of job=compare; 0: only at the end


@dataclass(frozen=True)
class Grading:
    """Worker processes of the graders that can hang."""

    workers: Annotated[int, AtLeast(0)] = 0  # 0: auto, by the machine's cores
    seconds: Annotated[float, Interval("(0, inf)")] = 10.0  # of CPU time, after which a verdict is TIMEOUT
    grader: str = "math"  # math, visual, exact, or module:function of one's own; Countdown and code have theirs


@dataclass(frozen=True)
class ImagesConfig:
    """Pixels that images of problems are resized to."""

    min_pixels: Annotated[int, AtLeast(0)] = 0  # 0: those of the model folder's preprocessor_config.json, as below
    max_pixels: Annotated[int, AtLeast(0)] = 0


@dataclass(frozen=True)
class Settings:
    """A whole config. Either task (Countdown or composed functions) or benchmarks says what the problems are."""

    name: str = ""  # first folder of a run's place
    job: Annotated[str, OneOf(*JOBS)] = "compare"
    title: str = ""  # of the page, as the two below
    purpose: str = ""
    caveat: str = ""
    seed: Annotated[int, Interval("[0, 4294967295]")] = 0
    target: str = "here"  # the machine of job=plan: h100, a100-80-8, v5e-8, gpu:80GB, cpu, here ...
    runs: str = "runs"  # folder or object store of all runs
    run_dir: str = ""  # folder of this run; "": by its conditions, in runs/name
    data_dir: str = ""  # folder of the benchmarks' files; "": the hub's
    task: CountdownConfig | CompositionConfig | None = None
    benchmarks: tuple[str, ...] = ()  # names of tasks/benchmarks.py, or files of problems
    limit: Annotated[int, AtLeast(0)] = 0  # first problems of each benchmark; 0: all
    allow_rows: tuple[str, ...] = ()  # benchmarks whose files may have more or fewer rows than were published
    model: ModelShape | None = None
    dtype: Annotated[str, OneOf("float32", "bfloat16")] = "float32"
    arms: dict[str, Arm] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    images: ImagesConfig = ImagesConfig()
    grading: Grading = Grading()
    score: Score = Score()
    judge: Judge | None = None  # of chains of thought, asked by job=judge
    report: ReportSettings = ReportSettings()
    training: Training = Training()
    engine: EngineConfig = EngineConfig()
    mesh: MeshConfig | None = None  # None: auto, over all devices of the machine
    hosts: HostsConfig = HostsConfig()
    allow_differ: tuple[Annotated[str, COMPARED], ...] = ()  # conditions in which compared arms may differ
    share_weights: bool = False  # what recipes make is kept in runs/trained, for equal recipes of other configs
    share_samples: bool = True  # what other run folders below runs have drawn alike is copied, not drawn again
    checkpoint_seconds: Annotated[float, AtLeast(0)] = 0.0  # between kept states of training; 0: auto, by their size
    flush_seconds: Annotated[float, AtLeast(0)] = 1.0  # between two writes of samples
    wandb: str = ""  # a Weights & Biases project that training reports to


@dataclass(frozen=True)
class CountsSource:
    """Where counts lie, and which arm is which."""

    path: str = ""  # a CSV with the columns problem, arm, n and correct
    base: str = ""  # "": the first arm of the file
    rl: str = ""  # the arm to tell about first; "": the last of the file
    guess: Annotated[float, Interval("[0, 1]")] = 0.0  # chance that one guess is right; 0: not known


@dataclass(frozen=True)
class CountsSettings:
    """A config of job=counts."""

    job: Annotated[str, OneOf("counts")] = "counts"
    workdir: str = ""  # where the page goes; "": runs/counts/<name of the file>
    title: str = ""  # "": the name of the file
    purpose: str = ""
    caveat: str = ""
    counts: CountsSource = CountsSource()
    report: ReportSettings = ReportSettings()


@dataclass(frozen=True)
class ImportedSettings:
    """A config of samples that others drew: a file, a pattern of files or a folder makes an arm."""

    imported: tuple[str, ...] = ()  # 'base=FILE', 'rl=FILE' and so on; the base is the arm of that name, or the first
    job: Annotated[str, OneOf("imported", "grade", "report", "export")] = "imported"
    workdir: str = ""  # the run folder; "": by the files, in runs/imported
    runs: str = "runs"
    title: str = ""  # "": the arms' names
    purpose: str = ""
    caveat: str = ""
    benchmarks: tuple[str, ...] = ()  # whose references are taken where the files have none; whose tests for programs
    data_dir: str = ""  # folder of the benchmarks' files; "": the hub's
    allow_rows: tuple[str, ...] = ()  # benchmarks whose files may have more or fewer rows than were published
    allow_unknown: tuple[Annotated[str, COMPARED], ...] = ()  # conditions that the files need not record
    allow_differ: tuple[Annotated[str, COMPARED], ...] = ()  # recorded conditions in which arms may differ
    skip_lines: bool = False  # leave out rows that cannot be read, and say which; else they are refused
    grading: Grading = Grading()
    report: ReportSettings = ReportSettings()
