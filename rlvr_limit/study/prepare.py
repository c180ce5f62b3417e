"""From a config to an Study: checks it, asks every arm's problems in its own way, opens the run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import logging
import platform
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rlvr_limit import checkpoint, records
from rlvr_limit.distributed import joining
from rlvr_limit.distributed.mesh import machine, make_mesh
from rlvr_limit.grading import countdown as countdown_grading
from rlvr_limit.grading.code import grade as code_grading
from rlvr_limit.grading.named import grader_named
from rlvr_limit.grading.sandbox.run import SandboxError, warn_of_missing_protection
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.records.storage import is_url, place
from rlvr_limit.rl.reward_functions import reward_named, source_digest
from rlvr_limit.settings import Arm, EngineConfig, Settings, schema
from rlvr_limit.study import conditions
from rlvr_limit.study.arms import origin, sampling_of, views_asked_as_lenders
from rlvr_limit.study.checks import check
from rlvr_limit.study.prepared import Setup, Study, Task, answer_limit, benchmark_of
from rlvr_limit.tasks import benchmarks, countdown, demonstrations, prompts, references
from rlvr_limit.tasks.questions import Question
from rlvr_limit.tokenizer import TextTokenizer, load_tokenizer
from rlvr_limit.types import Problem, UserError

STREAMS = "weights"
"""What samples' random numbers derive from: the arm's weights. A folder where they derive from its name is refused."""

PLACES = 64
"""Prompt places are rounded up to a multiple of this where a config leaves them to the prompts."""


def prepare(s: Settings) -> Study:
    """Checks settings, makes or opens its run folder and lays out the problems. Raises UserError, one line."""
    check(s)
    platforms = jax.config.jax_platforms
    if platforms and "cpu" not in platforms.split(","):
        raise UserError(f"JAX_PLATFORMS is {platforms!r}, but curves need the CPU too: set it to '{platforms},cpu'")
    s = dataclasses.replace(s, arms=views_asked_as_lenders(s.arms))
    here = joining.start(s.hosts)
    # What was compiled fits this machine only, and is read often.
    compiled = (Path("runs") if is_url(s.runs) else Path(s.runs)) / ".compiled"
    jax.config.update("jax_compilation_cache_dir", str(compiled.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    matched = [name for name, arm in s.arms.items() if arm.sampling.match_entropy]
    if matched and here.count > 1:
        raise UserError(f"config.arms.{matched[0]}.sampling.match_entropy: found on {here.count} hosts, 1 is right")
    task, setups = _countdown(s) if s.task else _benchmarks(s)
    for name, setup in setups.items():
        _check_prompts(s, name, setup)
    if s.score.references:
        references.load(s.score.references, next(iter(setups.values())).problems)
    decisive = _conditions(s, task, setups)
    root = place(s.run_dir) if s.run_dir else place(s.runs) / s.name / schema.digest(decisive)
    here.check_started_alike({"code": _code(), **_versions(), **decisive, "run folder": str(root)})
    mesh = make_mesh(s.mesh, here.replica_hosts if here.hosts_per_replica > 1 else ())
    study = Study(s, root, mesh, _engine(s, setups), task, setups, here)
    for entries in study.panels.values():
        conditions.differences(study, entries)
    if here.is_first:
        records.open_run(root, decisive, _info(s))
        _store_prompts(study)
    here.wait("prepare")
    return study


def prompt_sha256(problem: Problem) -> str:
    """Identity of a rendered prompt."""
    return hashlib.sha256(problem.prompt.encode()).hexdigest()


def _countdown(s: Settings) -> tuple[Task, dict[str, Setup]]:
    game = countdown.Game(s.task)
    problems, training = countdown.problems(game, s.seed)
    words = countdown.tokenizer(s.task)
    shape = schema.to_jsonable(s.model) | {"vocab_size": words.vocab_size}
    vocabulary = schema.digest(words.backend.to_str())
    setup = Setup(
        ModelConfig(**shape, dtype=s.dtype),
        words,
        vocabulary,
        _benchmark_digest(problems),
        "countdown",
        tuple(problems),
        (words.eos_id,),
        s.sampling,
        training=tuple(training),
        lessons=tuple(training),
    )
    task = Task(
        countdown_grading.grade,
        countdown_grading.VERSION,
        inline=True,
        demonstrate=partial(countdown.demonstrations, game),
    )
    return task, {
        name: dataclasses.replace(setup, sampling=sampling_of(s.sampling, arm)) for name, arm in s.arms.items()
    }


def _benchmarks(s: Settings) -> tuple[Task, dict[str, Setup]]:
    questions, notes = [], []
    for name in s.benchmarks:
        found, note = benchmarks.load(name, s.data_dir, s.seed)
        questions += found[: s.limit or None]
        notes += [note] if note else []
    benchmark = _benchmark_digest(questions)
    setups = {name: _setup(s, name, arm, questions, benchmark) for name, arm in s.arms.items()}
    if any(q.is_code for q in questions):
        return _code_task(s, questions), setups
    named = grader_named(s.grading.grader)
    return Task(named.grade, named.version, inline=False, shorten=named.shorten, notes=tuple(notes)), setups


def _code_task(s: Settings, questions: list[Question]) -> Task:
    if not all(q.is_code for q in questions):
        raise UserError(f"config.benchmarks: {', '.join(s.benchmarks)} mix code and mathematics, one of them is right")
    try:
        warn_of_missing_protection()
    except SandboxError as error:
        raise UserError(str(error)) from error
    return Task(code_grading.grade, code_grading.VERSION, inline=False, shorten=code_grading.shorten)


def _benchmark_digest(questions: Iterable[Problem | Question]) -> str:
    return schema.digest([[q.id, str(q.answer)] for q in questions])


def _setup(s: Settings, name: str, arm: Arm, questions: list[Question], benchmark: str) -> Setup:
    """An arm that is trained here is asked as it says itself, with the tokenizer of the weights it starts from."""
    given = origin(s.arms, name)
    folder = checkpoint.resolve(given.weights, given.revision, with_weights=False)
    model = checkpoint.read_model_config(folder, s.dtype)
    words = load_tokenizer(folder)
    checkpoint.check_vocabulary(model, words.vocab_size, f"config.arms.{name}")
    problems = [_asked(arm, q, words) for q in questions]
    stops = tuple(dict.fromkeys((*checkpoint.stop_tokens(folder), *(words.token_id(text) for text in arm.stop))))
    if not stops:
        raise UserError(f"config.arms.{name}.stop: {given.weights} names no token that ends an answer; give one here")
    variant = f"{arm.prompt}-{schema.digest([[p.id, p.prompt, p.prompt_ids] for p in problems])}"
    vocabulary = schema.digest(words.backend.to_str())
    words = dataclasses.replace(words, stop_ids=stops)
    lessons, sampling = _lessons(s, arm, words), sampling_of(s.sampling, arm)
    return Setup(model, words, vocabulary, benchmark, variant, tuple(problems), stops, sampling, folder, **lessons)


def _asked(arm: Arm, q: Question, words: TextTokenizer) -> Problem:
    template = arm.prompt_of.get(benchmark_of(q.id), arm.prompt)
    prompt = prompts.render(template, q.question, words, q.starter_code)
    return Problem(q.id, q.question, prompt, words.encode(prompt), q.answer)


def _lessons(s: Settings, arm: Arm, words: TextTokenizer) -> dict[str, Any]:
    """What an arm that is trained here learns from: the fields training, lessons or shown of its setup."""
    if arm.weights or arm.weights_of:
        return {}
    if arm.sft and not arm.sft.teacher:
        pairs = [pair for path in arm.sft.data for pair in demonstrations.load(path)]
        end = words.stop_ids[0]
        return {"shown": tuple((words.encode(asked), (*words.encode(reply), end)) for asked, reply in pairs)}
    questions = [q for name in arm.recipe.data for q in benchmarks.load(name, s.data_dir, s.seed)[0]]
    found = {"training": tuple(_asked(arm, q, words) for q in questions)}
    if arm.sft:
        teacher, given = s.arms[arm.sft.teacher], origin(s.arms, arm.sft.teacher)
        folder = checkpoint.resolve(given.weights, given.revision, with_weights=False)
        known = load_tokenizer(folder)
        found["lessons"] = tuple(_asked(teacher, q, known) for q in questions)
    return found


def _check_prompts(s: Settings, name: str, setup: Setup) -> None:
    """Two problems with one prompt would draw the same samples; a prompt must leave room for an answer."""
    by_prompt: dict[str, Problem] = {}
    capped = 0
    for problem in setup.problems:
        twin = by_prompt.setdefault(problem.prompt, problem)
        if twin is not problem:
            raise UserError(f"problems {twin.id} and {problem.id} have the same prompt; give one of them only")
        room = answer_limit(s.sampling, setup.model, problem)
        if room < 1:
            raise UserError(
                f"problem {problem.id}: its prompt has {len(problem.prompt_ids)} tokens for arm {name}, whose context "
                f"is {setup.model.context}; a shorter prompt, or sampling.allow_beyond_context=True, would be right"
            )
        capped += room < s.sampling.max_tokens
    if capped:
        logging.warning(
            "arm %s: a context of %d tokens leaves %d of %d problems less than the %d new tokens asked for",
            name,
            setup.model.context,
            capped,
            len(setup.problems),
            s.sampling.max_tokens,
        )


def _engine(s: Settings, setups: dict[str, Setup]) -> EngineConfig:
    """max_prompt_len = 0 means: as many as the longest prompt of any arm needs."""
    if s.engine.max_prompt_len:
        return s.engine
    asked = (p for each in setups.values() for p in (*each.problems, *each.training, *each.lessons))
    longest = max(len(p.prompt_ids) for p in asked)
    return dataclasses.replace(s.engine, max_prompt_len=-(-longest // PLACES) * PLACES)


def _conditions(s: Settings, task: Task, setups: dict[str, Setup]) -> dict[str, Any]:
    """All that decides what a sample is; n may grow, and how many are scored may change, in the same folder."""
    free = {"job", "target", "title", "purpose", "caveat", "runs", "run_dir", "data_dir", "grading", "score", "report"}
    free |= {"checkpoint_seconds", "flush_seconds", "wandb", "hosts", "allow_differ", "share_weights"}
    found = {name: value for name, value in schema.to_jsonable(s).items() if name not in free}
    if s.hosts.hosts_per_replica > 1:
        found["hosts_per_replica"] = s.hosts.hosts_per_replica
    for allowed in ("n", "n_of", "adaptive"):
        del found["sampling"][allowed]
    found["engine"] = conditions.decisive(s.engine)
    asked = {
        name: {
            "prompts": setup.variant,
            "prompts_sha256": hashlib.sha256("\n".join(p.prompt for p in setup.problems).encode()).hexdigest(),
            "stop_tokens": list(setup.stop_tokens),
            "model": schema.to_jsonable(setup.model),
            "shortest_limit": min(answer_limit(s.sampling, setup.model, p) for p in setup.problems),
            **({"learns_from": _lesson_sha256(setup)} if setup.folder and (setup.training or setup.shown) else {}),
        }
        for name, setup in setups.items()
    }
    return found | {"asked": asked, "notes": list(task.notes), "streams": STREAMS} | _rewards(s)


def _lesson_sha256(setup: Setup) -> str:
    lessons = [[p.prompt_ids, str(p.answer)] for p in setup.training] + [list(pair) for pair in setup.shown]
    return schema.digest(lessons)


def _rewards(s: Settings) -> dict[str, Any]:
    """The source of reward functions of one's own, where an arm is trained on one. UserError where there is none."""
    named = {name: arm.rl.reward for name, arm in s.arms.items() if arm.rl and not arm.weights}
    found = {name: reward_named(reward, f"config.arms.{name}.rl.reward") for name, reward in named.items()}
    digests = {name: source_digest(reward) for name, reward in found.items() if reward}
    return {"rewards": digests} if digests else {}


def _code() -> str:
    """Digest of the package's sources: hosts that run other ones would not draw the same samples."""
    root = Path(__file__).resolve().parents[2]
    sources = sorted(path for name in ("rlvr_limit", "kernels") for path in (root / name).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _versions() -> dict[str, str]:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow", "math-verify", "tokenizers")
    return {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages}


def _info(s: Settings) -> dict[str, Any]:
    return {
        "config": schema.to_jsonable(s),
        "versions": _versions(),
        "device": machine(),
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def _store_prompts(study: Study) -> None:
    there = records.read(study.root, "prompts", columns=["variant", "problem_id"]).to_pylist()
    have = {(row["variant"], row["problem_id"]) for row in there}
    with records.Writer(study.root, "prompts") as writer:
        for setup in {setup.variant: setup for setup in study.setups.values()}.values():
            writer.append(
                [
                    {
                        "variant": setup.variant,
                        "problem_id": p.id,
                        "benchmark": benchmark_of(p.id),
                        "question": p.question,
                        "prompt": p.prompt,
                        "prompt_ids": list(p.prompt_ids),
                        "prompt_sha256": prompt_sha256(p),
                        "answer": p.answer if isinstance(p.answer, str) else str(p.answer),
                        "guess_rate": p.guess_rate,
                    }
                    for p in setup.problems
                    if (setup.variant, p.id) not in have
                ]
            )
