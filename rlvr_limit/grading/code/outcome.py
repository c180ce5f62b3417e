"""What all code benchmarks share: running a program on its tests and saying which of them it failed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlvr_limit.grading.sandbox.run import ResultKind, SandboxJob, SandboxLimits, SandboxResult, execute
from rlvr_limit.types import Status


@dataclass(frozen=True)
class ProgramCheck:
    """A program on its tests: what is run, and how each result is judged."""

    job: SandboxJob
    limits: SandboxLimits
    names: Sequence[str]  # of the tests
    mismatch: Callable[[int, bytes], str]  # (test, SandboxResult.data) -> "" where it is right, else what is wrong


@dataclass(frozen=True)
class ProgramOutcome:
    """Whether a program passed all of its tests."""

    correct: bool
    status: Status
    failed: tuple[str, ...] = ()  # names of the tests that it failed, in order
    not_run: int = 0  # tests after a timeout, the program's end, or the first failure where that ends the run
    detail: str = ""  # of the first failure


def run_check(
    check: ProgramCheck, all_tests: bool = False, stopped: Callable[[], bool] = lambda: False
) -> ProgramOutcome:
    """Runs a program and judges each of its results. Without all_tests the first failure ends it.

    Raises SandboxError where the sandbox fails, InterruptedError when stopped() becomes true.
    """
    failed: list[str] = []
    status, detail, seen = Status.GRADED, "", 0
    results = execute(check.job, check.limits, stopped)
    try:
        for result in results:
            wrong = _what_is_wrong(result, check)
            seen = max(seen, result.index + 1)
            if wrong:
                failed.append(check.names[result.index] if result.index >= 0 else "loading")
                detail = detail or f"{failed[-1]}: {wrong}"
                status = Status.TIMEOUT if result.kind == ResultKind.TIMEOUT else status
                if not all_tests:
                    break
    finally:
        results.close()
    missing = len(check.names) - seen
    if missing and not failed:
        detail = f"{check.names[seen]}: no result"
    return ProgramOutcome(not failed and not missing, status, tuple(failed), missing, detail)


def _what_is_wrong(result: SandboxResult, check: ProgramCheck) -> str:
    if result.kind in (ResultKind.RAISED, ResultKind.TIMEOUT):
        return result.detail or "failed"
    try:
        return check.mismatch(result.index, result.data)
    except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
        # What a hostile or a foolish program returns may be comparable with nothing.
        return f"cannot be compared ({type(error).__name__})"
