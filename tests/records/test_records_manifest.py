"""A run folder goes on under the conditions it was made under, or says which differ."""

from __future__ import annotations

import errno
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rlvr_limit.records import Writer, open_run, read_manifest, update_manifest
from rlvr_limit.types import UserError
from tests.support.records_rows import fail_writes, sample, write

CONDITIONS = {"arms": {"base": {"temperature": 1.0, "stop": (1, 2)}}, "seed": 7, "benchmark": "countdown"}


def test_a_run_goes_on_under_equal_conditions_and_each_session_is_noted(tmp_path):
    root = tmp_path / "deep" / "run"
    open_run(root, CONDITIONS, {"jax": "1", "host": "a"})
    open_run(root, json.loads(json.dumps(CONDITIONS)), {"jax": "2", "host": "b"})
    manifest = read_manifest(root)
    assert manifest["format"] == 2 and manifest["created"]
    assert manifest["conditions"] == json.loads(json.dumps(CONDITIONS))
    assert [(s["jax"], s["host"]) for s in manifest["sessions"]] == [("1", "a"), ("2", "b")]
    assert all(s["started"] for s in manifest["sessions"])


def test_changed_conditions_are_shown_field_by_field_and_nothing_is_touched(tmp_path):
    open_run(tmp_path, CONDITIONS, {})
    before = (tmp_path / "manifest.json").read_bytes()
    changed = {"arms": {"base": {"temperature": 0.6, "stop": [1]}}, "seed": 7, "benchmark": "countdown", "top_p": 0.9}
    with pytest.raises(UserError) as error:
        open_run(tmp_path, changed, {})
    message = str(error.value)
    assert "arms.base.temperature: folder has 1.0, this run has 0.6" in message
    assert "arms.base.stop[1]: folder has 2, this run has nothing" in message
    assert "top_p: folder has nothing, this run has 0.9" in message
    assert "seed" not in message and "\n" not in message and "choose a new run folder" in message
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_of_many_differences_five_are_shown_and_of_long_texts_the_place_where_they_differ(tmp_path):
    open_run(tmp_path / "many", {f"f{i}": i for i in range(9)}, {})
    with pytest.raises(UserError) as error:
        open_run(tmp_path / "many", {f"f{i}": -1 for i in range(9)}, {})
    assert str(error.value).count("folder has") == 5 and "; and 4 more" in str(error.value)
    long = "word\n" * 200
    open_run(tmp_path / "long", {"prompt": long + "old" + long}, {})
    with pytest.raises(UserError) as error:
        open_run(tmp_path / "long", {"prompt": long + "new" + long}, {})
    assert "old" in str(error.value) and "new" in str(error.value)
    assert len(str(error.value)) < 400 + len(str(tmp_path)) and "\n" not in str(error.value)


def test_a_value_that_json_cannot_keep_is_named(tmp_path):
    for value in (math.inf, {1: 2}, Path("x"), np.float32(1)):
        with pytest.raises(UserError, match=r"conditions\.a\[1\]"):
            open_run(tmp_path, {"a": [0, value]}, {})
    assert not (tmp_path / "manifest.json").exists()


def test_a_fact_is_set_once(tmp_path):
    open_run(tmp_path, CONDITIONS, {})
    update_manifest(tmp_path, "arms.base.weights_sha256", "abc")
    update_manifest(tmp_path, "arms.base.weights_sha256", "abc")
    update_manifest(tmp_path, "arms.rl.weights_sha256", "def")
    with pytest.raises(UserError, match='arms.base.weights_sha256: folder has "abc", this run has "xyz"'):
        update_manifest(tmp_path, "arms.base.weights_sha256", "xyz")
    open_run(tmp_path, CONDITIONS, {})
    facts = read_manifest(tmp_path)["facts"]
    assert facts == {"arms.base.weights_sha256": "abc", "arms.rl.weights_sha256": "def"}


def test_facts_and_sessions_that_come_at_the_same_time_are_all_kept(tmp_path):
    open_run(tmp_path, CONDITIONS, {})

    def learn(who):
        for i in range(10):
            update_manifest(tmp_path, f"{who}.{i}", i)
            open_run(tmp_path, CONDITIONS, {"who": who})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(learn, "abcd"))
    manifest = read_manifest(tmp_path)
    assert len(manifest["facts"]) == 40 and len(manifest["sessions"]) == 41


def test_a_folder_that_cannot_be_written_is_named_with_the_systems_reason(tmp_path):
    (tmp_path / "file").write_text("")
    for root, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "run", "Not a directory")):
        with pytest.raises(UserError, match=f"cannot create {root}.*: {reason}"):
            open_run(root, {}, {})
    with pytest.raises(UserError, match="cannot create /proc/rlvr_limit"):
        open_run("/proc/rlvr_limit", {}, {})
    with pytest.raises(UserError, match="cannot create .*file.*: Not a directory"):
        Writer(tmp_path / "file", "samples")


def test_a_missing_damaged_or_foreign_manifest_is_told_plainly(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is damaged"):
        open_run(tmp_path, {}, {})
    (tmp_path / "manifest.json").write_text('{"format": 3, "conditions": {}, "facts": {}, "sessions": []}')
    with pytest.raises(UserError, match="has format 3, this version reads 2"):
        open_run(tmp_path, {}, {})
    write(tmp_path / "orphan", sample())
    with pytest.raises(UserError, match="holds records but no manifest.json"):
        open_run(tmp_path / "orphan", {}, {})


def test_a_manifest_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    open_run(tmp_path, CONDITIONS, {})
    before = (tmp_path / "manifest.json").read_bytes()
    fail_writes(monkeypatch, "fsync", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(UserError, match="manifest.json: No space left on device"):
        open_run(tmp_path, CONDITIONS, {})
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["manifest.json"]
