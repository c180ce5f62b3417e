"""A grader of one's own, as a config names it: module:function."""

from rlvr_limit.types import Problem, Status, Verdict


def even(problem: Problem, text: str) -> Verdict:
    """An answer of an even number of characters is right."""
    return Verdict(len(text) % 2 == 0, Status.GRADED)


def seldom(problem: Problem, text: str) -> Verdict:
    """Of answers of 3 n characters every other is right; those of all other lengths have no verdict."""
    status = (Status.GRADED, Status.TIMEOUT, Status.ERROR)[len(text) % 3]
    return Verdict(len(text) // 3 % 2 == 0, status)


def as_the_reference(problem: Problem, text: str) -> Verdict:
    """An answer of an even number of characters is right where the reference is even, any other where it is odd."""
    return Verdict((len(text) - int(problem.answer)) % 2 == 0, Status.GRADED, str(len(text)))
