"""Weights and train states on disk: Hugging Face folders and hub names, Orbax folders, and their identity."""

from .architecture import check_vocabulary, read_model_config, stop_tokens
from .hub import resolve
from .huggingface import export_hf, load_hf
from .train_checkpoints import TrainCheckpoints
from .weights import load_params, save_params, weights_sha256
