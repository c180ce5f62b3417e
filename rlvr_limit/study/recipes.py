"""What a recipe of training means: its row of the table of algorithms, its loss, its adapters; and what cannot be."""

from __future__ import annotations

from dataclasses import replace

from rlvr_limit import rl
from rlvr_limit.rl.optimizers import SLOWEST_B2
from rlvr_limit.settings import Reinforced, Sampling, Supervised
from rlvr_limit.types import UserError, not_allowed


def adapters(recipe: Supervised | Reinforced) -> rl.Lora | None:
    """The low-rank adapters that are trained, None where all parameters are."""
    return rl.Lora(recipe.lora_rank, recipe.lora_alpha) if recipe.lora_rank else None


def algorithm(recipe: Reinforced) -> rl.Algorithm:
    """The algorithm's row, with what this recipe changes."""
    row = rl.ALGORITHMS[recipe.algorithm]
    clip_low = recipe.clip or row.clip_low
    return replace(
        row,
        clip_low=clip_low,
        clip_high=recipe.clip_high or row.clip_high or clip_low,
        rounds=recipe.rounds or row.rounds,
        overlong=recipe.overlong or row.overlong,
    )


def objective(recipe: Reinforced) -> rl.Objective:
    """The loss of a token."""
    row = algorithm(recipe)
    return rl.Objective(
        clip_low=row.clip_low,
        clip_high=row.clip_high,
        kl=recipe.kl if row.kl_in == "loss" else 0.0,
        value_coefficient=recipe.value_coefficient,
        value_clip=recipe.value_clip,
        importance_cap=recipe.importance_cap,
        ratio=row.ratio,
    )


def answer_len(recipe: Supervised | Reinforced, sampling: Sampling) -> int:
    """Most tokens of an answer that a recipe learns from."""
    return getattr(recipe, "max_tokens", 0) or sampling.max_tokens


def microbatch(
    recipe: Supervised | Reinforced, tokens: int, devices: int, prompt_len: int, answer_len: int
) -> tuple[int, int]:
    """(rows, places) of a microbatch of so many tokens. UserError where they hold no whole prompt and answer."""
    group = prompt_len + recipe.answers * answer_len if isinstance(recipe, Reinforced) else 0
    return rl.microbatch_shape(prompt_len + answer_len, tokens, devices, group)


def check_recipe(where: str, recipe: Supervised | Reinforced, max_tokens: int) -> None:
    """Raises UserError, one line, where a recipe's fields do not go together; `where` is its dotted path."""
    if recipe.lora_rank and not recipe.start:
        raise not_allowed(f"{where}.lora_rank", recipe.lora_rank, "0, as adapters need weights to start from")
    for name in ("optimizer", "value_optimizer"):
        optimizer = getattr(recipe, name, None)
        if optimizer and optimizer.kind == "adamw_bf16" and optimizer.b2 > SLOWEST_B2:
            raise not_allowed(f"{where}.{name}.b2", optimizer.b2, f"at most {SLOWEST_B2}, as bfloat16 moments need")
    if isinstance(recipe, Reinforced):
        _check_reinforced(where, recipe, max_tokens)


def _check_reinforced(where: str, r: Reinforced, max_tokens: int) -> None:
    row = algorithm(r)
    is_greedy, is_valued, is_pass, is_taught = (
        row.advantage == kind for kind in ("greedy", "value", "pass_at_k", "teacher")
    )
    # field, whether it is fine, what is allowed
    rules = (
        ("save_at", r.save_at and max(r.save_at) <= r.steps, f"one or more steps in [1, {r.steps}]"),
        ("minibatches", r.prompts * r.answers % r.minibatches == 0, "a divisor of prompts x answers"),
        ("answers", not row.compares or r.answers > 1, f"at least 2: {r.algorithm} compares answers to one prompt"),
        ("answers", row.rounds == 1 or r.answers > 1, "at least 2: groups are drawn until they are mixed"),
        ("overlong_cache", r.overlong_cache <= max_tokens, f"in [0, max_tokens = {max_tokens}]"),
        ("overlong_cache", not r.overlong_cache or row.overlong == "shape", "0, as overlong is not 'shape'"),
        ("pass_k", not is_pass or 1 <= r.pass_k <= r.answers, f"in [1, answers = {r.answers}]"),
        ("pass_k", is_pass or not r.pass_k, f"0, as {r.algorithm} does not use it"),
        ("teacher", r.teacher or not is_taught, f"an arm, as {r.algorithm} needs"),
        ("teacher", is_taught or not r.teacher, f"'', as {r.algorithm} has no teacher"),
        ("kl", not (is_taught and r.kl), f"0: {r.algorithm} is drawn to its teacher, not to its start"),
        ("overlong", not is_pass or row.overlong != "shape", f"{r.algorithm}'s, which takes rewards of 0 and 1"),
        ("reward", not is_pass or r.reward == "verdict", f"'verdict': {r.algorithm} takes rewards of 0 and 1"),
        ("critic", is_valued or r.critic == "probe", f"'probe': {r.algorithm} has no critic"),
        ("critic", not r.lora_rank or r.critic == "probe", "'probe', as adapters (lora_rank) need"),
        ("segment", not r.segment or r.importance_cap, "0: older weights' answers need importance_cap above 0"),
        ("segment", not r.segment or (row.rounds == 1 and not is_greedy), "0, as needed by rounds above 1 and remax"),
    )
    for name, is_fine, allowed in rules:
        if not is_fine:
            raise not_allowed(f"{where}.{name}", getattr(r, name), allowed)
    if is_valued != (r.value_optimizer is not None):
        need = "needs one for its value head" if is_valued else "has no value head: leave it out"
        raise UserError(f"{where}.value_optimizer: {r.algorithm} {need}")
    for name in ("entropy", "length", "reward"):
        limit = getattr(r.limits, name)
        if limit and not (len(limit) == 2 and limit[0] <= limit[1]):
            raise not_allowed(f"{where}.limits.{name}", limit, "(least, most) or ()")
