"""Weights and train states on disk: Hugging Face folders and hub names, Orbax folders, and their identity."""

from .architecture import check_vocabulary, read_model_config, stop_tokens
from .hub import resolve
from .huggingface import export_hf, load_hf
from .train_checkpoints import TrainCheckpoints
from .weights import load_params, save_params, weights_sha256

__all__ = [
    "TrainCheckpoints",
    "check_vocabulary",
    "export_hf",
    "load_hf",
    "load_params",
    "read_model_config",
    "resolve",
    "save_params",
    "stop_tokens",
    "weights_sha256",
]
