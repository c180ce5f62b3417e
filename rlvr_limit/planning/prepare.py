"""From settings to a Study in shapes that fit: what is wanted, checks, every arm's problems, the run folder.

wanted_by says what is to fit by a run's own problems and weights, assumed what a plan without them takes it to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import jax

from rlvr_limit.distributed import joining
from rlvr_limit.distributed.compiled import RUNS, keep_compiled
from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.engine.shapes import by_default
from rlvr_limit.models.decoder import ModelConfig, parameter_count, shaped_as
from rlvr_limit.planning import fitting
from rlvr_limit.planning.fitting import FittedShapes, Wanted
from rlvr_limit.planning.targets import find_target
from rlvr_limit.planning.updates import TrainedArm
from rlvr_limit.planning.workload import BenchmarkSize, ImageSizes, Workload
from rlvr_limit.records.storage import Place, is_url, place
from rlvr_limit.settings import EngineConfig, ImportedSettings, MeshConfig, Reinforced, Settings, schema
from rlvr_limit.study import comparability, recipes, run_folder
from rlvr_limit.study.arms import expand, origin, views_asked_as_lenders, with_runs
from rlvr_limit.study.checks import check
from rlvr_limit.study.imported import open_imported
from rlvr_limit.study.prepared import Setup, Study, answer_limit, benchmark_of
from rlvr_limit.study.setups import composed, task_and_setups
from rlvr_limit.tasks import composition, countdown, references
from rlvr_limit.tasks.benchmarks import BENCHMARKS
from rlvr_limit.types import UserError, not_allowed

WITHOUT_DEVICES = ("report", "grade", "export")
"""Jobs that compute nothing on a device: nothing has to fit, and the shapes told are those of the records."""

PROBLEMS = {benchmark.name: benchmark.problems for benchmark in BENCHMARKS}
"""Problems of each benchmark, as published: a plan for another machine reads no data."""

MAX_PROMPT_LEN = 1344
"""Assumed where a config leaves it to the prompts: OlympiadBench's longest, with its template, in Qwen2.5's tokens."""

LONGER_PROMPTS = {"math_train": 1728}
"""The same of files that have longer ones. LiveCodeBench was not at hand to be counted."""

PROMPT_TOKENS = 128
ANSWER_TOKENS = 1024
"""Assumed means of a prompt and of an answer."""

IMAGE_PATCHES = 2_968
"""Assumed mean of an image: those of MathVista's 460 questions under the pixel limits of the hub's file."""

MAX_PIXELS = 12_845_056
"""Of an image, by that file."""

PROMPT_MULTIPLE = 64
"""max_prompt_len is rounded up to a multiple of this where a config leaves it to the prompts."""


def prepare(s: Settings | ImportedSettings) -> Study:
    """Checks settings, makes or opens their run folder and lays out the problems. Raises UserError, one line."""
    if isinstance(s, ImportedSettings):
        jax.config.update("jax_platforms", "cpu")
        return open_imported(s)
    s = dataclasses.replace(s, arms=with_runs(s.arms))
    check(s)
    needs_none = s.job in WITHOUT_DEVICES or all(arm.endpoint for arm in s.arms.values())
    if needs_none:
        # A page is drawn at any moment, also while a run holds the accelerators.
        jax.config.update("jax_platforms", "cpu")
    platforms = jax.config.jax_platforms
    if platforms and "cpu" not in platforms.split(","):
        raise UserError(f"JAX_PLATFORMS is {platforms!r}, but curves need the CPU too: set it to '{platforms},cpu'")
    s = dataclasses.replace(s, arms=views_asked_as_lenders(s.arms))
    here = joining.start(s.hosts)
    keep_compiled(RUNS if is_url(s.runs) else Path(s.runs))
    matched = [name for name, arm in s.arms.items() if arm.sampling.match_entropy]
    if matched and here.count > 1:
        raise UserError(f"config.arms.{matched[0]}.sampling.match_entropy: works on one host, not on {here.count}")
    there = [name for name, arm in s.arms.items() if arm.endpoint]
    if there and (here.count > 1 or is_url(s.run_dir or s.runs)):
        raise UserError(f"config.arms.{there[0]}.endpoint: works on one host, with a run folder on its own disk")
    task, setups = task_and_setups(s)
    if s.score.references:
        references.load(s.score.references, next(iter(setups.values())).problems)
    conditions = run_folder.conditions(s, task, setups)
    root = place(s.run_dir) if s.run_dir else place(s.runs) / s.name / schema.digest(conditions)
    here.check_started_alike({**run_folder.code_and_versions(), **conditions, "run folder": str(root)})
    shapes = _shapes(s, setups, root, here)
    s = fitted(s, shapes)
    devices = MeshConfig() if needs_none else s.mesh
    mesh = make_mesh(devices, here.replica_hosts if here.hosts_per_replica > 1 else ())
    study = Study(s, root, mesh, s.engine, task, setups, here)
    for entries in study.panels.values():
        comparability.differences(study, entries)
    if here.is_first:
        run_folder.open_folder(study, conditions, schema.to_jsonable(shapes))
    here.wait("prepare")
    return study


def _shapes(s: Settings, setups: dict[str, Setup], root: Place, here: Hosts) -> FittedShapes:
    """The shapes of a run, as host 0 chooses them: those that its folder was begun with, where they fit here."""
    local = {name: setup for name, setup in setups.items() if setup.model}
    last = run_folder.last_shapes(root)
    before = schema.from_config(FittedShapes, last) if last else None
    wanted = wanted_by(s, local) if local else None
    if s.job in WITHOUT_DEVICES or not wanted:
        engine = by_default(wanted.engine if wanted else s.engine)
        plain = FittedShapes(MeshConfig(), engine, s.training, s.grading.workers or 2, 0.0, 0, 0, 0)
        return before or plain
    machine = find_target("here")
    if before and _is_as_wanted(before, wanted) and before.fits(machine):
        chosen = before
    else:
        chosen = fitting.fit(wanted, machine)
    chosen = schema.from_config(FittedShapes, here.broadcast_from_first(schema.to_jsonable(chosen)))
    if here.is_first:
        print("\n".join(fitting.describe(chosen, machine)), flush=True)
        if before and (before.engine, before.mesh) != (chosen.engine, chosen.mesh):
            print("other shapes than this folder was begun with: samples agree with earlier ones within rounding")
    return chosen


def _is_as_wanted(shapes: FittedShapes, wanted: fitting.Wanted) -> bool:
    """Whether shapes of an earlier session are what the config sets by hand, and large enough for its prompts."""
    mine, theirs = wanted.engine, shapes.engine
    by_hand = [
        (getattr(mine, field.name), getattr(theirs, field.name))
        for field in dataclasses.fields(mine)
        if getattr(mine, field.name) or field.name == "reference"
    ]
    by_hand += [(wanted.mesh, shapes.mesh)] if wanted.mesh else []
    by_hand += [(wanted.training.tokens, shapes.training.tokens)] if wanted.training.tokens else []
    by_hand += [(wanted.training.remat, shapes.training.remat)] if wanted.training.remat else []
    by_hand += [(wanted.workers, shapes.workers)] if wanted.workers else []
    by_hand += [(wanted.checkpoint_seconds, shapes.checkpoint_seconds)] if wanted.checkpoint_seconds else []
    return all(own == before for own, before in by_hand)


def wanted_by(s: Settings, setups: Mapping[str, Setup]) -> Wanted:
    """What a run of these setups needs, by its own prompts and decoders."""
    model = max((setup.model for setup in setups.values()), key=parameter_count)
    sizes: dict[str, int] = {}
    for problem in next(iter(setups.values())).problems:
        sizes[benchmark_of(problem.id)] = sizes.get(benchmark_of(problem.id), 0) + 1
    limits = [answer_limit(setup.sampling, setup.model, p) for setup in setups.values() for p in setup.problems]
    prompts = [len(p.prompt_ids) for setup in setups.values() for p in setup.problems]
    engine = s.engine
    if not engine.max_prompt_len:
        asked = (p for each in setups.values() for p in (*each.problems, *each.training, *each.lessons))
        longest = max(len(p.prompt_ids) for p in asked)
        engine = dataclasses.replace(engine, max_prompt_len=-(-longest // PROMPT_MULTIPLE) * PROMPT_MULTIPLE)
    benchmarks = tuple(BenchmarkSize(name, count, _n(s, name)) for name, count in sizes.items())
    problems = next(iter(setups.values())).problems
    patches = [image.grid[1] * image.grid[2] for problem in problems for image in problem.images]
    images = ImageSizes(len(patches) / len(problems), mean(patches), max(patches)) if patches else None
    return _wanted(s, model, engine, benchmarks, max(limits), round(mean(prompts)), images)


def are_files_here(s: Settings) -> bool:
    """Whether the problems and every arm's tokenizer are given as files: the hub is not asked for another machine."""
    return bool(s.data_dir) and all(Path(origin(s.arms, name).weights).exists() for name in s.arms)


def assumed(s: Settings) -> Wanted:
    """The same without data and weights, for another machine. Raises UserError for what can be planned nowhere."""
    model, longest = model_of(s), s.sampling.max_tokens
    if model.context and not s.sampling.allow_beyond_context:
        longest = min(longest, model.context - PROMPT_TOKENS)
    learnt = (name for arm in s.arms.values() if arm.recipe and not arm.weights for name in arm.recipe.data)
    longest_prompt = max(LONGER_PROMPTS.get(name, MAX_PROMPT_LEN) for name in (*s.benchmarks, *learnt, ""))
    vision, image = model.vision, 0
    if vision:
        image = (s.images.max_pixels or MAX_PIXELS) // (vision.patch * vision.merge) ** 2
        longest_prompt += image
    engine = dataclasses.replace(s.engine, max_prompt_len=s.engine.max_prompt_len or longest_prompt)
    if s.task:
        names = [f"depth{depth}" for depth in s.task.depths] if composed(s) else ["countdown"]
        benchmarks = tuple(BenchmarkSize(name, s.task.eval_problems, s.sampling.n) for name in names)
    else:
        benchmarks = tuple(_benchmark(s, name) for name in s.benchmarks)
    prompt, images = PROMPT_TOKENS, None
    if vision:
        most = min(image, engine.max_prompt_len) * vision.merge**2
        images = ImageSizes(1, min(IMAGE_PATCHES, most), most)
        prompt += int(images.mean) // vision.merge**2
    return _wanted(s, model, engine, benchmarks, longest, min(prompt, engine.max_prompt_len), images)


def fitted(s: Settings, shapes: FittedShapes) -> Settings:
    """The settings with the shapes that were chosen for them."""
    return dataclasses.replace(
        s,
        mesh=shapes.mesh,
        engine=shapes.engine,
        training=shapes.training,
        grading=dataclasses.replace(s.grading, workers=shapes.workers),
        checkpoint_seconds=shapes.checkpoint_seconds,
    )


def model_of(s: Settings) -> ModelConfig:
    """The decoder of the config's shape; of a task with a vocabulary of its own, with that."""
    if s.model is None:
        raise UserError("config.model: a plan reads no weights, so the shape of the decoder must be given here")
    family = composition if composed(s) else countdown
    vocab_size = family.tokenizer(s.task).vocab_size if s.task else s.model.vocab_size
    if not vocab_size:
        raise not_allowed("config.model.vocab_size", 0, "the size of a vocabulary")
    return shaped_as(s.model, vocab_size, s.dtype)


def _wanted(
    s: Settings,
    model: ModelConfig,
    engine: EngineConfig,
    benchmarks: tuple[BenchmarkSize, ...],
    longest: int,
    prompt_tokens: int,
    images: ImageSizes | None = None,
) -> Wanted:
    trained = tuple(
        TrainedArm(name, arm.recipe, recipes.answer_len(arm.recipe, s.sampling))
        for name, arm in s.arms.items()
        if arm.recipe and not arm.weights
    )
    reinforced = [arm for arm in trained if isinstance(arm.recipe, Reinforced)]
    rollouts = [arm.recipe.prompts * arm.recipe.answers for arm in reinforced]
    longest = max([longest, *(arm.answer_len for arm in reinforced)])
    workload = Workload(
        benchmarks,
        arms=len(expand(s.arms)),
        max_tokens=longest,
        mean_tokens=min(ANSWER_TOKENS, longest),
        prompt_tokens=prompt_tokens,
        images=images,
        scored=s.score.answers,
        score_tokens=s.score.tokens,
        rollout=max(rollouts, default=0),
    )
    return Wanted(
        model,
        engine,
        workload,
        s.mesh,
        s.training,
        trained,
        s.hosts.hosts_per_replica,
        s.grading.workers,
        s.checkpoint_seconds,
    )


def _n(s: Settings, name: str) -> int:
    return s.sampling.n_of.get(name, s.sampling.n)


def _benchmark(s: Settings, name: str) -> BenchmarkSize:
    if name not in PROBLEMS:
        raise not_allowed("config.benchmarks", name, f"one of {', '.join(PROBLEMS)}, whose sizes a plan knows")
    problems = min(PROBLEMS[name], s.limit) if s.limit else PROBLEMS[name]
    return BenchmarkSize(name, problems, _n(s, name))
