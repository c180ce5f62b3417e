"""Every row comes back once and exactly; what contradicts or is damaged is named."""

from __future__ import annotations

import errno
import math
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr_limit.records import Writer, compact, existing, read
from rlvr_limit.types import UserError
from tests.support.records_rows import KEYS, SCHEMAS, abandon, files, rows_of, sample, verdict, write


def cell(kind):
    if pa.types.is_large_list(kind):
        return st.lists(cell(kind.value_type), max_size=3)
    if pa.types.is_integer(kind):
        return st.integers(-(2**31), 2**31 - 1)
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width)
    return st.booleans() if pa.types.is_boolean(kind) else st.text(max_size=4)


def rows_for(table):
    names = SCHEMAS[table].names
    cells = [st.none() | cell(f.type) if f.nullable else cell(f.type) for f in SCHEMAS[table]]
    rows = st.tuples(*cells).map(lambda values: dict(zip(names, values, strict=True)))
    return st.lists(rows, max_size=8, unique_by=lambda row: tuple(row[name] for name in KEYS[table]))


@pytest.mark.parametrize("table", SCHEMAS)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_rows_come_back_exactly_and_sorted_by_key_however_they_were_split(table, data):
    rows = data.draw(rows_for(table))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=3, max_size=3)))
    expected = [repr(r) for r in sorted(rows, key=lambda r: [r[k] for k in KEYS[table]])]  # repr: NaN is NaN
    with tempfile.TemporaryDirectory() as root:
        write(root, *rows[: cuts[0]], table=table)
        write(root, *rows[cuts[0] : cuts[1]], table=table, each=1)
        with Writer(root, table) as writer:
            writer.append(rows[cuts[1] : cuts[2]])
            writer.append(rows[cuts[2] :])
            got = read(root, table)  # closed parts and an open one
        assert got.schema.equals(SCHEMAS[table])
        assert [repr(r) for r in got.to_pylist()] == expected
        compact(root, table)
        assert [repr(r) for r in rows_of(root, table)] == [repr(r) for r in got.to_pylist()]


def test_columns_and_where_select_and_existing_lists_what_is_there(tmp_path):
    write(tmp_path, sample("b", 2), sample("a", 1), sample("a", 0), sample("a", 7, arm="rl"))
    with Writer(tmp_path, "samples") as writer:
        writer.append([sample("a", 5)])
        got = read(tmp_path, "samples", columns=["index", "text"], where={"arm": "base", "problem_id": "a"})
        assert got.to_pylist() == [{"index": i, "text": f"a {i}"} for i in (0, 1, 5)]
        assert existing(tmp_path, "samples", arm="base") == {"a": {0, 1, 5}, "b": {2}}
    assert existing(tmp_path, "samples", arm="none") == {}
    assert rows_of(tmp_path, "scores") == []
    write(tmp_path, verdict(grader="one 1"), verdict(grader="two 1", index=1), table="verdicts")
    assert existing(tmp_path, "verdicts", arm="base", grader="one 1", against="") == {"p": {0}}


def test_a_row_stays_readable_by_pandas_and_duckdb_types(tmp_path):
    """A closed part is a plain Parquet file: standard names, a list's element called `element`, zstd."""
    write(tmp_path, sample())
    (name,) = files(tmp_path)
    part = pq.ParquetFile(tmp_path / "records/samples" / name)
    assert part.schema.column(3).path == "tokens.list.element"
    assert part.metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    "row, expected",
    [
        ({k: v for k, v in sample().items() if k != "stop"}, "lacks the column 'stop'"),
        (sample(txt="x"), "has an unknown column 'txt'"),
        (sample(tokens=["a"]), "column 'tokens' is ['a']"),
        (sample(tokens=[1, None]), "column 'tokens' is [1, None]"),
        (sample(text=None), "column 'text' is None"),
        (sample(text="\ud800"), "column 'text' is '\\ud800'"),
        (sample(index=2**40), "column 'index' is 1099511627776"),
    ],
)
def test_a_row_that_does_not_fit_is_named_and_none_of_its_batch_is_written(tmp_path, row, expected):
    with Writer(tmp_path, "samples") as writer:
        writer.append([sample(index=1)])
        with pytest.raises(UserError) as error:
            writer.append([sample(index=2), row])
        assert expected in str(error.value) and "problem_id='p'" in str(error.value)
        assert "\n" not in str(error.value)
        writer.append([sample(index=3)])
    assert existing(tmp_path, "samples", arm="base") == {"p": {1, 3}}


def test_names_that_are_not_there_are_answered_with_those_that_are(tmp_path):
    with pytest.raises(UserError, match="no table 'sample'.* samples"):
        read(tmp_path, "sample")
    with pytest.raises(UserError, match="cannot read 'txt': it must be one of arm, .*text"):
        read(tmp_path, "samples", columns=["txt"])
    with pytest.raises(UserError, match="cannot select rows by 'stop': it must be one of arm, problem_id, index"):
        read(tmp_path, "samples", where={"stop": "eos"})
    with pytest.raises(UserError, match="'index' cannot be 'a': it is of type int32"):
        read(tmp_path, "samples", where={"index": "a"})
    with pytest.raises(UserError, match=r"needs a value for each of \['against', 'arm', 'grader'\], got \['arm'\]"):
        existing(tmp_path, "verdicts", arm="base")
    with pytest.raises(UserError, match="there is no run folder .*typo"):
        read(tmp_path / "typo", "samples")


def test_rows_are_selected_by_one_value_or_by_any_of_a_list(tmp_path):
    write(tmp_path, *(sample(name, i) for name in "pqr" for i in range(3)))
    abandon(tmp_path, sample("p", 3), sample("q", 3), sample("s", 3))
    got = rows_of(tmp_path, columns=["problem_id", "index"], where={"problem_id": ["s", "p", "t"], "arm": "base"})
    assert [(r["problem_id"], r["index"]) for r in got] == [*(("p", i) for i in range(4)), ("s", 3)]
    assert rows_of(tmp_path, where={"problem_id": []}) == []


def test_rows_that_were_read_are_written_as_they_are(tmp_path):
    write(tmp_path / "one", *(sample(index=i) for i in range(5)))
    rows = read(tmp_path / "one", "samples")
    with Writer(tmp_path / "other", "samples") as writer:
        for batch in rows.to_batches(max_chunksize=2):
            writer.append_batch(batch)
    assert read(tmp_path / "other", "samples").equals(rows)


def test_equal_duplicates_are_dropped_and_the_older_row_is_kept(tmp_path):
    nan = math.nan
    write(tmp_path, sample(index=0, time=1.0), sample(index=1, logp=[nan]), sample(index=2))
    write(tmp_path, sample(index=1, logp=[nan]), sample(index=0, time=2.0), sample(index=0, time=3.0))
    got = rows_of(tmp_path)
    assert [(r["index"], r["time"]) for r in got] == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1, 2}}
    compact(tmp_path, "samples")
    assert [repr(r) for r in rows_of(tmp_path)] == [repr(r) for r in got]


def test_the_same_sample_may_have_a_verdict_of_each_grader_and_each_arm_its_own_sample(tmp_path):
    write(tmp_path, verdict(grader="one 1"), verdict(grader="one 2", correct=False), table="verdicts")
    assert len(rows_of(tmp_path, "verdicts")) == 2
    write(tmp_path, sample(arm="base"), sample(arm="rl", text="other"))
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize("changes", [{"text": "other"}, {"logp": [-9.0]}, {"logp": [math.nan]}, {"stop": "length"}])
def test_unequal_duplicates_are_an_error_naming_the_key_and_both_files(tmp_path, changes):
    write(tmp_path, *[sample("q", i) for i in range(50)])
    write(tmp_path, sample("q", 9, **changes), sample("q", 51))
    one, two = files(tmp_path)
    for ask in (
        lambda: read(tmp_path, "samples"),
        lambda: read(tmp_path, "samples", columns=["index"]),  # even if the column that differs is not asked for
        lambda: existing(tmp_path, "samples", arm="base"),
        lambda: compact(tmp_path, "samples"),
    ):
        with pytest.raises(UserError) as error:
            ask()
        message = str(error.value)
        assert "arm='base', problem_id='q', index=9" in message and repr(next(iter(changes))) in message
        assert message.index(one) < message.index(two) and "\n" not in message
    assert files(tmp_path) == [one, two]


def test_a_corrupt_part_is_named_and_once_moved_away_the_others_are_read(tmp_path):
    for i in range(3):
        write(tmp_path, sample(index=i, text="abcdefgh" * 50))
    bad = tmp_path / "records/samples" / files(tmp_path)[1]
    data = bad.read_bytes()
    for damaged in (b"", data[:-1], data[: len(data) // 2], b"PAR1" + bytes(100) + b"PAR1"):
        bad.write_bytes(damaged)
        with pytest.raises(UserError) as error:
            read(tmp_path, "samples")
        assert str(bad) in str(error.value) and "move it away and run again" in str(error.value)
        assert "\n" not in str(error.value)
    bad.rename(bad.with_suffix(".bad"))
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 2}}
    write(tmp_path, sample(index=1))
    assert existing(tmp_path, "samples", arm="base") == {"p": {0, 1, 2}}


def test_a_part_the_system_refuses_to_read_is_not_called_damaged(tmp_path, monkeypatch):
    write(tmp_path, sample())

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pq, "read_table", refused)
    with pytest.raises(UserError, match="cannot read .*part-.*parquet: Permission denied"):
        read(tmp_path, "samples")


def test_a_flipped_bit_in_a_part_s_data_is_never_read_as_data(tmp_path):
    write(tmp_path, *[sample(index=i) for i in range(20)])
    part = tmp_path / "records/samples" / files(tmp_path)[0]
    data, expected = part.read_bytes(), rows_of(tmp_path)
    end_of_data = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    places = range(4, end_of_data, 5)
    n_named = 0
    for at in places:
        part.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        try:
            assert rows_of(tmp_path) == expected, at  # a byte nobody uses
        except UserError as error:
            assert str(part) in str(error)
            n_named += 1
    assert n_named > len(places) / 2
