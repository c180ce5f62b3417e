"""GGUF files: their metadata as the fields of a config.json, their tensors as Hugging Face names and lays them.

Quantised types are made numbers by the gguf package, an optional extra; F32, F16 and BF16 need none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from rlvr_limit.tokenizer.gguf import CONTROL, named_ids, tokenizer_of
from rlvr_limit.tokenizer.gguf_header import GgufTensor, read_header
from rlvr_limit.types import UserError, not_allowed

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
FIELDS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
}
"""Field of a file, behind its architecture's name, -> field of a config.json."""
EMBEDDING, HEAD, ROPE = "token_embd.weight", "output.weight", "rope_freqs.weight"
TOP = {EMBEDDING: "model.embed_tokens.weight", HEAD: "lm_head.weight", "output_norm.weight": "model.norm.weight"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PLAIN = {0: ("F32", np.float32), 1: ("F16", np.float16), 30: ("BF16", jnp.bfloat16)}
"""Types that are numbers as they are."""
ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
"""Control tokens that end an answer whether the metadata names them or not, as in llama.cpp."""
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3_POSITIONS = 8192


def config_fields(path: Path) -> dict[str, Any]:
    """The file's metadata as fields of a config.json; what has no place there keeps its name, to be refused by it."""
    header = read_header(path)
    name = header.fields.get("general.architecture")
    if name not in ARCHITECTURES:
        raise not_allowed(f"{path}: general.architecture", name, f"one of {', '.join(ARCHITECTURES)}")
    if EMBEDDING not in header.tensors:
        raise UserError(f"{path}: tensor {EMBEDDING} is missing")
    own = {key.removeprefix(f"{name}."): x for key, x in header.fields.items() if key.startswith(f"{name}.")}
    fields = {FIELDS.get(key, f"{name}.{key}"): _shortest(x) for key, x in own.items() if key != "vocab_size"}
    fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    width, heads = own.get("embedding_length"), own.get("attention.head_count")
    head_dim = fields.get("head_dim") or (width // heads if type(width) is type(heads) is int and heads else 0)
    for key in ("rope.dimension_count", "attention.value_length"):
        if fields.pop(f"{name}.{key}", head_dim) != head_dim:
            raise not_allowed(f"{path}: {name}.{key}", own[key], f"supported: it must be the head's width, {head_dim}")
    if fields.pop(f"{name}.rope.scaling.type", "none") != "none":
        raise not_allowed(f"{path}: {name}.rope.scaling.type", own["rope.scaling.type"], "supported")
    if ROPE in header.tensors:
        fields["rope_scaling"] = _llama3_scaling(path, header.tensors[ROPE], fields.get("rope_theta", 1e4), head_dim)
    return {
        "architectures": [ARCHITECTURES[name]],
        "model_type": name,
        "tie_word_embeddings": HEAD not in header.tensors,
        "vocab_size": header.tensors[EMBEDDING].shape[0],
        **fields,
        **{f"{role}_token_id": number for role, number in named_ids(header.fields).items()},
    }


def _shortest(value: Any) -> Any:
    """A float32 as it was written: 1e-6, not 9.999999974752427e-07."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _llama3_scaling(path: Path, tensor: GgufTensor, theta: float, head_dim: int) -> dict[str, Any]:
    """LLaMA-3.1's rope_scaling from the divisors of the frequencies that llama.cpp keeps in its place."""
    stored = PackedTensor(path, ROPE, tensor)[:]
    factor = _shortest(float(stored.max()))
    frequency = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    ramp = (LLAMA3_POSITIONS * frequency / (2 * math.pi) - 1) / (4 - 1)
    kept = np.clip(ramp, 0, 1)
    wanted = 1 / ((1 - kept) / factor + kept)
    if stored.shape != wanted.shape or not np.allclose(stored, wanted, rtol=1e-4):
        raise UserError(f"{path}: tensor {ROPE}: these frequencies are not those of LLaMA-3.1's scaling, nor supported")
    return {**LLAMA3, "factor": factor, "original_max_position_embeddings": LLAMA3_POSITIONS}


def end_tokens(path: Path) -> tuple[int, ...]:
    """Tokens that end an answer, the one that ends a text first."""
    fields = read_header(path).fields
    said = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    tokens, kinds = (fields.get(f"tokenizer.ggml.{name}", ()) for name in ("tokens", "token_type"))
    by_name = [i for i, (text, kind) in enumerate(zip(tokens, kinds, strict=False)) if kind == CONTROL and text in ENDS]
    return tuple(dict.fromkeys(i for i in (*said, *by_name) if i is not None))


def folder_files(path: Path) -> dict[str, str]:
    """The files that an exported folder has beside config.json and weights: what those of a folder would be copied."""
    backend, config = tokenizer_of(path)
    ends = {"eos_token_id": list(end_tokens(path))}
    files = {"tokenizer_config.json": config, "generation_config.json": ends}
    texts = {name: json.dumps(value, indent=1, ensure_ascii=False) for name, value in files.items()}
    return {"tokenizer.json": backend.to_str(), **texts}


def packed_tensors(path: Path) -> dict[str, PackedTensor]:
    """The tensors of a file by their names in a Hugging Face folder; others keep their own, ROPE is in the config.

    Raises UserError for a type that nothing here makes numbers of, and for a file that ends before its tensors do.
    """
    header, fields = read_header(path), config_fields(path)
    # Rotary pairs of LLaMA's q and k stand side by side, those of Qwen's as everywhere else.
    paired = {}
    if fields["model_type"] == "llama":
        paired = {"attn_q": fields["num_attention_heads"], "attn_k": fields["num_key_value_heads"]}
    found = {}
    for name, tensor in header.tensors.items():
        _, _, rest = name.partition("blk.")
        layer, _, rest = rest.partition(".")
        part, _, kind = rest.partition(".")
        theirs = TOP.get(name) or (f"model.layers.{layer}.{LAYER[part]}.{kind}" if part in LAYER else name)
        packed = PackedTensor(path, name, tensor, paired.get(part, 0))
        if tensor.start + packed.row_bytes * math.prod(tensor.shape[:-1]) > header.size:
            raise UserError(f"{path}: tensor {name} goes beyond the end: the file is cut off, so fetch it again")
        if name != ROPE:
            found[theirs] = packed
    return found


class PackedTensor:
    """A tensor of a file, of which ranges are read as safetensors' slices are: tensor[rows, columns] -> float32.

    paired: heads whose rows stand as (pair, half), to be read as (half, pair); 0 where they do already.
    """

    def __init__(self, path: Path, name: str, tensor: GgufTensor, paired: int = 0):
        self._path, self._tensor = path, tensor
        self.shape = tensor.shape
        self.dtype, self._numbers, block, size = _type(path, name, tensor.kind)
        columns = tensor.shape[-1]
        if columns % block:
            raise UserError(f"{path}: tensor {name}: rows of {columns} are no multiple of {self.dtype}'s {block}")
        self.row_bytes = columns // block * size
        self._order = None
        if paired:
            rows = np.arange(tensor.shape[0])
            self._order = rows.reshape(paired, -1, 2).swapaxes(1, 2).reshape(-1)

    def __getitem__(self, ranges: slice | tuple[slice, ...]) -> np.ndarray:
        rows, *columns = ranges if isinstance(ranges, tuple) else (ranges,)
        *outer, _ = self.shape
        # Opened anew each time: pages that were read stay resident until the file is closed.
        raw = np.memmap(self._path, np.uint8, "r", self._tensor.start, (*outer, self.row_bytes))
        if not outer:
            return self._numbers(raw)[rows]
        packed = np.ascontiguousarray(raw[rows if self._order is None else self._order[rows]])
        return self._numbers(packed)[(slice(None), *columns)]


def _type(path: Path, name: str, kind: int) -> tuple[str, Callable[[np.ndarray], np.ndarray], int, int]:
    """(name, what makes numbers of packed rows, numbers of a block, its bytes) of a type."""
    if kind in PLAIN:
        label, dtype = PLAIN[kind]
        return label, lambda packed: packed.view(np.dtype(dtype)).astype(np.float32), 1, np.dtype(dtype).itemsize
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise UserError(f"{path}: quantised weights need the gguf package: pip install 'rlvr_limit[gguf]'") from error
    if kind not in {known.value for known in GGMLQuantizationType}:
        raise not_allowed(f"{path}: tensor {name}: type", kind, "known to the installed gguf package")
    known = GGMLQuantizationType(kind)
    block, size = GGML_QUANT_SIZES[known]
    try:
        dequantize(np.zeros((1, size), np.uint8), known)
    except NotImplementedError as error:
        raise not_allowed(f"{path}: tensor {name}: type", known.name, "supported by the gguf package") from error
    return known.name, lambda packed: dequantize(packed, known), block, size
