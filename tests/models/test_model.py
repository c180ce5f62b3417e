"""The decoder against one written out in NumPy, a token and a head at a time, in float64."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit.distributed.mesh import RULES
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec
from tests.support.numpy_decoder import (
    GROUPED,
    NORMED,
    PLAIN,
    TIED,
    in_float64,
    log_softmax,
    numpy_hidden,
    numpy_log_softmax,
    random_params,
)

FRESH = ModelConfig(vocab_size=96, width=64, layers=1, heads=4, kv_heads=4, head_width=16, ffn_width=96)
CONFIGS = pytest.mark.parametrize("config", [GROUPED, TIED, PLAIN, NORMED], ids=["grouped", "tied", "plain", "normed"])


def tokens_of(config, rows, places, seed=0):
    return np.random.default_rng(seed).integers(config.vocab_size, size=(rows, places)).astype(np.int32)


@partial(jax.jit, static_argnums=1)
def run(params, config, tokens):
    """(hidden, logits, keys and values of each layer)."""
    hidden, extras = decoder.forward_causal(params, config, tokens)
    return hidden, decoder.logits(params, hidden), extras


@CONFIGS
def test_hidden_states_and_log_probs_equal_the_written_out_decoder(config):
    params, tokens = random_params(config), tokens_of(config, 3, 9)
    hidden, logits, _ = run(params, config, tokens)
    exact = in_float64(params)
    for row in range(3):
        np.testing.assert_allclose(hidden[row], numpy_hidden(exact, config, tokens[row]), rtol=0, atol=1e-5)
        logp = log_softmax(np.asarray(logits[row], np.float64))
        np.testing.assert_allclose(logp, numpy_log_softmax(exact, config, tokens[row]), rtol=0, atol=1e-5)


@CONFIGS
def test_a_token_changes_no_earlier_hidden_state_no_other_row_and_all_from_itself_on(config):
    params, tokens = random_params(config), tokens_of(config, 3, 9)
    before = np.asarray(run(params, config, tokens)[0])
    for place in range(9):
        changed = tokens.copy()
        changed[1, place] = (changed[1, place] + 1) % config.vocab_size
        after = np.asarray(run(params, config, changed)[0])
        np.testing.assert_array_equal(after[:, :place], before[:, :place])
        np.testing.assert_array_equal(after[::2], before[::2])
        assert np.abs(after - before)[1, place:].max(axis=1).min() > 1e-4


def test_only_the_distance_between_positions_matters():
    params, tokens = random_params(GROUPED), tokens_of(GROUPED, 3, 9)

    @jax.jit
    def hidden_at(positions):
        def attend(_, q, k, v):
            return decoder.causal_attention(q, k, v), None

        rope = decoder.rope_angles(GROUPED, jnp.broadcast_to(positions, (3, 9)))
        return decoder.forward(params, GROUPED, tokens, rope, attend)[0]

    here = hidden_at(np.arange(9))
    np.testing.assert_allclose(here, run(params, GROUPED, tokens)[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(here, hidden_at(np.arange(9) + 50), rtol=0, atol=1e-4)
    assert np.abs(here - hidden_at(np.arange(9) * 2)).max() > 1e-2


def test_keys_and_values_returned_are_those_attention_has_read():
    params, tokens = random_params(GROUPED), tokens_of(GROUPED, 3, 9)
    extras = run(params, GROUPED, tokens)[2]
    p, x = in_float64(params)["layers"][0], in_float64(params)["embedding"][tokens[0]]
    y = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + GROUPED.norm_eps) * p["attention_norm"]
    assert [[part.shape for part in layer] for layer in extras] == [[(3, 9, 2, 6)] * 2] * 2
    np.testing.assert_allclose(extras[0][1][0], np.einsum("td,dkh->tkh", y, p["v"]) + p["v_bias"], atol=1e-5)
    # Position 0 is not turned, and turning keeps lengths.
    keys = np.einsum("td,dkh->tkh", y, p["k"]) + p["k_bias"]
    np.testing.assert_allclose(extras[0][0][0, 0], keys[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(extras[0][0][0], axis=-1), np.linalg.norm(keys, axis=-1), rtol=1e-5)


def test_bfloat16_weights_keep_norms_softmax_and_logits_in_float32():
    config = replace(GROUPED, dtype="bfloat16")
    params, tokens = jax.tree.map(jnp.bfloat16, random_params(GROUPED)), tokens_of(config, 3, 9)
    fresh = jax.eval_shape(partial(decoder.init_params, config), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("bfloat16")}
    hidden, logits, _ = run(params, config, tokens)
    assert hidden.dtype == jnp.bfloat16 and logits.dtype == jnp.float32
    exact = np.stack([numpy_log_softmax(in_float64(params), config, row) for row in tokens])
    np.testing.assert_allclose(log_softmax(np.asarray(logits)), exact, rtol=0, atol=0.1)


def leaves_of(config, key):
    return {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(decoder.init_params(config, key))[0]
    }


def specs_of(config):
    specs = decoder.parameter_specs(config)
    flat = jax.tree_util.tree_flatten_with_path(specs, is_leaf=lambda x: isinstance(x, ParameterSpec))[0]
    return {jax.tree_util.keystr(path): spec for path, spec in flat}


def test_a_leafs_initial_values_depend_on_its_name_and_not_on_the_leaves_beside_it():
    more = replace(FRESH, layers=4, qkv_bias=False, tied_embedding=True)
    few, many = leaves_of(FRESH, jax.random.key(3)), leaves_of(more, jax.random.key(3))
    few_specs, many_specs = specs_of(FRESH), specs_of(more)
    shared = [name for name in few if name in many and few_specs[name].std]
    assert len(shared) == 1 + 7
    for name in shared:
        np.testing.assert_allclose(few[name] / few_specs[name].std, many[name] / many_specs[name].std, rtol=1e-5)


def test_no_two_leaves_and_no_two_keys_share_their_initial_values():
    config = replace(FRESH, layers=6)
    specs = specs_of(config)
    drawn = {
        (seed, name): tuple(np.ravel(leaf)[:4] / specs[name].std)
        for seed in (0, 1)
        for name, leaf in leaves_of(config, jax.random.key(seed)).items()
        if specs[name].std
    }
    assert len({tuple(np.round(values, 4)) for values in drawn.values()}) == len(drawn) == 2 * (2 + 6 * 7)


def test_initial_values_have_the_shapes_and_spreads_their_specs_say():
    specs, leaves = specs_of(FRESH), leaves_of(FRESH, jax.random.key(0))
    assert specs.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert leaf.shape == specs[name].shape
        if specs[name].std is None:
            assert np.all(np.asarray(leaf) == 1)
        else:
            assert np.std(leaf) == pytest.approx(specs[name].std, rel=5 * leaf.size**-0.5)
            assert abs(np.mean(leaf)) <= 5 * specs[name].std * leaf.size**-0.5


def test_logits_of_a_fresh_model_have_a_spread_near_one_tied_or_not():
    for tied in (False, True):
        config = replace(FRESH, tied_embedding=tied)
        logits = run(decoder.init_params(config, jax.random.key(0)), config, tokens_of(config, 4, 16))[1]
        assert 0.7 < np.std(logits) < 1.4


@CONFIGS
def test_parameter_count_is_the_sum_of_all_sizes(config):
    d, f, h = config.width, config.ffn_width, config.head_width
    per_layer = 2 * d + 2 * d * h * (config.heads + config.kv_heads) + 3 * d * f
    per_layer += h * (config.heads + 2 * config.kv_heads) if config.qkv_bias else 0
    per_layer += 2 * h if config.qk_norm else 0
    by_hand = config.vocab_size * d * (1 if config.tied_embedding else 2) + config.layers * per_layer + d
    assert decoder.parameter_count(config) == by_hand
    fresh = jax.eval_shape(partial(decoder.init_params, config), jax.random.key(0))
    assert by_hand == sum(leaf.size for leaf in jax.tree.leaves(fresh))


@CONFIGS
def test_every_axis_has_a_known_name_one_size_and_a_place_of_its_own_on_the_mesh(config):
    sizes = {
        "vocab": config.vocab_size,
        "embed": config.width,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "ffn": config.ffn_width,
    }
    assert sizes.keys() == RULES.keys() - {"rows", "draws"} and len(RULES) <= 12
    for name, spec in specs_of(config).items():
        assert len(spec.axes) == len(spec.shape), name
        assert all(axis is None or sizes[axis] == size for axis, size in zip(spec.axes, spec.shape, strict=True)), name
        places = [place for axis in spec.axes if axis for place in RULES[axis]]
        assert len(places) == len(set(places)), name
