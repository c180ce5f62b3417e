"""Logits against transformers on tiny checkpoints of every family: goldens by default, live where marked `parity`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.draw import SamplingTensors
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.engine import programs
from rlvr_limit.engine.inputs import attention_plan, in_row_order
from rlvr_limit.engine.scheduler import Scheduler, SequenceGroup
from rlvr_limit.engine.shapes import shapes_of
from rlvr_limit.models import decoder, log_probs
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.planning import programs as abstract
from rlvr_limit.settings import EngineConfig, MeshConfig
from tests.goldens import families
from tests.goldens.families import FAMILIES, PLACES
from tests.support.golden_models import NAMES, model_config, our_params

ROUNDED = ("qwen2-gqa7-tied", "llama31-gqa8-untied")
DECODED = ("qwen2-gqa7-tied", "qwen3-gqa8-tied", "llama32-gqa1-tied")
"""One of each architecture and of each number of heads a group."""

PROMPTS = (3, 200)
"""Tokens that are prefilled in each slot; the others are decoded one by one."""


@partial(jax.jit, static_argnums=1)
def _causal_logits(params: Params, config: ModelConfig, tokens_BT: jax.Array) -> jax.Array:
    return decoder.logits(params, decoder.forward_causal(params, config, tokens_BT)[0])


def causal_logits(name: str, dtype: str = "float32", row: int = 0) -> np.ndarray:
    """[1, T, V]: the row at once, as the scorer and prefill see it."""
    tokens = families.tokens(name, row)[None]
    return np.asarray(_causal_logits(our_params(name, dtype), model_config(name, dtype), tokens))


def decoded_logits(name: str, patch: pytest.MonkeyPatch, dtype: str = "float32", window: int = 16) -> list[np.ndarray]:
    """Logits [T - prompt + 1, V] of each slot of PROMPTS, by the engine's programs: prefill, then decode_window over
    and over, with the row's own tokens in place of drawn ones and the logits in place of their log-probs.

    The longer prompt is attended to as a shared one, the shorter as the row's own.
    """
    config, params, row = model_config(name, dtype), our_params(name, dtype), families.tokens(name)
    slots, longest, mesh = len(PROMPTS), max(PROMPTS), make_mesh(MeshConfig())
    row_padded = jnp.asarray(np.pad(row, (0, longest + 2 * window)))

    def forced(key_B2: jax.Array, index_B: jax.Array, generated_B: jax.Array, steps: int) -> jax.Array:
        first_B = jnp.asarray(PROMPTS) + generated_B
        return row_padded[first_B[None, :] + jnp.arange(steps)[:, None]]

    patch.setattr(programs, "uniforms", forced)
    patch.setattr(programs, "draw", lambda logits, u, *_: (u, logits, logits))
    shapes = shapes_of(
        EngineConfig(slots, window, page_size=48, max_prompt_len=longest, min_shared_prefix=64), mesh, 2 * PLACES
    )
    spec = programs.ProgramSpec(mesh, config, window, shapes.plan(slots).tile)
    # A function of its own: what is traced with these tokens and this draw must not be found by another test.
    decode = jax.jit(
        lambda params, pool, *sent: programs.decode_window.__wrapped__(params, spec, pool, *sent), donate_argnums=1
    )
    scheduler = Scheduler(shapes, [SequenceGroup(i, n - 1, 2 * PLACES, (0,)) for i, n in enumerate(PROMPTS)])
    running, grouped, found = [], [], []
    pool = programs.empty_pool(config, shapes.pages, shapes.page_size)
    for done in range(0, PLACES - min(PROMPTS) + 1, window):
        for group in scheduler.schedule().prefills:
            length, (pages,) = PROMPTS[group.number], group.prompt_pages
            tokens = np.zeros((1, shapes.prefill_lengths[-1]), np.int32)
            written = np.zeros((1, 1, tokens.shape[1] // shapes.page_size), np.int32)
            tokens[0, :length], written[0, 0, : len(pages)] = row[:length], pages
            pool = programs.prefill(params, spec, pool, tokens, written)
        running = in_row_order(scheduler.running[0])
        sent = programs.WindowInputs(
            live_B=np.ones(slots, bool),
            token_B=np.array([row_padded[n + done - 1] for n in PROMPTS], np.int32),
            position_B=np.array([n + done - 1 for n in PROMPTS], np.int32),
            generated_B=np.full(slots, done, np.int32),
            limit_B=np.full(slots, 2 * PLACES, np.int32),
            page_B=np.array([seq.pages[seq.cached_tokens // shapes.page_size] for seq in running], np.int32),
            offset_B=np.array([seq.cached_tokens % shapes.page_size for seq in running], np.int32),
            key_B2=np.zeros((slots, 2), np.uint32),
            index_B=np.arange(slots, dtype=np.int32),
            stops_BE=np.full((slots, 4), -1, np.int32),
            rules=SamplingTensors(*(np.full(slots, x, t) for x, t in ((1, "f"), (1, "f"), (0, "i"), (0, "f")))),
        )
        plan = attention_plan([running], shapes.page_size, shapes.plan(slots), 64)
        grouped.append(int(plan.visits[0]))
        pool, drawn = decode(params, pool, sent, plan)
        scheduler.mark_cached(running)
        found.append(np.asarray(drawn.logp_WB))
    assert [seq.group.number for seq in running] == list(range(slots)) and min(grouped) > 0
    logits_TBV = np.concatenate(found)
    return [logits_TBV[: PLACES - n + 1, i] for i, n in enumerate(PROMPTS)]


def golden(name: str) -> Any:
    """The golden of a checkpoint; the weights drawn here are held to be those it was made from."""
    stored = np.load(families.FOLDER / f"{name}.npz")
    assert str(stored["digest"]) == families.digest(families.state_dict(name)), "NumPy draws other weights: make anew"
    return stored


def kept_from(logits_TV: np.ndarray, first: int) -> np.ndarray:
    """families.kept for logits that start at position `first`."""
    whole = np.concatenate([np.zeros((first, logits_TV.shape[1]), logits_TV.dtype), logits_TV])
    return families.kept(whole)[first:]


def rms(x: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


@NAMES
def test_float32_logits_of_whole_rows_equal_those_of_transformers_at_every_position(name: str) -> None:
    stored = golden(name)
    away = np.abs(families.kept(causal_logits(name)[0]) - stored["logits"]) / stored["std"]
    print(f"{name}: largest difference {away.max():.1e} of the logits' standard deviation")
    assert away.shape == (PLACES, families.COLUMNS) and away.max() <= 1e-4


# What the others have besides, whole rows hold: scales of rotary angles, and an unembedding of its own.
@pytest.mark.parametrize(
    "name", [name if name in DECODED else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_float32_logits_of_tokens_decoded_one_by_one_equal_those_of_transformers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = golden(name)
    for prompt, logits in zip(PROMPTS, decoded_logits(name, monkeypatch), strict=True):
        away = np.abs(kept_from(logits, prompt - 1) - stored["logits"][prompt - 1 :]) / stored["std"]
        print(f"{name}: largest difference after a prompt of {prompt}: {away.max():.1e} standard deviations")
        assert len(away) == PLACES - prompt + 1 and away.max() <= 1e-4


@pytest.mark.parametrize(
    "name",
    [name if name == ROUNDED[0] else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_bfloat16_logits_are_as_near_to_float32_as_those_of_transformers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = golden(name)
    exact, bound = stored["rounded_logits"], float(stored["bfloat16_rms"])
    whole = rms(families.kept(causal_logits(name, "bfloat16")[0]) - exact)
    after = [
        rms(kept_from(logits, prompt - 1) - exact[prompt - 1 :])
        for prompt, logits in zip(PROMPTS, decoded_logits(name, monkeypatch, "bfloat16"), strict=True)
    ]
    print(f"{name}: rms {whole:.4f} whole rows, {after[0]:.4f} decoded; transformers {bound:.4f}")
    assert max(whole, *after) <= bound


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_product_of_float32_weights_and_no_other_asks_an_accelerator_for_full_precision(dtype: str) -> None:
    name = "qwen3-gqa8-tied"
    config, params = model_config(name, dtype), our_params(name, dtype)
    rows = log_probs.answer_rows([((1, 2), (3,))] * 2, 4)
    mesh = make_mesh(MeshConfig())
    shapes = EngineConfig(max_num_seqs=4, steps_per_call=2, page_size=4, max_prompt_len=4, prefill_rows=2)
    sizes = shapes_of(shapes, mesh, 8)
    spec = programs.ProgramSpec(mesh, config, 2, sizes.plan(4).tile)
    pool = programs.empty_pool(config, sizes.pages, sizes.page_size)
    sent = abstract.abstract_inputs(sizes, 4)
    traced = {
        "prefill": programs.prefill.trace(
            params, spec, pool, np.zeros((2, sizes.page_size), np.int32), np.zeros((1, 2, 1), np.int32)
        ).jaxpr,
        "decode_window": programs.decode_window.trace(params, spec, pool, *sent).jaxpr,
        "scorer and its gradient": jax.make_jaxpr(
            jax.grad(lambda p: log_probs.answer_log_probs(p, config, rows)[0].sum())
        )(params),
    }
    for program, jaxpr in traced.items():
        products = [text.split("]\n")[0] for text in str(jaxpr).split("dot_general[")[1:]]
        exact = sum("HIGHEST" in text for text in products)
        print(f"{program} in {dtype}: {exact} of {len(products)} products in full precision")
        # The running sums of inverse_cdf are of float32 probabilities, whatever the weights are.
        sums = 2 if program == "decode_window" else 0
        assert exact == (len(products) if dtype == "float32" else sums) and len(products) > sums


@pytest.mark.parity
@NAMES
def test_transformers_agrees_live_in_float32_and_is_no_nearer_in_bfloat16(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.goldens.make_goldens import reference_logits

    exact = reference_logits(name, "float32", "float32")
    np.testing.assert_allclose(families.kept(exact), golden(name)["logits"], rtol=0, atol=1e-5)
    away = np.abs(causal_logits(name)[0] - exact).max() / exact.std()
    decoded = decoded_logits(name, monkeypatch)
    after = max(np.abs(x - exact[n - 1 :]).max() for n, x in zip(PROMPTS, decoded, strict=True)) / exact.std()
    rounded = reference_logits(name, "bfloat16", "float32")
    theirs = reference_logits(name, "bfloat16", "bfloat16") - rounded
    ours = causal_logits(name, "bfloat16")[0] - rounded
    late = [x - rounded[n - 1 :] for n, x in zip(PROMPTS, decoded_logits(name, monkeypatch, "bfloat16"), strict=True)]
    print(
        f"{name}: float32 {away:.1e} whole, {after:.1e} decoded of std; bfloat16 rms {rms(ours):.4f} whole, "
        f"{max(map(rms, late)):.4f} decoded, transformers {rms(theirs):.4f}; largest {np.abs(ours).max():.3f}, "
        f"{max(np.abs(x).max() for x in late):.3f}, transformers {np.abs(theirs).max():.3f}"
    )
    assert max(away, after) <= 1e-4
    assert max(rms(ours), *map(rms, late)) <= rms(theirs)


@pytest.mark.parity
@NAMES
def test_the_largest_errors_of_bfloat16_are_no_larger_than_those_of_transformers(name: str) -> None:
    from tests.goldens.make_goldens import reference_logits

    # The largest of one row's errors is a matter of luck; over twenty rows it is not.
    largest = []
    for row in range(20):
        rounded = reference_logits(name, "bfloat16", "float32", row)
        theirs = reference_logits(name, "bfloat16", "bfloat16", row) - rounded
        ours = causal_logits(name, "bfloat16", row)[0] - rounded
        largest.append((np.abs(ours).max(), np.abs(theirs).max()))
    (ours, theirs), above = np.mean(largest, axis=0), sum(a > b for a, b in largest)
    print(f"{name}: largest error, mean of 20 rows: {ours:.4f}, transformers {theirs:.4f}; above it in {above}")
    assert ours <= theirs and above <= 4


@pytest.mark.gpu
@NAMES
def test_a_gpu_gives_float32_logits_of_the_cpu_and_bfloat16_ones_as_near_as_transformers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = golden(name)
    with jax.default_device(jax.devices("cpu")[0]):
        exact = causal_logits(name)[0]
    with jax.default_device(jax.devices("gpu")[0]):
        plain, rounded = causal_logits(name)[0], causal_logits(name, "bfloat16")[0]
        decoded = decoded_logits(name, monkeypatch, "bfloat16")
    assert np.abs(plain - exact).max() <= 1e-4 * stored["std"]
    errors = [families.kept(rounded) - stored["rounded_logits"]]
    errors += [kept_from(x, n - 1) - stored["rounded_logits"][n - 1 :] for n, x in zip(PROMPTS, decoded, strict=True)]
    print(f"{name}: rms {[round(rms(x), 4) for x in errors]}, transformers {float(stored['bfloat16_rms']):.4f}")
    assert max(map(rms, errors)) <= float(stored["bfloat16_rms"])
