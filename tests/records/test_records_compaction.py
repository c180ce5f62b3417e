"""Compaction loses and doubles nothing, wherever it is killed and whoever reads or writes beside it."""

from __future__ import annotations

import fcntl
import os
import random
import threading

import pyarrow.parquet as pq

import rlvr_limit.records.parts as parts_module
import rlvr_limit.records.reader as reader_module
from rlvr_limit.records import Writer, compact
from rlvr_limit.records.parts import list_parts
from tests.support.records_rows import abandon, files, rows_of, sample, write


class Killed(BaseException):
    """The process is gone: nothing it does after this has any effect."""


class Syscalls:
    """Counts this thread's calls that change files; from number `kill_at` on none does anything but raise Killed.

    Others that earlier tests left running may write files too.
    """

    def __init__(self, patch, kill_at=None, before=lambda: None):
        self.count, self.kill_at, self.busy = 0, kill_at, False
        self.thread = threading.get_ident()
        for name in ("replace", "fsync", "unlink"):
            patch.setattr(os, name, self.wrap(getattr(os, name), before))

    def wrap(self, real, before):
        def call(*args, **kwargs):
            # While `before` looks, what calls is no compaction: garbage of earlier tests that is collected just then.
            if self.busy or threading.get_ident() != self.thread:
                return real(*args, **kwargs)
            self.count += 1
            if self.kill_at is not None and self.count > self.kill_at:
                raise Killed
            self.busy = True
            before()
            self.busy = False
            return real(*args, **kwargs)

        return call


def make_parts(root):
    rng = random.Random(1)
    keys = [(arm, problem, i) for arm in ("rl", "base") for problem in "cab" for i in range(4)]
    rng.shuffle(keys)
    for start in range(0, len(keys), 6):
        write(root, *[sample(problem, i, arm=arm) for arm, problem, i in keys[start : start + 6]])
    return [sample(problem, i, arm=arm) for arm, problem, i in sorted(keys)]


def test_compaction_killed_before_any_step_loses_and_doubles_nothing(tmp_path, monkeypatch):
    kill_at, finished = 0, False
    while not finished:
        root = tmp_path / str(kill_at)
        expected = make_parts(root)
        with monkeypatch.context() as patch:
            calls = Syscalls(patch, kill_at)
            try:
                compact(root, "samples")
                finished = True
            except Killed:
                pass
        assert rows_of(root) == expected, kill_at
        live = list_parts(root / "records/samples").closed
        assert sum(pq.read_metadata(path).num_rows for path in live) == len(expected), kill_at
        write(root, sample("d"))  # a new run opens the folder and goes on
        assert rows_of(root) == [*expected[:12], sample("d"), *expected[12:]], kill_at
        compact(root, "samples")
        assert rows_of(root) == [*expected[:12], sample("d"), *expected[12:]], kill_at
        assert len(files(root)) == 2 and "generation.json" in files(root), kill_at
        kill_at += 1
    assert calls.count == kill_at - 1 >= 10  # two renames, four syncs and four removals: each was a moment of death


def test_a_reader_sees_one_consistent_set_before_every_step_of_compaction(tmp_path, monkeypatch):
    expected = make_parts(tmp_path)
    with monkeypatch.context() as patch:
        seen = []
        calls = Syscalls(patch, before=lambda: seen.append(rows_of(tmp_path)))
        compact(tmp_path, "samples")
    assert len(seen) == calls.count >= 10 and all(rows == expected for rows in seen)


def test_a_reader_overtaken_by_closing_and_compaction_starts_again(tmp_path, monkeypatch):
    expected = make_parts(tmp_path)
    abandon(tmp_path, sample("d", arm="rl"))
    real, calls = reader_module.list_parts, []

    def list_then_compact(folder):
        listing = real(folder)
        calls.append(listing)
        if len(calls) == 1:
            compact(tmp_path, "samples")
        return listing

    monkeypatch.setattr(reader_module, "list_parts", list_then_compact)
    assert rows_of(tmp_path) == [*expected, sample("d", arm="rl")]
    assert len(calls) == 2 and len(calls[0].closed) == 4
    assert len(calls[1].closed) == 1 and not calls[1].open  # compaction had recovered the dead writer's part


def test_a_compaction_between_a_readers_looks_at_the_folder_hides_nothing(tmp_path, monkeypatch):
    """The reader learns of the old generation, then finds the folder as the new one left it."""
    expected = make_parts(tmp_path)
    real, generations = parts_module._read_generation, []

    def look_then_compact(folder, names):
        generations.append(real(folder, names))
        found = generations[-1]
        if len(generations) == 1:
            compact(tmp_path, "samples")
        return found

    monkeypatch.setattr(parts_module, "_read_generation", look_then_compact)
    assert rows_of(tmp_path) == expected
    assert generations[0].number == 0 and generations[-1].number == 1


def test_compaction_beside_a_living_writer_and_another_compaction(tmp_path):
    expected = make_parts(tmp_path)
    with Writer(tmp_path, "samples") as writer:
        writer.append([sample("z", arm="rl")])
        compact(tmp_path, "samples")
        writer.append([sample("z", 1, arm="rl")])
    assert rows_of(tmp_path) == [*expected, sample("z", arm="rl"), sample("z", 1, arm="rl")]
    folder = os.open(tmp_path / "records/samples", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    before = files(tmp_path)
    compact(tmp_path, "samples")
    assert files(tmp_path) == before
    os.close(folder)
    compact(tmp_path, "samples")
    assert len(files(tmp_path)) == 2
    assert rows_of(tmp_path) == [*expected, sample("z", arm="rl"), sample("z", 1, arm="rl")]


def test_compacted_rows_lie_sorted_and_one_compaction_follows_another(tmp_path):
    expected = make_parts(tmp_path)
    for i in range(3):
        compact(tmp_path, "samples")
        (name,) = [n for n in files(tmp_path) if n.endswith(".parquet")]
        lying = pq.read_table(tmp_path / "records/samples" / name, partitioning=None).to_pylist()
        keys = [(r["arm"], r["problem_id"], r["index"]) for r in lying]
        assert keys == sorted(keys) and len(keys) == len(expected) + i
        write(tmp_path, sample("a", 100 - i))
    compact(tmp_path / "nothing", "samples")
