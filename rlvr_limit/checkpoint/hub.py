"""A folder, a GGUF file or a hub name -> what is on this machine: config, tokenizer files and weights."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path

from rlvr_limit.tokenizer.gguf_header import is_gguf
from rlvr_limit.types import UserError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
COMMIT = re.compile("[0-9a-f]{40}")
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")


def resolve(weights: str, revision: str = "", with_weights: bool = True) -> Path:
    """The local folder or GGUF file of a model: `weights` itself, else a folder fetched from the hub at `revision`.

    An empty revision means main. What was fetched before is taken from the cache of huggingface_hub, which HF_HOME
    places; HF_ENDPOINT names another hub. with_weights=False fetches config and tokenizer only. Raises UserError where
    there is no such folder, repository or revision, or the hub is out of reach.
    """
    folder = Path(weights).expanduser()
    if weights and (folder.is_dir() or is_gguf(folder)):
        return folder
    if not HUB_NAME.fullmatch(weights):
        raise _neither(weights)
    return _fetch(
        weights, revision or "main", ("config.json", *TOKENIZER_FILES, *(WEIGHT_FILES if with_weights else ()))
    )


def _neither(weights: str) -> UserError:
    return UserError(
        f"weights: there is no folder or .gguf file {weights!r}, and it is no hub name; give OWNER/NAME, a .gguf file, "
        "or a folder of config.json, safetensors and tokenizer files"
    )


def _fetch(name: str, revision: str, patterns: tuple[str, ...]) -> Path:
    # Imported here: most runs are given folders, and the library takes a moment to import.
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Folders inside a repository hold the same weights in other formats.
    fetch = partial(snapshot_download, name, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"])
    instead = "or give a local folder of config.json, safetensors and tokenizer files as weights"
    try:
        # A commit means the same files for ever; what a branch or tag means, only the hub can say.
        if not COMMIT.fullmatch(revision):
            HfApi().model_info(name, revision=revision)
        return Path(fetch())
    except HFValidationError as error:
        raise _neither(name) from error
    except GatedRepoError as error:
        raise UserError(
            f"weights: the hub shows {name} only to those who accepted its terms; do so and set HF_TOKEN, {instead}"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"weights: {name} has no revision {revision!r} on the hub; check it, {instead}") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"weights: the hub knows no model {name}, or it is private (HF_TOKEN); check the name, {instead}"
        ) from error
    except (HTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
    try:
        cached = Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"weights: {name} at {revision!r} could not be fetched ({reason}), and not all of it was fetched before; "
            f"try again when the hub is in reach, {instead}"
        ) from error
    logging.warning("%s at %s: the hub is out of reach (%s), so %s is used as it is", name, revision, reason, cached)
    return cached
