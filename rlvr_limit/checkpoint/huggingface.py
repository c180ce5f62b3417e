"""A Hugging Face folder (config.json, safetensors, tokenizer files) <-> parameters on a mesh."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rlvr_limit.distributed.mesh import on_host, parameter_shardings
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, Params, parameter_specs
from rlvr_limit.types import UserError

from .architecture import TOKEN_FIELDS, model_config_json, read_json
from .tensors import Draft, Stored, find_tensors, plan_files, read_part, same_values, write_file, write_index

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

INERT_BUFFER = re.compile(r"(model\.layers\.\d+\.self_attn|model)\.rotary_emb\.inv_freq")
"""Written by old versions of transformers and read by none: rope_theta says the same."""

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


class Place(NamedTuple):
    """One parameter: its spec, its name in a file, and the axes there (see TENSORS)."""

    spec: ParameterSpec
    name: str
    groups: tuple[tuple[int, ...], ...]

    @property
    def file_shape(self) -> tuple[int, ...]:
        return tuple(math.prod(self.spec.shape[axis] for axis in group) for group in self.groups)

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(axis for group in self.groups for axis in group)


def load_hf(folder: Path, config: ModelConfig, mesh: Mesh) -> Params:
    """Weights of a folder in Hugging Face format in config.dtype, each read from its file straight onto the mesh.

    Beside what already lies on devices, the host holds no more than one parameter. Raises UserError naming the file
    that is missing or cut off, or the tensor that is missing, unexpected or of a wrong shape.
    """
    stored = find_tensors(folder)
    places, tree = places_of(config)
    _check(folder, stored, places, config)
    shardings = jax.tree.leaves(parameter_shardings(parameter_specs(config), mesh))
    leaves: list[Any] = [None] * len(places)
    # Largest first: the one host copy is then never on top of all the rest.
    for i in sorted(range(len(places)), key=lambda i: -math.prod(places[i].spec.shape)):
        leaves[i] = _load(stored[places[i].name], places[i], shardings[i], jax.numpy.dtype(config.dtype))
    return tree.unflatten(leaves)


def export_hf(folder: Path, params: Params, config: ModelConfig, tokenizer_folder: Path | None = None) -> None:
    """Writes weights as a folder that transformers, vLLM and load_hf open; it appears whole or not at all.

    Tensors keep their dtype and bits. Tokenizer files, generation_config.json and token ids come from tokenizer_folder.
    Raises UserError if the folder is there already, or if no supported architecture computes what `config` says.
    """
    if folder.exists():
        raise UserError(f"export: {folder} is there already; a folder that is not would be right")
    token_ids = {}
    if tokenizer_folder is not None:
        source = tokenizer_folder / "config.json"
        fields = read_json(source) if source.is_file() else {}
        token_ids = {name: fields[name] for name in TOKEN_FIELDS if name in fields}
    text = json.dumps(model_config_json(config, token_ids), indent=2)
    places, tree = places_of(config)
    leaves = dict(zip((place.name for place in places), tree.flatten_up_to(params), strict=True))
    by_name = {place.name: place for place in places}
    drafts = [Draft(p.name, leaves[p.name].dtype, p.file_shape) for p in places]

    def values(draft: Draft) -> np.ndarray:
        return on_host(leaves[draft.name]).transpose(by_name[draft.name].axes).reshape(draft.shape)

    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text(text + "\n", encoding="utf-8")
    files = plan_files(drafts)
    for file, part in files:
        write_file(unfinished / file, part, values)
    write_index(unfinished, files)
    for file in TOKENIZER_FILES:
        if tokenizer_folder is not None and (tokenizer_folder / file).is_file():
            shutil.copyfile(tokenizer_folder / file, unfinished / file)
    unfinished.rename(folder)


def places_of(config: ModelConfig) -> tuple[list[Place], Any]:
    """Where each parameter stands in a file, in the order of the tree's leaves, and the tree."""
    specs = parameter_specs(config)
    found, tree = jax.tree_util.tree_flatten_with_path(specs, is_leaf=lambda x: isinstance(x, ParameterSpec))
    places = []
    for path, spec in found:
        name, groups = TENSORS[path[-1].key]
        places.append(Place(spec, name.format(layer=path[1].idx) if len(path) > 1 else name, groups))
    return places, tree


def _check(folder: Path, stored: dict[str, Stored], places: list[Place], config: ModelConfig) -> None:
    wanted = {place.name: place for place in places}
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise UserError(f"{folder}: tensors missing: {_some(missing)}; config.json asks for them")
    for name, place in wanted.items():
        if stored[name].shape != place.file_shape:
            raise UserError(
                f"{stored[name].path}: tensor {name}: found shape {list(stored[name].shape)}, "
                f"but {list(place.file_shape)} would be right by config.json"
            )
    head, embedding = (TENSORS[name][0] for name in ("unembedding", "embedding"))
    extra = [name for name in stored if name not in wanted and not INERT_BUFFER.fullmatch(name)]
    if config.tied_embedding and head in extra:
        extra.remove(head)
        if not same_values(stored[head], stored[embedding]):
            raise UserError(f"{stored[head].path}: tensor {head} differs from {embedding}, but config.json ties them")
    if extra:
        raise UserError(
            f"{folder}: unexpected tensors: {_some(extra)}; config.json's architecture has no place for them"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _load(stored: Stored, place: Place, sharding: NamedSharding, dtype: np.dtype) -> jax.Array:
    """One parameter onto its devices; each part that differs is read once, whatever number of devices holds it."""
    shape, parts = place.spec.shape, {}

    def part(index: tuple[slice, ...]) -> np.ndarray:
        bounds = tuple(i.indices(n)[:2] for i, n in zip(index, shape, strict=True))
        if bounds not in parts:
            ranges = [_merged(bounds, shape, group) for group in place.groups]
            rows, columns = ranges if len(ranges) == 2 else (*ranges, slice(0, 1))
            array = read_part(stored, rows, columns, dtype, transposed=place.axes != tuple(range(len(shape))))
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
