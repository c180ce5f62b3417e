"""Prefill, decode windows, and Engine.generate."""

from rlvr_limit.engine.engine import Engine, EngineConfig, Request, prompt_key

__all__ = ["Engine", "EngineConfig", "Request", "prompt_key"]
