"""What a study needs on a machine that is not here: memory, sequences, speed, hours."""

from rlvr_limit.planning.from_settings import plan_of
from rlvr_limit.planning.plan import StudyPlan, make_plan
from rlvr_limit.planning.programs import DeviceProgram, RecipePrograms
from rlvr_limit.planning.targets import Target, find_target
from rlvr_limit.planning.text import render
from rlvr_limit.planning.workload import BenchmarkSize, Workload
