"""The formats of others' samples: the first entry of FORMATS that knows a row's fields reads it, none names itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from rlvr_limit.tasks.imported.fields import (
    NAME,
    QUESTION,
    RESPONSES,
    Fields,
    ImportedRow,
    asked_in,
    drawn_answer,
    drawn_answers,
    first_given,
    for_each,
    imported_row,
    message_text,
    own_verdict,
    question_in,
    recorded_conditions,
    reference_in,
    unaltered,
)
from rlvr_limit.types import Stop, UserError


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


def is_request(fields: Fields) -> bool:
    """Whether a row is of a batch's input: what was asked, whose answer another file has under the same custom_id."""
    return "custom_id" in fields and isinstance(fields.get("body"), Mapping) and "response" not in fields


def _by_fields(fields: Fields) -> ImportedRow:
    return imported_row(fields, drawn_answers(first_given(fields, RESPONSES)))


def _qwen_math(fields: Fields) -> ImportedRow:
    """A row of Qwen2.5-Math's evaluation, or of ToRA's and others before it."""
    reference = unaltered(reference_in(fields), fields.get("gt_cot"), fields.get("answer"))
    return imported_row(fields, drawn_answers(fields["code"]), reference=reference)


def _program(fields: Fields) -> ImportedRow:
    """A row of EvalPlus's samples, where a solution is the response and no reference."""
    return imported_row(fields, drawn_answers(fields["solution"]), reference=None)


def _choices(fields: Fields) -> ImportedRow:
    """A reply of an OpenAI-compatible server, alone or in a row with what it was asked."""
    reply = fields["response"] if isinstance(fields.get("response"), Mapping) else fields
    if isinstance(reply.get("body"), Mapping):
        reply = reply["body"]
    if fields.get("error") or reply.get("error"):
        error = fields.get("error") or reply["error"]
        raise UserError(f"the request failed: {error.get('message', error) if isinstance(error, Mapping) else error}")
    if isinstance(reply.get("output"), list):  # the Responses API
        texts = [message_text(item) for item in reply["output"] if item.get("type") == "message"]
        drawn = [(text, Stop.LENGTH if reply.get("status") == "incomplete" else Stop.EOS) for text in texts]
    elif isinstance(reply.get("choices"), list):
        drawn = drawn_answers(sorted(reply["choices"], key=lambda choice: choice.get("index") or 0))
    else:
        raise UserError("the request brought no reply with choices")
    request = fields.get("request") if isinstance(fields.get("request"), Mapping) else {}
    request = request["body"] if isinstance(request.get("body"), Mapping) else request
    return imported_row({**request, **fields}, drawn, recorded=recorded_conditions(fields, reply, request))


def _lm_eval(fields: Fields) -> ImportedRow:
    """EleutherAI's --log_samples. Each filter of a task has a row of the same responses: its name is the variant.

    Of programs the filtered responses count, which begin with the prompt that they complete.
    """
    doc = fields["doc"] if isinstance(fields.get("doc"), Mapping) else {}
    is_code, name = _has(doc, "entry_point", "test_list"), fields.get("doc_id", "")
    if is_code and "task_id" in doc:
        name = f"Mbpp/{doc['task_id']}" if "test_list" in doc else doc["task_id"]
    resps, filtered = fields.get("resps") or [], fields.get("filtered_resps") or []
    if not resps or (is_code and filtered and isinstance(filtered[0], list)):
        resps = filtered
    resps = resps[0] if len(resps) == 1 and isinstance(resps[0], list) else resps
    arguments, settings = fields.get("arguments"), []
    if isinstance(arguments, Mapping):  # {"gen_args_0": {"arg_0": prompt, "arg_1": settings}}
        arguments = [list(asked.values()) for asked in arguments.values() if isinstance(asked, Mapping)]
    asked = arguments[0] if isinstance(arguments, list) and arguments else []
    prompt = str(asked[0]) if asked else ""
    settings = [dict(part) for part in asked[1:] if isinstance(part, Mapping)]
    if settings and settings[0].get("do_sample") is False:
        settings[0] |= {"temperature": 0}
    # math_verify stands behind an exact match that asks for one form of the last sentence.
    metrics = ["math_verify", *(name for name in fields.get("metrics") or () if isinstance(name, str))]
    own = next((fields[name] for name in metrics if own_verdict(fields.get(name)) is not None), None)
    target = fields.get("target")
    drawn = drawn_answers(resps)
    return imported_row(
        {},
        drawn,
        verdicts=tuple(map(own_verdict, for_each(own, len(drawn)))),
        question=question_in(doc) or prompt.strip(),
        name=str(name),
        reference=unaltered(reference_in(doc) if target in (None, "") else target, doc.get("solution")),
        prompt=prompt,
        variant=str(fields.get("filter", "")),
        recorded=recorded_conditions(*settings),
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
    drawn = drawn_answers(texts)
    own = next((value for value in metrics.values() if own_verdict(value) is not None), None)
    return imported_row(
        {},
        drawn,
        verdicts=tuple(map(own_verdict, for_each(own, len(drawn)))),
        question=asked_in(question or prompt),
        name="" if name is None else str(name),
        task=_task(str(task or "")),
        reference=_only(golds or fields.get("gold")),
        prompt=prompt if isinstance(prompt, str) else json.dumps(prompt) if prompt else "",
        recorded=recorded_conditions(asked),
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
    (text, stop) = drawn_answer(output["choices"][0])
    scores = [score.get("value") for score in (sample.get("scores") or {}).values() if isinstance(score, Mapping)]
    asked = sample.get("input")
    configs = [(log.get("plan") or {}).get("config") or {}, head.get("model_generate_config") or {}]
    return imported_row(
        {},
        [(str(held.get(text.removeprefix("attachment://"), text)), stop)],
        verdicts=(next((right for right in map(own_verdict, scores) if right is not None), None),),
        question=str(held.get(asked_in(asked).removeprefix("attachment://"), asked_in(asked))),
        name=str(sample.get("id", "")),
        task=str(head.get("task", "")).rpartition("/")[2],
        reference=_only(sample.get("target")),
        recorded=recorded_conditions(*configs, {"model": head.get("model")}),
    )


def _only(golds: Any) -> Any:
    """The one reference. UserError for several of which any is right: ours are all asked for."""
    if isinstance(golds, list) and len(golds) > 1:
        raise UserError(f"several references of which any is right ({golds!r:.60}); give one")
    return golds[0] if isinstance(golds, list) and golds else golds


def _has(fields: Fields, *names: str) -> bool:
    return first_given(fields, names) is not None


def _is_reply(fields: Fields) -> bool:
    response, choices = fields.get("response"), fields.get("choices")
    entries = choices if isinstance(choices, list) else []
    return (
        (isinstance(response, Mapping) and any(name in response for name in ("body", "choices", "output", "error")))
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
    "qwen-math": (_is_qwen_math, _qwen_math),
    "vllm": (_is_vllm, _by_fields),
    "plain": (_is_plain, _by_fields),
    "evalplus": (_is_program, _program),
}
"""By name: whether a row's fields are of the format, and what reads them."""
