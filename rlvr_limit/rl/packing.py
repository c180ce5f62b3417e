"""One optimizer step in the shapes that devices compute it in; prompts that are equal stand there once, where they can.

Either microbatches of one shape: several sequences a row, told apart by their segments. Or all answers of the step at
once, each in a row of its own, behind prompts in rows of their own.

Legend, beside the one of decoder.py: M microbatches, R rows of one, P places of a row; B sequences as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rlvr_limit.models.log_probs import PrefixBatch, padded_length
from rlvr_limit.types import UserError, not_allowed

SHORT_ROW = 1024
"""Places up to which attention over a row takes little beside the products, so that what rows share is worth more."""


class SequenceBounds(NamedTuple):
    """Where the sequences of a batch, one a row, end. Those without an answer have 0 tokens, and any prompt."""

    prompt_B: np.ndarray  # a number for each different prompt
    start_B: np.ndarray  # tokens of the prompt
    end_B: np.ndarray  # tokens up to the answer's last


def sequence_bounds(batch: Any) -> SequenceBounds:
    """The bounds of a batch in NumPy. An answer goes from its first marked token to its last."""
    answer_BT = np.asarray(batch.rows.answer_BT)
    assert batch.rows.segment_BT is None and answer_BT.ndim == 2
    some_B = answer_BT.any(axis=1)
    start_B = np.where(some_B, np.argmax(answer_BT, axis=1), 1)
    end_B = np.where(some_B, answer_BT.shape[1] - np.argmax(answer_BT[:, ::-1], axis=1), 0)
    numbers: dict[bytes, int] = {}
    ids_BT = np.asarray(batch.rows.tokens_BT)[..., None]
    if seen := batch.rows.seen:
        ids_BT = np.concatenate([ids_BT, np.stack([seen.image_BT, seen.token_BT], axis=-1)], axis=-1)
    prompts = (row[:start].tobytes() for row, start in zip(ids_BT, start_B, strict=True))
    ended = zip(prompts, end_B, strict=True)
    prompt_B = [numbers.setdefault(prompt, len(numbers)) if end else 0 for prompt, end in ended]
    return SequenceBounds(np.array(prompt_B), start_B, end_B)


def microbatch_shape(longest: int, tokens: int, devices: int, group: int = 0) -> tuple[int, int]:
    """(R, P) of microbatches with at most `tokens` places on each of `devices` devices that share the rows.

    A row holds the longest sequence, and where it stays short a whole group: a prompt and all answers to it. Raises
    UserError where not even one sequence fits.
    """
    if tokens < longest:
        raise not_allowed(
            "config.training.tokens", tokens, f"at least {longest}, what a prompt and its answer may take"
        )
    places = max(longest, min(group, tokens, SHORT_ROW))
    return tokens // places * devices, places


def first_fit(heads: Sequence[int], tails: Sequence[int], prompts: Sequence[int], places: int) -> list[list[int]]:
    """Rows of sequence numbers; a sequence takes its tail's places in a row, and its head's where no other sequence
    with its prompt is. Sequences with one prompt stand side by side.

    Prompts come by their longest sequences, and each sequence, from the longest on, goes into the first row with its
    prompt that has room for it, or else into the first row that has. With a prompt for each sequence this is
    first-fit decreasing: at most 11/9 of the fewest rows possible, and 6/9 of a row (Dosa 2007). Raises UserError where
    a sequence fits none.
    """
    head, tail, prompt = (np.asarray(x, np.int64) for x in (heads, tails, prompts))
    whole = head + tail
    if whole.max(initial=0) > places:
        i = int(np.argmax(whole > places))
        raise UserError(f"packing: sequence {i} has {whole[i]} tokens, a row holds {places}")
    longest = np.zeros(prompt.max(initial=-1) + 1, np.int64)
    np.maximum.at(longest, prompt, whole)
    rows: list[list[int]] = []
    room = np.full(len(whole), places)
    there = np.zeros((len(longest), len(whole)), bool)
    for i in np.lexsort((-whole, prompt, -longest[prompt])).tolist():
        mine = there[prompt[i], : len(rows) + 1]
        fits = room[: len(rows) + 1] >= tail[i] + np.where(mine, 0, head[i])
        at = int(np.argmax(fits & mine if (fits & mine).any() else fits))
        if at == len(rows):
            rows.append([])
        rows[at].append(i)
        room[at] -= tail[i] + (0 if there[prompt[i], at] else head[i])
        there[prompt[i], at] = True
    return [sorted(row, key=lambda i: prompt[i]) for row in rows]


def microbatches(batch: Any, rows: int, places: int) -> list[Any]:
    """A batch, one sequence a row and all leaves [B, T] in NumPy, as M batches of the same kind with leaves [R, P].

    A sequence ends with its answer; those without an answer teach nothing and are left out. A prompt but for its last
    token, which each of its answers needs of its own, stands once a row, unless fewer rows do without that. Raises
    UserError where a sequence is longer than a row.
    """
    prompt_B, start_B, end_B = sequence_bounds(batch)
    taught = np.flatnonzero(end_B)
    head, tail = start_B[taught] - 1, end_B[taught] - start_B[taught] + 1
    shared, alone = (first_fit(head, tail, x, places) for x in (prompt_B[taught], np.arange(len(taught))))
    packed, prompt_B = (shared, prompt_B) if len(shared) <= len(alone) else (alone, np.arange(len(prompt_B)))
    count = max(1, -(-len(packed) // rows))

    # (row, place, sequence, its first token, the one behind its last, segment, prefix segment)
    pieces: list[tuple[int, ...]] = []
    for row, members in enumerate(packed):
        at = segment = prefix = 0
        before = None
        for i in taught[members].tolist():
            start, end = int(start_B[i]) - 1, int(end_B[i])
            if prompt_B[i] != before:
                before, prefix = prompt_B[i], segment + 1
                if start:
                    segment += 1
                    pieces.append((row, at, i, 0, start, segment, segment))
                    at += start
            segment += 1
            pieces.append((row, at, i, start, end, segment, prefix if start else segment))
            at += end - start
    table = np.array(pieces, np.int64).reshape(-1, 7)
    each = table[:, 4] - table[:, 3]
    inside = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    to_row, start, source, first, _, segment, prefix = np.repeat(table, each, axis=0).T
    place, position = start + inside, first + inside

    def lay(values: np.ndarray, dtype: Any) -> np.ndarray:
        out_MRP = np.zeros((count * rows, places, *values.shape[1:]), dtype)
        out_MRP[to_row, place] = values
        return out_MRP.reshape(count, rows, *out_MRP.shape[1:])

    def laid_alike(tree: Any) -> Any:
        return jax.tree.map(lambda x_BT: lay(np.asarray(x_BT)[source, position], x_BT.dtype), tree)

    seen = batch.rows.seen
    laid = laid_alike(batch.replace(rows=batch.rows._replace(seen=None)))
    marked = dict(segment_BT=segment, position_BT=position, prefix_segment_BT=prefix)
    marked = laid.rows._replace(**{name: lay(x, np.int32) for name, x in marked.items()})
    if seen:
        # What stands behind a prompt's tokens has positions of its own here, and none is to be computed.
        marked = marked._replace(seen=laid_alike(seen._replace(delta_B=None)))
    laid = laid.replace(rows=marked)
    return [jax.tree.map(lambda x_MRP, m=m: x_MRP[m], laid) for m in range(count)]


def prefix_batch(batch: Any, max_prompt_len: int, max_answer_len: int, shards: int = 1) -> Any:
    """A batch, one sequence a row and all leaves [B, T] in NumPy, as one with leaves [B, max_answer_len] and rows that
    are PrefixBatch, of prompts with at most max_prompt_len tokens.

    Sequences come in another order, so that each of `shards` equal parts holds few different prompts; these are padded
    to one of few numbers of them, and never above one for each sequence.
    """
    bounds = sequence_bounds(batch)
    # Sequences without an answer come last of their prompt, of which they know nothing.
    order = np.lexsort((bounds.end_B == 0, bounds.prompt_B))
    prompt_B, start_B, end_B = (x[order] for x in bounds)
    assert np.all(start_B <= max_prompt_len) and np.all(end_B - start_B <= max_answer_len)
    width = batch.rows.tokens_BT.shape[1]
    column_BT = start_B[:, None] + np.arange(max_answer_len)
    inside_BT = column_BT < end_B[:, None]

    def lay(x_BT: np.ndarray, ahead: int = 0) -> np.ndarray:
        taken = np.asarray(x_BT)[order[:, None], np.minimum(column_BT - ahead, width - 1)]
        return np.where(inside_BT, taken, np.zeros((), taken.dtype))

    parts = [np.unique(part, return_index=True, return_inverse=True) for part in np.split(prompt_B, shards)]
    each = len(order) // shards
    most = min(padded_length(max(len(asked) for asked, _, _ in parts), 1), each)
    length_P = np.zeros(shards * most, np.int32)
    source_P = np.zeros(shards * most, np.int64)
    for shard, (_, first, _) in enumerate(parts):
        for at, row in enumerate(shard * each + first, start=shard * most):
            length_P[at], source_P[at] = start_B[row] - 1, order[row]
    inside_PS = np.arange(max_prompt_len - 1) < length_P[:, None]

    def of_prompts(x_BT: np.ndarray) -> np.ndarray:
        taken = np.asarray(x_BT)[source_P, : max_prompt_len - 1]
        return np.where(inside_PS.reshape(*inside_PS.shape, *[1] * (taken.ndim - 2)), taken, 0)

    seen = batch.rows.seen
    if seen:
        delta_P = np.where(length_P > 0, seen.delta_B[source_P], 0)
        seen = jax.tree.map(of_prompts, seen._replace(delta_B=None))._replace(delta_B=delta_P)
    prefix_index_B = np.concatenate([of for _, _, of in parts]).astype(np.int32)
    tokens_BT, answer_BT = batch.rows.tokens_BT, batch.rows.answer_BT
    answers = lay(tokens_BT, 1), lay(tokens_BT), lay(answer_BT)
    rows = PrefixBatch(of_prompts(tokens_BT), length_P, prefix_index_B, *answers, seen)
    return jax.tree.map(lay, batch.replace(rows=None)).replace(rows=rows)
