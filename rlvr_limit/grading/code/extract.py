"""Finds the program in a response as LiveCodeBench does: what stands between the last two lines with a fence."""

import re

FENCE = "```"
_OPENED = re.compile(rf"{FENCE}(?:python|py)?\s*\Z", re.IGNORECASE)
_OPENED_AGAIN = re.compile(r"\s*`{3,}[ \t]*\w.*")


def extract(response: str, prompt: str = "") -> str:
    """The program's text; empty where there is none.

    A fence is any line with three backticks, whatever else stands there. Where the prompt ends in an opened fence, the
    response begins with the program, which ends at the next such line or with the response.
    """
    lines = response.split("\n")
    fences = [i for i, line in enumerate(lines) if FENCE in line]
    if not opens_fence(prompt):
        return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""
    # Some models open the fence once more.
    again = fences and _OPENED_AGAIN.fullmatch("\n".join(lines[: fences[0] + 1]))
    first, *ends = (fences[0] + 1, *fences[1:]) if again else (0, *fences)
    return "\n".join(lines[first : ends[0] if ends else len(lines)])


def opens_fence(prompt: str) -> bool:
    """Whether a prompt ends in an opened fence, so that the response begins with the program."""
    return bool(_OPENED.search(prompt))
