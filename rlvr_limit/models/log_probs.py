"""Log-probabilities of given answers under given parameters (metrics.md item 14). Shape legend: decoder.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import AttentionPart
from kernels.matmul import ColumnMajor
from kernels.token_logprob import token_logprob
from rlvr_limit.distributed.mesh import constrain, fetch, mesh_of, row_devices, shard_count
from rlvr_limit.models import decoder, vision
from rlvr_limit.models.decoder import ImageTokens, ModelConfig, Params
from rlvr_limit.models.image_layout import SeenRows, VisionConfig, padded_length, seen_rows, with_images
from rlvr_limit.types import UserError

MAX_LIVE_LOGITS = 2**27
"""Logits that scoring computes at a time on one device: 0.5 GB in float32."""

MIN_LENGTHS = (32, 32)
"""The least padded length of prompts and of answers."""

Pair = tuple[Sequence[int], Sequence[int]] | tuple[Sequence[int], Sequence[int], Sequence[Any]]
"""Token ids of a prompt and of an answer to it; then, where the prompt has any, its images."""


class AnswerRows(NamedTuple):
    """Prompts and answers side by side: either one pair a row, padded on the right, or several pieces a row.

    A piece is a pair, or the head of a prompt, or what follows that head in one of the pairs with the prompt.
    """

    tokens_BT: jax.Array
    answer_BT: jax.Array  # True at the tokens to be scored
    segment_BT: jax.Array | None = None  # the pieces of a row, counted from 1; 0: padding
    position_BT: jax.Array | None = None  # of a token in its pair, from 0
    prefix_segment_BT: jax.Array | None = None  # the segment of the piece's head, or the piece's own
    seen: SeenRows | None = None  # whose positions then count


class PrefixBatch(NamedTuple):
    """Answers in rows, several of which may share a prompt, whose keys and values are then computed once."""

    prefix_PS: jax.Array  # prompts without their last token, padded on the right
    length_P: jax.Array  # tokens of each that count
    prefix_index_B: jax.Array  # the prompt of each row, among those of its shard
    tokens_BT: jax.Array  # the prompt's last token, then the answer without its last one
    targets_BT: jax.Array  # the answer
    answer_BT: jax.Array  # True at the targets to be scored
    seen: SeenRows | None = None  # of the prompts


def answer_rows(pairs: Sequence[Pair], length: int) -> AnswerRows:
    """One pair a row, [B, length], without images. Raises UserError where a pair does not fit."""
    tokens = np.zeros((len(pairs), length), np.int32)
    answer = np.zeros((len(pairs), length), bool)
    for i, (prompt, reply, *_) in enumerate(pairs):
        end = len(prompt) + len(reply)
        if not prompt or end > length:
            raise UserError(f"log_probs: pair {i} has {len(prompt)} + {len(reply)} tokens, a row holds {length}")
        tokens[i, :end] = (*prompt, *reply)
        answer[i, len(prompt) : end] = True
    return AnswerRows(tokens, answer)


def seen_answer_rows(pairs: Sequence[Pair], length: int, config: VisionConfig | None) -> tuple[AnswerRows, list[Any]]:
    """(answer_rows with what they see but for the images, which with_images adds to a part of the rows; the images)."""
    rows = answer_rows(pairs, length)
    seen, shown = seen_rows([(pair[0], _images(pair)) for pair in pairs], config, length)
    return rows._replace(seen=seen), shown


def _images(pair: Pair) -> Sequence[Any]:
    return pair[2] if len(pair) > 2 else ()


def _prompt(pair: Pair) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """What tells one prompt from another."""
    return tuple(pair[0]), tuple(image.digest for image in _images(pair))


def answer_log_probs(
    params: Params,
    config: ModelConfig,
    rows: AnswerRows | PrefixBatch,
    chunk: int = 4096,
    packed: int | None = None,
    max_live_logits: int = MAX_LIVE_LOGITS,
    remat: str = "none",
    grad_sums: list[Params] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(log P(token | everything before it), entropy of that distribution) [B, T], nats; 0 outside the answers.

    A device computes the logits of `chunk` positions at a time, or of fewer, so that they are at most max_live_logits;
    the same in a backward pass. packed: at how many positions of a device they are computed (packed_positions); answer
    tokens beyond them come out as NaN. None: at every position. remat, grad_sums: see decoder.forward.
    """
    hidden_BTD = hidden_states(params, config, rows, remat, grad_sums)
    if isinstance(rows, PrefixBatch):
        targets_BT, wanted_BT = rows.targets_BT, rows.answer_BT
    else:
        targets_BT, wanted_BT = (jnp.roll(x, -1, axis=1) for x in (rows.tokens_BT, rows.answer_BT))
    b, t = targets_BT.shape
    # On a mesh each device has its share of every chunk; cut across devices, all of them would work on each chunk.
    shards = shard_count(hidden_BTD, b)
    positions = b * t // shards
    hidden_SPD = hidden_BTD.reshape(shards, positions, -1)
    targets_SP = targets_BT.reshape(shards, positions)
    if packed is None:
        chunk = min(chunk, max(1, max_live_logits // config.vocab_size), positions)
        # Chunks of about one size, since the last one is padded.
        chunk = -(-positions // -(-positions // chunk))
        scores = _chunked_log_probs(params, config, hidden_SPD, targets_SP, chunk, max_live_logits)
    else:
        wanted_SP = wanted_BT.reshape(shards, positions)
        chosen_SK = jnp.argsort(~wanted_SP, axis=1, stable=True)[:, :packed]
        packed_SKD = jnp.take_along_axis(hidden_SPD, chosen_SK[..., None], axis=1)
        packed_targets_SK = jnp.take_along_axis(targets_SP, chosen_SK, axis=1)
        packed_chunk = _packed_chunk(config, positions, chunk, max_live_logits)
        scores = _chunked_log_probs(params, config, packed_SKD, packed_targets_SK, packed_chunk, max_live_logits)
        place_SP = jnp.cumsum(wanted_SP, axis=1) - 1
        scores = (
            jnp.where(place_SP < packed, jnp.take_along_axis(x, jnp.clip(place_SP, 0, packed - 1), axis=1), jnp.nan)
            for x in scores
        )
    return tuple(at_answer_tokens(rows, x.reshape(b, t)) for x in scores)


def hidden_states(
    params: Params,
    config: ModelConfig,
    rows: AnswerRows | PrefixBatch,
    remat: str = "none",
    grad_sums: list[Params] | None = None,
) -> jax.Array:
    """The normed hidden state [B, T, D] at each place of the rows; remat, grad_sums: see decoder.forward."""
    images, position = None, None
    if rows.seen is not None:
        encoded = vision.encode(params["vision"], config.vision, config.dtype, rows.seen.images, remat=remat)
        row_BT = rows.seen.image_BT * encoded.shape[1] + rows.seen.token_BT
        images = ImageTokens(encoded.reshape(-1, config.width), jnp.where(rows.seen.token_BT > 0, row_BT, 0))
        position = rows.seen.position_BT3
    if isinstance(rows, AnswerRows):
        layout = rows.position_BT if position is None else position, rows.segment_BT, rows.prefix_segment_BT
        return decoder.forward_causal(params, config, rows.tokens_BT, "rows", *layout, remat, grad_sums, images)[0]
    b, prefix_length = len(rows.prefix_index_B), rows.prefix_PS.shape[1]
    shards = shard_count(params["final_norm"], b)

    def of_rows(x: jax.Array) -> jax.Array:
        """x [P, ...] of the prompts as [B, ...] of the rows, each looked up on its own device."""
        by_shard = x.reshape(shards, len(x) // shards, -1)
        looked_up = jax.vmap(lambda x, index: x[index])(by_shard, rows.prefix_index_B.reshape(shards, -1))
        return looked_up.reshape(b, *x.shape[1:])

    length_B = of_rows(rows.length_P)
    position_B = length_B if rows.seen is None else length_B + of_rows(rows.seen.delta_B)
    cache = []
    if prefix_length:
        more = {"positions_BT": position, "remat": remat, "images": images}
        cache = decoder.forward_causal(params, config, rows.prefix_PS, **more)[1]

    def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, None]:
        prefix = AttentionPart(*map(of_rows, cache[i]), length_B) if prefix_length else None
        return decoder.causal_attention(q, k, v, prefix=prefix), None

    rope = decoder.rope_angles(config, position_B[:, None] + jnp.arange(rows.tokens_BT.shape[1]))
    return decoder.forward(params, config, rows.tokens_BT, rope, attend, remat=remat, grad_sums=grad_sums)[0]


def at_answer_tokens(rows: AnswerRows | PrefixBatch, x_BT: jax.Array) -> jax.Array:
    """Values computed from the states that predict them, moved to the answer tokens; 0 elsewhere."""
    return jnp.where(rows.answer_BT, x_BT if isinstance(rows, PrefixBatch) else jnp.roll(x_BT, 1, axis=1), 0.0)


@partial(jax.jit, static_argnums=(1, 3))
def score_prefix_batch(
    params: Params, config: ModelConfig, rows: PrefixBatch, packed: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """answer_log_probs as a program of its own."""
    return answer_log_probs(params, config, rows, packed=packed)


def packed_positions(
    config: ModelConfig,
    answer_BT: np.ndarray,
    shards: int,
    chunk: int = 4096,
    max_live_logits: int = MAX_LIVE_LOGITS,
) -> int:
    """The `packed` of answer_log_probs, with the same chunk and max_live_logits, for rows cut into so many shards.

    The most answer tokens of a shard, rounded up to whole chunks and to an eighth of the next power of two: less than
    a quarter too many or than a chunk, and few programs are compiled.
    """
    positions = answer_BT.size // shards
    most = max(1, int(np.max(np.sum(answer_BT.reshape(shards, -1), axis=1))))
    step = max(_packed_chunk(config, positions, chunk, max_live_logits), (1 << (most - 1).bit_length()) // 8)
    return min(-(-most // step) * step, positions)


def _packed_chunk(config: ModelConfig, positions: int, chunk: int, max_live_logits: int) -> int:
    """A power of two that does not depend on how many positions are packed, or an answer's bits would too."""
    return 1 << max(1, min(chunk, max_live_logits // config.vocab_size, positions // 8)).bit_length() - 1


def _chunked_log_probs(
    params: Params,
    config: ModelConfig,
    hidden_SPD: jax.Array,
    targets_SP: jax.Array,
    chunk: int,
    max_live_logits: int,
) -> tuple[jax.Array, jax.Array]:
    """token_logprob of each shard, padded to whole chunks."""
    positions = targets_SP.shape[1]
    rest = -positions % chunk
    hidden_SPD = jnp.pad(hidden_SPD, ((0, 0), (0, rest), (0, 0)))
    targets_SP = jnp.pad(targets_SP, ((0, 0), (0, rest)))
    with decoder.matmul_precision(config.dtype):
        # Whole in D before the chunks: XLA would else fetch all of it from the other devices for each of them. Rounded
        # where it lies, so that the rounded numbers are fetched.
        weights_DV, parts = decoder.unembedding(params), 1
        if not isinstance(weights_DV, ColumnMajor):
            weights_DV = constrain(weights_DV.astype(config.dtype), "embed", "vocab")
            weights_DV = constrain(weights_DV, None, "vocab")
            parts = shard_count(weights_DV, weights_DV.shape[1], "vocab")
        compute = partial(token_logprob, chunk=chunk, vocabulary_parts=parts, max_live_logits=max_live_logits)
        if len(hidden_SPD) == 1:
            scores = (x[None] for x in compute(hidden_SPD[0], weights_DV, targets_SP[0]))
        else:
            scores = jax.vmap(compute, in_axes=(0, None, 0))(hidden_SPD, weights_DV, targets_SP)
        return tuple(x[:, :positions] for x in scores)


class TokenScores(NamedTuple):
    """Of each token of an answer: its log-prob, and the entropy of the distribution it was drawn from; nats."""

    logp: tuple[float, ...]
    entropy: tuple[float, ...]


def score_pairs(
    params: Params,
    config: ModelConfig,
    pairs: Iterable[Pair],
    tokens: int = 4_096,
    min_lengths: tuple[int, int] = MIN_LENGTHS,
) -> list[TokenScores]:
    """iter_scores of all pairs at once, in the order of the pairs."""
    pairs = list(pairs)
    scores = dict(iter_scores(params, config, pairs, tokens, min_lengths))
    return [scores.get(i, TokenScores((), ())) for i in range(len(pairs))]


def iter_scores(
    params: Params,
    config: ModelConfig,
    pairs: Sequence[Pair],
    tokens: int = 4_096,
    min_lengths: tuple[int, int] = MIN_LENGTHS,
) -> Iterator[tuple[int, TokenScores]]:
    """(place among the pairs, its scores) as batches are computed, short answers first; empty answers are left out.

    About `tokens` padded tokens of answers, and as many of prompts, are computed at a time on each device. min_lengths:
    see prefix_batches. Raises UserError for a pair without a prompt.
    """
    shards = row_devices(mesh_of(params))
    for pair_of_row, rows in prefix_batches(pairs, tokens, shards, min_lengths, config.vision):
        packed = packed_positions(config, rows.answer_BT, shards)
        logp_BT, entropy_BT = map(fetch, score_prefix_batch(params, config, rows, packed))
        for row, i in pair_of_row.items():
            end = len(pairs[i][1])
            yield i, TokenScores(tuple(logp_BT[row, :end].tolist()), tuple(entropy_BT[row, :end].tolist()))


def prefix_batches(
    pairs: Sequence[Pair],
    tokens: int,
    shards: int,
    min_lengths: tuple[int, int] = MIN_LENGTHS,
    vision: VisionConfig | None = None,
) -> Iterator[tuple[dict[int, int], PrefixBatch]]:
    """(row -> place among the pairs, the rows) of each batch, cut into so many shards.

    A batch holds answers of about one length, prompts of about one length, and equal prompts once. Lengths are padded
    by padded_length, at least to min_lengths (prompts, answers), and all batches of such lengths have equally many
    rows, so that few programs are compiled.
    """
    by_lengths: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, (prompt, reply, *_) in enumerate(pairs):
        if not prompt:
            raise UserError(f"log_probs: pair {i} has no prompt: it needs one token or more")
        if reply:
            lengths = padded_length(len(reply), min_lengths[1]), padded_length(len(prompt) - 1, min_lengths[0])
            by_lengths[lengths].append(i)
    for (t, s), members in sorted(by_lengths.items()):
        members.sort(key=lambda i: (_prompt(pairs[i]), i))
        most_rows, most_prompts = max(1, tokens // t), max(1, tokens // s) if s else len(members)
        batches = -(-len(members) // (most_rows * shards))
        most_rows = -(-len(members) // (batches * shards))
        parts = _split(pairs, members, most_rows, most_prompts)
        for start in range(0, len(parts), shards):
            of_shards = parts[start : start + shards]
            yield _prefix_batch(pairs, of_shards + [[]] * (shards - len(of_shards)), most_rows, s, t, vision)


def _split(pairs: Sequence[Pair], members: Sequence[int], most_rows: int, most_prompts: int) -> list[list[int]]:
    """Members in runs of at most so many rows and different prompts; equal prompts stand side by side."""
    parts: list[list[int]] = []
    prompts: set[Hashable] = set()
    for i in members:
        prompt = _prompt(pairs[i])
        if not parts or len(parts[-1]) == most_rows or (prompt not in prompts and len(prompts) == most_prompts):
            parts.append([])
            prompts = set()
        parts[-1].append(i)
        prompts.add(prompt)
    return parts


def _prefix_batch(
    pairs: Sequence[Pair], parts: list[list[int]], rows: int, s: int, t: int, vision: VisionConfig | None
) -> tuple[dict[int, int], PrefixBatch]:
    """One result of prefix_batches; parts are the members of each shard."""
    prompts = [{_prompt(pairs[i]): pairs[i] for i in part} for part in parts]
    each = padded_length(max(map(len, prompts)), 1)
    p, b = len(parts) * each, len(parts) * rows
    shapes = {"prefix_PS": (p, s), "length_P": p, "prefix_index_B": b, "tokens_BT": (b, t), "targets_BT": (b, t)}
    zeros = {name: np.zeros(shape, np.int32) for name, shape in shapes.items()}
    batch = PrefixBatch(**zeros, answer_BT=np.zeros((b, t), bool))
    pair_of_row = {}
    for shard, (part, asked) in enumerate(zip(parts, prompts, strict=True)):
        for at, (prompt, *_) in enumerate(asked.values(), start=shard * each):
            batch.length_P[at] = len(prompt) - 1
            batch.prefix_PS[at, : len(prompt) - 1] = prompt[:-1]
        at_prompt = {prompt: at for at, prompt in enumerate(asked)}
        for row, i in enumerate(part, start=shard * rows):
            prompt, reply, *_ = pairs[i]
            pair_of_row[row] = i
            batch.prefix_index_B[row] = at_prompt[_prompt(pairs[i])]
            batch.tokens_BT[row, : len(reply)] = (prompt[-1], *reply[:-1])
            batch.targets_BT[row, : len(reply)] = reply
            batch.answer_BT[row, : len(reply)] = True
    shown = [x for asked in prompts for x in [*asked.values(), *[((), ())] * (each - len(asked))]]
    seen, images = seen_rows([(pair[0], _images(pair)) for pair in shown], vision, s)
    return pair_of_row, batch._replace(seen=with_images([seen], images, vision)[0] if images else None)


def perplexity(logp: Sequence[float]) -> float:
    """exp(-(1/T) sum_t log P(y_t | x, y_<t)) over the T tokens of an answer, its end token included."""
    return float(np.exp(-np.mean(np.asarray(logp, np.float64))))
