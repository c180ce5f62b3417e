"""The sandbox: hostile programs fail and harm nothing, honest ones are not disturbed, values keep their types."""

import marshal
import os
import sys
import tempfile
import time
from collections import Counter, OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.grading.code import evalplus
from rlvr_limit.grading.code.grade import check
from rlvr_limit.grading.code.outcome import ProgramCheck, run_check
from rlvr_limit.grading.sandbox import decode, encode
from rlvr_limit.grading.sandbox.run import (
    PROTECTIONS,
    ResultKind,
    SandboxError,
    SandboxJob,
    SandboxLimits,
    execute,
    missing_protection,
)
from rlvr_limit.types import Status
from tests.support.code_programs import HOSTILE, RETURN

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")

LIMITS = SandboxLimits(
    total_cpu_seconds=2, idle_seconds=0.5, memory_bytes=512 << 20, output_bytes=1 << 20, disk_bytes=1 << 20, files=500
)
# What is left of protection in a container that allows no namespaces.
BARE = ("namespaces", "own user")


def job(program, *inputs, entry="f", cpu=1.0):
    given = inputs or (1,)
    return SandboxJob(program, entry, tuple(marshal.dumps([x]) for x in given), (cpu,) * len(given))


def script(program, *inputs, cpu=1.0):
    return SandboxJob(program, "", tuple(text.encode() for text in inputs), (cpu,) * len(inputs))


def values(program, *inputs, **more):
    return [decode.loads(result.data) for result in execute(job(program, *inputs), LIMITS, **more)]


def judged(given, **more):
    def right(index, data):
        return "" if decode.loads(data) == 2 else "another value"

    return run_check(ProgramCheck(given, LIMITS, ["test 0"], right), **more)


def processes():
    """Command lines of this user's processes that belong to a sandbox."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"sandbox.supervisor" in line and _descends_from_here(entry):
                found.append(line)
    return found


def _descends_from_here(entry):
    while entry.name not in ("0", "1"):
        if entry.name == str(os.getpid()):
            return True
        try:
            entry = Path("/proc") / (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            return False
    return False


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path, monkeypatch):
    # Folders of other runs on this machine are none of ours.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not processes()
    assert not list(tmp_path.iterdir())
    assert not Path("/tmp/rlvr_limit_was_here").exists()


def test_honest_program_passes():
    assert judged(job(RETURN)).correct


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_program_fails(name):
    program, word = HOSTILE[name]
    found = judged(job(program))
    assert not found.correct and word in found.detail, found
    timed_out = word in ("CPU time", "waits")
    assert found.status == (Status.TIMEOUT if timed_out else Status.GRADED) or not word


@pytest.mark.parametrize(
    "name",
    "reads_outside writes_outside fills_the_disk_with_small_files forks_without_end kills_its_parent connects sleeps "
    "fakes_frames writes_to_the_library".split(),
)
def test_hostile_program_fails_without_namespaces(name):
    results = list(execute(job(HOSTILE[name][0]), LIMITS, without=BARE))
    assert [result.kind for result in results if result.index == 0][-1] in (ResultKind.RAISED, ResultKind.TIMEOUT), (
        results
    )


def test_nothing_runs_as_root_without_any_wall():
    if os.geteuid():
        pytest.skip("not root")
    with pytest.raises(SandboxError, match="as root"):
        list(execute(job(RETURN), LIMITS, without=("namespaces", "own user", "file rules")))


def test_missing_protection_has_known_names():
    assert set(missing_protection()) <= set(PROTECTIONS)


def test_program_finds_an_empty_folder_no_environment_and_no_other_process():
    program = "import os\ndef f(x): return os.listdir('.'), sorted(os.environ), os.path.exists('/proc/1')"
    listed, environment, others = values(program)[0]
    assert listed == [] and "HOME" not in environment and "PATH" not in environment
    assert not others or "namespaces" in missing_protection()


def test_expected_results_never_enter_the_sandbox():
    reference = "def f(x): return 'secret-4711'"
    tests = evalplus.EvalPlusTests("HumanEval/0", "f", reference, 0, evalplus.pack([[1]], []))
    search = (
        "import gc\ndef f(x):\n    mark = chr(115) + 'ecret-'\n    for o in gc.get_objects():\n"
        "        for text in o if isinstance(o, (list, tuple)) else o.values() if isinstance(o, dict) else ():\n"
        "            if isinstance(text, str) and mark in text: return mark + text.partition(mark)[2][:4]\n"
    )
    assert check(tests, reference).correct
    assert check(tests, f"{search}secret = ['secret-4711']\n").correct, "the search finds nothing at all"
    assert not check(tests, search).correct


def test_one_process_serves_all_inputs_of_a_function():
    assert len(set(values("import os\ndef f(x): return os.getpid()", *range(5)))) == 1


def test_scripts_start_afresh_for_every_test():
    program = "import sys, builtins\nn = int(input())\nbuiltins.seen = getattr(builtins, 'seen', 0) + n\nprint(seen)"
    results = list(execute(script(program, "1\n", "2\n"), LIMITS))
    assert [(r.kind, r.data) for r in results] == [(ResultKind.OUTPUT, b"1\n"), (ResultKind.OUTPUT, b"2\n")]


@pytest.mark.parametrize(
    ("program", "kind", "written"),
    [
        ("print('a', end='')\nimport sys\nsys.exit(3)", ResultKind.OUTPUT, b"a"),
        ("import os\nprint('a')\nexit()", ResultKind.OUTPUT, b"a\n"),
        ("import os\nos.write(1, b'a')\nos._exit(0)", ResultKind.OUTPUT, b"a"),
        ("import os\nos._exit(3)", ResultKind.RAISED, b""),
        ("print('a')\nraise ValueError('no')", ResultKind.RAISED, b""),
        ("import atexit, os\natexit.register(lambda: os.write(1, b'late'))", ResultKind.OUTPUT, b"late"),
        ("import threading\nt = threading.Thread(target=lambda: print('b'))\nt.start()", ResultKind.OUTPUT, b"b\n"),
        ("if __name__ == '__main__':\n    print(open(0).read().upper())", ResultKind.OUTPUT, b"XY\n"),
        ("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.readline())", ResultKind.OUTPUT, b"xy"),
        ("while True: print('x' * 10000)", ResultKind.RAISED, b""),
    ],
)
def test_script_ends_as_scripts_do(program, kind, written):
    (result,) = execute(script(program, "xy"), LIMITS)
    assert (result.kind, result.data) == (kind, written), result


def test_limit_counts_the_cpu_time_of_each_input_alone():
    clock = "time.process_time()"
    program = f"import time\ndef f(x):\n    t = {clock}\n    while {clock} < t + 0.6: pass\n    return x"
    given = SandboxJob(program, "f", tuple(marshal.dumps([x]) for x in range(4)), (1.0,) * 4)
    limits = SandboxLimits(total_cpu_seconds=20, idle_seconds=5)
    assert [decode.loads(r.data) for r in execute(given, limits)] == [0, 1, 2, 3]


def test_tests_after_a_timeout_are_not_run_and_so_said():
    loops = job("def f(x):\n    while x: pass\n    return 2", 0, 1, 0)
    found = run_check(ProgramCheck(loops, LIMITS, ["a", "b", "c"], lambda index, data: ""), all_tests=True)
    assert (found.correct, found.status, found.failed, found.not_run) == (False, Status.TIMEOUT, ("b",), 1)


def test_first_failure_ends_the_run_unless_all_are_asked_for():
    given = job("def f(x): return x", 2, 3, 2, 4)
    names = ["a", "b", "c", "d"]

    def right(index, data):
        return "" if data == b"2" else "another value"

    assert run_check(ProgramCheck(given, LIMITS, names, right), all_tests=True).failed == ("b", "d")
    found = run_check(ProgramCheck(given, LIMITS, names, right))
    assert (found.failed, found.not_run) == (("b",), 2)


def test_closing_the_stream_ends_the_program():
    results = execute(job("import time\ndef f(x): return time.sleep(x)", 0, 1000), SandboxLimits())
    assert next(results).kind == ResultKind.VALUE
    began = time.monotonic()
    results.close()
    assert time.monotonic() - began < 5 and not processes()


@pytest.mark.skipif("namespaces" in missing_protection(), reason="programs are run in a folder of this file system")
def test_a_process_that_is_killed_while_a_program_runs_leaves_no_folder(tmp_path):
    results = execute(job("import time\ndef f(x): return time.sleep(x)", 0, 1000), SandboxLimits())
    assert next(results).kind == ResultKind.VALUE and processes()
    # Nobody would clean up after a process that were killed here.
    assert not list(tmp_path.iterdir())
    results.close()


def test_stopped_run_raises():
    with pytest.raises(InterruptedError):
        list(execute(job("import time\ndef f(x): time.sleep(x)", 1000), SandboxLimits(), stopped=lambda: True))


def test_set_order_is_the_same_in_every_run():
    program = "def f(x): return list({'a', 'b', 'c', 'd', 'e', 'f', 'g'})"
    assert values(program) == values(program)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.fractions() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner)
    | st.sets(st.integers() | st.text()) | st.frozensets(st.tuples(st.text())),
    max_leaves=20,
)  # fmt: skip


def typed(value):
    """The value with its types all the way down."""
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    if isinstance(value, dict):
        return dict, sorted((repr(typed(k)), repr(typed(v))) for k, v in value.items())
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(typed(item)) for item in value)
    return type(value), repr(value)


@given(PLAIN)
def test_plain_values_come_back_with_their_types(value):
    assert typed(decode.loads(encode.dumps(value))) == typed(value)


def test_subclasses_count_as_their_base():
    class Evil(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    found = decode.loads(
        encode.dumps([Evil(7), Counter("aab"), OrderedDict(a=1), True, Fraction(1, 3), Decimal("1.50")])
    )
    assert typed(found) == typed([7, {"a": 2, "b": 1}, {"a": 1}, True, Fraction(1, 3), Decimal("1.50")])


ALIKE = b",".join(b"%d" % (i * (2**61 - 1)) for i in range(5000))
REFUSED = (
    b"", b"{", b'{"pickle": "x"}', b'{"int": 5}', b'{"tuple": 3}', b'{"set": [[1]]}', b'{"a": 1, "b": 2}', b"[" * 10**6,
    b'{"fraction": ["1", "0"]}', b"9" * 10**6, b'{"set": [' + ALIKE + b"]}",
)  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_plain_value_is_refused_quickly(text):
    began = time.monotonic()
    with pytest.raises(encode.MalformedValue):
        decode.loads(text)
    assert time.monotonic() - began < 5


def test_opaque_values_equal_nothing_else():
    a, b = (decode.loads(encode.dumps(object())) for _ in range(2))
    assert a != b and a != 1 and a.type_name == "object"
