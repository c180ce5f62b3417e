"""One optimizer step as microbatches of one shape: several sequences a row, told apart by their segments.

Legend, beside the one of model.py: M microbatches, R rows of one, P places of a row; B sequences as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from rlvr_limit.types import UserError


def microbatch_shape(longest: int, tokens: int, devices: int) -> tuple[int, int]:
    """(R, P) of microbatches with at most `tokens` places on each of `devices` devices that share the rows.

    A row holds the longest sequence. Raises UserError where not even one such row fits.
    """
    if tokens < longest:
        raise UserError(f"microbatch_tokens is {tokens}, but a prompt and its answer may take {longest} places")
    return tokens // longest * devices, longest


def first_fit_decreasing(lengths: Sequence[int], places: int) -> list[list[int]]:
    """Rows of sequence numbers: from the longest on, each goes into the first row that has room for it.

    Needs at most 11/9 of the fewest rows possible, and 6/9 of a row (Dosa 2007). Raises UserError where one fits none.
    """
    rows: list[list[int]] = []
    room = np.zeros(len(lengths), np.int64)
    for i in np.argsort(-np.asarray(lengths, np.int64), kind="stable").tolist():
        if lengths[i] > places:
            raise UserError(f"packing: sequence {i} has {lengths[i]} tokens, a row holds {places}")
        at = int(np.argmax(room[: len(rows) + 1] >= lengths[i])) if rows else 0
        if at == len(rows) or room[at] < lengths[i]:
            at = len(rows)
            rows.append([])
            room[at] = places
        rows[at].append(i)
        room[at] -= lengths[i]
    return rows


def microbatches(batch: Any, rows: int, places: int) -> list[Any]:
    """A batch, one sequence a row and all leaves [B, T] in NumPy, as M batches of the same kind with leaves [R, P].

    A sequence ends with its answer; those without an answer teach nothing and are left out. Raises UserError where a
    sequence is longer than a row.
    """
    answer_BT = np.asarray(batch.rows.answer_BT)
    assert batch.rows.segment_BT is None and answer_BT.ndim == 2
    ends = np.where(answer_BT.any(axis=1), answer_BT.shape[1] - np.argmax(answer_BT[:, ::-1], axis=1), 0)
    taught = np.flatnonzero(ends)
    packed = first_fit_decreasing(ends[taught].tolist(), places)
    count = max(1, -(-len(packed) // rows))

    to_row, to_place, sequence, position, segment = [], [], [], [], []
    for row, members in enumerate(packed):
        start = 0
        for number, member in enumerate(taught[members], start=1):
            inside = np.arange(ends[member])
            to_row.append(np.full_like(inside, row))
            to_place.append(start + inside)
            sequence.append(np.full_like(inside, member))
            position.append(inside)
            segment.append(np.full_like(inside, number))
            start += ends[member]
    at, place, source, inside, number = (
        np.concatenate(x) if x else np.zeros(0, np.int64) for x in (to_row, to_place, sequence, position, segment)
    )

    def lay(values: np.ndarray, dtype: Any) -> np.ndarray:
        out_MRP = np.zeros((count * rows, places), dtype)
        out_MRP[at, place] = values
        return out_MRP.reshape(count, rows, places)

    laid = jax.tree.map(lambda x_BT: lay(np.asarray(x_BT)[source, inside], x_BT.dtype), batch)
    marked = laid.rows._replace(segment_BT=lay(number, np.int32), position_BT=lay(inside, np.int32))
    laid = laid.replace(rows=marked)
    return [jax.tree.map(lambda x_MRP, m=m: x_MRP[m], laid) for m in range(count)]
