"""Where a run folder lies and how it is written: a file system or an object store, whole files, whole folders."""

from rlvr_limit.records.storage.objects import ObjectPath, Place, driver_errors, is_url, place
