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
    e, s, longest = plan.engine, plan.sizes, plan.study.max_tokens
    tokens = f"{s.pages:,} pages of {s.page} tokens: {s.pages * s.page:,}" if plan.slots else ""
    lines = [
        "each device holds",
        f"  parameters   {_gb(plan.device_parameter_bytes):>10}",
        f"  KV cache     {_gb(plan.cache_bytes):>10}   {tokens}".rstrip(),
    ]
    if plan.window and plan.window.temporaries is not None:
        lines.append(f"  temporaries  {_gb(plan.window.temporaries):>10}   of the decode window, by the compiler")
        lines.append(f"  together     {_gb(plan.window.total):>10}   of {_gb(plan.target.memory)}")
    elif plan.extra:
        lines.append("  temporaries     unknown   nothing was compiled")
    if plan.slots:
        lines += _pages(plan)
    how = "checked by compiling" if plan.fit.verified else "arithmetic without temporaries"
    lines.append(f"slots that fit at {longest:,} new tokens: {plan.fit.slots} ({how}); the config has {e.slots}")
    return lines


def _pages(plan: Plan) -> list[str]:
    e, s, study = plan.engine, plan.sizes, plan.study
    whose = f"each of {s.shards} shards has pages of its own" if s.shards > 1 else "one shard has all pages"
    room = "engine.cache_tokens says how many" if e.cache_tokens else f"with room for {e.prefix_rows} prompts beside it"
    return [
        f"a slot takes {plan.slot_pages * s.page:,} tokens at its limit; {whose}, {room}",
        f"the pages hold {plan.held_mean:,} samples of {study.mean_tokens:,} tokens or {plan.held_longest:,} of "
        f"{study.max_tokens:,}, and their prompts of {study.prompt_tokens}",
        f"rows compiled: {', '.join(map(str, s.buckets))}; prompts padded to {_list(s.prefills)} tokens",
    ]


def _list(numbers: tuple[int, ...]) -> str:
    return " or ".join(f"{number:,}" for number in numbers)


def _programs(plan: Plan) -> list[str]:
    lines = [f"{'program':42} {'seconds':>7} {'temporaries':>12} {'together':>12}  fits"]
    lines += [_program(program, plan.target.memory) for program in (*plan.others, *plan.fit.tried)]
    spent = sum(program.seconds for program in (*plan.others, *plan.fit.tried))
    lines.append(f"seconds to compile, those tried and refused included: {spent:,.0f}")
    loop = plan.window.loop if plan.window else None
    if loop:
        kinds = ", ".join(f"{count:g} {kind}" for kind, count in loop.collectives) or "nothing"
        turns = "of unknown length to the compiler" if loop.turns is None else f"of {loop.turns} turns"
        lines += [
            f"token loop: {turns if loop.turns != 0 else 'unrolled'}, a window is {plan.engine.window} steps",
            f"between devices, a decode step: {kinds}; {loop.sent / 1e6:.2f} MB a device",
            f"arrays as large as a layer's keys that are written anew: {loop.big_writes_step:g} a decode step and "
            f"{loop.big_writes_window:g} a window; the cache has {2 * plan.model.layers}",
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
    if not plan.batch.rows:
        return [*lines, "no slot fits, so there is no speed to give"]
    batch = plan.batch
    speed = estimate.tokens_per_second(plan.decoder, plan.machine, batch)
    lines.append(
        f"roofline, {batch.rows} live samples of {batch.own:,.0f} tokens on average, their {batch.prompts} prompts of "
        f"{batch.shared} read once a step: {speed:,.0f} tokens/s, {tokens / speed / 3600:,.1f} hours"
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
