# ruff: noqa: F401
"""Every setting, declared once with default, range and comment; how a config file and a command line fill them."""

from rlvr_limit.settings.machine import EngineConfig, HostsConfig, MeshConfig
from rlvr_limit.settings.study import (
    COMPARED,
    GROUPS,
    JOBS,
    TOKEN_SAMPLING,
    Arm,
    ArmSampling,
    CompositionConfig,
    CountdownConfig,
    CountsSettings,
    CountsSource,
    Endpoint,
    Grading,
    ImportedSettings,
    Judge,
    ModelShape,
    ReportSettings,
    Sampling,
    Score,
    Settings,
    Sharpen,
)
from rlvr_limit.settings.training import Limits, OptimizerConfig, Reinforced, Supervised, Training
