"""The run folder: samples, verdicts and scores that survive whatever happens to the run. One process writes, any reads.

    open_run(root, conditions, info)            start a folder, or go on with one made under equal conditions
    with Writer(root, "samples") as samples:    rows are safe from kill -9 when append returns
        samples.append(rows)
    read(root, "samples", where={"arm": "base"})
    existing(root, "samples", arm="base")       what a resumed run need not draw again
    compact(root, "samples")                    many small parts into one

root is a folder, or a URL of an object store: s3://, gs:// (storage/).
"""

from rlvr_limit.records.compaction import compact
from rlvr_limit.records.manifest import open_run, read_manifest, update_manifest
from rlvr_limit.records.reader import existing, read
from rlvr_limit.records.schema import TABLES
from rlvr_limit.records.writer import Writer, recover
