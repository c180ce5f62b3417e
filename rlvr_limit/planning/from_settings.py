"""A config's settings -> the plan of its study on config.target."""

from __future__ import annotations

import dataclasses
from functools import partial

from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning.plan import StudyPlan, make_plan
from rlvr_limit.planning.targets import find_target
from rlvr_limit.planning.updates import recipe_programs
from rlvr_limit.planning.workload import BenchmarkSize, Workload
from rlvr_limit.settings import EngineConfig, Settings, schema
from rlvr_limit.study.arms import expand
from rlvr_limit.tasks import countdown
from rlvr_limit.tasks.benchmarks import BENCHMARKS
from rlvr_limit.types import UserError, not_allowed

PROBLEMS = {benchmark.name: benchmark.problems for benchmark in BENCHMARKS}
"""Problems of each benchmark, as published: a plan reads no data."""

MAX_PROMPT_LEN = 1344
"""Assumed where a config leaves it to the prompts: OlympiadBench's longest, with its template, in Qwen2.5's tokens."""

PROMPT_TOKENS = 128
ANSWER_TOKENS = 1024
"""Assumed means of a prompt and of an answer."""


def plan_of(s: Settings) -> StudyPlan:
    """The plan of a study. Raises UserError for what can be planned nowhere."""
    target, model, engine = find_target(s.target), model_of(s), engine_of(s)
    updates = partial(recipe_programs, s, model, engine)
    return make_plan(model, engine, workload_of(s, model), target, s.mesh, updates, s.hosts.hosts_per_replica)


def model_of(s: Settings) -> ModelConfig:
    """The decoder of the config's shape; of a task with a vocabulary of its own, with that."""
    if s.model is None:
        raise UserError("config.model: a plan reads no weights, so the shape of the decoder must be given here")
    shape = schema.to_jsonable(s.model)
    if s.task:
        shape["vocab_size"] = countdown.tokenizer(s.task).vocab_size
    if not shape["vocab_size"]:
        raise not_allowed("config.model.vocab_size", 0, "the size of a vocabulary")
    return ModelConfig(**shape, dtype=s.dtype)


def engine_of(s: Settings) -> EngineConfig:
    """The engine's shapes, with an assumption where they follow from the prompts."""
    return s.engine if s.engine.max_prompt_len else dataclasses.replace(s.engine, max_prompt_len=MAX_PROMPT_LEN)


def workload_of(s: Settings, model: ModelConfig) -> Workload:
    """The work of the config. Raises UserError for a benchmark whose size is not known."""
    longest = s.sampling.max_tokens
    if model.context and not s.sampling.allow_beyond_context:
        longest = min(longest, model.context - PROMPT_TOKENS)
    if s.task:
        benchmarks = (BenchmarkSize("countdown", s.task.eval_problems, s.sampling.n),)
    else:
        benchmarks = tuple(_benchmark(s, name) for name in s.benchmarks)
    return Workload(
        benchmarks,
        arms=len(expand(s.arms)),
        max_tokens=longest,
        mean_tokens=min(ANSWER_TOKENS, longest),
        prompt_tokens=min(PROMPT_TOKENS, engine_of(s).max_prompt_len),
        scored=s.score.answers,
        score_tokens=s.score.tokens,
    )


def _benchmark(s: Settings, name: str) -> BenchmarkSize:
    if name not in PROBLEMS:
        raise not_allowed("config.benchmarks", name, f"one of {', '.join(PROBLEMS)}, whose sizes a plan knows")
    problems = min(PROBLEMS[name], s.limit) if s.limit else PROBLEMS[name]
    return BenchmarkSize(name, problems, s.sampling.n_of.get(name, s.sampling.n))
