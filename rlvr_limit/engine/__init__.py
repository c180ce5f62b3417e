"""Batched autoregressive sampling over a possibly sharded decoder."""

from rlvr_limit.engine.engine import Engine, Moment
from rlvr_limit.engine.requests import EngineConfig, Request, prompt_key

__all__ = ["Engine", "EngineConfig", "Moment", "Request", "prompt_key"]
