"""What a study takes on a machine, this one or another: the shapes that fit, memory, speed, hours."""

from rlvr_limit.planning.plan import StudyPlan, make_plan, render
from rlvr_limit.planning.programs import DeviceProgram, RecipePrograms
from rlvr_limit.planning.targets import Target, find_target
from rlvr_limit.planning.workload import BenchmarkSize, Workload
