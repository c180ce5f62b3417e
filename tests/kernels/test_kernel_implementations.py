"""Every implementation of every kernel against brute force in float64; those for a TPU or Hopper are interpreted."""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams, force_gpu_interpret_mode
from jax.experimental.pallas import tpu as pltpu

from kernels import decode_attention, selfcheck, token_logprob, top_p
from kernels.decode_attention import AttentionState, cpu, gpu, hopper, native, reference, tpu
from tests.support.decode_attention_cases import Case, brute_force, make

ATTENTION = {
    "reference": (reference, nullcontext),
    "cpu": (cpu, nullcontext),
    "native": (native, nullcontext),
    "gpu": (gpu, nullcontext),
    "tpu": (tpu, pltpu.force_tpu_interpret_mode),
}
EVERY_ATTENTION = pytest.mark.parametrize("name", ATTENTION)
OWN = [300, 0, 128, 1, 5, 0, 0, 257, 640, 0, 3, 0]
PROMPTS, SHARED = [0, 0, 1, 1, 0, 2, -1, 2, 0, -1, 1, -1], {0: 200, 1: 128, 2: 130}
SMALL = {"heads": 2, "group": 3, "head_width": 16}


def attend(name: str, case: Case) -> AttentionState:
    module, mode = ATTENTION[name]
    if module is native and not native.takes(jnp.asarray(case.q), jnp.asarray(case.k)):
        pytest.skip("no C++ compiler")
    with mode():
        found = jax.jit(module.decode_attention, static_argnums=4)(*case)
    return AttentionState(*map(np.asarray, found))


def check(found: AttentionState, case: Case, tolerance: float) -> None:
    out, top, total = brute_force(case)
    # Relative to the weights' sum, as the mean that will be taken of them.
    scale = np.maximum(total, 1.0)
    np.testing.assert_allclose(found.out_BKGH / scale[..., None], out / scale[..., None], rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.max_BKG, top, rtol=1e-6, atol=tolerance)
    np.testing.assert_allclose(found.sum_BKG / scale, total / scale, rtol=0, atol=tolerance)


@EVERY_ATTENTION
def test_attention_over_own_and_shared_pages_equals_brute_force(name):
    case = make(OWN, PROMPTS, SHARED, **SMALL)
    check(attend(name, case), case, 1e-5)


@pytest.mark.parametrize("name", ["reference", "cpu", "native"])
def test_prompts_may_be_listed_for_each_of_their_rows_where_the_tiling_says_so(name):
    assert decode_attention.tiling("cpu").lists_prompts
    case = make(OWN, PROMPTS, SHARED, **SMALL, listed=True)
    assert len(set(case.plan.page_I.tolist())) < len(case.plan.page_I)
    check(attend(name, case), case, 1e-5)


@EVERY_ATTENTION
@pytest.mark.parametrize(
    ("own", "shared"),
    [
        ([1, 0, 129, 0, 0, 0, 0, 2], {}),
        *(pytest.param([0] * 8, shared, marks=pytest.mark.slow) for shared in ({}, {0: 5})),
    ],
)
def test_rows_without_any_key_give_nothing(name, own, shared):
    case = make(own, [0] * 8, shared, **SMALL)
    found = attend(name, case)
    check(found, case, 1e-5)
    idle = [row for row, tokens in enumerate(own) if not tokens and not shared]
    assert not found.out_BKGH[idle].any() and not found.sum_BKG[idle].any()
    assert np.all(found.max_BKG[idle] == np.float32(decode_attention.MASK_VALUE))


@pytest.mark.parametrize("name", ["gpu", pytest.param("tpu", marks=pytest.mark.slow)])
@pytest.mark.parametrize("group", [7, *(pytest.param(g, marks=pytest.mark.slow) for g in (1, 8))])
def test_attention_holds_for_the_shapes_of_real_models(name, group):
    for head_width in (64, 128):
        case = make([130, 0, 3], [0, 0, 1], {0: 40}, heads=1, group=group, head_width=head_width)
        check(attend(name, case), case, 1e-5)


@pytest.mark.parametrize("name", ["gpu", "tpu"])
def test_attention_in_bfloat16_is_within_the_rounding_of_its_weights(name):
    case = make(OWN, PROMPTS, SHARED, **SMALL)
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in case[:3])
    rounded = case._replace(q=np.asarray(q, np.float64), k=np.asarray(k, np.float64), v=np.asarray(v, np.float64))
    check(attend(name, case._replace(q=q, k=k, v=v)), rounded, 4 * 2**-9)


@pytest.mark.parametrize("page", [128, 24, 20])
def test_the_native_kernel_widens_bfloat16_as_it_reads_and_rounds_nothing_else(page):
    case = make(OWN, PROMPTS, SHARED, **SMALL, page=page)
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in case[:3])
    rounded = case._replace(q=np.asarray(q, np.float64), k=np.asarray(k, np.float64), v=np.asarray(v, np.float64))
    check(attend("native", case._replace(q=q, k=k, v=v)), rounded, 1e-5)
    # Of one of the three the last of 8 bits is lost: more than float32 explains.
    for name, x in (("q", q), ("k", k), ("v", v)):
        coarse = jax.lax.bitcast_convert_type(x.view(jnp.uint16) & 0xFFFE, jnp.bfloat16)
        with pytest.raises(AssertionError):
            check(attend("native", case._replace(**{"q": q, "k": k, "v": v, name: coarse})), rounded, 1e-5)


@pytest.mark.parametrize("name", ["gpu", pytest.param("tpu", marks=pytest.mark.slow)])
def test_attention_does_not_depend_on_where_pages_lie(name):
    first, second = (attend(name, make(OWN, PROMPTS, SHARED, **SMALL, places=seed)) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("name", ["gpu", pytest.param("tpu", marks=pytest.mark.slow)])
def test_attention_does_not_depend_on_batch_mates(name):
    alone = [0, 2, 8]
    mates, theirs = [9, 400, 0, 0, 700, 1, 130, 2, 9, 5, 0, 7], [9, 1, 9, 0, 3, 3, 0, 3, 9, 1, 2, 0]
    own = [OWN[row] if row in alone else tokens for row, tokens in enumerate(mates)]
    prompts = [PROMPTS[row] if row in alone else prompt for row, prompt in enumerate(theirs)]
    first = attend(name, make(OWN, PROMPTS, SHARED, **SMALL))
    second = attend(name, make(own, prompts, {**SHARED, 3: 300}, **SMALL))
    for row in alone:
        jax.tree.map(lambda x, y, row=row: np.testing.assert_array_equal(x[row], y[row]), first, second)


@pytest.mark.slow
def test_trees_of_any_width_join_all_pages(monkeypatch):
    monkeypatch.setattr(gpu, "WIDTH", 2)
    case = make([100, 0, 9, 77], [0, 0, 1, 1], {0: 30, 1: 8}, page=8, **SMALL)
    check(AttentionState(*map(np.asarray, gpu.decode_attention(*case))), case, 1e-5)


def test_the_hopper_kernel_equals_brute_force_and_depends_on_neither_places_nor_batch_mates(monkeypatch):
    # The interpreter knows neither layouts of registers nor factors that lie in them; both are the compiler's matter.
    monkeypatch.setattr(hopper.plgpu, "layout_cast", lambda x, layout: x)
    monkeypatch.setattr(hopper.plgpu, "broadcasted_iota", lambda t, s, d, layout: jax.lax.broadcasted_iota(t, s, d))
    product = partial(jnp.dot, preferred_element_type=jnp.float32)
    monkeypatch.setattr(hopper, "_product", lambda a, b, size: product(a[...], b[...]))

    def run(own, prompts, shared, places=0):
        case = make(own, prompts, shared, heads=1, group=7, head_width=64, tile=8, places=places)
        q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in case[:3])
        assert hopper.takes(q, k, case.tile)
        with force_gpu_interpret_mode(InterpretGPUParams(detect_races=True)):
            found = hopper.decode_attention(q, k, v, case.plan, case.tile)
        rounded = case._replace(q=np.asarray(q, np.float64), k=np.asarray(k, np.float64), v=np.asarray(v, np.float64))
        check(AttentionState(*map(np.asarray, found)), rounded, 4 * 2**-9)
        return found

    first = run([300, 0, 128, 5, 600], [0, 0, 1, -1, 1], {0: 200, 1: 128}, 0)
    second = run([300, 9, 0, 5, 130], [0, 2, 1, 1, 2], {0: 200, 1: 128, 2: 5}, 1)
    np.testing.assert_array_equal(first.out_BKGH[0], second.out_BKGH[0])


TOP_P = {"gpu": (top_p.gpu, nullcontext), "tpu": (top_p.tpu, pltpu.force_tpu_interpret_mode)}


@pytest.mark.parametrize("name", TOP_P)
@pytest.mark.parametrize("vocab", [3, 257, 2048])
def test_top_p_masks_equal_the_reference_s_where_sums_are_exact(name, vocab):
    module, mode = TOP_P[name]
    rng = np.random.default_rng(vocab)
    p_BV = (rng.multinomial(4096, rng.dirichlet(np.full(vocab, 0.5)), 12) / 4096).astype(np.float32)
    p_BV[3], p_BV[3, 1] = 0, 1
    reach = np.cumsum(-np.sort(-p_BV, axis=1), axis=1)[:, rng.integers(vocab)]
    top_p_B = np.where(np.arange(12) % 2, reach, rng.uniform(1e-6, 1, 12)).astype(np.float32)
    top_p_B[0] = 1
    with mode():
        mask_BV = np.asarray(module.top_p_mask(p_BV, top_p_B))
    np.testing.assert_array_equal(mask_BV, np.asarray(top_p.reference.top_p_mask(p_BV, top_p_B)))
    # Where rounding keeps the whole mass below top_p, every token is kept.
    with mode():
        assert np.all(module.top_p_mask(p_BV * np.float32(0.999), np.ones(12, np.float32)))


LOGPROB = {"gpu": (token_logprob.gpu, nullcontext), "tpu": (token_logprob.tpu, pltpu.force_tpu_interpret_mode)}


@pytest.mark.parametrize("name", LOGPROB)
@pytest.mark.parametrize(("width", "vocab", "scale"), [(16, 101, 1.0), (256, 2500, 0.2), (16, 1024, 30.0)])
def test_token_logprobs_equal_float64_over_ragged_tiles(name, width, vocab, scale, monkeypatch):
    module, mode = LOGPROB[name]
    monkeypatch.setattr(token_logprob.gpu, "TILE_LOGITS", 8 * 300)
    rng = np.random.default_rng(vocab)
    hidden, weights = rng.normal(size=(24, width)) * scale, rng.normal(size=(width, vocab))
    hidden, weights = hidden.astype(np.float32), weights.astype(np.float32)
    targets = rng.integers(vocab, size=24).astype(np.int32)
    targets[:2] = 0, vocab - 1
    with mode():
        found, entropy = module.token_logprob(hidden, weights, targets, 8)
    logits = hidden.astype(np.float64) @ weights.astype(np.float64)
    logp = logits - logits.max(axis=1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(axis=1, keepdims=True))
    tolerance = 1e-6 * max(1, np.abs(logits).max())
    np.testing.assert_allclose(found, logp[np.arange(24), targets], rtol=0, atol=tolerance)
    np.testing.assert_allclose(entropy, -(np.exp(logp) * logp).sum(axis=1), rtol=0, atol=tolerance)


@pytest.mark.slow
def test_the_self_check_passes_here_and_names_the_kernel_that_deviates():
    for case in selfcheck.cases():
        selfcheck.compare(*case)
    name, _, right, arguments, tolerance = list(selfcheck.cases())[-1]
    with pytest.raises(RuntimeError, match="kernels/decode_attention deviates from its reference by .* on cpu"):
        selfcheck.compare(name, lambda *args: right(args[0] * 1.01, *args[1:]), right, arguments, tolerance)
