"""What a study needs on a machine that is not here: memory, slots, collectives, speed, hours."""

from rlvr_limit.planning.plan import Plan, plan
from rlvr_limit.planning.programs import Program, Update, placed
from rlvr_limit.planning.targets import Target, find
from rlvr_limit.planning.text import render
from rlvr_limit.planning.workload import Benchmark, Workload

__all__ = ["Benchmark", "Plan", "Program", "Workload", "Target", "Update", "find", "placed", "plan", "render"]
