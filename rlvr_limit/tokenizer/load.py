"""A checkpoint folder's tokenizer files -> TextTokenizer.

Either tokenizer.json, or vocab.json + merges.txt of a Qwen2 tokenizer; with tokenizer_config.json in both cases. Or a
GGUF file, which has both in its metadata.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from rlvr_limit.tokenizer.gguf import tokenizer_of
from rlvr_limit.tokenizer.gguf_header import is_gguf
from rlvr_limit.tokenizer.splits import QWEN2, byte_level
from rlvr_limit.tokenizer.text import TextTokenizer
from rlvr_limit.types import UserError

QWEN2_CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def load_tokenizer(folder: str | Path) -> TextTokenizer:
    """The tokenizer of a folder or GGUF file. Raises UserError naming the file that is missing or broken, and how.

    Its end-of-sequence token is that of tokenizer_config.json. Models often end answers with others too (base models of
    Qwen2.5 name <|endoftext|>, but end a ChatML turn with <|im_end|>): dataclasses.replace stop_ids with all of them.
    """
    folder = Path(folder)
    path = folder if is_gguf(folder) else folder / "tokenizer_config.json"
    backend, config = tokenizer_of(path) if path == folder else _from_folder(folder, path)
    _add_tokens(backend, config, path)
    named = _named_tokens(backend, config, path)
    eos_id = backend.token_to_id(named["eos_token"])
    return TextTokenizer(
        folder=str(folder),
        backend=backend,
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        eos_id=eos_id,
        pad_id=backend.token_to_id(named["pad_token"]) if "pad_token" in named else eos_id,
        stop_ids=(eos_id,),
        lead=_lead(backend, config, named),
        special_tokens=named,
        chat_template=_chat_template(config, path),
    )


def _from_folder(folder: Path, path: Path) -> tuple[Tokenizer, dict[str, Any]]:
    if not folder.is_dir():
        raise UserError(f"tokenizer: {folder} is not a folder")
    if not path.is_file():
        raise UserError(f"tokenizer: {folder} has no {path.name}")
    config = _read_json(path)
    if config.get("split_special_tokens"):
        raise UserError(f"{path}: split_special_tokens is not supported; it must be false")
    file = folder / "special_tokens_map.json"
    named = _read_json(file) if file.is_file() else {}
    # tokenizer_config.json goes first; older folders name some tokens in the other file only.
    config |= {name: named[name] for name in NAMED_TOKENS if name in named and config.get(name) is None}
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(folder / "tokenizer.json"), config
    return _from_vocabulary_and_merges(folder, config, path), config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: broken JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: a JSON object is needed, but it holds a {type(value).__name__}")
    return value


def _from_tokenizer_json(path: Path) -> Tokenizer:
    text = json.dumps(_read_json(path))
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library has no exception class of its own
        raise UserError(f"{path}: the tokenizers library refuses it: {error}") from error


def _from_vocabulary_and_merges(folder: Path, config: Mapping[str, Any], path: Path) -> Tokenizer:
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise UserError(f"tokenizer: {folder} has neither tokenizer.json nor {' and '.join(missing)}")
    if config.get("tokenizer_class") not in QWEN2_CLASSES:
        raise UserError(
            f"{path}: tokenizer_class is {config.get('tokenizer_class')!r}; from vocab.json and merges.txt only "
            f"{QWEN2_CLASSES[0]} can be built, others need tokenizer.json"
        )
    if config.get("add_prefix_space"):
        raise UserError(f"{path}: add_prefix_space is not supported for {QWEN2_CLASSES[0]}")
    vocabulary = _read_json(folder / "vocab.json")
    ids = set(vocabulary.values())
    if not all(type(i) is int and i >= 0 for i in ids) or len(ids) < len(vocabulary):
        raise UserError(f"{folder}/vocab.json: every token needs an id of its own, a whole number of 0 or more")
    return byte_level(vocabulary, _merges(folder / "merges.txt", vocabulary), QWEN2)


def _merges(path: Path, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version:")):
            continue
        parts = line.split()
        if len(parts) != 2:
            raise UserError(f"{path}: line {number} must hold two tokens, but is {line!r}")
        for token in (*parts, "".join(parts)):
            if token not in vocabulary:
                raise UserError(f"{path}: line {number} speaks of {token!r}, which vocab.json does not have")
        merges.append((parts[0], parts[1]))
    return merges


def _add_tokens(backend: Tokenizer, config: Mapping[str, Any], path: Path) -> None:
    """Adds the tokens of added_tokens_decoder with their flags; each must get the id that is written there."""
    declared = config.get("added_tokens_decoder") or {}
    try:
        tokens = {
            int(i): AddedToken(token["content"], **{flag: token[flag] for flag in FLAGS if flag in token})
            for i, token in declared.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: added_tokens_decoder must be {{id: {{'content': text, ...}}}}: {error!r}") from error
    backend.add_tokens([tokens[i] for i in sorted(tokens)])
    for i, token in sorted(tokens.items()):
        given = backend.token_to_id(token.content)
        if given != i:
            raise UserError(
                f"{path}: added_tokens_decoder gives {token.content!r} the id {i}, but with the vocabulary of this "
                f"folder it gets {given}"
            )


def _named_tokens(backend: Tokenizer, config: Mapping[str, Any], path: Path) -> dict[str, str]:
    """{"eos_token": text, ...} of the special tokens that the config names; each must be in the vocabulary."""
    named = {}
    for name in NAMED_TOKENS:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if text is None:
            continue
        if not isinstance(text, str) or backend.token_to_id(text) is None:
            raise UserError(f"{path}: {name} {text!r} is not in the vocabulary")
        named[name] = text
    if "eos_token" not in named:
        raise UserError(f"{path}: eos_token is missing; it must name the token that ends a text")
    return named


def _lead(backend: Tokenizer, config: Mapping[str, Any], named: Mapping[str, str]) -> str:
    """What the model's tokenizer puts before any text: add_bos_token decides, else the file's own post-processor."""
    if "add_bos_token" in config or "add_eos_token" in config:
        return named.get("bos_token", "") if config.get("add_bos_token") else ""
    encoded = backend.encode("a", add_special_tokens=True)
    special = zip(encoded.tokens, encoded.special_tokens_mask, strict=True)
    return "".join(token for token, _ in itertools.takewhile(lambda pair: pair[1], special))


def _chat_template(config: Mapping[str, Any], path: Path) -> str | None:
    """chat_template.jinja before the config's chat_template; of several named ones, `default`."""
    file = path.with_name("chat_template.jinja")
    if file.is_file():
        return _read(file)
    template = config.get("chat_template")
    if template is None or isinstance(template, str):
        return template
    try:
        templates = {entry["name"]: entry["template"] for entry in template}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: chat_template must be a text or a list of {{name, template}}: {error!r}") from error
    if "default" not in templates:
        raise UserError(f"{path}: chat_template has no `default`, only {', '.join(map(repr, templates)) or 'nothing'}")
    return templates["default"]
