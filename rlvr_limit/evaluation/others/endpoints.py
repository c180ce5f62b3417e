"""Draws what an arm lacks from its endpoint: every reply goes on record as it comes, what lacks then is asked again.

A sample is an answer's text and how it ended, without tokens and log-probs. No seed is sent: with one, servers give the
same answers to two requests for one problem. usage.jsonl in the run folder has a line a reply, with the tokens that the
server counted; it is written first, so that what was paid is counted whatever comes between.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

from rlvr_limit import records
from rlvr_limit.distributed.work_queue import Work
from rlvr_limit.evaluation.others.endpoint_client import EndpointClient
from rlvr_limit.records.progress import Outlook, Progress
from rlvr_limit.records.storage.files import os_errors
from rlvr_limit.records.storage.folders import append_line
from rlvr_limit.settings import Endpoint
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Setup, Study, prompt_name
from rlvr_limit.tasks.imported.formats import read_row
from rlvr_limit.tasks.prompts import template
from rlvr_limit.types import Problem, UserError

USAGE = "usage.jsonl"
COUNTED = ("prompt_tokens", "completion_tokens")


def ask_endpoint(
    study: Study,
    entry: EvaluatedArm,
    round_name: str,
    lacking: Callable[[], Work],
    samples: records.Writer,
    outlook: Outlook | None,
) -> None:
    """Asks for the samples that are lacking until all are on record. UserError, one line, where that cannot be.

    What is under way when it ends early is waited for and kept, as it is paid for.
    """
    with _alone(study.root):
        # Another process may have drawn them until now.
        work = lacking()
        if work:
            _ask(study, entry, round_name, work, samples, outlook)


def _ask(
    study: Study, entry: EvaluatedArm, round_name: str, work: Work, samples: records.Writer, outlook: Outlook | None
) -> None:
    arm, setup = study.settings.arms[entry.arm], study.setups[entry.arm]
    client, total = EndpointClient(arm.endpoint), sum(len(indices) for _, indices in work)
    # Servers refuse several answers of the likeliest tokens, which are one.
    size = arm.endpoint.answers if setup.sampling.temperature else 1
    todo = deque((p, indices[i : i + size]) for p, indices in work for i in range(0, len(indices), size))
    under_way: dict[Future, tuple[Problem, list[int]]] = {}
    drawn = 0

    def keep(future: Future) -> None:
        """Puts a reply on record, and what it lacks back to what is to be done."""
        nonlocal drawn
        problem, indices = under_way.pop(future)
        reply = future.result()
        rows = sample_rows(entry.name, problem, indices, reply)
        append_line(study.root / USAGE, json.dumps(_usage(entry.name, problem, len(rows), reply)))
        samples.append(rows)
        drawn += len(rows)
        if rest := indices[len(rows) :]:
            todo.appendleft((problem, rest))

    stage = ", ".join(filter(None, (f"sample {entry.name}", round_name)))
    progress = Progress(study.root, stage, total, "samples", at_once=min(total, size * arm.endpoint.concurrency))
    with ThreadPoolExecutor(arm.endpoint.concurrency) as pool, progress:
        try:
            while todo or under_way:
                while todo and len(under_way) < arm.endpoint.concurrency:
                    problem, indices = todo.popleft()
                    asked = request(study, setup, entry, problem, len(indices))
                    under_way[pool.submit(client.ask, *asked)] = problem, indices
                for future in wait(under_way, timeout=1.0, return_when=FIRST_COMPLETED).done:
                    keep(future)
                progress.update(drawn, under_way=len(under_way), sent_again=client.sent_again)
                study.notice.raise_if_preempted()
        finally:
            client.is_over.set()
            if under_way:
                print(f"waiting for {len(under_way)} replies that are under way, to keep them", flush=True)
            for future in as_completed(list(under_way)):
                if not future.exception():
                    keep(future)
    print(usage_in_words(study.root, entry.name, arm.endpoint), flush=True)
    if outlook:
        outlook.drew(entry.name, drawn, progress.seconds_each)


def request(study: Study, setup: Setup, entry: EvaluatedArm, problem: Problem, n: int) -> tuple[str, dict[str, Any]]:
    """(route, body without the model's name) of a request for n answers. What has its default is not sent."""
    arm, s = study.settings.arms[entry.arm], setup.sampling
    body = {"n": n, "temperature": s.temperature, "top_p": s.top_p, "max_tokens": s.max_tokens}
    body |= {name: value for name, value in (("top_k", s.top_k), ("min_p", s.min_p), ("stop", list(arm.stop))) if value}
    if template(prompt_name(arm, problem.id)).chat:
        return "/chat/completions", body | {"messages": [{"role": "user", "content": problem.prompt}]}
    return "/completions", body | {"prompt": problem.prompt}


def sample_rows(arm: str, problem: Problem, indices: list[int], reply: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the samples table: a choice for an index. One that comes twice counts once, one too many not at all."""
    first: dict[Any, dict[str, Any]] = {}
    for i, choice in enumerate(reply["choices"]):
        first.setdefault(i if choice.get("index") is None else choice["index"], choice)
    _, row = read_row({"problem_id": problem.id, "choices": list(first.values())})
    shared = {"arm": arm, "problem_id": problem.id, "tokens": [], "logp": [], "logp_model": [], "time": time.time()}
    answers = zip(indices, row.responses, row.stops, strict=False)
    return [shared | {"index": index, "text": text, "stop": str(stop)} for index, text, stop in answers]


def usage_in_words(root: Path, arm: str, endpoint: Endpoint) -> str:
    """What all sessions have asked for an arm, and what that cost."""
    lines = [json.loads(line) for line in (root / USAGE).read_text(encoding="utf-8").splitlines()]
    mine = [line for line in lines if line["arm"] == arm]
    prompt, answer = (sum(line[name] or 0 for line in mine) for name in COUNTED)
    said = f"arm {arm}: {len(mine):,} replies, {prompt:,} tokens of prompts and {answer:,} of answers"
    if silent := sum(None in (line[name] for name in COUNTED) for line in mine):
        said += f" ({silent:,} replies do not say)"
    if surplus := sum(line["choices"] - line["answers"] for line in mine):
        said += f", {surplus:,} choices doubled or more than asked for and left out"
    if endpoint.prompt_price or endpoint.answer_price:
        said += f", cost {(prompt * endpoint.prompt_price + answer * endpoint.answer_price) / 1e6:,.4f}"
    return said


def _usage(arm: str, problem: Problem, came: int, reply: dict[str, Any]) -> dict[str, Any]:
    usage = reply.get("usage") if isinstance(reply.get("usage"), dict) else {}
    counted = {name: usage.get(name) for name in COUNTED}
    return counted | {"arm": arm, "problem_id": problem.id, "answers": came, "choices": len(reply["choices"])}


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two processes would draw one sample twice, differently. The kernel drops the lock at any death."""
    path = root / "asking.lock"
    with os_errors("write", path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{root}: another process is asking for samples of this folder") from None
        yield
    finally:
        os.close(descriptor)
