"""Log-likelihood of given answers under given parameters (METRICS.md item 14). Shape legend: decoder.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.token_logprob import token_logprob
from rlvr_limit.distributed.mesh import constrain, fetched, mesh_of, row_devices, row_shards, shards_of
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.types import UserError

HELD_LOGITS = 2**27
"""Logits that scoring holds at a time on one device: 0.5 GB in float32."""

SHORTEST = (32, 32)
"""The least places of prompts and answers."""

Pair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of an answer to it."""


class Rows(NamedTuple):
    """Prompts and answers side by side; answer marks the tokens that count.

    Either one pair a row, padded on the right, or several: then segment counts a row's pieces from 1 (0: padding), and
    position a pair's tokens from 0. A piece is a pair, or the head of a prompt, or what follows it of one of the pairs
    with that prompt; behind is the segment of that head, or the piece's own.
    """

    tokens_BT: jax.Array
    answer_BT: jax.Array
    segment_BT: jax.Array | None = None
    position_BT: jax.Array | None = None
    behind_BT: jax.Array | None = None


class Shared(NamedTuple):
    """Answers in rows, several of which may stand behind one prompt, whose keys and values are then computed once.

    prefix_PS are prompts without their last token, padded on the right, of which length_P tokens count. Row b stands
    behind prompt of_B[b] of those of its shard: tokens_BT are that prompt's last token and the answer without its last
    one, targets_BT the answer, answer_BT its places that count.
    """

    prefix_PS: jax.Array
    length_P: jax.Array
    of_B: jax.Array
    tokens_BT: jax.Array
    targets_BT: jax.Array
    answer_BT: jax.Array


def to_rows(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], places: int) -> Rows:
    """Rows [B, places] of (prompt ids, answer ids) pairs. Raises UserError where a pair does not fit."""
    tokens = np.zeros((len(pairs), places), np.int32)
    answer = np.zeros((len(pairs), places), bool)
    for i, (prompt, reply) in enumerate(pairs):
        end = len(prompt) + len(reply)
        if not prompt or end > places:
            raise UserError(f"likelihood: pair {i} has {len(prompt)} + {len(reply)} tokens, a row holds {places}")
        tokens[i, :end] = (*prompt, *reply)
        answer[i, len(prompt) : end] = True
    return Rows(tokens, answer)


def answer_logprobs(
    params: Params,
    config: ModelConfig,
    rows: Rows | Shared,
    chunk: int = 4096,
    packed: int | None = None,
    held: int = HELD_LOGITS,
    remat: str = "none",
    sums: list[Params] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(log P(token | everything before it), entropy of that distribution) [B, T], nats; 0 outside the answers.

    Logits are there for `chunk` positions of a device at a time, fewer where more than `held` would be there; in a
    backward pass as many. packed: at how many positions of a device they are computed, a result of packed_positions;
    None: at every one. Answer tokens that find no place in it come out as NaN. remat, sums: see decoder.decode.
    """
    hidden_BTD = states(params, config, rows, remat, sums)
    if isinstance(rows, Shared):
        targets_BT, predicts_BT = rows.targets_BT, rows.answer_BT
    else:
        targets_BT, predicts_BT = (jnp.roll(x, -1, axis=1) for x in (rows.tokens_BT, rows.answer_BT))
    found = _of_places(params, config, hidden_BTD, targets_BT, predicts_BT, chunk, packed, held)
    return tuple(at_answers(rows, x) for x in found)


def states(
    params: Params,
    config: ModelConfig,
    rows: Rows | Shared,
    remat: str = "none",
    sums: list[Params] | None = None,
) -> jax.Array:
    """The normed hidden state [B, T, D] of each place of the rows; remat, sums: see decoder.decode."""
    if not isinstance(rows, Shared):
        about = rows.position_BT, rows.segment_BT, rows.behind_BT
        return decoder.causal(params, config, rows.tokens_BT, "rows", *about, remat=remat, sums=sums)[0]
    shards = row_shards(params["final_norm"], len(rows.of_B))

    def of_rows(x: jax.Array) -> jax.Array:
        """x [P, ...] of the prompts as [B, ...] of the rows, each looked up on its own device."""
        flat = x.reshape(shards, len(x) // shards, -1)
        found = jax.vmap(lambda mine, of: mine[of])(flat, rows.of_B.reshape(shards, -1))
        return found.reshape(len(rows.of_B), *x.shape[1:])

    long = rows.prefix_PS.shape[1]
    length_B = of_rows(rows.length_P)
    cache = decoder.causal(params, config, rows.prefix_PS, remat=remat)[1] if long else []

    def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        before = decoder.Before(*map(of_rows, cache[i]), length_B) if long else None
        return decoder.causal_attention(q, k, v, before=before), None

    turned = decoder.rotation(config, length_B[:, None] + jnp.arange(rows.tokens_BT.shape[1]))
    return decoder.decode(params, config, rows.tokens_BT, turned, attend, remat=remat, sums=sums)[0]


def at_answers(rows: Rows | Shared, x_BT: jax.Array) -> jax.Array:
    """What was computed of each place's state, at the answer tokens that the states stand before; 0 elsewhere."""
    return jnp.where(rows.answer_BT, x_BT if isinstance(rows, Shared) else jnp.roll(x_BT, 1, axis=1), 0.0)


@partial(jax.jit, static_argnums=(1, 3))
def scores_of(
    params: Params, config: ModelConfig, rows: Shared, packed: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """answer_logprobs as a program of its own."""
    return answer_logprobs(params, config, rows, packed=packed)


def _of_places(
    params: Params,
    config: ModelConfig,
    hidden_BTD: jax.Array,
    targets_BT: jax.Array,
    wanted_BT: jax.Array,
    chunk: int,
    packed: int | None,
    held: int,
) -> tuple[jax.Array, jax.Array]:
    """(log-prob of each target, entropy) [B, T] where wanted, anything elsewhere; see answer_logprobs for the rest."""
    b, t = targets_BT.shape
    # On a mesh each device has its share of every chunk; cut across devices, all of them would work on each chunk.
    shards = row_shards(hidden_BTD, b)
    positions = b * t // shards
    hidden_SPD = hidden_BTD.reshape(shards, positions, -1)
    targets_SP = targets_BT.reshape(shards, positions)
    if packed is None:
        chunk = min(chunk, max(1, held // config.vocab_size), positions)
        # Chunks of about one size, since the last one is filled up.
        chunk = -(-positions // -(-positions // chunk))
        found = _in_chunks(params, config, hidden_SPD, targets_SP, chunk, held)
    else:
        wanted_SP = wanted_BT.reshape(shards, positions)
        chosen_SK = jnp.argsort(~wanted_SP, axis=1, stable=True)[:, :packed]
        packed_SKD = jnp.take_along_axis(hidden_SPD, chosen_SK[..., None], axis=1)
        packed_targets_SK = jnp.take_along_axis(targets_SP, chosen_SK, axis=1)
        packed_chunk = _packed_chunk(config, positions, chunk, held)
        found = _in_chunks(params, config, packed_SKD, packed_targets_SK, packed_chunk, held)
        place_SP = jnp.cumsum(wanted_SP, axis=1) - 1
        found = (
            jnp.where(place_SP < packed, jnp.take_along_axis(x, jnp.clip(place_SP, 0, packed - 1), axis=1), jnp.nan)
            for x in found
        )
    return tuple(x.reshape(b, t) for x in found)


def packed_positions(
    config: ModelConfig, answer_BT: np.ndarray, shards: int, chunk: int = 4096, held: int = HELD_LOGITS
) -> int:
    """The `packed` of answer_logprobs, of the same chunk and held, for these answers, where rows are cut into so many
    shards.

    The most answer tokens of a shard, rounded up to whole chunks and to an eighth of the next power of two: less than
    a quarter too many or than a chunk, and few programs are compiled.
    """
    positions = answer_BT.size // shards
    most = max(1, int(np.max(np.sum(answer_BT.reshape(shards, -1), axis=1))))
    step = max(_packed_chunk(config, positions, chunk, held), (1 << (most - 1).bit_length()) // 8)
    return min(-(-most // step) * step, positions)


def _packed_chunk(config: ModelConfig, positions: int, chunk: int, held: int) -> int:
    """A power of two, and the same however many positions are packed: an answer's bits shall not hang on its mates."""
    return 1 << max(1, min(chunk, held // config.vocab_size, positions // 8)).bit_length() - 1


def _in_chunks(
    params: Params, config: ModelConfig, hidden_SPD: jax.Array, targets_SP: jax.Array, chunk: int, held: int
) -> tuple[jax.Array, jax.Array]:
    """token_logprob of each shard, padded to whole chunks."""
    positions = targets_SP.shape[1]
    rest = -positions % chunk
    hidden_SPD = jnp.pad(hidden_SPD, ((0, 0), (0, rest), (0, 0)))
    targets_SP = jnp.pad(targets_SP, ((0, 0), (0, rest)))
    with decoder.matmul_precision(config.dtype):
        # Whole in D before the chunks: XLA would else fetch all of it from the other devices for each of them. Rounded
        # where it lies, so that the rounded numbers are fetched.
        weights_DV = constrain(decoder.unembedding(params).astype(config.dtype), "embed", "vocab")
        weights_DV = constrain(weights_DV, None, "vocab")
        logp, entropy = _per_shard(hidden_SPD, weights_DV, targets_SP, chunk, held)
    return logp[:, :positions], entropy[:, :positions]


def _per_shard(
    hidden_SPD: jax.Array, unembedding_DV: jax.Array, targets_SP: jax.Array, chunk: int, held: int
) -> tuple[jax.Array, jax.Array]:
    parts = shards_of(unembedding_DV, "vocab", 1)
    compute = partial(token_logprob, chunk=chunk, vocabulary_parts=parts, held=held)
    if len(hidden_SPD) == 1:
        logp, entropy = compute(hidden_SPD[0], unembedding_DV, targets_SP[0])
        return logp[None], entropy[None]
    return jax.vmap(compute, in_axes=(0, None, 0))(hidden_SPD, unembedding_DV, targets_SP)


class Scored(NamedTuple):
    """Of each token of an answer: its log-prob, and the entropy of the distribution it stands in; nats."""

    logp: tuple[float, ...]
    entropy: tuple[float, ...]


def score(
    params: Params,
    config: ModelConfig,
    pairs: Iterable[Pair],
    tokens: int = 4_096,
    shortest: tuple[int, int] = SHORTEST,
) -> list[Scored]:
    """score_batches of all pairs at once, in the order of the pairs."""
    pairs = list(pairs)
    found = [Scored((), ())] * len(pairs)
    for i, scored in score_batches(params, config, pairs, tokens, shortest):
        found[i] = scored
    return found


def score_batches(
    params: Params,
    config: ModelConfig,
    pairs: Sequence[Pair],
    tokens: int = 4_096,
    shortest: tuple[int, int] = SHORTEST,
) -> Iterator[tuple[int, Scored]]:
    """(place among the pairs, its scores) as batches are computed, short answers first; empty answers are left out.

    About `tokens` padded tokens of answers, and as many of prompts, are computed at a time on each device. shortest:
    see lay_out. Raises UserError for a pair without a prompt.
    """
    shards = shards_of_rows(params)
    for places, rows in lay_out(pairs, tokens, shards, shortest):
        packed = packed_positions(config, rows.answer_BT, shards)
        logp_RT, entropy_RT = map(fetched, scores_of(params, config, rows, packed))
        for row, i in places.items():
            end = len(pairs[i][1])
            yield i, Scored(tuple(logp_RT[row, :end].tolist()), tuple(entropy_RT[row, :end].tolist()))


def shards_of_rows(params: Params) -> int:
    """Into how many parts the mesh of these parameters cuts rows that divide by it."""
    return row_devices(mesh_of(params))


def lay_out(
    pairs: Sequence[Pair], tokens: int, shards: int, shortest: tuple[int, int] = SHORTEST
) -> Iterator[tuple[dict[int, int], Shared]]:
    """(row -> place among the pairs, the rows) of one batch after the other, each of as many shards.

    A batch holds answers of about one length, prompts of about one length, and equal prompts once. Lengths are padded
    to a power of two or one and a half of it, and at least to `shortest` (prompts, answers), so that few programs are
    compiled; rows are as many in every batch of such lengths.
    """
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (prompt, reply) in enumerate(pairs):
        if not prompt:
            raise UserError(f"likelihood: pair {i} has no prompt, one token or more is right")
        if reply:
            sizes = padded(len(reply), shortest[1]), padded(len(prompt) - 1, shortest[0])
            alike[sizes].append(i)
    for (t, s), members in sorted(alike.items()):
        members.sort(key=lambda i: (tuple(pairs[i][0]), i))
        most_rows, most_prompts = max(1, tokens // t), max(1, tokens // s) if s else len(members)
        batches = -(-len(members) // (most_rows * shards))
        most_rows = -(-len(members) // (batches * shards))
        cut = _cut(pairs, members, most_rows, most_prompts)
        for start in range(0, len(cut), shards):
            parts = cut[start : start + shards]
            yield _rows_of(pairs, parts + [[]] * (shards - len(parts)), most_rows, s, t)


def padded(length: int, shortest: int) -> int:
    """0, or the first of shortest, 1.5 shortest, 2 shortest, 3 shortest, 4 shortest, ... that is not less."""
    size = shortest
    while size < length:
        size = size * 3 // 2 if size * 3 // 2 >= length else size * 2
    return size if length else 0


def _cut(pairs: Sequence[Pair], members: Sequence[int], most_rows: int, most_prompts: int) -> list[list[int]]:
    """Members in runs of at most so many rows and different prompts; equal prompts stand side by side."""
    parts: list[list[int]] = []
    prompts: set[tuple[int, ...]] = set()
    for i in members:
        prompt = tuple(pairs[i][0])
        if not parts or len(parts[-1]) == most_rows or (prompt not in prompts and len(prompts) == most_prompts):
            parts.append([])
            prompts = set()
        parts[-1].append(i)
        prompts.add(prompt)
    return parts


def _rows_of(pairs: Sequence[Pair], parts: list[list[int]], rows: int, s: int, t: int) -> tuple[dict[int, int], Shared]:
    """lay_out's result for parts of one shard each."""
    prompts = [list(dict.fromkeys(tuple(pairs[i][0]) for i in part)) for part in parts]
    each = 1 << (max(map(len, prompts)) - 1).bit_length()
    found = Shared(
        np.zeros((len(parts) * each, s), np.int32),
        np.zeros(len(parts) * each, np.int32),
        np.zeros(len(parts) * rows, np.int32),
        np.zeros((len(parts) * rows, t), np.int32),
        np.zeros((len(parts) * rows, t), np.int32),
        np.zeros((len(parts) * rows, t), bool),
    )
    places = {}
    for shard, (part, asked) in enumerate(zip(parts, prompts, strict=True)):
        for at, prompt in enumerate(asked, start=shard * each):
            found.length_P[at] = len(prompt) - 1
            found.prefix_PS[at, : len(prompt) - 1] = prompt[:-1]
        at_prompt = {prompt: at for at, prompt in enumerate(asked)}
        for row, i in enumerate(part, start=shard * rows):
            prompt, reply = pairs[i]
            places[row] = i
            found.of_B[row] = at_prompt[tuple(prompt)]
            found.tokens_BT[row, : len(reply)] = (prompt[-1], *reply[:-1])
            found.targets_BT[row, : len(reply)] = reply
            found.answer_BT[row, : len(reply)] = True
    return places, found


def perplexity(logp: Sequence[float]) -> float:
    """exp(-(1/T) sum_t log P(y_t | x, y_<t)) over the T tokens of an answer, its end token included."""
    return float(np.exp(-np.mean(np.asarray(logp, np.float64))))
