"""Attention of whole rows against one softmax over all keys, written out, and its gradients against autodiff."""

import inspect
import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention import AttentionPart, attention, gpu, reference, tpu
from kernels.attention.join import join

BOTH = reference.forward, reference.backward


def as_cudnn(q, k, v, bias, q_length, k_length, *rest, mask_type, scale, layout, **options):
    """What cuDNN is asked for, by the reference: the primitives' operands and options, read as JAX's lowering does."""
    assert scale == q.shape[-1] ** -0.5 and layout == gpu.cudnn.AttentionLayout.BTNH.value
    assert not options["dropout_rate"] and options["variadic_args"] == (False, False) and not bias.size
    unused, residuals = rest[:4], rest[4:]
    assert not any(x.size for x in unused)
    is_padded = mask_type == gpu.cudnn.MaskType.PADDING
    assert is_padded or (mask_type == gpu.cudnn.MaskType.CAUSAL and not q_length.size + k_length.size)
    part = AttentionPart(k, v, k_length if is_padded else None)
    compute = reference.backward if residuals else reference.forward
    found = compute(q, part, *residuals)
    # Of a row without a key cuDNN promises nothing.
    return tuple(jnp.where(jnp.min(k_length) > 0, x, jnp.nan) for x in found) if is_padded else found


class Primitive(NamedTuple):
    """Stands for one of cuDNN's."""

    bind = staticmethod(as_cudnn)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """cuDNN's primitives have no lowering for a CPU."""
    for name in ("_dot_product_attention_fwd_p", "_dot_product_attention_bwd_p"):
        monkeypatch.setattr(gpu.cudnn, name, Primitive())


IMPLEMENTATIONS = {"reference": BOTH, "tpu": [partial(f, interpret=True) for f in (tpu.forward, tpu.backward)]}
EVERY = pytest.mark.parametrize("name", IMPLEMENTATIONS)


class Case(NamedTuple):
    """Rows of queries; their own keys; three prompts, padded, of which rows 0 and 1 share the first."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    prompt_k: np.ndarray
    prompt_v: np.ndarray
    prompt_of: np.ndarray
    length: np.ndarray | None
    segment: np.ndarray | None
    prefix_segment: np.ndarray | None
    weight: np.ndarray


def make(group=2, head_width=16, heads=2, t=24, lengths=None, segments=(), prefixes=(), seed=0) -> Case:
    """lengths: tokens of each prompt; segments: tokens of each piece of a row, the rest is padding; prefixes: the piece
    behind which each piece stands."""
    rng = np.random.default_rng(seed)
    rows = 4 if lengths else 2

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    segment = behind = None
    if segments:
        segment = np.zeros((rows, t), np.int32)
        starts = np.cumsum([0, *segments])
        for piece, (start, end) in enumerate(zip(starts, starts[1:], strict=False), start=1):
            segment[:, start:end] = piece
        behind = np.array([0, *(prefixes or range(1, len(segments) + 1))], np.int32)[segment]
    return Case(
        normal(rows, t, heads * group, head_width),
        *(normal(rows, t, heads, head_width) for _ in range(2)),
        *(normal(3, max(lengths or [0]) + 1, heads, head_width) for _ in range(2)),
        np.array([0, 0, 1, 2]),
        np.array(lengths, np.int32) if lengths else None,
        segment,
        behind if prefixes else None,
        normal(rows, t, heads * group, head_width),
    )


def parts_of(case: Case, k, v, prompt_k, prompt_v) -> tuple[AttentionPart, ...]:
    own = AttentionPart(k, v, None, case.segment, case.prefix_segment)
    if case.length is None:
        return (own,)
    return AttentionPart(prompt_k[case.prompt_of], prompt_v[case.prompt_of], case.length[case.prompt_of]), own


def plain(case: Case, q, k, v, prompt_k, prompt_v):
    """One softmax over a prompt's tokens, then a row's own, in the dtype of q."""
    b, t, n, h = q.shape
    seen = np.broadcast_to(np.tril(np.ones((t, t), bool)), (b, t, t))
    if case.segment is not None:
        own = case.segment[:, :, None] == case.segment[:, None, :]
        behind = case.segment if case.prefix_segment is None else case.prefix_segment
        seen = seen & (own | (behind[:, :, None] == case.segment[:, None, :]))
    if case.length is not None:
        k, v = (jnp.concatenate([a[case.prompt_of], x], axis=1) for a, x in ((prompt_k, k), (prompt_v, v)))
        there = np.arange(prompt_k.shape[1]) < case.length[case.prompt_of][:, None, None]
        seen = np.concatenate([np.broadcast_to(there, (b, t, there.shape[2])), seen], axis=2)
    k, v = (jnp.repeat(x, n // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("btnh,bsnh->bnts", q, k, precision="highest") / np.sqrt(h).astype(np.float32)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bnts,bsnh->btnh", weights, v, precision="highest")


def check(case: Case, attend, tolerance=2e-6) -> None:
    """Outputs and the gradients of queries, own keys and prompts' keys, each relative to its largest number."""

    def loss(compute, *args):
        out = compute(*args)
        return jnp.sum(out * case.weight), out

    inputs = case[:5]
    joined = partial(loss, lambda q, *kv: attend(q, parts_of(case, *kv)))
    found, out = jax.jit(jax.grad(joined, range(5), True))(*inputs)
    expected, right = jax.grad(partial(loss, partial(plain, case)), (0, 1, 2, 3, 4), True)(*inputs)
    for mine, theirs in zip((out, *found), (right, *expected), strict=True):
        assert np.all(np.isfinite(mine))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max(initial=0)))


CASES = {
    "rows alone": {},
    "behind prompts, one shared, one empty": {"lengths": [7, 0, 3]},
    "no prompt has a token": {"lengths": [0, 0, 0], "t": 9},
    "two segments and padding": {"segments": (9, 12)},
    "answers behind the head of a prompt in their row": {"segments": (5, 8, 4, 3), "prefixes": (1, 1, 1, 4)},
}
EVERY_CASE = pytest.mark.parametrize("case", [make(**sizes) for sizes in CASES.values()], ids=CASES)
BEHIND_PROMPTS, PACKED = make(**CASES["behind prompts, one shared, one empty"]), make(**list(CASES.values())[-1])


@EVERY
@EVERY_CASE
def test_outputs_and_gradients_are_those_of_one_softmax_over_all_keys(name, case):
    check(case, join(*IMPLEMENTATIONS[name]))


@EVERY
@pytest.mark.parametrize("head_width", [64, 128])
@pytest.mark.parametrize("group", [7, *(pytest.param(g, marks=pytest.mark.slow) for g in (1, 8))])
def test_they_are_for_the_heads_of_real_models(name, group, head_width):
    check(make(group, head_width, heads=1, lengths=[5, 0, 2], t=6), join(*IMPLEMENTATIONS[name]))


@pytest.mark.parametrize("case", [BEHIND_PROMPTS, PACKED], ids=["behind prompts", "packed"])
def test_blocks_of_queries_give_what_all_of_them_give_at_once(case, monkeypatch):
    monkeypatch.setattr(reference, "LONG_ROW", 8)
    monkeypatch.setattr(reference, "QUERY_BLOCK", 5)
    # A join of its own: the other ones may have traced such shapes before.
    check(case, join(*BOTH))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [{"lengths": [140, 0, 3], "t": 130}, {"segments": (50, 90, 100), "prefixes": (1, 1, 3), "t": 260}], ids=str
)
def test_splash_goes_over_several_blocks(sizes, monkeypatch):
    monkeypatch.setattr(tpu, "BLOCK", 128)
    check(make(heads=1, **sizes), join(*IMPLEMENTATIONS["tpu"]), tolerance=5e-6)


@pytest.mark.parametrize("case", [make(**sizes) for sizes in list(CASES.values())[:3]], ids=list(CASES)[:3])
def test_cudnn_is_asked_for_what_the_reference_gives(case):
    check(case, join(gpu.forward, gpu.backward))


def test_a_gpu_that_computes_something_else_attends_in_plain_xla_and_says_why(monkeypatch, caplog):
    class Device(NamedTuple):
        platform: str = "gpu"
        compute_capability: str = "9.0"

    def asked() -> bool:
        gpu._is_right_here.cache_clear()
        return gpu._is_right_here()

    assert gpu.deviation(reference.forward, reference.backward) == 0
    monkeypatch.setattr(gpu.jax, "devices", lambda: [Device()])
    assert asked() and not caplog.text
    for name, wrong in (
        ("backward", dropped_cotangent),
        ("forward", lambda q, part: [jnp.nan * x for x in reference.forward(q, part)]),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(gpu, name, wrong)
            assert not asked() and "plain XLA, which is slower: cuDNN's fails: its outputs" in caplog.text
        caplog.clear()
    monkeypatch.setattr(gpu.jax, "devices", lambda: [Device(compute_capability="7.5")])
    assert not asked() and "capability 7.5 is below 8.0" in caplog.text
    gpu._is_right_here.cache_clear()


def test_what_is_private_in_jax_is_called_as_it_wants_to_be():
    asked = inspect.signature(tpu.splash._splash_attention_bwd).parameters
    mask = tpu.masks.MultiHeadMask([tpu.masks.CausalMask((128, 128))])
    kernel = tpu.splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1)
    assert set(asked) == {*kernel.kwargs, "res", "do"}
    kept = "q k v segment_ids sinks out logsumexp dq_mask_info dkv_mask_info"
    source = inspect.getsource(tpu.splash._splash_attention_fwd)
    assert re.findall(r"return out, \(([\w\s,]+)\)", source)[0].replace(",", "").split() == kept.split()
    operands = "query key value bias q_seqlen kv_seqlen q_offsets kv_offsets page_table_k page_table_v"
    options = "scale seed dropout_rate variadic_args mask_type layout sliding_window_length"
    for function, more in (
        (gpu.cudnn._dot_product_attention_fwd_impl, ("", "is_training")),
        (gpu.cudnn._dot_product_attention_bwd_impl, ("activation fwd_output grad_output", "")),
    ):
        expected = f"{operands} {more[0]} {options} {more[1]}".split()
        assert [*inspect.signature(function).parameters] == expected


@EVERY_CASE
def test_what_this_platform_is_given_for_short_rows_agrees_as_well(case):
    check(case, attention)


def dropped_cotangent(q, part, lse, out, d_out):
    """The gradient of a part by itself, as if its share of the whole were fixed."""
    own_out, own_lse = reference.forward(q, part)
    share = jnp.exp(own_lse - lse).swapaxes(1, 2)[..., None]
    return reference.backward(q, part, own_lse, own_out, d_out * share)


def rounded_sum(forward, q, part):
    out, lse = forward(q, part)
    return out, lse.astype(jnp.bfloat16).astype(jnp.float32)


def shifted(compute, q, part, *rest):
    """Causal masks aligned as if the queries began one key later."""
    if part.length_B is not None:
        return compute(q, part, *rest)
    k, v = (jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (part.k_BSKH, part.v_BSKH))
    return compute(q, part._replace(k_BSKH=k, v_BSKH=v), *rest)


def other_offsets(compute, q, part, *rest):
    """A prompt one key too long; segments that begin one place too late."""
    changed = {name: x for name, x in part._asdict().items() if x is not None and name not in ("k_BSKH", "v_BSKH")}
    changed = {name: x + 1 if name == "length_B" else jnp.roll(x, 1, axis=1) for name, x in changed.items()}
    return compute(q, part._replace(**changed), *rest)


FAULTS = {
    "dropped cotangent": (BEHIND_PROMPTS, (reference.forward, dropped_cotangent)),
    "log-sum-exp in bfloat16": (BEHIND_PROMPTS, (partial(rounded_sum, reference.forward), reference.backward)),
    "prompts one key too long": (BEHIND_PROMPTS, [partial(other_offsets, f) for f in BOTH]),
    "segments one place too late": (PACKED, [partial(other_offsets, f) for f in BOTH]),
    "causal mask one place off": (BEHIND_PROMPTS, [partial(shifted, f) for f in BOTH]),
    "heads grouped by another order": (
        BEHIND_PROMPTS,
        (lambda q, part: reference.forward(q, part._replace(v_BSKH=part.v_BSKH[:, :, ::-1])), reference.backward),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault):
    case, implementation = FAULTS[fault]
    check(case, join(*BOTH))
    with pytest.raises(AssertionError, match="Mismatched elements"):
        check(case, join(*implementation), tolerance=1e-4)


def test_the_sum_is_float32_and_the_output_has_the_dtype_of_the_queries():
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in BEHIND_PROMPTS[:3])
    out, lse = jax.eval_shape(reference.forward, q, AttentionPart(k, v))
    assert (out.dtype, out.shape, lse.dtype, lse.shape) == (q.dtype, q.shape, jnp.float32, (4, 4, 24))
    attend = join(*BOTH)
    kept = jax.eval_shape(lambda *args: jax.vjp(lambda q, k, v: attend(q, (AttentionPart(k, v),)), *args)[1], q, k, v)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept) if leaf.shape == (4, 4, 24)} == {jnp.dtype("float32")}
    # Nothing in T x T is kept.
    assert max(leaf.size for leaf in jax.tree.leaves(kept)) == q.size


def test_memory_of_long_rows_is_in_proportion_to_their_length_backward_too():
    def temporary_bytes(t):
        q, k = (jax.ShapeDtypeStruct((1, t, heads, 8), jnp.float32) for heads in (4, 2))
        gradient = jax.jit(jax.grad(lambda q, k, v: jnp.sum(attention(q, (AttentionPart(k, v),))), (0, 1, 2)))
        return gradient.lower(q, k, k).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(8192) < 2.5 * temporary_bytes(4096)
