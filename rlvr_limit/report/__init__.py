"""The report of a comparison: one offline HTML page, and beside it figures, numbers, samples and a summary."""

from rlvr_limit.report.page import PAGE, write, write_all
from rlvr_limit.report.results import Answers, ArmProgress, ArmResults, Example, Interim, Results, SecondOpinion
from rlvr_limit.report.viewer import IMAGES_BYTES
