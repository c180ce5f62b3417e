"""Rows of the code benchmarks' files."""

from __future__ import annotations

import base64
import json
import pickle
import zlib


def livecodebench_row(name="q", function="", public=(), private=(), day="2024-09-01T00:00:00", packed=True):
    cases = json.dumps([{"input": a, "output": b, "testtype": "stdin"} for a, b in private])
    if packed:
        cases = base64.b64encode(zlib.compress(pickle.dumps(cases))).decode()
    public = json.dumps([{"input": a, "output": b, "testtype": "stdin"} for a, b in public])
    return {"question_id": name, "question_content": "Q?", "starter_code": "class Solution: ..." if function else "",
            "contest_date": day, "public_test_cases": public, "private_test_cases": cases,
            "metadata": json.dumps({"func_name": function} if function else {})}  # fmt: skip


def evalplus_row(name, reference, base, more):
    return {"task_id": name, "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": reference,
            "base_input": base, "plus_input": more, "atol": 0}  # fmt: skip
