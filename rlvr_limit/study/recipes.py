"""How the weights of an arm come about where they are not given: training on demonstrations, or by reinforcement."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlvr_limit import rl
from rlvr_limit.types import UserError

LORA_ALPHA = 32.0


@dataclass(frozen=True)
class Supervised:
    """Training on demonstrations. start names an arm, "" a fresh model.

    Of Countdown's own demonstrations a share `right` reach the target. Released models learn from the files of data:
    {"prompt": text, "response": text} a line. With a teacher, another arm (its last step, if it is reinforced), they
    are its right ones of `answers` answers to each training problem; then data names training sets. lora_rank and
    lora_alpha: as of Reinforced.
    """

    steps: int
    batch: int
    optimizer: rl.OptimizerConfig
    right: float = 1.0
    start: str = ""
    data: tuple[str, ...] = ()
    teacher: str = ""
    answers: int = 4
    lora_rank: int = 0
    lora_alpha: float = LORA_ALPHA

    @property
    def lora(self) -> rl.Lora | None:
        """The adapters, None where all parameters are trained."""
        return rl.Lora(self.lora_rank, self.lora_alpha) if self.lora_rank else None


@dataclass(frozen=True)
class Limits:
    """(least, most) of a step's mean token entropy in nats, answer length in tokens, and reward; () where all is well.

    A run that leaves them has collapsed and is stopped.
    """

    entropy: tuple[float, ...] = ()
    length: tuple[float, ...] = ()
    reward: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reinforced:
    """Reinforcement: `prompts` problems a step, `answers` samples each, split into `minibatches` updates.

    The weights after each step in save_at are arms of their own, evaluated like the others. data names training sets
    (gsm8k_train, math_train, omni_train) or files of one's own problems; Countdown has its own. algorithm is a row of
    rl/algorithms.py; "" or 0 in the fields that follow it leaves what the row says. The ratio is clipped to [1 - clip,
    1 + clip_high] (0: the row's, or clip). kl is the coefficient of the penalty towards `start`. importance_cap bounds
    P_trainer / P_sampler (0: not weighed by it).

    rounds: how often fresh prompts are drawn at most until `prompts` groups have both right and wrong answers (1: take
    all groups). overlong: keep, shape (a penalty that falls to -1 over the last overlong_cache tokens, or just for what
    is truncated) or mask (truncated answers are left out of the loss). pass_k is the k of pass_at_k. gae_lambda and the
    value fields are PPO's.

    reward: "verdict" is 1 for a right answer and 0 for others; "module:function" calls function(problem, texts), which
    returns one finite number a text.

    segment above 0 draws at most so many tokens of an answer in one step and goes on with it in the next, off-policy:
    see segments.py, which says what becomes of the estimator.

    lora_rank above 0 trains adapters of that rank beside every product of a layer, scaled by lora_alpha / lora_rank,
    and leaves the start's weights as they are; what is sampled from and exported has them merged.
    """

    start: str
    steps: int
    save_at: tuple[int, ...]
    prompts: int
    answers: int
    minibatches: int
    clip: float
    optimizer: rl.OptimizerConfig
    algorithm: str = "grpo"
    clip_high: float = 0.0
    kl: float = 0.0
    importance_cap: float = 0.0
    rounds: int = 0
    overlong: str = ""
    overlong_cache: int = 0
    pass_k: int = 0
    gae_lambda: float = 1.0
    value_optimizer: rl.OptimizerConfig | None = None
    value_coefficient: float = 0.5
    value_clip: float = 0.5
    reward: str = "verdict"
    limits: Limits = Limits()
    data: tuple[str, ...] = ()
    segment: int = 0
    lora_rank: int = 0
    lora_alpha: float = LORA_ALPHA

    @property
    def lora(self) -> rl.Lora | None:
        """The adapters, None where all parameters are trained."""
        return rl.Lora(self.lora_rank, self.lora_alpha) if self.lora_rank else None

    @property
    def row(self) -> rl.Algorithm:
        """The algorithm, with what this recipe changes."""
        row = rl.ALGORITHMS[self.algorithm]
        return replace(
            row,
            clip_high=self.clip_high or row.clip_high or self.clip,
            rounds=self.rounds or row.rounds,
            overlong=self.overlong or row.overlong,
        )

    @property
    def objective(self) -> rl.Objective:
        """The loss of a token."""
        row = self.row
        return rl.Objective(
            clip_low=self.clip,
            clip_high=row.clip_high,
            kl=self.kl if row.kl_in == "loss" else 0.0,
            value_coefficient=self.value_coefficient,
            value_clip=self.value_clip,
            importance_cap=self.importance_cap,
        )


def check_adapters(where: str, recipe: Supervised | Reinforced) -> None:
    """Raises UserError, one line, where a recipe's adapters cannot be; `where` is its dotted path."""
    if recipe.lora_rank < 0:
        raise UserError(f"{where}.lora_rank: found {recipe.lora_rank}, 1 or more, or 0 for none, is right")
    if recipe.lora_alpha <= 0:
        raise UserError(f"{where}.lora_alpha: found {recipe.lora_alpha}, above 0 is right")
    if recipe.lora_rank and not recipe.start:
        raise UserError(f"{where}.lora_rank: found {recipe.lora_rank}, but adapters need weights to start from: 0")


def check_reinforced(where: str, r: Reinforced, max_tokens: int) -> None:
    """Raises UserError, one line, where a recipe cannot be; `where` is its dotted path."""

    def wrong(name: str, right: str) -> UserError:
        return UserError(f"{where}.{name}: found {getattr(r, name)!r}, {right}")

    if r.algorithm not in rl.ALGORITHMS:
        raise wrong("algorithm", f"but one of {', '.join(rl.ALGORITHMS)} is right")
    for name in ("steps", "prompts", "answers", "minibatches"):
        if getattr(r, name) < 1:
            raise wrong(name, "1 or more is right")
    if not r.save_at or not 1 <= min(r.save_at) <= max(r.save_at) <= r.steps:
        raise wrong("save_at", f"steps from 1 to {r.steps} are right")
    if r.prompts * r.answers % r.minibatches:
        raise UserError(f"{where}.minibatches: {r.minibatches} does not divide prompts x answers")
    if r.overlong and r.overlong not in rl.OVERLONG:
        raise wrong("overlong", f"but one of {', '.join(rl.OVERLONG)} is right")
    row = r.row
    if row.compares and r.answers < 2:
        raise wrong("answers", f"but {r.algorithm} compares answers to one prompt: 2 or more is right")
    if row.rounds > 1 and r.answers < 2:
        raise wrong("answers", "but groups that are drawn until they are mixed need 2 or more")
    if not 0 < r.clip < 1:
        raise wrong("clip", "above 0 and below 1 is right")
    for name in ("clip_high", "kl", "importance_cap", "rounds", "segment", "value_coefficient", "value_clip"):
        if getattr(r, name) < 0:
            raise wrong(name, "0 or more is right")
    if not 0 <= r.gae_lambda <= 1:
        raise wrong("gae_lambda", "0 to 1 is right")
    if not 0 <= r.overlong_cache <= max_tokens:
        raise wrong("overlong_cache", f"0 to sampling.max_tokens = {max_tokens} is right")
    _check_only_where_used(where, r, row)
    for name in ("entropy", "length", "reward"):
        limit = getattr(r.limits, name)
        if limit and not (len(limit) == 2 and limit[0] <= limit[1]):
            raise UserError(f"{where}.limits.{name}: found {limit}, (least, most) or () is right")


def _check_only_where_used(where: str, r: Reinforced, row: rl.Algorithm) -> None:
    """A field that an algorithm has no use for must not look as if it had."""
    if row.advantage == "pass_at_k":
        if not 1 <= r.pass_k <= r.answers:
            raise UserError(f"{where}.pass_k: found {r.pass_k}, 1 to answers = {r.answers} is right for {r.algorithm}")
        if row.overlong == "shape" or r.reward != "verdict":
            raise UserError(f"{where}: {r.algorithm} takes rewards of 0 and 1, so no shaping and reward='verdict'")
    elif r.pass_k:
        raise UserError(f"{where}.pass_k: found {r.pass_k}, but {r.algorithm} does not use it: 0 is right")
    if r.segment and not r.importance_cap:
        raise UserError(f"{where}.segment: found {r.segment}, but older weights' answers need importance_cap above 0")
    if r.segment and (row.rounds > 1 or row.advantage == "greedy"):
        raise UserError(f"{where}.segment: found {r.segment}, but it goes with neither rounds above 1 nor remax: 0")
    if r.overlong_cache and row.overlong != "shape":
        raise UserError(f"{where}.overlong_cache: found {r.overlong_cache}, but overlong is not 'shape': 0 is right")
    if (row.advantage == "value") != (r.value_optimizer is not None):
        right = "needs one for its value head" if row.advantage == "value" else "has no value head: None is right"
        raise UserError(f"{where}.value_optimizer: {r.algorithm} {right}")
