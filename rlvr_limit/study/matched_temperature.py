"""The temperature at which an arm has another arm's token entropy, and how it was found: a file in the run folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from rlvr_limit.passk.entropy import Entropy
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish


@dataclass(frozen=True)
class MatchingRound:
    """One temperature that was tried, and the entropy that a small sample had at it."""

    temperature: float
    entropy: Entropy


@dataclass(frozen=True)
class EntropyMatching:
    """The search for an arm's temperature as far as it has come."""

    aim: str  # the arm whose entropy is aimed at
    target: Entropy
    rounds: tuple[MatchingRound, ...] = ()
    temperature: float | None = None  # None: not found yet

    @property
    def nearest(self) -> Entropy:
        """The entropy that came closest to the one aimed at; that one itself before the first round."""
        entropies = (r.entropy for r in self.rounds)
        return min(entropies, key=lambda entropy: abs(entropy.mean - self.target.mean), default=self.target)


def read_matching(root: Place, arm: str) -> EntropyMatching | None:
    """What is on record of an arm's search; None where none was begun."""
    path = _path(root, arm)
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    rounds = tuple(MatchingRound(r["temperature"], Entropy(**r["entropy"])) for r in kept["rounds"])
    return EntropyMatching(kept["aim"], Entropy(**kept["target"]), rounds, kept["temperature"])


def write_matching(root: Place, arm: str, matching: EntropyMatching) -> None:
    """Puts the search on record in place of what was there."""
    path = _path(root, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, lambda file: file.write(json.dumps(dataclasses.asdict(matching), indent=1).encode()))


def _path(root: Place, arm: str) -> Place:
    return root / "matching" / f"{arm}.json"
