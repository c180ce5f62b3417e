"""Files of samples as others write them, each of the same answers to the same problems."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PROBLEMS = [(f"What is {i} plus {i + 1}?", str(2 * i + 1)) for i in range(6)]
Answers = Sequence[Sequence[str]]
"""The answers to each of PROBLEMS, as they stand in the box."""


def response(answer: str) -> str:
    return f"We add the two. So it is \\boxed{{{answer}}}."


def _lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def plain(answers: Answers) -> bytes:
    rows = zip(PROBLEMS, answers, strict=True)
    return _lines([{"problem": q, "answer": a, "response": [response(x) for x in given]} for (q, a), given in rows])


def one_a_row(answers: Answers) -> bytes:
    rows = zip(PROBLEMS, answers, strict=True)
    return _lines([{"problem": q, "output": response(x), "answer": int(a)} for (q, a), given in rows for x in given])


def qwen_math(answers: Answers) -> bytes:
    rows = enumerate(zip(PROBLEMS, answers, strict=True))
    return _lines(
        [
            {"idx": i, "question": q, "gt_cot": "None", "gt": a, "answer": a, "code": [response(x) for x in given]}
            | {"pred": list(given), "report": ["Done"] * len(given), "finish_reason": ["stop"] * len(given)}
            | {"score": [x == a for x in given]}
            for i, ((q, a), given) in rows
        ]
    )


def lm_eval(answers: Answers) -> bytes:
    rows = enumerate(zip(PROBLEMS, answers, strict=True))
    return _lines(
        [
            {"doc_id": i, "doc": {"question": q, "answer": f"We add.\n#### {a}"}, "target": f"We add.\n#### {a}"}
            | {"arguments": {"gen_args_0": {"arg_0": f"Question: {q}\nAnswer:", "arg_1": {"temperature": 0.6}}}}
            | {"resps": [[response(x) for x in given]], "filtered_resps": [given[0]], "filter": name}
            | {"metrics": ["exact_match"], "exact_match": float(given[0] == a)}
            for i, ((q, a), given) in rows
            for name in ("strict-match", "flexible-extract")
        ]
    )


def chat(answers: Answers) -> bytes:
    """Replies of a server beside what was asked."""
    rows = zip(PROBLEMS, answers, strict=True)
    return _lines(
        [
            {"id": "chatcmpl-1", "object": "chat.completion", "model": "m", "ground_truth": a, "temperature": 0.6}
            | {"messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": q}]}
            | {
                "choices": [
                    {"index": i, "message": {"role": "assistant", "content": response(x)}, "finish_reason": "length"}
                    for i, x in enumerate(given)
                ]
            }
            for (q, a), given in rows
        ]
    )


def batch(answers: Answers) -> bytes:
    """The output of an OpenAI batch: neither questions nor references, but names."""
    return _lines(
        [
            {"id": "batch_req_1", "custom_id": f"mine/{i}", "error": None}
            | {
                "response": {
                    "status_code": 200,
                    "body": {
                        "choices": [{"message": {"content": response(x)}, "finish_reason": "stop"} for x in given]
                    },
                }
            }
            for i, given in enumerate(answers)
        ]
    )


def vllm(answers: Answers) -> bytes:
    rows = zip(PROBLEMS, answers, strict=True)
    return _lines(
        [
            {"prompt": q, "reference": a}
            | {"outputs": [{"text": response(x), "token_ids": [1], "finish_reason": "stop"} for x in given]}
            for (q, a), given in rows
        ]
    )


def lighteval(answers: Answers) -> bytes:
    rows = enumerate(zip(PROBLEMS, answers, strict=True))
    table = [
        {
            "__doc__": {
                "query": q,
                "choices": [f" {a}"],
                "gold_index": [0],
                "task_name": "lighteval|adding|0",
                "id": str(i),
            },
            "__model_response__": {"text": [response(x) for x in given], "input": q, "output_tokens": [[1]]},
            "__metric__": {"extractive_match": float(given[0] == a)},
        }
        for i, ((q, a), given) in rows
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table), sink)
    return sink.getvalue()


def inspect_log(answers: Answers) -> dict[str, Any]:
    rows = enumerate(zip(PROBLEMS, answers, strict=True))
    return {
        "version": 2,
        "status": "success",
        "eval": {"task": "adding", "model": "openai/m", "model_generate_config": {}},
        "plan": {"config": {"temperature": 0.6, "max_tokens": 64}},
        "samples": [
            {"id": f"add-{i}", "epoch": epoch, "input": q, "target": a}
            | {
                "output": {
                    "choices": [{"message": {"role": "assistant", "content": response(x)}, "stop_reason": "stop"}]
                }
            }
            | {"scores": {"match": {"value": "C" if x == a else "I", "answer": x}}}
            for i, ((q, a), given) in rows
            for epoch, x in enumerate(given, start=1)
        ],
    }


def inspect_json(answers: Answers) -> bytes:
    return json.dumps(inspect_log(answers), indent=2).encode()


def inspect_eval(answers: Answers, zstandard: bool = True) -> bytes:
    """The same as a zip, as inspect_ai packs it today: Zstandard, of which Python 3.11 knows the number only."""
    log, sink = inspect_log(answers), io.BytesIO()
    samples = log.pop("samples")
    members = {"header.json": log} | {f"samples/{s['id']}_epoch_{s['epoch']}.json": s for s in samples}
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in members.items():
            data = json.dumps(content).encode()
            data = pa.Codec("zstd").compress(data).to_pybytes() if zstandard else data
            archive.writestr(name, data)
    data = bytearray(sink.getvalue())
    place = data.find(b"PK\x01\x02")
    while zstandard and place >= 0:
        data[place + 10 : place + 12] = (93).to_bytes(2, "little")
        place = data.find(b"PK\x01\x02", place + 4)
    return bytes(data)


def nemo_skills(answers: Answers, seed: int) -> bytes:
    """output-rs<seed>.jsonl: the answer of that number to each problem."""
    rows = zip(PROBLEMS, answers, strict=True)
    return _lines(
        [
            {"problem": q, "expected_answer": a, "generation": response(given[seed]), "predicted_answer": given[seed]}
            | {"symbolic_correct": given[seed] == a, "num_generated_tokens": 9}
            for (q, a), given in rows
        ]
    )


WRITERS: dict[str, tuple[str, Callable[[Answers], bytes]]] = {
    "plain": ("base.jsonl", plain),
    "one a row": ("base.json", one_a_row),
    "qwen-math": ("test_qwen.jsonl", qwen_math),
    "lm-eval": ("samples_adding_2026-01-01T00-00-00.0.jsonl", lm_eval),
    "openai": ("replies.jsonl", chat),
    "vllm": ("out.jsonl", vllm),
    "lighteval": ("details_adding_2026.parquet", lighteval),
    "inspect json": ("log.json", inspect_json),
    "inspect eval": ("log.eval", inspect_eval),
}
"""Formats that say all in one file, under a name that they may have."""


def put(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def graded_here(monkeypatch: Any) -> list[Any]:
    """Grades in this process and draws no page; the results that a page would show go to the list."""
    shown: list[Any] = []

    def verdicts(grade, items, workers, seconds, shorten=None):
        return (grade(problem, text) for problem, text in items)

    monkeypatch.setattr("rlvr_limit.evaluation.grade.map_verdicts", verdicts)
    monkeypatch.setattr("rlvr_limit.evaluation.results.report.write", lambda results, folder: shown.append(results))
    return shown
