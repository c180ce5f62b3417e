"""The work that a plan is made for. Plain numbers, no jax."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BenchmarkSize:
    """`n` answers to each of `problems` problems, from every arm."""

    name: str
    problems: int
    n: int


@dataclass(frozen=True)
class ImageSizes:
    """Images of problems, in patches."""

    per_problem: float
    mean: float
    most: int


@dataclass(frozen=True)
class Workload:
    """The work to do."""

    benchmarks: tuple[BenchmarkSize, ...]
    arms: int
    max_tokens: int  # of an answer
    mean_tokens: int  # of an answer, assumed
    prompt_tokens: int  # mean, assumed
    scored: int = 16  # answers of each problem and arm
    score_tokens: int = 4_096  # of padded answers, scored at a time on each device
    images: ImageSizes | None = None
    rollout: int = 0  # answers of a training step, where an arm is trained by reinforcement

    @property
    def answers(self) -> int:
        """Answers to draw, of all arms together."""
        return self.arms * sum(b.problems * b.n for b in self.benchmarks)

    @property
    def at_once(self) -> int:
        """Answers of one arm, which are drawn together; a sampler needs no more sequences."""
        return max(self.rollout, sum(b.problems * b.n for b in self.benchmarks))

    @property
    def per_problem(self) -> float:
        """Answers of an arm to a problem, on average."""
        return self.answers / (self.arms * sum(b.problems for b in self.benchmarks))

    @property
    def scoring_shares(self) -> int:
        """Parts of the scoring that different hosts may take: whose answers, under whom."""
        return 2 * self.arms - 1

    @property
    def scorings(self) -> int:
        """Answers to score: each arm's under the base, and under the arm itself where it is not the base."""
        return self.scoring_shares * self.scored * sum(b.problems for b in self.benchmarks)
