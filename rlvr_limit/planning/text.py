"""A plan as text."""

from __future__ import annotations

from rlvr_limit.planning import estimate
from rlvr_limit.planning.compiling import Compiled
from rlvr_limit.planning.plan import Plan


def render(plan: Plan) -> str:
    """The whole plan, a page of plain text."""
    parts = [_head(plan), _memory(plan), _programs(plan), _speed(plan), list(plan.advice)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(plan: Plan) -> list[str]:
    t, m = plan.target, plan.mesh
    how = "compiled for real" if plan.extra is None else f"lowered only: pip install -e '.[{plan.extra}]' compiles them"
    return [
        f"target {t.name}: {t.devices} x {t.chip}, {_gb(t.memory)} of memory each; programs {how}",
        f"mesh: data {m.data}, fsdp {m.fsdp}, tensor {m.tensor}",
        f"model: {plan.parameters:,} parameters, {plan.parameter_bytes:,} bytes in {plan.model.dtype}",
    ]


def _memory(plan: Plan) -> list[str]:
    e, longest = plan.engine, plan.study.max_tokens
    lines = [
        "each device holds",
        f"  parameters   {_gb(plan.device_parameter_bytes):>10}",
        f"  prompts      {_gb(plan.prefix_bytes):>10}   {e.prefix_rows + 1} of {e.prompt_places:,} tokens",
        f"  KV cache     {_gb(plan.cache_bytes):>10}   its share of {plan.slots} slots of {e.prompt_places:,} + "
        f"{longest:,} tokens",
    ]
    if plan.window and plan.window.temporaries is not None:
        lines.append(f"  temporaries  {_gb(plan.window.temporaries):>10}   of the decode window, by the compiler")
        lines.append(f"  together     {_gb(plan.window.total):>10}   of {_gb(plan.target.memory)}")
    elif plan.extra:
        lines.append("  temporaries     unknown   nothing was compiled")
    how = "checked by compiling" if plan.fit.verified else "arithmetic without temporaries"
    lines.append(f"slots that fit at {longest:,} new tokens: {plan.fit.slots} ({how}); the config has {e.slots}")
    return lines


def _programs(plan: Plan) -> list[str]:
    lines = [f"{'program':42} {'seconds':>7} {'temporaries':>12} {'together':>12}  fits"]
    lines += [_program(program, plan.target.memory) for program in (*plan.others, *plan.fit.tried)]
    spent = sum(program.seconds for program in (*plan.others, *plan.fit.tried))
    lines.append(f"seconds to compile, those tried and refused included: {spent:,.0f}")
    loop = plan.window.loop if plan.window else None
    if loop:
        kinds = ", ".join(f"{count:g} {kind}" for kind, count in loop.collectives) or "nothing"
        lines += [
            f"between devices, a decode step: {kinds}; {loop.sent / 1e6:.2f} MB a device",
            f"arrays as large as a layer's keys that are written anew: {loop.big_writes_step:g} a decode step and "
            f"{loop.big_writes_window:g} a window of {plan.engine.window}; the cache has {2 * plan.model.layers}",
        ]
    return lines


def _program(program: Compiled, memory: int) -> str:
    temporaries = "-" if program.temporaries is None else _gb(program.temporaries)
    together = "-" if program.total is None else _gb(program.total)
    fits = {True: "yes", False: "no", None: "lowered only"}[program.fits(memory)]
    return f"{program.name:42} {program.seconds:7.1f} {temporaries:>12} {together:>12}  {fits}"


def _speed(plan: Plan) -> list[str]:
    t, s = plan.target, plan.study
    counts = ", ".join(f"{b.name} {b.problems} x {b.n}" for b in s.benchmarks)
    tokens = s.answers * s.mean_tokens
    lines = [
        f"assumed of each device: {t.bandwidth / 1e9:,.0f} GB/s and {t.flops / 1e12:,.1f} TFLOP/s ({t.source})",
        "reading and computing add up; what devices send, softmax, sampling and the host are not counted",
        f"the study: {s.arms} arms, {counts}: {s.answers:,} answers",
        f"assumed of them: {s.mean_tokens:,} tokens after {s.prompt_tokens} of prompt, {tokens / 1e6:,.1f} M to draw",
    ]
    if not plan.slots:
        return [*lines, "no slot fits, so there is no speed to give"]
    for context, meaning in (
        (estimate.mean_context(s.prompt_tokens, s.mean_tokens), "places a live sample has on average are read"),
        (plan.engine.prompt_places + s.max_tokens, "places are read, live or not, as decode_window does"),
    ):
        speed = estimate.tokens_per_second(plan.decoder, plan.machine, plan.slots, context)
        lines.append(
            f"roofline, {plan.slots} live slots, {context:,.0f} {meaning}: {speed:,.0f} tokens/s, "
            f"{tokens / speed / 3600:,.1f} hours"
        )
    places = 1 << (s.prompt_tokens + s.mean_tokens - 1).bit_length()
    seconds = estimate.scoring_seconds(plan.decoder, plan.machine, s.scorings, places)
    lines.append(
        f"roofline of scoring {s.scored} answers a problem, under the base and under the arm, padded to {places:,} "
        f"tokens: {seconds / 3600:,.2f} hours"
    )
    return lines


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
