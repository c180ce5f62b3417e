"""Reference programs for twenty problems of standard input and output, judged by the program verifier.

    python -m tests.benchmarks.codeforces_stdin --data codeforces_stdin.json

The data, a JSON list of {"problem": statement, "tests": [{"input": ..., "output": ...}]}, are not shipped; the programs
in codeforces/ are ours, and each finds its problem by the SHA-256 of its statement. As a check of the check, every
program is also judged with one more line written first, and on the tests of the next problem: none may be accepted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlvr_limit.grading.code.grade import check
from rlvr_limit.grading.code.livecodebench import LiveCodeTests, pack
from rlvr_limit.grading.code.outcome import ProgramOutcome
from rlvr_limit.grading.sandbox.run import missing_protection
from rlvr_limit.types import UserError

FOLDER = Path(__file__).with_name("codeforces")
PROGRAMS = {
    "smaller_first": "174c85ccaa8a",
    "strings_on_a_clock": "576a74cc684e",
    "cuts_of_a_binary_string": "a9f7b5173dc8",
    "lattice_points_in_a_ring": "df9295a580bc",
    "most_draws_of_three_players": "c8ac19d175eb",
    "screens_for_icons": "588a2281e662",
    "buns_at_a_falling_price": "1df9f515176e",
    "problems_for_rounds": "d4fe6591e16b",
    "favourite_cube": "6a75104f1188",
    "add_one_and_divide": "453673eac93b",
    "two_deposits": "8bc5a7cc63fc",
    "two_words_on_two_screens": "1bb070a99419",
    "wrong_binomials": "88d4af81c873",
    "attribute_checks": "3dbb9dde7f0a",
    "games_worth_playing": "52f427757f8c",
    "sortable_downwards": "33962262f745",
    "walk_in_circles": "619e7a4eaa38",
    "bottles_on_shelves": "385d38fccf2b",
    "digits_around_a_carpet": "7b1f755d8bb3",
    "ways_to_deal_cards": "cd42a8428c66",
}
"""Program to the first 12 hex digits of the SHA-256 of its problem's statement, white space at the ends left out."""


def load(path: Path) -> dict[str, LiveCodeTests]:
    """The tests of every problem in a file, by the digest of its statement. Raises UserError naming what is wrong."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {
            digest(row["problem"]): LiveCodeTests("", "", pack([(t["input"], t["output"]) for t in row["tests"]]))
            for row in rows
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"--data {path}: no list of problems with tests ({type(error).__name__}: {error})") from error


def digest(statement: str) -> str:
    """What a problem is known by, since its statement is not ours to ship."""
    return hashlib.sha256(statement.strip().encode()).hexdigest()[:12]


def judge(items: Iterable[tuple[LiveCodeTests, str]], workers: int) -> list[ProgramOutcome]:
    """Outcomes of (tests, program) in order, on all tests."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: check(*item, all_tests=True), items))


def main() -> int:
    """The command; 1 where a program is judged wrongly, 2 where a problem is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    try:
        known = load(options.data)
        missing = [name for name, found in PROGRAMS.items() if found not in known]
        if missing:
            raise UserError(f"--data {options.data}: no problem for {', '.join(missing)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(known)} problems; protection missing: {', '.join(missing_protection()) or 'none'}")
    tests = [known[found] for found in PROGRAMS.values()]
    programs = [(FOLDER / f"{name}.py").read_text(encoding="utf-8") for name in PROGRAMS]
    kinds = {
        "accepted": zip(tests, programs, strict=True),
        "accepted with one more line": zip(tests, (f"print(0)\n{p}" for p in programs), strict=True),
        "accepted on the tests of the next problem": zip(tests[1:] + tests[:1], programs, strict=True),
    }
    wrong = 0
    for kind, items in kinds.items():
        began = time.monotonic()
        found = judge(items, options.workers)
        right = sum(outcome.correct for outcome in found)
        print(f"{kind}: {right} of {len(found)}, {time.monotonic() - began:.1f} s", flush=True)
        for name, outcome in zip(PROGRAMS, found, strict=True):
            if outcome.correct != (kind == "accepted"):
                wrong += 1
                print(f"  {name}: {outcome.status}, failed {', '.join(outcome.failed) or 'none'}, {outcome.detail}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
