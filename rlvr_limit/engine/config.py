"""Settings of the sampling engine. Imports no device program, so that settings can be read without them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineConfig:
    """Shapes of the engine's compiled programs."""

    max_num_seqs: int = 256  # sequences that are alive at once
    steps_per_call: int = 8  # decode steps between two looks of the host
    page_size: int = 32  # tokens of a cache page: 16 or more, rounded up to whole calls
    cache_tokens: int = (
        0  # what all pages hold; 0: room for every sequence's longest sample and for prefix_rows prompts
    )
    cache_dtype: str = ""  # "int8" halves the cache and changes what is sampled; "": the model's dtype
    buckets: tuple[int, ...] = ()  # batch sizes that programs are compiled for; (): one of max_num_seqs
    min_shared_prefix: int = 64  # prompts of so many tokens are read once for all their rows; accelerators: any prompt
    # About the tokens the machine computes while it reads the weights once. Batches of up to speculative_tokens /
    # steps_per_call rows guess a whole call from other samples of the problem and verify it at once. 0 is off: with
    # guesses a sample depends, within rounding, on what was guessed.
    speculative_tokens: int = 0
    max_prompt_len: int = 16  # tokens of the longest prompt
    prefill_rows: int = 16  # prompts that are prefilled at once
    prefix_rows: int = 64  # prompts that the cache has room for
    reference: bool = False  # always tiles of 64 rows: samples are bitwise the same for any max_num_seqs
