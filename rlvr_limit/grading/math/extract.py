"""Finds the final answer in a response: last \\boxed{...}, <answer>...</answer>, `Answer:` line or `#### x`.

Which of these is looked for first depends on what the prompt asked for; without a prompt the order is as above.
"""

import re
from dataclasses import dataclass

_BOX_NAMES = r"\\(?:boxed|fbox|framebox)"
_BOX = re.compile(rf"{_BOX_NAMES}\s*(?=\{{)")
_BRACES = re.compile(rf"{_BOX_NAMES}\s*\{{|\\.|[{{}}]", re.DOTALL)
_ASIAN = r"(?:最终)?答案\s*(?:[:：]|[是为為][:：]?)|答え\s*[:：は]|(?:정답|답)\s*[:：은는]"
_ANSWER = rf"(?:final\s+)?answer[*_ \t]*(?:is[*_ \t]*)?[:：]|{_ASIAN}"
# Emoji, bullets, emphasis and "so the" may stand before it, and the answer itself on the line or below, or below a
# heading.
_SO = r"(?:[^\w\n\\$]|_|\d{1,2}[.)]\s|因此|所以|故|因而|(?:so|thus|therefore|hence|and|the|our|my)(?![A-Za-z]))*"
_LINE = re.compile(
    rf"^{_SO}(?:(?:{_ANSWER})[*_ \t]*(\S.*)?|(?:final\s+)?answer[*_ \t]*)$", re.IGNORECASE | re.MULTILINE
)
_BELOW = re.compile(r"\s*(?:[-=]{3,}\s*\n\s*)?(?:\$\$\s*(.+?)\s*\$\$|\\\[\s*(.+?)\s*\\\]|(\S.*))", re.DOTALL)
_LEAD = re.compile(r"^(?:so\s+|thus\s+)?(?:the\s+)?(?:final\s+)?answer\s+is:?\s*", re.IGNORECASE)
_TRAIL = re.compile(
    r"[.!\s]*\b(?:I hope (?:it|this|that)|hope (?:it|this|that) helps|(?:please )?(?:let me know|feel free))\b.*$",
    re.IGNORECASE | re.DOTALL,
)
# 12 (since 3*4=12), but not 5 (mod 7) and not 2n (a + nd).
_REMARK_WORD = r"(?<![\\A-Za-z])(?:[A-Za-z]{3,}|(?:as|at|by|if|in|is|it|of|or|so|to|we)\b)"
_REMARK = re.compile(rf"\s+(?:\((?!\s*mod\b)(?=[^()]*{_REMARK_WORD}).*\)|\[[A-Za-z][A-Za-z ,]+\])[\s.]*$", re.DOTALL)
# The largest $n$ is 34.
_SENTENCE = re.compile(r"^[A-Z][A-Za-z]*\s.*\b(?:is|are|equals|be)\b:?\s+(\S.*)$", re.DOTALL)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
# \boxed 5 and $\boxed 12$: up to the end of the formula, or the next space.
_BARE_BOX = re.compile(
    rf"{_BOX_NAMES}(?![A-Za-z])\s*(?=[-+\d.(\\]|[A-Za-z](?![A-Za-z]))(?!\\[()\[\]]|\\(?:boxed|fbox))([^\s${{}}]*(?:\{{[^{{}}$\n]*\}}[^\s${{}}]*)*)"
)
_SPACING = r"(?:[\s$,;.&~*，；、]|\\[,;:!> ]|\\q?quad(?![A-Za-z])|\\[\[\]()]|\\\\|\\(?:hspace|vspace)\*?\{[^{}]*\})*"
_AND = r"(?:(?:\\(?:text|mathrm|textrm|mbox)\s*\{\s*[,;]?\s*)?(?:and|or|as well as|以及|和|或)(?:\s*\})?)?"
_LISTED = r"(?:[-*•]|\(?[\da-z]{1,2}[.)]|\\item(?![A-Za-z]))?"
_NAME = r"(?:(?:[A-Za-z]|\\[A-Za-z]+)'*(?:_(?:\w|\{\w+\}))?(?:\([a-z]\))?\s*(?:=|\\in(?![A-Za-z]))\s*)?"
# Two boxes are one answer when nothing but "and", a comma, layout and a name like `y =` stands between them.
_JOINED = re.compile(_SPACING + _AND + _SPACING + _LISTED + _SPACING + _NAME + _SPACING)
_MARKED = re.compile(rf"{_BOX_NAMES}(?![A-Za-z])|</?answer>|####|(?<![A-Za-z])(?:{_ANSWER})", re.IGNORECASE)
_DISPLAYED = re.compile(r"\s*(?:\\\[[^\[\]$]*\\\]|\$\$[^$]*\$\$)[.\s]*")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
# \boxed{-(\boxed{5})}, but no \boxed{x = \boxed{5}}.
_CALCULATED = re.compile(
    r"(?=[^-+*/^!\d]*[-+*/^!\d])(?:[-+*/^!,.\d()|$\s]|\\(?:cdot|times|left|right|[,;:!\[\]()])(?![A-Za-z])){1,80}"
)
LOOKED_AT, LONGEST_JOINT, LONGEST_BARE = 16, 80, 20


@dataclass(frozen=True)
class ExtractedAnswer:
    """The answer's text as it stands in the response; empty where there is none, and then `why` says why."""

    text: str
    why: str = ""


def extract(response: str, prompt: str = "") -> ExtractedAnswer:
    """The final answer of a response. The form that the prompt asks for goes first, the other forms follow."""
    for mark in sorted(_FORMS, key=lambda mark: mark not in prompt):
        if text := _FORMS[mark](response):
            return ExtractedAnswer(text)
    if re.search(r"\\boxed\b", response):
        return ExtractedAnswer("", "a \\boxed that is empty or never closed")
    if re.search(r"<answer>", response, re.IGNORECASE):
        return ExtractedAnswer("", "an <answer> that is empty or never closed")
    return ExtractedAnswer("", "no \\boxed{}, <answer>, `Answer:` or ####")


def is_bare(text: str) -> bool:
    """Whether a text is an answer alone, and no solution: without any of the marks, line breaks and many words."""
    prose = "\n" in text.strip() and r"\begin" not in text and not _DISPLAYED.fullmatch(text)
    return not (_MARKED.search(text) or prose or len(_WORD.findall(text)) > LONGEST_BARE)


def as_response(text: str) -> str:
    """A bare answer as a response that gives it; a whole response unchanged."""
    return f"<answer>{text}</answer>" if text.strip() and is_bare(text) else text


def last_box(text: str) -> str:
    """What the last balanced \\boxed{...} holds, and boxes right before it, joined by commas; empty without one."""
    whole = _BARE_BOX.sub(r"\\boxed{\1}", text)
    boxes = _boxes(whole)
    if not boxes:
        return ""
    answer, start = boxes[-1][2], boxes[-1][0]
    for begin, end, content in reversed(boxes[:-1]):
        between = whole[end:start]
        if not between.strip() or len(between) > LONGEST_JOINT or not _JOINED.fullmatch(between) or content == answer:
            break
        answer, start = f"{content}, {answer}", begin
    return answer


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the last non-empty boxes outside other boxes, in order; unclosed ones are left out."""
    starts = [match.start() for match in _BOX.finditer(text)]
    # A response may hold thousands of boxes: only when the last few say nothing are all looked at.
    for start in (*starts[-LOOKED_AT:][:1], *starts[:1]):
        if boxes := _closed_boxes(text, start):
            return boxes
    return []


def _closed_boxes(text: str, place: int) -> list[tuple[int, int, str]]:
    boxes: list[tuple[int, int, str]] = []
    # (start, end) of the openings of boxes; None for other braces.
    opened: list[tuple[int, int] | None] = []
    for match in _BRACES.finditer(text, place):
        if match[0] == "{":
            opened.append(None)
        elif match[0][-1] == "{" and match[0] != "\\{":
            opened.append(match.span())
        elif match[0] == "}" and opened and (box := opened.pop()):
            start, inside = box
            if content := text[inside : match.start()].strip():
                # Of nested boxes the innermost holds the answer, if nothing is done to it; of several in one the last.
                if boxes and boxes[-1][0] > start:
                    begin, end, inner = boxes[-1]
                    around = f"{text[inside:begin]}({inner}){text[end : match.start()]}"
                    content = around if _CALCULATED.fullmatch(text[inside:begin] + text[end : match.start()]) else inner
                while boxes and boxes[-1][0] > start:
                    boxes.pop()
                boxes.append((start, match.end(), content))
    return boxes


def _last_tag(text: str) -> str:
    small = text.lower()
    end = small.rfind("</answer>")
    start = small.rfind("<answer>", 0, max(end, 0))
    if start < 0:
        return ""
    inside = text[start + len("<answer>") : end]
    return last_box(inside) or _plain(inside)


def _last_line(text: str) -> str:
    found = ""
    for match in _LINE.finditer(text):
        below = None if match[1] else _BELOW.match(text, match.end())
        found = match[1] or (next(filter(None, below.groups()), "") if below else "") or found
    found = found.partition("\n")[0] if r"\begin" not in found else found
    return last_box(found) or _plain(found)


def _last_hashes(text: str) -> str:
    lines = _HASHES.findall(text)
    return _plain(lines[-1]) if lines else ""


def _plain(text: str) -> str:
    """Markdown emphasis, code marks, `the answer is`, hopes and remarks around an answer are not part of it."""
    text = _TRAIL.sub("", text.strip()).strip().strip("*`").strip()
    text = re.sub(r"[*`]+(?=[.!]$)", "", _LEAD.sub("", text).lstrip("*`"))
    if (remark := _REMARK.search(text)) and re.search(r"[\d$]", text[: remark.start()]):
        text = text[: remark.start()].strip().strip("*`").strip()
    sentence = _SENTENCE.match(text)
    return sentence[1] if sentence else text


_FORMS = {"\\boxed": last_box, "<answer>": _last_tag, "Answer:": _last_line, "####": _last_hashes}
"""What a prompt says that asks for a form, and how an answer of that form is found."""
