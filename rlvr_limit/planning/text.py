"""A plan as text."""

from __future__ import annotations

from rlvr_limit.planning import roofline
from rlvr_limit.planning.plan import StudyPlan
from rlvr_limit.planning.programs import CompiledProgram
from rlvr_limit.settings import MeshConfig


def render(plan: StudyPlan) -> str:
    """The whole plan, a page of plain text."""
    parts = [_head(plan), _memory(plan), _programs(plan), _training(plan), _speed(plan), list(plan.advice)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(plan: StudyPlan) -> list[str]:
    t = plan.target
    how = "compiled for real" if plan.extra is None else f"lowered only: pip install -e '.[{plan.extra}]' compiles them"
    hosts = f"{t.hosts} hosts of {t.host_devices}" if t.hosts > 1 else f"{t.devices}"
    return [
        f"target {t.name}: {hosts} x {t.chip}, {_gb(t.memory)} of memory each; programs {how}",
        f"mesh: {_mesh(plan.mesh)}{_replicas(plan)}",
        f"model: {plan.parameters:,} parameters, {plan.parameter_bytes:,} bytes in {plan.model.dtype}",
    ]


def _mesh(mesh: MeshConfig) -> str:
    return f"data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}"


def _replicas(plan: StudyPlan) -> str:
    hosts = plan.hosts_per_replica
    if plan.target.hosts == 1:
        return ""
    where = f", over {hosts} hosts of {_mesh(plan.own_mesh)} each (config.hosts.hosts_per_replica = {hosts})"
    where = where if hosts > 1 else ", that of one host"
    return f"{where}; replicas of the sampler, which send each other nothing: {plan.replicas}"


def _memory(plan: StudyPlan) -> list[str]:
    e, s, longest = plan.engine, plan.sizes, plan.workload.max_tokens
    bits = f", in {e.cache_dtype}" if e.cache_dtype else ""
    tokens = f"{s.pages:,} pages of {s.page_size} tokens: {s.pages * s.page_size:,}{bits}" if plan.num_seqs else ""
    lines = [
        "each device holds",
        f"  parameters   {_gb(plan.runs.weight_bytes):>10}",
        f"  KV cache     {_gb(plan.cache_bytes):>10}   {tokens}".rstrip(),
    ]
    if plan.window and plan.window.temporaries is not None:
        share = f": {plan.window.temporaries / plan.cache_bytes:.1%} of the cache" if plan.cache_bytes else ""
        lines.append(
            f"  temporaries  {_gb(plan.window.temporaries):>10}   of the decode window, by the compiler{share}"
        )
        lines.append(f"  together     {_gb(plan.window.total):>10}   of {_gb(plan.target.memory)}")
    elif plan.extra:
        lines.append("  temporaries     unknown   nothing was compiled")
    if plan.num_seqs:
        lines += _pages(plan)
    how = "checked by compiling" if plan.fit.verified else "arithmetic without temporaries"
    lines.append(
        f"sequences that fit at {longest:,} new tokens: {plan.fit.num_seqs} ({how}); the config has {e.max_num_seqs}"
    )
    if plan.target.hosts > 1:
        total = plan.replicas * plan.num_seqs
        lines.append(f"sequences of all {plan.replicas} replicas: {plan.replicas} x {plan.num_seqs} = {total:,}")
    return lines


def _pages(plan: StudyPlan) -> list[str]:
    e, s, workload = plan.engine, plan.sizes, plan.workload
    held = [f"{plan.runs.held(tokens):,}" for tokens in (workload.mean_tokens, workload.max_tokens)]
    whose = f"each of {s.shards} shards has pages of its own" if s.shards > 1 else "one shard has all pages"
    lengths = " or ".join(f"{length:,}" for length in s.prefill_lengths)
    room = "engine.cache_tokens says how many" if e.cache_tokens else f"with room for {e.prefix_rows} prompts beside it"
    return [
        f"a sequence takes {plan.runs.seq_pages * s.page_size:,} tokens at its limit; {whose}, {room}",
        f"the pages hold {held[0]} samples of {workload.mean_tokens:,} tokens or {held[1]} of "
        f"{workload.max_tokens:,}, and their prompts of {workload.prompt_tokens}",
        f"rows compiled: {', '.join(map(str, s.buckets))}; prompts padded to {lengths} tokens",
    ]


def _programs(plan: StudyPlan) -> list[str]:
    programs = (*plan.others, *plan.fit.tried)
    spent = sum(program.seconds for program in programs)
    return [
        f"{'program':42} {'seconds':>7} {'temporaries':>12} {'together':>12}  fits",
        *(_program(program, plan.target.memory) for program in programs),
        f"seconds to compile, those tried and refused included: {spent:,.0f}",
    ]


def _training(plan: StudyPlan) -> list[str]:
    """What training holds and runs on the mesh of all hosts."""
    if not plan.trained:
        return []
    hosts = f" over all {plan.target.hosts} hosts" if plan.target.hosts > 1 else ""
    lines = [f"training mesh: {_mesh(plan.training_mesh)}{hosts}"]
    for update, programs in plan.trained:
        kept = f", kept beside them {_gb(update.kept)}" if update.kept else ""
        parts = f"parameters {_gb(update.parameters)}, optimizer {_gb(update.optimizer)}{kept}"
        lines += [f"{update.name}: each device holds {parts}"]
        lines += [_program(program, plan.target.memory) for program in programs]
        window = plan.window.total if plan.window else None
        if update.beside_sampler is not None and window is not None:
            both = update.beside_sampler + window
            verdict = "fits" if both <= plan.target.memory else "does not fit"
            lines.append(
                f"while it draws answers: {_gb(update.beside_sampler)} of that and the sampler's {_gb(window)}, "
                f"together {_gb(both)} of {_gb(plan.target.memory)}: {verdict}"
            )
    return lines


def _program(program: CompiledProgram, memory: int) -> str:
    temporaries = "-" if program.temporaries is None else _gb(program.temporaries)
    together = "-" if program.total is None else _gb(program.total)
    fits = {True: "yes", False: "no", None: "lowered only"}[program.fits(memory)]
    return f"{program.name:42} {program.seconds:7.1f} {temporaries:>12} {together:>12}  {fits}"


def _speed(plan: StudyPlan) -> list[str]:
    t, s = plan.target, plan.workload
    counts = ", ".join(f"{b.name} {b.problems} x {b.n}" for b in s.benchmarks)
    tokens = s.answers * s.mean_tokens
    lines = [
        f"assumed of each device: {t.bandwidth / 1e9:,.0f} GB/s and {t.flops / 1e12:,.1f} TFLOP/s ({t.source})",
        "reading and computing add up; what devices send, softmax, sampling and the host are not counted",
        f"the workload: {s.arms} arms, {counts}: {s.answers:,} answers",
        f"assumed of them: {s.mean_tokens:,} tokens after {s.prompt_tokens} of prompt, {tokens / 1e6:,.1f} M to draw",
    ]
    if not plan.batch.rows:
        return [*lines, "no sequence fits, so there is no speed to give"]
    batch = plan.batch
    each = roofline.tokens_per_second(plan.token_cost, plan.rates, batch)
    speed = plan.replicas * each
    all_of_them = f" a replica, {speed:,.0f} by {plan.replicas}" if plan.target.hosts > 1 else ""
    lines.append(
        f"roofline, {batch.rows} live samples of {batch.own:,.0f} tokens on average, their {batch.prompts} prompts of "
        f"{batch.shared} read once a step: {each:,.0f} tokens/s{all_of_them}, {tokens / speed / 3600:,.1f} hours"
    )
    length = 1 << (s.prompt_tokens + s.mean_tokens - 1).bit_length()
    # What one model is to score of one arm's answers is not shared.
    scoring = min(plan.replicas, s.scoring_shares)
    seconds = roofline.scoring_seconds(plan.token_cost, plan.rates, s.scorings / scoring, length)
    lines.append(
        f"roofline of scoring {s.scored} answers a problem, under the base and under the arm, padded to {length:,} "
        f"tokens: {seconds / 3600:,.2f} hours{f' by {scoring} replicas' if plan.target.hosts > 1 else ''}"
    )
    return lines


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
