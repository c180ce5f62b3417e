"""What the program verifier accepts and refuses on real benchmarks, and how fast.

    python -m tests.benchmarks.code_verdicts --data HumanEvalPlus.jsonl.gz MbppPlus.jsonl.gz [--only references]

references: every reference solution on all of its inputs. mutations: ten kinds on a fixed sample of 60 of them, how
many of each kind are refused, and for those that are not what was changed and whether any value differs. hostile: 500
hostile programs (tests/code_programs.py) among 5,000 references.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import marshal
import random
import resource
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path

from rlvr_limit.grading.code import evalplus
from rlvr_limit.grading.code.evalplus import EvalPlusTests
from rlvr_limit.grading.code.grade import check
from rlvr_limit.grading.code.outcome import ProgramOutcome
from rlvr_limit.grading.code_command import load_tests
from rlvr_limit.grading.sandbox.run import missing_protection
from rlvr_limit.types import Status
from tests.support.code_programs import HOSTILE, RETURN

SAMPLE, HONEST, BAD, SAY_SECONDS, CHEAP_SECONDS = 60, 5000, 500, 30, 0.05
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
               ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
             ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult}  # fmt: skip
KINDS = ("operator", "comparison", "off by one", "condition negated", "branches swapped", "early return",
         "argument for result",
         "statement left out", "exception", "infinite loop")  # fmt: skip


def mutate(kind: str, tests: EvalPlusTests) -> str:
    """The reference with one change in its entry function; "" where there is nothing of that kind to change."""
    tree = ast.parse(tests.reference)
    function = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == tests.entry)
    return ast.unparse(ast.fix_missing_locations(tree)) if _change(kind, function) else ""


def _change(kind: str, function: ast.FunctionDef) -> bool:
    first = 1 if isinstance(function.body[0], ast.Expr) and len(function.body) > 1 else 0
    match kind:
        case "early return":
            function.body.insert(first, ast.Return(ast.Constant(None)))
            return True
        case "exception":
            function.body[first:first] = ast.parse("raise ValueError('mutation')").body
            return True
        case "infinite loop":
            function.body[first:first] = ast.parse("while True: pass").body
            return True
        case "argument for result":
            function.body.insert(first, ast.Return(ast.Name(function.args.args[0].arg)) if function.args.args else None)
            return bool(function.args.args)
    for node in ast.walk(function):
        if kind == "operator" and isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            node.op = OPERATORS[type(node.op)]()
        elif kind == "comparison" and isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            node.ops[0] = COMPARISONS[type(node.ops[0])]()
        elif kind == "off by one" and isinstance(node, ast.Constant) and type(node.value) is int:
            node.value += 1
        elif kind == "condition negated" and isinstance(node, ast.If):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        elif kind == "branches swapped" and isinstance(node, ast.If | ast.IfExp) and node.orelse:
            node.body, node.orelse = node.orelse, node.body
        elif kind == "statement left out" and isinstance(node, ast.For | ast.While | ast.If):
            node.body[-1] = ast.Pass()
        else:
            continue
        return True
    return False


def judge_all(items: Iterable[tuple[EvalPlusTests, str]], workers: int) -> list[ProgramOutcome]:
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: check(*item), items))


def references(tests: list[EvalPlusTests], workers: int) -> None:
    began = time.monotonic()
    found = judge_all(((t, t.reference) for t in tests), workers)
    for t, outcome in zip(tests, found, strict=True):
        if not outcome.correct:
            print(f"  {t.task_id}: {outcome.status}, {outcome.detail}")
    print(f"references: {sum(o.correct for o in found)} of {len(found)} pass, {time.monotonic() - began:.0f} s")


def mutations(tests: list[EvalPlusTests], workers: int) -> None:
    sample = random.Random(0).sample(quick(tests), SAMPLE)
    for kind in KINDS:
        changed = [(t, program) for t in sample if (program := mutate(kind, t))]
        began = time.monotonic()
        found = judge_all(changed, workers)
        seconds = time.monotonic() - began
        alive = [item for item, o in zip(changed, found, strict=True) if o.correct]
        states = ", ".join(f"{n} {status}" for status, n in Counter(str(o.status) for o in found).items())
        refused = f"{len(found) - len(alive):3} of {len(found):3} refused ({states})"
        print(f"{kind:20} {refused}, {seconds:.0f} s", flush=True)
        for t, program in alive:
            there = ast.unparse(ast.parse(t.reference)).splitlines()
            new = " / ".join(line.strip() for line in program.splitlines() if line not in there)
            differs = differing_inputs(t, program)
            print(f"  accepted: {t.task_id}, {new!r}: another value on {differs} inputs", flush=True)


def differing_inputs(tests: EvalPlusTests, program: str) -> int:
    """On how many inputs the program's value is not that of the reference, without sandbox or rules of comparison."""
    functions = []
    for text in (tests.reference, program):
        names: dict = {"__name__": "solution"}
        exec(compile(text, "<program>", "exec"), names)
        functions.append(names[tests.entry])
    inputs = [arguments for part in marshal.loads(zlib.decompress(tests.packed)) for arguments in part]
    values = ([f(*marshal.loads(arguments)) for arguments in inputs] for f in functions)
    return sum(a != b for a, b in zip(*values, strict=True))


def quick(tests: list[EvalPlusTests]) -> list[EvalPlusTests]:
    """Problems with few inputs, so that the time goes into starting programs."""
    return [t for t in tests if len(t.packed) < 4000]


def cheapest(tests: list[EvalPlusTests]) -> list[EvalPlusTests]:
    """60 problems whose references take next to no CPU time; few inputs do not mean that (Mbpp/271: 3 s)."""
    few = sorted(quick(tests), key=lambda t: len(t.packed))
    cheap = (t for t in few if sum(evalplus.reference_results(t).cpu_seconds) < CHEAP_SECONDS)
    return list(itertools.islice(cheap, SAMPLE))


def hostile(tests: list[EvalPlusTests], workers: int, keep: Path | None) -> None:
    """500 hostile programs among 5,000 honest ones, in random order; a line each 30 s, and at the end what was found.

    With keep every outcome is a line of that file as soon as it is there, and those that it has are not run again.
    """
    easy = EvalPlusTests("HumanEval/0", "f", RETURN, 0, evalplus.pack([[1]], []))
    chosen = cheapest(tests)
    names = list(HOSTILE)
    items = {f"honest {i}": (chosen[i % len(chosen)], chosen[i % len(chosen)].reference) for i in range(HONEST)}
    items |= {f"{names[i % len(names)]} {i}": (easy, HOSTILE[names[i % len(names)]][0]) for i in range(BAD)}
    order = random.Random(0).sample(list(items), len(items))
    found = _kept(keep) if keep and keep.exists() else {}
    there, began, cpu, said = left_over(), time.monotonic(), cpu_seconds(), time.monotonic()
    resumed = len(found)
    with ThreadPoolExecutor(workers) as pool, keep.open("a") if keep else nullcontext() as file:
        waiting = [pool.submit(_judged, name, *items[name]) for name in order if name not in found]
        for future in as_completed(waiting):
            name, outcome = future.result()
            found[name] = outcome
            if file:
                print(json.dumps({"program": name} | outcome), file=file, flush=True)
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                spent = f"{said - began:.0f} s, {cpu_seconds() - cpu:.0f} CPU s"
                print(f"{len(found):5} of {len(items)} after {spent}: {_counted(found)}", flush=True)
    spent = f"{time.monotonic() - began:.0f} s, {cpu_seconds() - cpu:.0f} CPU s"
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(_counted(found))
    print(f"{len(found) - resumed} run in {spent} on {workers} workers; left over: {left_over() - there}; largest "
          f"process {largest} MiB")  # fmt: skip
    for kind, outcomes in _by_kind(found).items():
        seconds = sorted(o["seconds"] for o in outcomes)
        print(f"  {kind:32} {len(outcomes):5} x {seconds[len(seconds) // 2]:6.2f} s (median; most {seconds[-1]:.2f})")
    for name, outcome in found.items():
        if name.startswith("honest ") != outcome["correct"] or outcome["status"] == Status.ERROR:
            print(f"  {name}: {outcome}")


def _judged(name: str, tests: EvalPlusTests, program: str) -> tuple[str, dict]:
    began = time.monotonic()
    outcome = check(tests, program)
    seconds = round(time.monotonic() - began, 3)
    return name, {"correct": outcome.correct, "status": outcome.status, "detail": outcome.detail, "seconds": seconds}


def _kept(path: Path) -> dict[str, dict]:
    found = {}
    for line in path.read_text().splitlines():
        outcome = json.loads(line)
        found[outcome.pop("program")] = outcome
    return found


def _by_kind(found: dict[str, dict]) -> dict[str, list[dict]]:
    kinds: dict[str, list[dict]] = {}
    for name, outcome in found.items():
        kinds.setdefault(name.split()[0], []).append(outcome)
    return dict(sorted(kinds.items(), key=lambda kind: -sum(o["seconds"] for o in kind[1])))


def _counted(found: dict[str, dict]) -> str:
    right = Counter((name.startswith("honest "), o["correct"]) for name, o in found.items())
    states = ", ".join(f"{n} {status}" for status, n in Counter(str(o["status"]) for o in found.values()).items())
    honest, bad = right[True, True] + right[True, False], right[False, True] + right[False, False]
    return f"{right[True, True]} of {honest} honest accepted, {right[False, False]} of {bad} hostile refused; {states}"


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def left_over() -> int:
    folders = len(list(Path("/tmp").glob("program-*")))
    return folders + sum(b"sandbox.supervisor" in _command(p) for p in Path("/proc").glob("[0-9]*/cmdline"))


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=("references", "mutations", "hostile"))
    parser.add_argument("--keep", type=Path, help="outcomes of hostile, a line each; a second run goes on from there")
    options = parser.parse_args()
    tests = [t for path in options.data for t in load_tests(path).values() if isinstance(t, EvalPlusTests)]
    print(f"{len(tests)} problems; protection missing: {', '.join(missing_protection()) or 'none'}", flush=True)
    if options.only in (None, "references"):
        references(tests, options.workers)
    if options.only in (None, "mutations"):
        mutations(tests, options.workers)
    if options.only in (None, "hostile"):
        hostile(tests, options.workers, options.keep)


if __name__ == "__main__":
    main()
