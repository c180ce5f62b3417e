"""Programs compiled in threads of their own, before they are called and beside whatever else is done."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from jax.stages import Lowered

THREADS = 4
"""Programs compiled at a time. Tracing takes turns, and XLA spreads the rest over all cores by itself."""


class Ahead:
    """Compiles each program once; jit finds it when it is called with the same arguments."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "compile")
        self._begun: dict[Hashable, Future[None]] = {}

    def begin(self, name: Hashable, lower: Callable[[], Lowered]) -> None:
        """Begins to compile what lower gives, unless that has begun."""

        def work() -> None:
            lower().compile()

        if name not in self._begun:
            self._begun[name] = self._threads.submit(work)

    def wait(self, name: Hashable) -> None:
        """Returns once a program that has begun is ready. Raises what the compiler raised."""
        self._begun[name].result()
