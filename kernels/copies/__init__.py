"""Rows copied out of an array and into one, where XLA would widen the whole array to do so. Legend: reference.py."""

from __future__ import annotations

from functools import partial

import jax

from kernels.copies import native, reference
from kernels.platforms import by_platform


def take(x: jax.Array, at: jax.Array) -> jax.Array:
    """reference.take, by what is fast on the platform that the program is compiled for; so is its gradient."""
    plain = reference.take
    if not native.takes(x):
        return plain(x, at)

    def look_up(x: jax.Array, at: jax.Array) -> jax.Array:
        return by_platform(x, at, default=plain, cpu=native.take, tpu=plain, cuda=plain)

    def backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, None]:
        x, at = kept
        (x_bar,) = jax.vjp(lambda x: plain(x, at), x)[1](cotangent)
        return x_bar, None

    rows = jax.custom_vjp(look_up)
    rows.defvjp(lambda x, at: (look_up(x, at), (x, at)), backward)
    return rows(x, at)


def put(old: jax.Array, new: jax.Array, at_N: jax.Array, offset_N: jax.Array, axis: int) -> jax.Array:
    """reference.put, by what is fast on the platform that the program is compiled for."""
    plain = partial(reference.put, axis=axis)
    if not native.takes(old):
        return plain(old, new, at_N, offset_N)
    on_cpu = partial(native.put, axis=axis)
    return by_platform(old, new, at_N, offset_N, default=plain, cpu=on_cpu, tpu=plain, cuda=plain)


def update(old: jax.Array, new: jax.Array, offset: jax.Array, axis: int) -> jax.Array:
    """reference.update, by what is fast on the platform that the program is compiled for."""
    plain = partial(reference.update, axis=axis)
    if not native.takes(old):
        return plain(old, new, offset)
    on_cpu = partial(native.update, axis=axis)
    return by_platform(old, new, offset, default=plain, cpu=on_cpu, tpu=plain, cuda=plain)
