"""The run folder keeps every acknowledged row, whatever is killed, cut or full."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlvr_limit.records import Writer, compact, existing, recover
from rlvr_limit.types import UserError
from tests.support.records_rows import SCHEMAS, abandon, fail_writes, files, rows_of, sample, write

CONTINUOUS = """
import sys
from rlvr_limit.records import Writer
root, start = sys.argv[1], int(sys.argv[2])
with Writer(root, "samples", part_seconds=0.05) as writer:
    for i in range(start, start + 10**9):
        writer.append([{"arm": "base", "problem_id": "p", "index": i, "tokens": [i] * 50, "logp": [0.5] * 50,
                        "logp_model": [0.25] * 50, "stop": "eos", "text": str(i), "time": 0.0}])
        print(i, flush=True)
"""


def test_sigkill_loses_and_doubles_no_acknowledged_row(tmp_path):
    """Harder than the promise of 1.5 s: every row whose append returned is there, over four lives of the run."""
    script = tmp_path / "write.py"
    script.write_text(CONTINUOUS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    rng, next_index = random.Random(0), 0
    for _ in range(4):
        command = [sys.executable, str(script), str(tmp_path / "run"), str(next_index)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        lines = [process.stdout.readline()]
        end = time.monotonic() + rng.uniform(0.1, 0.4)
        while time.monotonic() < end:
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        acknowledged = int([line for line in lines if line.endswith("\n")][-1])
        got = existing(tmp_path / "run", "samples", arm="base")["p"]
        # at most the one row whose append was under way is there beyond the acknowledged ones
        assert got in (set(range(acknowledged + 1)), set(range(acknowledged + 2)))
        next_index = len(got)
    raw = sum(pq.read_metadata(path).num_rows for path in (tmp_path / "run/records/samples").glob("*.parquet"))
    recovered = recover(tmp_path / "run", "samples")
    assert raw + recovered == next_index  # not even equal duplicates lie in the files
    assert [r["text"] for r in rows_of(tmp_path / "run", columns=["text"])] == [str(i) for i in range(next_index)]


def test_a_stream_cut_at_any_byte_yields_its_complete_batches(tmp_path, caplog):
    rows = [sample(index=i) for i in range(6)]
    whole = abandon(tmp_path / "whole", *rows, each=2)
    data = whole.read_bytes()
    batch_ends = [SCHEMAS["samples"].serialize().size]
    for start in (0, 2, 4):
        batch = pa.RecordBatch.from_pylist(rows[start : start + 2], SCHEMAS["samples"])
        batch_ends.append(batch_ends[-1] + batch.serialize().size)
    assert batch_ends[-1] == len(data)
    caplog.set_level(logging.INFO)
    cuts = {0, 1, 7, *batch_ends, *(end + d for end in batch_ends[:3] for d in (-1, 1, 3, 4, 5, 8, 9))}
    cuts |= set(random.Random(0).sample(range(len(data)), 60))
    for cut in sorted(cuts):
        n_whole = 2 * max(sum(cut >= end for end in batch_ends) - 1, 0)
        root = tmp_path / str(cut)
        stream = root / "records/samples" / whole.name
        stream.parent.mkdir(parents=True)
        stream.write_bytes(data[:cut])
        assert [r["index"] for r in rows_of(root)] == list(range(n_whole)), cut
        caplog.clear()
        assert recover(root, "samples") == n_whole, cut
        torn = cut - max([end for end in batch_ends if end <= cut], default=0)
        said = [m for m in caplog.messages if f"recovered {n_whole} rows" in m and f"dropped {torn} torn bytes" in m]
        assert len(said) == len(caplog.messages) == (n_whole + torn > 0), cut
        assert not stream.exists()
        assert [r["index"] for r in rows_of(root)] == list(range(n_whole)), cut


def test_a_damaged_byte_in_a_stream_costs_no_batch_before_it(tmp_path):
    data = abandon(tmp_path / "whole", *[sample(index=i) for i in range(4)]).read_bytes()
    schema_size = SCHEMAS["samples"].serialize().size
    size = (len(data) - schema_size) // 4
    for at in random.Random(0).sample(range(schema_size + 2 * size, len(data)), 40):
        root = tmp_path / str(at)
        stream = root / "records/samples/part-1.arrows.open"
        stream.parent.mkdir(parents=True)
        stream.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        got = [r["index"] for r in rows_of(root, columns=["index"])]
        assert {0, 1} <= set(got), at


def test_the_open_part_of_a_living_writer_is_read_but_not_recovered(tmp_path):
    with Writer(tmp_path, "samples") as living:
        living.append([sample(index=0)])
        write(tmp_path, sample(index=1))  # opening this writer recovers, and must leave the other's part alone
        assert recover(tmp_path, "samples") == 0
        living.append([sample(index=2)])
        assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1, 2}}
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1, 2}}
    assert not [name for name in files(tmp_path) if not name.endswith(".parquet")]


def test_a_part_closes_by_age_and_by_size_and_then_never_changes(tmp_path):
    with Writer(tmp_path, "samples", part_seconds=0.0) as writer:
        for i in range(3):
            writer.append([sample(index=i)])
    assert len(files(tmp_path)) == 3
    before = {name: (tmp_path / "records/samples" / name).read_bytes() for name in files(tmp_path)}
    with Writer(tmp_path, "samples", part_bytes=20_000) as writer:
        for i in range(3, 63):
            writer.append([sample(index=i)])
            assert sum(name.endswith(".open") for name in files(tmp_path)) <= 1
    assert 5 <= len(files(tmp_path)) <= 15
    assert {name: (tmp_path / "records/samples" / name).read_bytes() for name in before} == before
    assert existing(tmp_path, "samples", arm="base") == {"p": set(range(63))}


def test_a_crash_between_publishing_and_removing_the_stream_doubles_nothing(tmp_path, monkeypatch):
    stream = abandon(tmp_path, sample(index=0), sample(index=1))
    content = stream.read_bytes()
    assert recover(tmp_path, "samples") == 2
    stream.write_bytes(content)
    assert len(rows_of(tmp_path)) == 2
    assert recover(tmp_path, "samples") == 0 and not stream.exists()
    stream.write_bytes(content)  # nor when the closed part has been compacted away meanwhile
    write(tmp_path, sample(index=2))
    stream.write_bytes(content)
    compact(tmp_path, "samples")
    stream.write_bytes(content)
    assert len(rows_of(tmp_path)) == 3
    assert recover(tmp_path, "samples") == 0 and not stream.exists()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_is_one_line_and_earlier_rows_survive(tmp_path, monkeypatch, call):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(UserError, match="cannot write .*samples/part-.*: No space left on device") as error:
        with Writer(tmp_path, "samples") as writer:
            writer.append([sample(index=0), sample(index=1)])
            with monkeypatch.context() as patch:
                fail_writes(patch, call, full, partly=b"torn tail")
                if call == "write":
                    writer.append([sample(index=2)])
                else:
                    writer.close()
    assert "\n" not in str(error.value)
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1}}
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]
    write(tmp_path, sample(index=2))
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1, 2}}
    assert len(files(tmp_path)) == 2


def test_after_a_refused_write_the_same_writer_can_go_on(tmp_path, monkeypatch):
    with Writer(tmp_path, "samples") as writer:
        writer.append([sample(index=0)])
        with monkeypatch.context() as patch:
            fail_writes(patch, "write", OSError(errno.ENOSPC, "No space left on device"), partly=b"torn")
            with pytest.raises(UserError):
                writer.append([sample(index=1)])
            with pytest.raises(UserError):
                writer.append([sample(index=1)])
        writer.append([sample(index=1)])
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1}}


def test_an_interrupt_in_the_middle_of_a_row_leaves_no_torn_bytes_before_the_next(tmp_path, monkeypatch):
    writer = Writer(tmp_path, "samples")
    writer.append([sample(index=0)])
    with monkeypatch.context() as patch:
        fail_writes(patch, "write", KeyboardInterrupt(), partly=b"torn")
        with pytest.raises(KeyboardInterrupt):
            writer.append([sample(index=1)])
    writer.append([sample(index=2)])
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 2}}  # read from the stream, not from the writer
    writer.close()
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 2}}


def test_the_kernels_own_refusal_in_the_middle_of_a_row_is_survived(tmp_path):
    """No patching: a file-size limit makes write(2) itself stop half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(Writer(tmp_path, "samples"))
        writer.append([sample(index=0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (writer._part.size + 100_000, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(UserError, match="File too large"):
            writer.append([sample(index=1, text="x" * 200_000)])
    assert existing(tmp_path, "samples", arm="base") == {"p": {0}}
    assert recover(tmp_path, "samples") == 1
