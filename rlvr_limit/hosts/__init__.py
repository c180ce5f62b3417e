"""The hosts of one run: who there is, who of them lives, and who does what. The engine of it is jax.distributed.

Every host runs the same job. Work is cut into numbered shares, which hosts lease from counters in the key-value store
of host 0's coordination service: a fast host takes more. Leases are hints and records are the truth: what a dead host
had leased is lacking in the records, and is leased again in the next turn. Training is the exception: its weights lie
on all hosts, so all end with the first that dies, and the same command goes on from the last kept state.
"""

from __future__ import annotations

from rlvr_limit.hosts.joining import HostsConfig, start
from rlvr_limit.hosts.members import STAGES, Hosts

__all__ = ["STAGES", "Hosts", "HostsConfig", "start"]
