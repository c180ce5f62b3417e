"""Fields with one meaning and many names: what a row of others' samples says by them, whatever its format.

The first name of a tuple that is there counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlvr_limit.types import Stop, UserError

Fields = Mapping[str, Any]

QUESTION = ("problem", "question", "query", "Question", "Problem", "input", "prompt", "messages")
NAME = ("problem_id", "task_id", "question_id", "unique_id", "custom_id", "id", "idx", "index", "doc_id")
REFERENCE = (
    "gt", "expected_answer", "ground_truth", "reference_answer", "reference", "gold_answer", "gold", "gts", "target",
    "correct_answer", "answer", "solution",
)  # fmt: skip
RESPONSES = (
    "responses", "response", "generations", "generation", "completions", "completion", "outputs", "output", "samples",
    "code", "predictions", "model_output", "generated_text", "text",
)  # fmt: skip
VERDICTS = ("score", "scores", "correct", "is_correct", "symbolic_correct", "passed", "judgement")
ENDINGS = ("finish_reason", "finish_reasons", "stop_reason")
STOPS = dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_token"), Stop.EOS) | dict.fromkeys(
    ("length", "max_tokens", "model_length", "max_length", "max_output_tokens"), Stop.LENGTH
)
RIGHT = {"c": True, "i": False, "true": True, "false": False, "yes": True, "no": False}
CONDITIONS = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "lengths": (
        "max_tokens", "max_completion_tokens", "max_new_tokens", "max_gen_toks", "tokens_to_generate",
        "max_tokens_per_call", "generation_size",
    ),
    "eos": ("stop", "until", "stop_words", "stop_sequences", "stop_seqs"),
    "dtype": ("dtype",),
}  # fmt: skip
"""Names of settings.COMPARED by what others call them."""
NESTED = ("sampling_params", "generation_kwargs", "gen_kwargs", "generation_config", "request", "params", "inference")


@dataclass(frozen=True)
class ImportedRow:
    """One row: a problem as far as it is named, and answers to it. stops and verdicts have an entry an answer."""

    responses: tuple[str, ...]
    stops: tuple[str, ...]  # Stop.UNKNOWN where the row does not say
    verdicts: tuple[bool | None, ...]  # of those who made the file
    question: str = ""
    name: str = ""
    task: str = ""  # the benchmark, as they call it
    reference: Any = None
    prompt: str = ""
    variant: str = ""  # rows of another variant say the same answers once more
    recorded: Mapping[str, str] = field(default_factory=dict)  # conditions, by names of settings.COMPARED, and "model"


def first_given(fields: Fields, names: Iterable[str]) -> Any:
    """The first of these fields that is there."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def question_in(fields: Fields) -> str:
    """The first question that is not empty."""
    return next(filter(None, (asked_in(fields.get(name)) for name in QUESTION)), "")


def reference_in(fields: Fields) -> Any:
    """The first reference that is not empty, as it stands there."""
    return next((fields[name] for name in REFERENCE if fields.get(name) not in (None, "", [])), None)


def unaltered(reference: Any, solution: Any, spelt: Any = None) -> Any:
    """A reference, or what it was before the tool that wrote it took out units and spaces: (a+5)(b+2) became (+5)(b+2).

    lm-evaluation-harness and Qwen2.5-Math do so to MATH's, whose solutions end in a box: one that no box of them has is
    altered. spelt is another spelling.
    """
    if not isinstance(solution, str) or r"\boxed" not in solution:
        return reference
    return next((text for text in (reference, spelt) if text and rf"\boxed{{{text}}}" in solution), solution)


def imported_row(fields: Fields, responses: list[tuple[str, str]], **said: Any) -> ImportedRow:
    """A row of these (text, stop), of whose other fields `said` knows better than their names."""
    texts = tuple(text for text, _ in responses)
    ends = for_each(first_given(fields, ENDINGS), len(texts))
    stops = tuple(stop or STOPS.get(str(end), Stop.UNKNOWN) for (_, stop), end in zip(responses, ends, strict=True))
    prompt = fields.get("prompt") or fields.get("messages")
    nested = (fields[name] for name in NESTED if isinstance(fields.get(name), Mapping))
    given = {
        "verdicts": tuple(map(own_verdict, for_each(first_given(fields, VERDICTS), len(texts)))),
        "question": question_in(fields),
        "name": _name(fields),
        "reference": reference_in(fields),
        "prompt": prompt if isinstance(prompt, str) else json.dumps(prompt) if prompt else "",
        "recorded": recorded_conditions(fields, *nested),
    }
    return ImportedRow(texts, stops, **given | said)


def _name(fields: Fields) -> str:
    """The problem's own name; ids that servers give to their replies are none."""
    for name in NAME:
        value = fields.get(name)
        is_reply = name == "id" and str(value).startswith(("chatcmpl-", "cmpl-", "batch_req", "resp_"))
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "" and not is_reply:
            return str(value)
    return ""


def for_each(value: Any, n: int) -> list[Any]:
    """An entry an answer: a list as long as that, or a value of the one answer; None where it says nothing of each."""
    if isinstance(value, list | tuple) and len(value) == n:
        return list(value)
    return [value] if n == 1 and not isinstance(value, list | tuple) else [None] * n


def own_verdict(value: Any) -> bool | None:
    """A verdict, None for anything else, as a share or a mark between right and wrong is. A judge may give reasons."""
    if isinstance(value, str):
        return RIGHT.get(value.lower().rpartition("judgement")[2].strip(" *:\n"))
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def asked_in(value: Any) -> str:
    """The question in a text, or in the last message of a user."""
    if isinstance(value, list):
        users = [message for message in value if isinstance(message, Mapping) and message.get("role") == "user"]
        value = message_text(users[-1]) if users else ""
    return value.strip() if isinstance(value, str) else ""


def message_text(message: Fields) -> str:
    """The text of a message, its reasoning in front where it stands apart."""
    content = message.get("content", message.get("text", ""))
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        content = "".join(str(first_given(part, ("text", "reasoning")) or "") for part in parts)
    reasoning = first_given(message, ("reasoning_content", "reasoning"))
    thought = f"<think>\n{reasoning}\n</think>\n\n" if isinstance(reasoning, str) and reasoning else ""
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise UserError(f"a response that is no text: {content!r:.60}")
    return thought + content


def drawn_answers(value: Any) -> list[tuple[str, str]]:
    """(text, stop) of each answer: texts, choices of an API, outputs of vLLM, or one of these alone."""
    entries = value if isinstance(value, list | tuple) else [value]
    # A conversation is one answer, which is its last message.
    if entries and all(isinstance(entry, Mapping) and "role" in entry for entry in entries):
        entries = entries[-1:]
    return [drawn_answer(entry) for entry in entries]


def drawn_answer(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return _whole(entry), ""
    if isinstance(entry, Mapping):
        message = entry.get("message")
        said = message if isinstance(message, Mapping) else entry
        if first_given(said, ("content", "text", "reasoning_content")) is not None or "content" in said:
            return _whole(message_text(said)), STOPS.get(str(first_given(entry, ENDINGS)), "")
        if isinstance(text := first_given(said, RESPONSES), str):
            return _whole(text), STOPS.get(str(first_given(entry, ENDINGS)), "")
    inner = entry
    while isinstance(inner, list | tuple) and inner:
        inner = inner[0]
    if inner is not entry and isinstance(inner, int | float):
        raise UserError("log-likelihoods of given answers, not responses; there is nothing to grade in them")
    raise UserError(f"a response that is no text: {entry!r:.60}")


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which no file in UTF-8 can hold."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def recorded_conditions(*groups: Fields) -> dict[str, str]:
    """What these settings, the first of which count first, say of CONDITIONS and of the model."""
    said = {}
    for name, names in CONDITIONS.items():
        value = next((found for group in groups if (found := first_given(group, names)) is not None), None)
        if isinstance(value, bool | Mapping) or value is None or value == []:
            continue
        said[name] = _condition(name, value)
    models = [group["model"] for group in groups if isinstance(group.get("model"), str)]
    return said | ({"model": models[0]} if models else {})


def _condition(name: str, value: Any) -> str:
    """One spelling: 1 is 1.0 for a temperature, and -1 is 0, which is no limit, for top_k."""
    if name in ("temperature", "top_p", "min_p") and isinstance(value, int | float):
        return str(float(value))
    if name == "top_k" and isinstance(value, int):
        return str(max(value, 0))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else str(value)
