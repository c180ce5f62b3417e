"""The grader that a config names: "math", "visual", "exact", or "module:function" of one's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from rlvr_limit.grading import exact, mathruler, visual
from rlvr_limit.grading.math import authors, string_rules
from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.math.extract import as_response
from rlvr_limit.types import Grader, Problem, UserError, Verdict, not_allowed

MATH_VERIFY = "math_verify"

LONGEST_BARE = 500  # characters; a chain of equations that was cut is longer

OWN = "own"
"""What the verdicts are called by, before a dash and their format, that came with others' samples."""


@dataclass(frozen=True)
class NamedGrader:
    """A grader, the version under which its verdicts are stored, and what the grading pool calls shorten."""

    grade: Grader
    version: str
    shorten: Callable[[Problem, str], Verdict | str] | None = None
    second: NamedGrader | None = None  # whose verdicts stand beside, and never count; job=grade asks its second too
    spelling: Callable[[str], str] = string_rules.normal_form  # one text for answers that are one vote


def opinions(second: NamedGrader | None) -> list[NamedGrader]:
    """A second grader, its own second, and so on."""
    return [second, *opinions(second.second)] if second else []


def is_second_opinion(version: str) -> bool:
    """Whether verdicts of this version never count, whichever grader a run has."""
    return version.partition("-")[0] in ("authors", "mathruler", MATH_VERIFY, OWN)


def for_bare_answers(named: NamedGrader) -> NamedGrader:
    """The same for files of others, in which a response may be the answer alone; a grader of one's own as it is."""
    if named.grade not in (mathematics.grade, exact.grade):
        return named
    return replace(
        named,
        grade=partial(_of_bare, named.grade),
        shorten=named.shorten and partial(_of_bare, named.shorten),
        version=f"{named.version}-bare2",
    )


def _of_bare(judge: Callable[[Problem, str], Verdict | str], problem: Problem, text: str) -> Verdict | str:
    return judge(problem, as_response(text) if len(text) <= LONGEST_BARE else text)


def _by_math_verify() -> NamedGrader | None:
    """None where the package, an optional one, is not installed."""
    if importlib.util.find_spec(MATH_VERIFY) is None:
        return None
    module = importlib.import_module("rlvr_limit.grading.math_verify_opinion")
    return NamedGrader(module.grade, module.version())


def grader_named(name: str) -> NamedGrader:
    """The grader of that name. A function of one's own is versioned by its module's source.

    Raises UserError where there is none, or where it is not at the top of a module that other processes can import.
    """
    if name == "math":
        second = NamedGrader(authors.grade, authors.VERSION, authors.shorten, _by_math_verify())
        return NamedGrader(mathematics.grade, mathematics.VERSION, mathematics.shorten, second, string_rules.vote_form)
    if name == "visual":
        second = NamedGrader(mathruler.grade, mathruler.VERSION, mathruler.shorten)
        return NamedGrader(visual.grade, visual.VERSION, visual.shorten, second, string_rules.vote_form)
    if name == "exact":
        return NamedGrader(exact.grade, exact.VERSION)
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name.isidentifier()):
        raise not_allowed("grader", name, "math, visual, exact or module:function")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"grader {name!r}: {module_name} cannot be imported ({error})") from error
    grade = getattr(module, function_name, None)
    if not inspect.isfunction(grade):
        raise UserError(f"grader {name!r}: {module_name} has no function {function_name!r}")
    digest = hashlib.sha256(inspect.getsource(module).encode()).hexdigest()[:8]
    return NamedGrader(grade, f"{name}-{digest}")
