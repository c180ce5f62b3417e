"""Every setting, declared once with default, range and comment; how a config file and a command line fill them."""

from rlvr_limit.settings.machine import EngineConfig, HostsConfig, MeshConfig
from rlvr_limit.settings.study import (
    COMPARED,
    GROUPS,
    JOBS,
    TOKEN_SAMPLING,
    Arm,
    ArmSampling,
    CountdownConfig,
    CountsSettings,
    CountsSource,
    Grading,
    ModelShape,
    ReportSettings,
    Sampling,
    Score,
    Settings,
)
from rlvr_limit.settings.training import Limits, OptimizerConfig, Reinforced, Supervised, Training

__all__ = [
    "COMPARED",
    "GROUPS",
    "JOBS",
    "TOKEN_SAMPLING",
    "Arm",
    "ArmSampling",
    "CountdownConfig",
    "CountsSettings",
    "CountsSource",
    "EngineConfig",
    "Grading",
    "HostsConfig",
    "Limits",
    "MeshConfig",
    "ModelShape",
    "OptimizerConfig",
    "ReportSettings",
    "Reinforced",
    "Sampling",
    "Score",
    "Settings",
    "Supervised",
    "Training",
]
