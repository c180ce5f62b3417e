"""A plan's arithmetic against hand calculations, and its programs compiled for the CPU and lowered for the others."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from rlvr_limit import planning
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings
from rlvr_limit.engine import programs as device
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request
from rlvr_limit.models.decoder import init_params, parameter_specs
from rlvr_limit.planning import compiling, fitting, prepare, programs, roofline
from rlvr_limit.planning.fitting import Wanted
from rlvr_limit.planning.plan import token_cost
from rlvr_limit.settings import MeshConfig
from rlvr_limit.types import SamplingParams
from tests.support import hlo
from tests.support.plans import NUM_SEQS, QWEN_7B, QWEN_32B, STUDY, TINY, case
from tests.support.studies import settings_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SMALL_CPU = dataclasses.replace(planning.find_target("cpu"), memory=10**9, process=0.0)


@pytest.fixture(scope="module")
def cpu_plan() -> planning.StudyPlan:
    return planning.make_plan(Wanted(TINY, NUM_SEQS, STUDY, MeshConfig(tensor=2)), SMALL_CPU)


def given(case: fitting.FitCase, tokens: int) -> fitting.FitCase:
    """The case with a cache of so many tokens."""
    return case._replace(engine=dataclasses.replace(case.engine, cache_tokens=tokens))


def test_parameter_bytes_are_those_of_the_released_checkpoints() -> None:
    """total_size in the checkpoints' index files: every tensor counted, nothing padded."""
    for model, size in ((QWEN_7B, 15_231_233_024), (QWEN_32B, 65_527_752_704)):
        assert case(model, MeshConfig(), 0).weight_bytes == size


def test_parameter_bytes_are_the_sum_of_the_specs(cpu_plan: planning.StudyPlan) -> None:
    specs = jax.tree.leaves(parameter_specs(TINY), is_leaf=lambda x: hasattr(x, "axes"))
    assert cpu_plan.parameter_bytes == 4 * sum(math.prod(spec.shape) for spec in specs)
    norms = 4 * TINY.width * (2 * TINY.layers + 1)
    assert cpu_plan.case.weight_bytes == (cpu_plan.parameter_bytes - norms) // 2 + norms


def test_a_token_of_qwen_7b_takes_57344_bytes_of_cache_cut_over_its_key_heads() -> None:
    alone = case(QWEN_7B, MeshConfig(), 0)
    assert alone.page_bytes == 57_344 * 32 and alone.seq_pages == 512
    assert case(QWEN_7B, MeshConfig(data=2, tensor=4), 0).page_bytes == 57_344 * 32 / 4


def test_the_cache_has_room_for_every_longest_answer_and_for_prompts() -> None:
    """16 sequences of 512 pages and one that each is at; 17 prompts of 512 tokens; the page that nobody reads."""
    assert case(QWEN_7B, MeshConfig(), 0).cache_bytes == 57_344 * 32 * (16 * (512 + 1) + 17 * 16 + 1)


def test_a_cache_of_given_tokens_takes_those_whatever_the_sequences() -> None:
    some = given(case(QWEN_7B, MeshConfig(), 10**12), 1_000_000)
    assert some.sizes.pages == 1_000_000 // 32 and some.cache_bytes == 57_344 * 1_000_000


def test_samples_that_pages_hold_are_counted_with_their_prompts() -> None:
    """2 problems x 2 shards, 100 answers each: a shard's 1,000 pages hold samples of 10 pages, prompts of 4 pages."""
    study = planning.Workload((planning.BenchmarkSize("a", 4, 100),), 1, 16_384, 320, 128)
    some = given(case(QWEN_7B, MeshConfig(data=2, tensor=4), 0)._replace(workload=study), 2 * 32 * 1001)
    held = some.held(320)
    taken = lambda samples: 10 * samples // 2 + 4 * math.ceil(samples / 100)  # noqa: E731
    assert taken(held) <= 1000 < taken(held + 2)
    assert given(some, 2 * 32 * 500).held(16_384) == 0


def test_decoder_of_qwen_7b_by_hand() -> None:
    """28 layers of q, k, v, o, three products of the ffn, norms and biases; then the last norm and the unembedding."""
    d, f, n, k, h, v = 3584, 18_944, 28, 4, 128, 152_064
    layer = 2 * d * n * h + 2 * d * k * h + 3 * d * f + 2 * d + (n + 2 * k) * h
    matmul = 28 * layer + d + d * v
    found = token_cost(QWEN_7B, case(QWEN_7B, MeshConfig(data=2, tensor=4), 0).sizes)
    assert found == roofline.TokenCost(matmul, 2 * matmul, 57_344, 4 * 28 * n * h)


def test_step_time_equals_a_hand_calculation() -> None:
    """4 devices: 2 replicas of 2. Each device: 3 rows x (2 x 500 + 10 x 7 FLOP); 1000 bytes of weights, and 2.5 for
    each of 3 x 6 own tokens and 2 x 4 of the prompts."""
    decoder = roofline.TokenCost(matmul_params=1000, weight_bytes=2000, kv_bytes=5, attention_flops=14)
    machine = roofline.MachineRates(replicas=2, weight_shards=2, kv_shards=2, bandwidth=50.0, flops=100.0)
    batch = roofline.LiveBatch(rows=6, prompts=2, shared=4, own=6)
    seconds = (3 * (1000 + 70)) / 100 + (1000 + 2.5 * (18 + 8)) / 50
    assert roofline.step_seconds(decoder, machine, batch) == pytest.approx(seconds, rel=1e-12)
    assert roofline.tokens_per_second(decoder, machine, batch) == pytest.approx(6 / seconds, rel=1e-12)
    assert roofline.scoring_seconds(decoder, machine, 4, 10) == pytest.approx(4 * 10 * (2000 + 140) / 400, rel=1e-12)


def test_a_replica_reads_no_more_prompts_than_it_has_samples() -> None:
    decoder, machine = roofline.TokenCost(0, 0, 1, 0), roofline.MachineRates(2, 1, 1, 1.0, 1.0)
    assert roofline.step_seconds(decoder, machine, roofline.LiveBatch(6, 6, 10, 0)) == 3 * 10


def test_roofline_of_qwen_7b_on_an_h200_is_the_published_one() -> None:
    """17.9 us of products and 13.3 ns a token of context, at 4.3 TB/s and 790 TFLOP/s, with ever more samples."""
    target = planning.find_target("h200")
    machine = roofline.MachineRates(1, 1, 1, target.bandwidth, target.flops)
    decoder = token_cost(QWEN_7B, case(QWEN_7B, MeshConfig(), 0).sizes)
    at_0 = 1 / roofline.tokens_per_second(decoder, machine, roofline.LiveBatch(10**9, 0, 0, 0))
    assert at_0 == pytest.approx(17.9e-6, rel=2e-3)
    read = roofline.TokenCost(0, 0, decoder.kv_bytes, 0)
    assert roofline.step_seconds(read, machine, roofline.LiveBatch(1, 0, 0, 1)) == pytest.approx(13.3e-9, rel=3e-3)
    batch = roofline.LiveBatch(1600, 0, 0, 2048)
    assert roofline.tokens_per_second(decoder, machine, batch) == pytest.approx(21_500, rel=0.04)


def test_answers_and_scorings_are_counted() -> None:
    assert STUDY.answers == 2 * (10 * 4 + 5 * 8)
    # The base's under the base, the other's under the base and under itself: 3 x 2 of each of 15 problems.
    assert STUDY.scorings == 3 * 2 * 15


@pytest.mark.parametrize("shape", [pytest.param((1, 1), marks=pytest.mark.slow), (2, 2)])
def test_windows_are_planned_with_the_shapes_and_places_that_the_engine_sends(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Window, prefill, and what moves pages; one sample is set back for want of pages."""
    config = dataclasses.replace(NUM_SEQS, max_num_seqs=4, cache_tokens=shape[0] * 16 * 5, buckets=(2,))
    mesh = make_mesh(MeshConfig(data=shape[0], tensor=shape[1]))
    params = jax.device_put(init_params(TINY, jax.random.key(0)), parameter_shardings(parameter_specs(TINY), mesh))
    sent: dict[str, list] = {}

    def recorded(name: str) -> Any:
        real = getattr(device, name)

        def call(*args: Any) -> Any:
            sent.setdefault(name, []).append(jax.tree.map(described, args))
            return real(*args)

        call.lower = real.lower
        return call

    for name in ("decode_window", "prefill", "read_pages", "write_pages"):
        monkeypatch.setattr(device, name, recorded(name))
    made = Engine(params, TINY, config, 40)
    requests = [Request("a", (1, 2, 3, 4, 5, 6), (1, 2), tuple(range(4)), SamplingParams(1.0, 1.0, 40, ()))]
    assert len(list(made.generate(requests))) == 4
    planned = {
        "decode_window": [programs.decode_window(TINY, made.shapes, mesh, rows) for rows in made.shapes.buckets],
        "prefill": [programs.prefill(TINY, config, made.shapes, mesh, n) for n in made.shapes.prefill_lengths],
    }
    planned["read_pages"], planned["write_pages"] = ([p] for p in programs.moved_pages(TINY, made.shapes, mesh))
    for name, found in planned.items():
        monkeypatch.setattr(device, name, Shown())
        known = [jax.tree.map(described, program.trace()) for program in found]
        assert sent[name] and all(args in known for args in sent[name]), name


class Shown:
    """Stands where a jitted program does, and shows what it would be traced with."""

    def trace(self, *args: Any) -> Any:
        return args


def described(x: Any) -> Any:
    """An array's shape, dtype and place (None where that is left to the program); anything else as it is."""
    return (x.shape, x.dtype, getattr(x, "sharding", None)) if hasattr(x, "shape") else x


def test_pages_are_not_copied_by_prefill_or_by_what_moves_them() -> None:
    """Twice the pages, the same temporaries."""
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    target = planning.find_target("cpu")

    def needs(tokens: int) -> list[int]:
        config = dataclasses.replace(NUM_SEQS, page_size=8, cache_tokens=tokens, max_prompt_len=256)
        sizes = fitting.FitCase(TINY, config, STUDY, mesh, 10**9).sizes
        assert len(sizes.prefill_lengths) > 1
        made = [*programs.moved_pages(TINY, sizes, mesh)]
        made += [programs.prefill(TINY, config, sizes, mesh, length) for length in sizes.prefill_lengths]
        return [compiling.compile_program(program, target, True).temporaries for program in made]

    assert needs(8_000) == needs(16_000)


def test_windows_of_data_parallel_shards_send_nothing_in_their_token_loop() -> None:
    mesh = programs.make_mesh(MeshConfig(data=2), jax.devices()[:2])
    loop = token_loop(mesh)
    assert (loop.turns, loop.collectives, loop.sent) == (NUM_SEQS.steps_per_call, (), 0)
    assert loop.big_writes_step == 0


def test_windows_of_tensor_parallel_shards_send_sums_in_their_token_loop() -> None:
    """Over 2 devices, a sum after each layer's attention and after each ffn, and more to draw the tokens."""
    loop = token_loop(programs.make_mesh(MeshConfig(tensor=2), jax.devices()[:2]))
    assert dict(loop.collectives)["all-reduce"] >= 2 * TINY.layers
    assert loop.sent >= 2 * TINY.layers * NUM_SEQS.max_num_seqs * TINY.width * 4
    assert loop.axes == ("tensor",) and loop.big_writes_step == 0


def token_loop(mesh: Mesh) -> hlo.LoopReport:
    """The token loop of the CPU's decode window; an array of a layer's keys is a big one."""
    sizes = fitting.FitCase(TINY, NUM_SEQS, STUDY, mesh, 10**9).sizes
    keys = jax.tree.leaves(programs.pool(TINY, sizes, mesh))[0]
    text = hlo.text_of(programs.decode_window(TINY, sizes, mesh, NUM_SEQS.max_num_seqs), planning.find_target("cpu"))
    return hlo.token_loop(text, NUM_SEQS.steps_per_call, programs.device_bytes(keys), mesh.shape)


@pytest.mark.parametrize("name", ["h200-8", "h200-128", "v5e-8", "v5p-128"])
def test_every_target_at_least_lowers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "missing_extra", lambda target: "none")
    target = planning.find_target(name)
    found = planning.make_plan(Wanted(TINY, NUM_SEQS, STUDY), target)
    assert not any(program.real for program in found.programs)
    text = planning.render(found)
    assert "lowered only: pip install -e '.[none]' compiles them" in text and "\n\nfits: " in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e-8", "h200-8"])
def test_real_compilers_say_what_a_target_needs(name: str) -> None:
    target = planning.find_target(name)
    missing = compiling.missing_extra(target)
    if missing:
        pytest.skip(f"needs the compiler of the {missing} extra, no device: pip install -e '.[{missing}]'")
    found = planning.make_plan(Wanted(TINY, NUM_SEQS, STUDY), target)
    assert found.extra is None and all(program.temporaries is not None for program in found.others)
    assert found.windows[-1].total <= target.memory


def test_rendered_plan_names_what_it_assumes(cpu_plan: planning.StudyPlan) -> None:
    text = planning.render(cpu_plan)
    for words in (
        "20 GB/s and 0.1 TFLOP/s",
        "compiled for real",
        "% of the cache",
        "fits: mesh data 1, fsdp 1, tensor 2; 16 sequences",
        "hours",
        "prefill",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) < 200


def test_a_sampler_that_has_no_room_beside_training_does_not_fit(cpu_plan: planning.StudyPlan) -> None:
    room = cpu_plan.target.memory - cpu_plan.target.process - cpu_plan.windows[-1].total
    for beside, fits in ((room, True), (room + 1, False)):
        update = programs.RecipePrograms("grpo", 1, 1, 0, beside, ())
        text = planning.render(dataclasses.replace(cpu_plan, trained=((update, ()),)))
        assert text.split("\n\n")[-1].startswith("fits: ") == fits
        assert ("does not fit: sampling beside the training of grpo needs" in text) != fits


def test_answers_of_a_plan_are_capped_by_the_context() -> None:
    s = settings_of("oat_zero_math")
    study = prepare.assumed(s).workload
    assert s.model.context == 4096 and study.max_tokens == 4096 - prepare.PROMPT_TOKENS


def test_a_plan_has_room_for_the_longest_prompt_of_the_files_that_its_config_names() -> None:
    """In Qwen2.5's tokens and qwen_boxed: OlympiadBench's longest takes 1,287, that of MATH's training file 1,688."""
    longest = {"qwen7b_math": 1287, "qwen7b_grpo_simplerl": 1688}
    for name, tokens in longest.items():
        assert tokens <= prepare.assumed(settings_of(name)).engine.max_prompt_len < tokens + prepare.PROMPT_MULTIPLE


# Endpoints, which magistral_math has alone, have no plan.
@pytest.mark.parametrize(
    "path", sorted({*CONFIGS.rglob("*_math.py")} - {*CONFIGS.rglob("magistral_*")}), ids=lambda path: path.stem
)
def test_every_math_config_has_a_study(path: Path) -> None:
    s = settings_of(path.stem)
    model = prepare.model_of(s)
    study = prepare.assumed(s).workload
    assert study.answers > 0 and np.dtype(jnp.dtype(model.dtype)).itemsize == 2
    assert {b.name for b in study.benchmarks} == set(s.benchmarks)
