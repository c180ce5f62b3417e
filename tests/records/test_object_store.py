"""A run folder in an object store: nothing is appended to, renamed or locked there, and nothing is lost or doubled.

The store is fsspec's memory:// here, which has whole objects under names as the others do.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from rlvr_limit import checkpoint, records
from rlvr_limit.records import Writer, compact, compaction, existing, open_run
from rlvr_limit.records.parts import list_parts
from rlvr_limit.records.storage import ObjectPath, place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.records.storage.folders import append_line, brought, is_whole, made
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.training import logging as training_logging
from rlvr_limit.types import UserError
from tests.support.records_rows import abandon, files, rows_of, sample, write

PUTS = ("put_file", "pipe_file", "rm_file")
"""All that changes a store."""


class Killed(BaseException):
    """The process is gone: nothing it does after this has any effect."""


@pytest.fixture
def root() -> ObjectPath:
    return place(f"memory://{uuid.uuid4().hex}/runs/run")


def names(folder: ObjectPath) -> list[str]:
    return [path.name for path in folder.iterdir()]


def make_parts(root: ObjectPath) -> list[dict]:
    rows = [sample(problem, i, arm=arm) for arm in ("base", "rl") for problem in "abc" for i in range(4)]
    for start in range(4):
        write(root, *rows[start::4])
    return rows


def killed_at(patch: pytest.MonkeyPatch, kill_at: int, calls: list[str]) -> None:
    """From call number kill_at on, nothing that changes a store does anything but raise Killed."""

    def wrap(name: str, real):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) > kill_at:
                raise Killed
            return real(*args, **kwargs)

        return call

    for name in PUTS:
        patch.setattr(MemoryFileSystem, name, wrap(name, getattr(MemoryFileSystem, name)))


def test_a_url_is_asked_as_a_path_is(root: ObjectPath) -> None:
    file = root / "a" / "b.json"
    assert str(place(str(file))) == str(file) and place(file) is file
    assert (file.name, file.stem, str(file.parent)) == ("b.json", "b", f"{root}/a")
    assert str(file.with_name("c")) == f"{root}/a/c"
    assert not root.exists() and not root.is_dir() and not list(root.iterdir())
    file.write_text("x\r\né")
    assert file.read_bytes() == "x\r\né".encode() and list(file.open(newline="")) == ["x\r\n", "é"]
    assert root.is_dir() and not root.is_file() and file.is_file() and names(root) == ["a"]
    assert [str(path) for path in (root / "a").glob("*.json")] == [str(file)]
    with file.open("rb") as stream:
        stream.seek(3)
        assert stream.read() == "é".encode()
    with pytest.raises(FileNotFoundError):
        (root / "none").read_bytes()
    file.unlink()
    file.unlink(missing_ok=True)
    assert not file.exists()


def test_a_path_of_this_machine_stays_one(tmp_path: Path) -> None:
    assert place(str(tmp_path)) == tmp_path and place(tmp_path) == tmp_path and place("a:/b") == Path("a:/b")


@pytest.mark.parametrize(
    ("url", "said"), [("nosuch://bucket/runs", "nosuch"), ("gs://bucket/runs", "gcsfs"), ("s3://bucket/runs", "s3fs")]
)
def test_a_url_that_cannot_be_used_is_refused_in_one_line(url: str, said: str, monkeypatch) -> None:
    for package in ("gcsfs", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=said) as error:
        place(url)
    assert url in str(error.value) and "\n" not in str(error.value)


def test_what_a_driver_raises_becomes_one_line_and_the_old_object_stays(root: ObjectPath, monkeypatch) -> None:
    open_run(root, {"seed": 1}, {})
    before = (root / "manifest.json").read_bytes()

    class DriverError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise DriverError("no\ncredentials")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", fail)
        with pytest.raises(UserError, match="cannot write .*manifest.json: DriverError: no credentials"):
            records.update_manifest(root, "fact", 1)
    assert (root / "manifest.json").read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "info", fail)
        with pytest.raises(UserError, match="no credentials"):
            open_run(root, {"seed": 2}, {})  # and not: there is no manifest yet
    assert (root / "manifest.json").read_bytes() == before
    with pytest.raises(ZeroDivisionError):
        publish(root / "manifest.json", lambda file: (file.write(b"half"), 1 / 0))
    assert (root / "manifest.json").read_bytes() == before


def test_rows_are_there_once_their_part_is_put_and_no_later_than_part_seconds(root: ObjectPath) -> None:
    open_run(root, {}, {})
    with Writer(root, "samples", part_seconds=3600) as slow:
        slow.append([sample(index=0)])
        assert rows_of(root) == []  # a kill -9 here loses this row
        slow.flush()
        assert rows_of(root) == [sample(index=0)]
        slow.append([sample(index=1)])
    assert rows_of(root) == [sample(index=0), sample(index=1)]
    with Writer(root, "samples", part_seconds=0.05) as quick:
        quick.append([sample(index=2)])
        end = time.monotonic() + 10
        while len(rows_of(root)) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert rows_of(root) == [sample(index=i) for i in range(3)]  # and no other append came
    assert existing(str(root), "samples", arm="base") == {"p": {0, 1, 2}}
    assert rows_of(root, columns=["text"], where={"problem_id": "p"}) == [{"text": f"p {i}"} for i in range(3)]


def test_rows_of_a_put_that_failed_go_with_the_next_one(root: ObjectPath, monkeypatch, caplog) -> None:
    open_run(root, {}, {})

    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("no answer")

    with Writer(root, "samples", part_seconds=1.0) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem, "put_file", fail)
            writer.append([sample(index=0)])
            end = time.monotonic() + 10
            while not caplog.records and time.monotonic() < end:
                time.sleep(0.01)
            assert "no answer" in caplog.text and rows_of(root) == []
            with pytest.raises(UserError, match="no answer"):
                writer.append([sample(index=1)])
        writer.append([sample(index=2)])
        assert rows_of(root) == [sample(index=i) for i in range(3)]


def test_appends_go_on_while_a_part_is_put_and_flush_waits_for_it(root: ObjectPath, monkeypatch) -> None:
    open_run(root, {}, {})
    real, began, may_end = MemoryFileSystem.put_file, threading.Event(), threading.Event()

    def slow(*args: object, **kwargs: object) -> None:
        if not began.is_set():
            began.set()
            assert may_end.wait(60)
        real(*args, **kwargs)

    with Writer(root, "samples", part_seconds=0.01) as writer, monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", slow)
        writer.append([sample(index=0)])
        assert began.wait(60)
        writer.append([sample(index=1)])  # returns, while the first row's part is under way
        assert sample(index=0) not in rows_of(root)
        threading.Timer(0.2, may_end.set).start()
        writer.flush()
        assert rows_of(root) == [sample(index=0), sample(index=1)]


def test_compaction_killed_before_any_change_of_the_store_loses_and_doubles_nothing(monkeypatch) -> None:
    kill_at, finished = 0, False
    while not finished:
        root = place(f"memory://{uuid.uuid4().hex}")
        expected = make_parts(root)
        open_run(root / "other", {}, {})
        calls: list[str] = []
        with monkeypatch.context() as patch:
            killed_at(patch, kill_at, calls)
            try:
                compact(root, "samples")
                finished = True
            except Killed:
                pass
        assert rows_of(root) == expected, kill_at
        write(root, sample("d"))
        compact(root, "samples")
        assert rows_of(root) == [*expected[:12], sample("d"), *expected[12:]], kill_at
        kill_at += 1
    assert len(calls) == kill_at - 1 >= 9  # the probe and its removal, part, generation, four removals
    assert names(root / "records" / "samples")[-2:] == ["generation-000001.json", "generation-000002.json"]


def test_a_part_that_cannot_be_read_is_told_from_one_that_is_damaged(root: ObjectPath, monkeypatch) -> None:
    write(root, sample())
    (part,) = (root / "records" / "samples").iterdir()

    class DriverError(Exception):
        pass

    for error, name in ((DriverError, "read"), (PermissionError, "_open")):

        def fail(*_: object, error: type = error, **__: object) -> None:
            raise error("no credentials")

        with monkeypatch.context() as patch:
            patch.setattr(MemoryFileSystem if name == "_open" else MemoryFile, name, fail, raising=False)
            with pytest.raises(UserError, match=f"cannot read {part}: .*no credentials"):
                rows_of(root)
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UserError, match="is damaged .*its rows will be redrawn"):
        rows_of(root)


def test_of_two_compactions_at_once_one_counts_and_rows_put_between_them_stay(root: ObjectPath, monkeypatch) -> None:
    expected = make_parts(root)
    real, inside = compaction.write_closed, []

    def overtaken(*args: object) -> None:
        real(*args)
        if not inside:
            inside.append(True)
            write(root, sample("z", arm="rl"))
            compact(root, "samples")

    monkeypatch.setattr(compaction, "write_closed", overtaken)
    compact(root, "samples")
    assert rows_of(root) == [*expected, sample("z", arm="rl")]
    listing = list_parts(root / "records" / "samples")
    assert listing.generation.number == 1 and len(listing.closed) == 1
    assert len([name for name in files_in(root) if name.startswith("compact")]) == 1


def files_in(root: ObjectPath) -> list[str]:
    return names(root / "records" / "samples")


def test_a_generation_whose_put_was_answered_too_late_is_known_as_ones_own(root: ObjectPath, monkeypatch) -> None:
    expected, real = make_parts(root), MemoryFileSystem.pipe_file

    def put_twice(store, path, value, mode="overwrite", **kwargs):
        real(store, path, value, mode=mode, **kwargs)
        if "generation" in path:
            real(store, path, value, mode=mode, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", put_twice)
    compact(root, "samples")
    assert rows_of(root) == expected and len(list_parts(root / "records" / "samples").closed) == 1


def test_a_store_that_puts_over_a_taken_name_is_named_and_its_parts_are_left(root, monkeypatch, caplog) -> None:
    expected, before = make_parts(root), files_in(root)
    real = MemoryFileSystem.pipe_file
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", lambda s, path, value, **_: real(s, path, value))
    with caplog.at_level(logging.WARNING):
        compact(root, "samples")
    assert f"{root}/records/samples" in caplog.text and "memory://" in caplog.text
    assert files_in(root) == before and rows_of(root) == expected


def test_a_folder_copied_between_disk_and_store_has_the_same_rows(root: ObjectPath, tmp_path: Path) -> None:
    expected = make_parts(root)
    compact(root, "samples")
    here = tmp_path / "run"
    root.store.get(f"{root}/", str(here), recursive=True)
    assert rows_of(here) == expected
    abandon(here, sample("z", arm="rl"))
    write(here, sample("z", 1, arm="rl"))
    compact(here, "samples")
    abandon(here, sample("z", 2, arm="rl"))
    whole = [*expected, *(sample("z", i, arm="rl") for i in range(3))]
    assert rows_of(here) == whole
    back = place(f"{root.parent}/back")
    root.store.put(f"{here}/", str(back), recursive=True)
    assert rows_of(back) == whole
    write(back, sample("z", 3, arm="rl"))  # its writer closes the part that was open on the disk
    compact(back, "samples")
    assert rows_of(back) == [*whole, sample("z", 3, arm="rl")]
    assert files(here)[-1].startswith("part-") and [n for n in files_in(back) if n.endswith(".open")] == []


def test_a_folder_of_objects_counts_once_all_of_them_are_put(root: ObjectPath, monkeypatch) -> None:
    def fill(here: Path) -> None:
        (here / "deep").mkdir(parents=True)
        (here / "deep" / "a").write_bytes(b"1" * 10)
        (here / "b").write_bytes(b"")

    for kill_at in range(3):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            killed_at(patch, kill_at, [])
            with made(root / "weights") as here:
                fill(here)
        assert not is_whole(root / "weights"), kill_at
        with pytest.raises(UserError, match="complete.json is missing"), brought(root / "weights"):
            pass
    with pytest.raises(ZeroDivisionError), made(root / "weights") as here:
        fill(here)
        raise ZeroDivisionError
    assert not is_whole(root / "weights")
    with made(root / "weights") as here:
        fill(here)
    assert is_whole(root / "weights")
    with brought(root / "weights") as there:
        assert (there / "deep" / "a").read_bytes() == b"1" * 10 and (there / "b").read_bytes() == b""
    (root / "weights" / "deep" / "a").write_bytes(b"1" * 9)
    with pytest.raises(UserError, match="deep/a has 9 bytes, 10 were put"), brought(root / "weights"):
        pass


def test_files_that_grow_are_put_whole_and_go_on_after_the_last_state(root: ObjectPath, monkeypatch) -> None:
    append_line(root / "timings.jsonl", "1")
    append_line(root / "timings.jsonl", "2")
    assert (root / "timings.jsonl").read_text() == "1\n2\n"
    row = {"loss": 1.0}
    killed = training_logging.Metrics(root, "grpo", 0)
    for step in (1, 2):
        killed.append(step, row, seconds=1.0)
    killed.put()  # as before a state is saved
    killed.append(3, row, seconds=1.0)
    assert [r["step"] for r in training_rows(root, "grpo")] == [1, 2]
    monkeypatch.setattr(training_logging, "PUT_SECONDS", 0.0)
    killed.append(4, row, seconds=1.0)
    assert [r["step"] for r in training_rows(root, "grpo")] == [1, 2, 3, 4]
    with training_logging.Metrics(root, "grpo", 2) as resumed:
        resumed.append(3, row, seconds=1.0)
    assert [r["step"] for r in training_rows(root, "grpo")] == [1, 2, 3]
    assert all(path.name.startswith("events") for path in (root / "train/grpo/tensorboard").iterdir())
    training_logging.write_samples(root / "train" / "grpo", 3, [{"text": "x"}])
    assert json.loads((root / "train/grpo/samples/000003.jsonl").read_text()) == {"text": "x"}


def state(value: int) -> dict:
    return {"a": jnp.full(3, float(value)), "step": jnp.int32(value)}


def assert_is(folder: ObjectPath, step: int) -> None:
    with closing(checkpoint.TrainCheckpoints(folder)) as states:
        found = states.restore(state(0))
    assert found[0] == step
    jax.tree.map(np.testing.assert_array_equal, found[1], state(step))


def test_train_states_in_a_store_are_the_last_two_whole_ones(root: ObjectPath, monkeypatch, caplog) -> None:
    assert_is(root, 0)
    with closing(checkpoint.TrainCheckpoints(root)) as states:
        for step in (1, 2, 3):
            states.save(step, state(step))
            states.save(step, state(9))
    assert names(root) == ["2", "3"]
    assert_is(root, 3)
    with monkeypatch.context() as patch:
        real, put = MemoryFileSystem.put_file, []

        def cut(store, source, target, **_) -> None:
            put.append(target)
            if len(put) > 3:
                raise OSError("cut off")
            real(store, source, target)

        patch.setattr(MemoryFileSystem, "put_file", cut)
        states = checkpoint.TrainCheckpoints(root)
        states.save(4, state(4))
        with pytest.raises(UserError, match="could not be written, the state after step 3 is kept: .*cut off"):
            states.close()
    assert names(root) == ["2", "3", "4"]  # of the last one a part is there
    assert_is(root, 3)
    largest = max(root.store.find(f"{root}/3", detail=True).values(), key=lambda found: found["size"])["name"]
    root.store.pipe_file(largest, bytes(root.store.size(largest)))
    assert_is(root, 2)
    assert "state after step 3 cannot be read and is removed" in caplog.text
    assert names(root) == ["2", "4"]
    with closing(checkpoint.TrainCheckpoints(root)) as states:
        states.restore(state(0))
        for step in (4, 5):
            states.save(step, state(step))
    assert names(root) == ["4", "5"]
    assert_is(root, 5)
