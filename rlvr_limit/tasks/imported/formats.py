"""What a row of others' samples says, by the fields that it has: the question, its reference, the answers drawn to it.

No format names itself in its rows: the first entry of FORMATS that knows a row's fields reads it. Fields with one
meaning have many names; the first of a tuple that is there counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
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
RIGHT = {"c": True, "i": False, "true": True, "false": False, "judgement: yes": True, "judgement: no": False}
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


def read_row(fields: Fields) -> tuple[str, ImportedRow]:
    """(the format, what the row says). UserError, without a place, for what is missing or not understood."""
    for name, (knows, read) in FORMATS.items():
        if knows(fields):
            row = read(fields)
            if not row.responses:
                raise UserError("no response: the list of them is empty")
            if not row.question and not row.name:
                raise UserError(f"no problem: it needs one of the fields {', '.join(QUESTION + NAME)}")
            return name, row
    raise UserError(
        f"not understood: there is none of the fields {', '.join(RESPONSES)}, choices, resps, and no "
        f"other format's; there are {', '.join(map(str, fields)) or 'none'}"
    )


def _first(fields: Fields, names: Iterable[str]) -> Any:
    """The first of these fields that is there."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _question(fields: Fields) -> str:
    return next(filter(None, (_asked(fields.get(name)) for name in QUESTION)), "")


def _row(fields: Fields, responses: list[tuple[str, str]], **said: Any) -> ImportedRow:
    """A row of these (text, stop), of whose other fields `said` knows better than their names."""
    texts = tuple(text for text, _ in responses)
    ends = _listed(_first(fields, ENDINGS), len(texts))
    stops = tuple(stop or STOPS.get(str(end), Stop.UNKNOWN) for (_, stop), end in zip(responses, ends, strict=True))
    prompt = fields.get("prompt") or fields.get("messages")
    given = {
        "verdicts": tuple(map(_is_right, _listed(_first(fields, VERDICTS), len(texts)))),
        "question": _question(fields),
        "name": _name(fields),
        "reference": _first(fields, REFERENCE),
        "prompt": prompt if isinstance(prompt, str) else json.dumps(prompt) if prompt else "",
        "recorded": _recorded(fields, *(fields[name] for name in NESTED if isinstance(fields.get(name), Mapping))),
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


def _listed(value: Any, n: int) -> list[Any]:
    """An entry an answer: a list as long as that, or a value of the one answer; None where it says nothing of each."""
    if isinstance(value, list | tuple) and len(value) == n:
        return list(value)
    return [value] if n == 1 and not isinstance(value, list | tuple) else [None] * n


def _is_right(value: Any) -> bool | None:
    """A verdict, None for anything else, as a share or a mark between right and wrong is."""
    if isinstance(value, str):
        return RIGHT.get(value.strip().lower())
    return bool(value) if isinstance(value, bool | int | float) and value in (0, 1) else None


def _asked(value: Any) -> str:
    """The question in a text, or in the last message of a user."""
    if isinstance(value, list):
        users = [message for message in value if isinstance(message, Mapping) and message.get("role") == "user"]
        value = _content(users[-1]) if users else ""
    return value.strip() if isinstance(value, str) else ""


def _content(message: Fields) -> str:
    """The text of a message, its reasoning in front where it stands apart."""
    content = message.get("content", message.get("text", ""))
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        content = "".join(str(_first(part, ("text", "reasoning")) or "") for part in parts)
    reasoning = _first(message, ("reasoning_content", "reasoning"))
    thought = f"<think>\n{reasoning}\n</think>\n\n" if isinstance(reasoning, str) and reasoning else ""
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise UserError(f"a response that is no text: {content!r:.60}")
    return thought + content


def _drawn(value: Any) -> list[tuple[str, str]]:
    """(text, stop) of each answer: texts, choices of an API, outputs of vLLM, or one of these alone."""
    entries = value if isinstance(value, list | tuple) else [value]
    # A conversation is one answer, which is its last message.
    if entries and all(isinstance(entry, Mapping) and "role" in entry for entry in entries):
        entries = entries[-1:]
    return [_answer(entry) for entry in entries]


def _answer(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return _whole(entry), ""
    if isinstance(entry, Mapping):
        message = entry.get("message")
        said = message if isinstance(message, Mapping) else entry
        if _first(said, ("content", "text", "reasoning_content")) is not None or "content" in said:
            return _whole(_content(said)), STOPS.get(str(_first(entry, ENDINGS)), "")
        if isinstance(text := _first(said, RESPONSES), str):
            return _whole(text), STOPS.get(str(_first(entry, ENDINGS)), "")
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


def _recorded(*groups: Fields) -> dict[str, str]:
    said = {}
    for name, names in CONDITIONS.items():
        value = next((found for group in groups if (found := _first(group, names)) is not None), None)
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


def _by_fields(fields: Fields) -> ImportedRow:
    return _row(fields, _drawn(_first(fields, RESPONSES)))


def _program(fields: Fields) -> ImportedRow:
    """A row of EvalPlus's samples, where a solution is the response and no reference."""
    return _row(fields, _drawn(fields["solution"]), reference=None)


def _choices(fields: Fields) -> ImportedRow:
    """A reply of an OpenAI-compatible server, alone or in a row with what it was asked."""
    reply = fields["response"] if isinstance(fields.get("response"), Mapping) else fields
    if isinstance(reply.get("body"), Mapping):
        reply = reply["body"]
    if fields.get("error") or reply.get("error"):
        error = fields.get("error") or reply["error"]
        raise UserError(f"the request failed: {error.get('message', error) if isinstance(error, Mapping) else error}")
    if isinstance(reply.get("output"), list):  # the Responses API
        texts = [_content(item) for item in reply["output"] if item.get("type") == "message"]
        drawn = [(text, Stop.LENGTH if reply.get("status") == "incomplete" else Stop.EOS) for text in texts]
    elif isinstance(reply.get("choices"), list):
        drawn = _drawn(sorted(reply["choices"], key=lambda choice: choice.get("index") or 0))
    else:
        raise UserError("the request brought no reply with choices")
    request = fields.get("request") if isinstance(fields.get("request"), Mapping) else {}
    request = request["body"] if isinstance(request.get("body"), Mapping) else request
    return _row({**request, **fields}, drawn, recorded=_recorded(fields, request, reply))


def _lm_eval(fields: Fields) -> ImportedRow:
    """EleutherAI's --log_samples. Each filter of a task has a row of the same responses: its name is the variant."""
    doc = fields["doc"] if isinstance(fields.get("doc"), Mapping) else {}
    resps = fields.get("resps") or fields.get("filtered_resps") or []
    resps = resps[0] if len(resps) == 1 and isinstance(resps[0], list) else resps
    arguments, settings = fields.get("arguments"), []
    if isinstance(arguments, Mapping):  # {"gen_args_0": {"arg_0": prompt, "arg_1": settings}}
        arguments = [list(asked.values()) for asked in arguments.values() if isinstance(asked, Mapping)]
    asked = arguments[0] if isinstance(arguments, list) and arguments else []
    prompt = str(asked[0]) if asked else ""
    settings = [dict(part) for part in asked[1:] if isinstance(part, Mapping)]
    if settings and settings[0].get("do_sample") is False:
        settings[0] |= {"temperature": 0}
    metrics = [name for name in fields.get("metrics") or () if isinstance(name, str)]
    own = next((fields[name] for name in metrics if _is_right(fields.get(name)) is not None), None)
    target = fields.get("target")
    drawn = _drawn(resps)
    return _row(
        {},
        drawn,
        verdicts=tuple(map(_is_right, _listed(own, len(drawn)))),
        question=_question(doc) or prompt.strip(),
        name=str(fields.get("doc_id", "")),
        reference=_first(doc, REFERENCE) if target in (None, "") else target,
        prompt=prompt,
        variant=str(fields.get("filter", "")),
        recorded=_recorded(*settings),
    )


def _lighteval(fields: Fields) -> ImportedRow:
    """lighteval's details: __doc__, __model_response__ and __metric__, or the flat columns of older versions."""
    doc, reply = fields.get("__doc__") or fields.get("doc"), fields.get("__model_response__")
    reply = reply or fields.get("model_response")
    if doc and reply:
        metrics, texts, asked = fields.get("__metric__") or fields.get("metric") or {}, reply.get("text") or [], doc
        question, name, task = doc.get("query"), doc.get("id"), doc.get("task_name")
        prompt = reply.get("input")
    else:
        metrics, texts, asked = fields.get("metrics") or {}, fields["predictions"], fields
        question, name, task, prompt = fields.get("example"), None, None, fields.get("full_prompt")
    if not texts:
        raise UserError("no responses, as where choices are compared by their likelihood")
    gold = asked.get("gold_index")
    golds = [asked["choices"][i] for i in (gold if isinstance(gold, list) else [gold])] if asked.get("choices") else []
    drawn = _drawn(texts)
    own = next((value for value in metrics.values() if _is_right(value) is not None), None)
    return _row(
        {},
        drawn,
        verdicts=tuple(map(_is_right, _listed(own, len(drawn)))),
        question=_asked(question or prompt),
        name="" if name is None else str(name),
        task=_task(str(task or "")),
        reference=_only(golds or fields.get("gold")),
        prompt=prompt if isinstance(prompt, str) else json.dumps(prompt) if prompt else "",
        recorded=_recorded(asked),
    )


def _task(name: str) -> str:
    """lighteval|math:algebra|4|0 and math:algebra|4 to math_algebra."""
    parts = [part for part in name.split("|") if part and not part.isdecimal()]
    return parts[-1].replace(":", "_") if parts else ""


def _inspect(fields: Fields) -> ImportedRow:
    """A sample of inspect_ai's log, beside the log's head."""
    sample, log = fields["sample"], fields["log"]
    held = sample.get("attachments") or {}
    output = sample.get("output") or {}
    if not output.get("choices"):
        error = (sample.get("error") or {}).get("message", "without output")
        raise UserError(f"a sample that ended in an error: {error!s:.200}")
    head = log.get("eval") or {}
    (text, stop) = _answer(output["choices"][0])
    scores = [score.get("value") for score in (sample.get("scores") or {}).values() if isinstance(score, Mapping)]
    asked = sample.get("input")
    configs = [(log.get("plan") or {}).get("config") or {}, head.get("model_generate_config") or {}]
    return _row(
        {},
        [(str(held.get(text.removeprefix("attachment://"), text)), stop)],
        verdicts=(next((right for right in map(_is_right, scores) if right is not None), None),),
        question=str(held.get(_asked(asked).removeprefix("attachment://"), _asked(asked))),
        name=str(sample.get("id", "")),
        task=str(head.get("task", "")).rpartition("/")[2],
        reference=_only(sample.get("target")),
        recorded=_recorded(*configs, {"model": head.get("model")}),
    )


def _only(golds: Any) -> Any:
    """The one reference. UserError for several of which any is right: ours are all asked for."""
    if isinstance(golds, list) and len(golds) > 1:
        raise UserError(f"several references of which any is right ({golds!r:.60}); give one")
    return golds[0] if isinstance(golds, list) and golds else golds


def _has(fields: Fields, *names: str) -> bool:
    return _first(fields, names) is not None


def _is_reply(fields: Fields) -> bool:
    response, choices = fields.get("response"), fields.get("choices")
    entries = choices if isinstance(choices, list) else []
    return (
        isinstance(response, Mapping)
        or fields.get("object") == "response"
        or ("custom_id" in fields and "error" in fields)
        or bool(entries and all(isinstance(entry, Mapping) for entry in entries))
    )


def _is_inspect(fields: Fields) -> bool:
    return "log" in fields and "sample" in fields


def _is_lm_eval(fields: Fields) -> bool:
    return _has(fields, "doc", "doc_id") and _has(fields, "resps", "filtered_resps")


def _is_lighteval(fields: Fields) -> bool:
    return _has(fields, "__model_response__", "model_response", "full_prompt")


def _is_nemo_skills(fields: Fields) -> bool:
    return _has(fields, "generation") and _has(fields, "expected_answer", "predicted_answer")


def _is_qwen_math(fields: Fields) -> bool:
    return isinstance(fields.get("code"), list) and _has(fields, "pred", "gt")


def _is_vllm(fields: Fields) -> bool:
    outputs = fields.get("outputs")
    return isinstance(outputs, list) and all(isinstance(entry, Mapping) for entry in outputs)


def _is_plain(fields: Fields) -> bool:
    return _has(fields, *RESPONSES)


def _is_program(fields: Fields) -> bool:
    return _has(fields, "task_id") and _has(fields, "solution")


FORMATS: dict[str, tuple[Callable[[Fields], bool], Callable[[Fields], ImportedRow]]] = {
    "inspect_ai": (_is_inspect, _inspect),
    "openai": (_is_reply, _choices),
    "lm-eval": (_is_lm_eval, _lm_eval),
    "lighteval": (_is_lighteval, _lighteval),
    "nemo-skills": (_is_nemo_skills, _by_fields),
    "qwen-math": (_is_qwen_math, _by_fields),
    "vllm": (_is_vllm, _by_fields),
    "plain": (_is_plain, _by_fields),
    "evalplus": (_is_program, _program),
}
"""By name: whether a row's fields are of the format, and what reads them."""
