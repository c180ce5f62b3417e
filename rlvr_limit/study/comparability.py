"""Arms are compared under the same conditions, or not at all: what differs is shown, and must have been allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlvr_limit.types import UserError


@dataclass(frozen=True)
class Conditions:
    """Under which conditions one arm is sampled and judged, each a short text that a person can read.

    arm is the label that the user gave, weights_sha256 what the arm is ("" while it is not known). question, benchmark
    and template are digests: of the questions' texts, of problems and references, and of the rendered prompts' token
    ids; template begins with its name. eos lists the tokens that end an answer, lengths says how long it may be.
    """

    arm: str
    weights_sha256: str
    question: str
    benchmark: str
    template: str
    eos: str
    lengths: str
    temperature: str
    top_p: str
    top_k: str
    min_p: str
    grader: str
    engine: str
    dtype: str


FIELDS = tuple(name for name in Conditions.__dataclass_fields__ if name not in ("arm", "weights_sha256"))
"""What may be named in config.allow_differ."""


def check(base: Conditions, others: Iterable[Conditions], allow_differ: Sequence[str]) -> tuple[str, ...]:
    """What differs between the base and each other arm by allowance, one sentence a field, for the page to print.

    Raises UserError, one line naming arm, field and both values, where a field differs that allow_differ does not name.
    """
    others = tuple(others)
    said = []
    for field in FIELDS:
        expected = getattr(base, field)
        unlike = [other for other in others if getattr(other, field) != expected]
        if unlike and field not in allow_differ:
            other = unlike[0]
            raise UserError(
                f"arm {other.arm}: {field} is {getattr(other, field)}, that of {base.arm} is {expected}; arms that "
                f"differ in it are compared only under config.allow_differ=('{field}',)"
            )
        if unlike:
            values = "; ".join(f"{other.arm}: {getattr(other, field)}" for other in unlike)
            said.append(f"Allowed to differ: {field}. {base.arm}: {expected}; {values}.")
    return tuple(said)


def same(arms: Iterable[Conditions]) -> tuple[str, ...]:
    """A sentence for every pair of arms that are one and the same: equal weights under equal conditions."""
    seen: dict[tuple[str, ...], str] = {}
    said = []
    for arm in arms:
        key = (arm.weights_sha256, *(getattr(arm, field) for field in FIELDS))
        twin = seen.setdefault(key, arm.arm) if arm.weights_sha256 else arm.arm
        if twin != arm.arm:
            said.append(
                f"{twin} and {arm.arm} are the same arm: equal weights (SHA-256 {arm.weights_sha256[:12]}) under equal "
                "conditions, so their samples are the same too."
            )
    return tuple(said)
