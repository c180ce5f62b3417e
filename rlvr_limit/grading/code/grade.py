"""The program verifier: the program of a response on its problem's tests."""

from collections.abc import Callable

from rlvr_limit.grading.code.evalplus import EvalPlusTests
from rlvr_limit.grading.code.extract import FENCE, extract
from rlvr_limit.grading.code.livecodebench import LiveCodeTests
from rlvr_limit.grading.code.outcome import ProgramOutcome, run_check
from rlvr_limit.grading.code.sanitise import sanitise
from rlvr_limit.grading.sandbox.run import SandboxError
from rlvr_limit.types import Problem, Status, Verdict

VERSION = "code-2"
LONGEST_PROGRAM = 200_000
_BEFORE, _AFTER = f"{FENCE}python\n", f"\n{FENCE}"

CodeTests = EvalPlusTests | LiveCodeTests


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on a response; problem.answer is the problem's tests. Runs the program until its first failure.

    NO_ANSWER where there is no program, TIMEOUT where a test ran out of time, ERROR where the sandbox failed.
    """
    short = shorten(problem, text)
    if isinstance(short, Verdict):
        return short
    program = short.removeprefix(_BEFORE).removesuffix(_AFTER)
    outcome = check(problem.answer, program)
    return Verdict(outcome.correct, outcome.status, program, outcome.detail)


def shorten(problem: Problem, text: str) -> Verdict | str:
    """The verdict where there is no program to run, otherwise the program alone, fenced, which `grade` judges alike."""
    if isinstance(problem.answer, EvalPlusTests):
        program = sanitise(text, problem.answer.entry, problem.prompt)
    else:
        program = extract(text, problem.prompt)
    if not program.strip():
        return Verdict(False, Status.NO_ANSWER, detail="no program")
    if len(program) > LONGEST_PROGRAM:
        detail = f"a program of {len(program)} characters"
        return Verdict(False, Status.GRADED, program[:LONGEST_PROGRAM], detail)
    return f"{_BEFORE}{program}{_AFTER}"


def check(
    tests: CodeTests, program: str, all_tests: bool = False, stopped: Callable[[], bool] = lambda: False
) -> ProgramOutcome:
    """Runs a program as it is; ERROR where the sandbox fails. Raises InterruptedError when stopped() becomes true."""
    try:
        return run_check(tests.program_check(program), all_tests, stopped)
    except InterruptedError:
        raise
    except (SandboxError, OSError) as error:
        return ProgramOutcome(False, Status.ERROR, detail=str(error))
