"""A sample is bitwise the same whatever n, order, batch or restarts; other streams draw other numbers."""

from __future__ import annotations

import subprocess
import sys

import jax
import numpy as np
import pytest

from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings
from rlvr_limit.engine import programs
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models.decoder import ModelConfig, init_params, parameter_specs
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import Sample, SamplingParams
from tests.support.smoke import REPOSITORY, environment

MODEL = ModelConfig(vocab_size=24, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=64)
SAMPLING = SamplingParams(1.0, 0.95, 14, (1,))
PROMPTS = [(2, 3, 4), (5, 6, 7, 8, 9, 10), (11, 12), (13, 14, 15, 16, 17)]
NORMAL = EngineConfig(max_num_seqs=64, steps_per_call=4, max_prompt_len=6, prefill_rows=4, prefix_rows=3)


def engine(config: EngineConfig = NORMAL) -> Engine:
    return Engine(init_params(MODEL, jax.random.key(7)), MODEL, config, SAMPLING.max_tokens)


def requests(numbers: list[int], indices: list[int], stream: str = "eval/base") -> list[Request]:
    return [Request(str(i), PROMPTS[i], prompt_key(3, stream, str(i)), tuple(indices), SAMPLING) for i in numbers]


def drawn(engine: Engine, asked: list[Request]) -> dict[tuple[str, int], Sample]:
    samples = list(engine.generate(asked))
    keyed = {(s.problem_id, s.index): s for s in samples}
    assert len(keyed) == len(samples) == sum(len(r.indices) for r in asked)
    return keyed


@pytest.fixture(scope="module")
def shared() -> Engine:
    return engine()


@pytest.fixture(scope="module")
def small(shared: Engine) -> dict[tuple[str, int], Sample]:
    """n = 64 of every problem, in order."""
    return drawn(shared, requests([0, 1, 2, 3], list(range(64))))


def test_samples_do_not_depend_on_n(shared: Engine, small: dict) -> None:
    large = drawn(shared, requests([0, 1, 2, 3], list(range(256))))
    assert all(large[key] == sample for key, sample in small.items())


def test_samples_do_not_depend_on_order_or_batch_mates(shared: Engine, small: dict) -> None:
    shuffled = np.random.default_rng(0).permutation(64).tolist()
    mixed = drawn(shared, requests([3, 1, 0, 2], shuffled))
    assert mixed == small
    alone = drawn(shared, requests([1], [17]))
    assert alone["1", 17] == small["1", 17]


def test_samples_do_not_depend_on_the_engine_they_were_drawn_by(small: dict) -> None:
    assert drawn(engine(), requests([2, 0], list(range(5, 40)))).items() <= small.items()


@pytest.mark.slow  # tests/evaluation/test_survival.py holds it by default: its samples are drawn by other processes
def test_samples_are_the_same_after_a_restart(small: dict) -> None:
    code = (
        "from tests.engine.test_sampler_promises import *\n"
        "print(sorted(drawn(engine(), requests([1, 2], list(range(20, 30)))).items()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {(str(p), i): small[str(p), i] for p in (1, 2) for i in range(20, 30)}
    assert done.stdout.strip() == str(sorted(expected.items()))


@pytest.mark.parametrize("max_num_seqs", [8, pytest.param(130, marks=pytest.mark.slow)])
def test_reference_mode_does_not_depend_on_max_num_seqs(max_num_seqs: int) -> None:
    def config(n: int) -> EngineConfig:
        return EngineConfig(
            max_num_seqs=n, steps_per_call=4, max_prompt_len=6, prefill_rows=4, prefix_rows=3, reference=True
        )

    asked = requests([0, 1, 2, 3], list(range(40)))
    assert drawn(engine(config(max_num_seqs)), asked) == drawn(engine(config(64)), asked)


def test_other_arms_and_training_steps_draw_other_numbers() -> None:
    streams = ["eval/base", "eval/grpo-4", "train/grpo/1", "train/grpo/2"]
    keys = {prompt_key(3, stream, "prompt") for stream in streams} | {prompt_key(3, "eval/base", "another")}
    keys |= {prompt_key(4, "eval/base", "prompt")}
    assert len(keys) == 6


def test_other_streams_give_other_samples(shared: Engine, small: dict) -> None:
    other = drawn(shared, requests([0, 1, 2, 3], list(range(64)), stream="eval/other"))
    assert sum(other[key].logp == sample.logp for key, sample in small.items()) < 0.05 * len(small)


def compiled() -> tuple[int, int]:
    """Programs that engines of this process have compiled so far."""
    return programs.decode_window._cache_size(), programs.prefill._cache_size()


def test_new_weights_compile_nothing(shared: Engine, small: dict) -> None:
    before = compiled()
    shared.load(jax.tree.map(lambda x: x * 1.5, init_params(MODEL, jax.random.key(8))))
    drawn(shared, requests([0], [0]))
    shared.load(init_params(MODEL, jax.random.key(7)))
    assert compiled() == before


def test_weights_on_a_mesh_compile_each_program_once() -> None:
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = jax.device_put(init_params(MODEL, jax.random.key(7)), parameter_shardings(parameter_specs(MODEL), mesh))
    sharded = Engine(spread, MODEL, NORMAL, SAMPLING.max_tokens)
    before = compiled()
    drawn(sharded, requests([0, 1, 2, 3], list(range(40))))
    drawn(sharded, requests([3], [0]))
    assert [now - then for now, then in zip(compiled(), before, strict=True)] == [1, 1]
