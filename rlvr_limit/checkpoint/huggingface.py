"""A Hugging Face folder (config.json, safetensors, tokenizer files) <-> parameters on a mesh."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rlvr_limit.distributed.mesh import fetch_uncached, parameter_shardings
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, Params, parameter_specs
from rlvr_limit.tokenizer.gguf_header import is_gguf
from rlvr_limit.types import UserError

from . import gguf, visual
from .architecture import model_config_json
from .fields import TOKEN_FIELDS, read_json
from .hub import TOKENIZER_FILES
from .tensors import StoredTensor, equal_tensors, find_tensors, read_part, write_tensors

TENSORS = {
    "embedding": ("model.embed_tokens.weight", ((0,), (1,))),
    "attention_norm": ("model.layers.{layer}.input_layernorm.weight", ((0,),)),
    "q": ("model.layers.{layer}.self_attn.q_proj.weight", ((1, 2), (0,))),
    "k": ("model.layers.{layer}.self_attn.k_proj.weight", ((1, 2), (0,))),
    "v": ("model.layers.{layer}.self_attn.v_proj.weight", ((1, 2), (0,))),
    "q_bias": ("model.layers.{layer}.self_attn.q_proj.bias", ((0, 1),)),
    "k_bias": ("model.layers.{layer}.self_attn.k_proj.bias", ((0, 1),)),
    "v_bias": ("model.layers.{layer}.self_attn.v_proj.bias", ((0, 1),)),
    "q_norm": ("model.layers.{layer}.self_attn.q_norm.weight", ((0,),)),
    "k_norm": ("model.layers.{layer}.self_attn.k_norm.weight", ((0,),)),
    "o": ("model.layers.{layer}.self_attn.o_proj.weight", ((2,), (0, 1))),
    "ffn_norm": ("model.layers.{layer}.post_attention_layernorm.weight", ((0,),)),
    "gate": ("model.layers.{layer}.mlp.gate_proj.weight", ((1,), (0,))),
    "up": ("model.layers.{layer}.mlp.up_proj.weight", ((1,), (0,))),
    "down": ("model.layers.{layer}.mlp.down_proj.weight", ((1,), (0,))),
    "final_norm": ("model.norm.weight", ((0,),)),
    "unembedding": ("lm_head.weight", ((1,), (0,))),
}
"""Our parameter -> its name in a file, and for each axis there, which of our axes it runs over: theirs are
[outputs, inputs] with heads and head width merged, ours [inputs..., outputs...]."""

VISION_TENSORS = {
    "patch": ("visual.patch_embed.proj.weight", ((4,), (0,), (1,), (2,), (3,))),
    "attention_norm": ("visual.blocks.{layer}.norm1.weight", ((0,),)),
    **{name: ("visual.blocks.{layer}.attn.qkv.weight", ((1, 2), (0,))) for name in "qkv"},
    **{f"{name}_bias": ("visual.blocks.{layer}.attn.qkv.bias", ((0, 1),)) for name in "qkv"},
    "o": ("visual.blocks.{layer}.attn.proj.weight", ((2,), (0, 1))),
    "o_bias": ("visual.blocks.{layer}.attn.proj.bias", ((0,),)),
    "ffn_norm": ("visual.blocks.{layer}.norm2.weight", ((0,),)),
    **{name: (f"visual.blocks.{{layer}}.mlp.{name}_proj.weight", ((1,), (0,))) for name in ("gate", "up", "down")},
    **{f"{name}_bias": (f"visual.blocks.{{layer}}.mlp.{name}_proj.bias", ((0,),)) for name in ("gate", "up", "down")},
    "merger_norm": ("visual.merger.ln_q.weight", ((0,),)),
    "merger_in": ("visual.merger.mlp.0.weight", ((1,), (0,))),
    "merger_in_bias": ("visual.merger.mlp.0.bias", ((0,),)),
    "merger_out": ("visual.merger.mlp.2.weight", ((1,), (0,))),
    "merger_out_bias": ("visual.merger.mlp.2.bias", ((0,),)),
}
"""The same of the vision tower's, where q, k and v are thirds of one tensor."""
THIRDS = {"q": 0, "q_bias": 0, "k": 1, "k_bias": 1, "v": 2, "v_bias": 2}

INERT_BUFFER = re.compile(r"(model\.layers\.\d+\.self_attn|model)\.rotary_emb\.inv_freq")
"""Written by old versions of transformers and read by none: rope_theta says the same."""


class FileLayout(NamedTuple):
    """How a parameter stands in a file: its spec, its name there, and the axes there (see TENSORS)."""

    spec: ParameterSpec
    name: str
    groups: tuple[tuple[int, ...], ...]
    part: int = 0  # which of the equal parts of the tensor, along its first axis
    parts: int = 1

    @property
    def own_shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.spec.shape[axis] for axis in group) for group in self.groups)

    @property
    def file_shape(self) -> tuple[int, ...]:
        first, *rest = self.own_shape
        return (self.parts * first, *rest)

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(axis for group in self.groups for axis in group)


def load_hf(folder: Path, config: ModelConfig, mesh: Mesh) -> Params:
    """Weights of a Hugging Face folder or GGUF file in config.dtype, each read from its file straight onto the mesh.

    Beside what already lies on devices, the host holds no more than one parameter. Raises UserError naming the file
    that is missing or cut off, or the tensor that is missing, unexpected or of a wrong shape.
    """
    stored = _hub_named(folder, find_tensors(folder)) if config.vision else find_tensors(folder)
    layouts, tree = file_layouts(config)
    _check(folder, stored, layouts, config)
    shardings = jax.tree.leaves(parameter_shardings(parameter_specs(config), mesh))
    leaves: list[Any] = [None] * len(layouts)
    # Largest first: the one host copy is then never on top of all the rest.
    for i in sorted(range(len(layouts)), key=lambda i: -math.prod(layouts[i].spec.shape)):
        leaves[i] = _load(stored[layouts[i].name], layouts[i], shardings[i], jax.numpy.dtype(config.dtype))
    return tree.unflatten(leaves)


def export_hf(folder: Path, params: Params, config: ModelConfig, tokenizer_folder: Path | None = None) -> None:
    """Writes weights as a folder that transformers, vLLM and load_hf open; it appears whole or not at all.

    Tensors keep their dtype and bits. Tokenizer files, generation_config.json and token ids come from tokenizer_folder,
    which may be a GGUF file.
    Raises UserError if the folder is there already, or if no supported architecture computes what `config` says.
    """
    if folder.exists():
        raise UserError(f"export: {folder} is there already; name a folder that is not")
    token_ids, is_packed = {}, tokenizer_folder is not None and is_gguf(tokenizer_folder)
    if tokenizer_folder is not None:
        source = tokenizer_folder / "config.json"
        fields = read_json(source) if source.is_file() else {}
        fields = gguf.config_fields(tokenizer_folder) if is_packed else fields
        fields = visual.text_fields(fields)
        names = (*TOKEN_FIELDS, *visual.TOKENS) if config.vision else TOKEN_FIELDS
        token_ids = {name: fields[name] for name in names if name in fields}
    text = json.dumps(model_config_json(config, token_ids), indent=2)
    layouts, tree = file_layouts(config)
    parameters: dict[str, list[tuple[FileLayout, Any]]] = defaultdict(list)
    for layout, x in zip(layouts, tree.flatten_up_to(params), strict=True):
        parameters[layout.name].append((layout, x))

    def values(name: str) -> np.ndarray:
        parts = sorted(parameters[name], key=lambda of: of[0].part)
        whole = [fetch_uncached(x).transpose(layout.axes).reshape(layout.own_shape) for layout, x in parts]
        return np.ascontiguousarray(whole[0] if len(whole) == 1 else np.concatenate(whole))

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text(text + "\n", encoding="utf-8")
    write_tensors(unfinished, {name: sum(x.nbytes for _, x in parts) for name, parts in parameters.items()}, values)
    for file in TOKENIZER_FILES:
        if tokenizer_folder is not None and (tokenizer_folder / file).is_file():
            shutil.copyfile(tokenizer_folder / file, unfinished / file)
    for file, text in gguf.folder_files(tokenizer_folder).items() if is_packed else ():
        (unfinished / file).write_text(text, encoding="utf-8")
    unfinished.rename(folder)


def file_layouts(config: ModelConfig) -> tuple[list[FileLayout], Any]:
    """How each parameter stands in a file, in the order of the tree's leaves, and the tree."""
    specs, tree = jax.tree_util.tree_flatten_with_path(
        parameter_specs(config), is_leaf=lambda x: isinstance(x, ParameterSpec)
    )
    layouts = []
    for path, spec in specs:
        key, sees = path[-1].key, path[0].key == "vision"
        name, groups = (VISION_TENSORS if sees else TENSORS)[key]
        layer = next((step.idx for step in path if hasattr(step, "idx")), None)
        third = (THIRDS[key], 3) if sees and key in THIRDS else ()
        layouts.append(FileLayout(spec, name.format(layer=layer), groups, *third))
    return layouts, tree


def _hub_named(folder: Path, stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Tensors of a model that sees, by the names of the hub's files."""
    named = {visual.hub_name(name): x for name, x in stored.items()}
    if len(named) < len(stored):
        twice = [name for name in stored if named[visual.hub_name(name)].name != name]
        raise UserError(f"{folder}: tensors there under two names: {_some(twice)}")
    return named


def _check(folder: Path, stored: dict[str, StoredTensor], layouts: list[FileLayout], config: ModelConfig) -> None:
    """Raises UserError unless the folder holds exactly the model's tensors."""
    wanted = {layout.name: layout for layout in layouts}
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise UserError(f"{folder}: tensors missing: {_some(missing)}; the model's config asks for them")
    for name, layout in wanted.items():
        if stored[name].shape != layout.file_shape:
            raise UserError(
                f"{stored[name].path}: tensor {name}: its shape is {list(stored[name].shape)}, but by the model's "
                f"config it must be {list(layout.file_shape)}"
            )
    head, embedding = (TENSORS[name][0] for name in ("unembedding", "embedding"))
    extra = [name for name in stored if name not in wanted and not INERT_BUFFER.fullmatch(name)]
    if config.tied_embedding and head in extra:
        extra.remove(head)
        if not equal_tensors(stored[head], stored[embedding]):
            raise UserError(f"{stored[head].path}: tensor {head} differs from {embedding}, but config.json ties them")
    if extra:
        raise UserError(f"{folder}: unexpected tensors: {_some(extra)}; the model's architecture has no place for them")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _load(stored: StoredTensor, layout: FileLayout, sharding: NamedSharding, dtype: np.dtype) -> jax.Array:
    """One parameter onto its devices; each part that differs is read once, whatever number of devices holds it."""
    shape, parts = layout.spec.shape, {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        bounds = tuple(i.indices(n)[:2] for i, n in zip(index, shape, strict=True))
        if bounds not in parts:
            first, *rest = (_merged(bounds, shape, group) for group in layout.groups)
            start = layout.part * layout.own_shape[0]
            ranges = (slice(first.start + start, first.stop + start), *rest)
            array = read_part(stored, ranges, dtype, transposed=layout.axes != tuple(range(len(shape))))
            parts[bounds] = array.reshape([stop - start for start, stop in bounds])
        return parts[bounds]

    # Waited for, so that the host's copy is gone before the next parameter is read.
    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, part))


def _merged(bounds: tuple[tuple[int, int], ...], shape: tuple[int, ...], group: tuple[int, ...]) -> slice:
    """The range of an axis that merges a group of our axes, of which only the first is ever spread over devices."""
    inner = math.prod(shape[axis] for axis in group[1:])
    if any(bounds[axis] != (0, shape[axis]) for axis in group[1:]):
        raise ValueError(f"axes {group[1:]} of a parameter of shape {shape} are split, which no file layout allows")
    start, stop = bounds[group[0]]
    return slice(start * inner, stop * inner)
