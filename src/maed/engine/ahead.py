"""Batches that are made while the one before is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol


class Batches(Protocol):
    """Batches by their number, from 0, each with a method `to` that moves it to a device."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class Ahead:
    """The same batches, the next one made in a thread: reading and normalizing overlap with the training step.

    A batch depends on its number alone, so that none of them changes. One thread makes all, in turn, for the sake of
    what is no function of the number but a store, such as the order of an epoch.

    Args:
        batches: Asked for in ascending order; in any other order, the batch that was made ahead is thrown away.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="maed-batches")
        self._next: tuple[int, Future[Any]] | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Any:
        made = self._next
        future = made[1] if made is not None and made[0] == number else self._made(number)
        batch = future.result()
        self._next = (number + 1, self._made(number + 1)) if number + 1 < len(self) else None
        return batch

    def _made(self, number: int) -> Future[Any]:
        return self._thread.submit(self._batches.__getitem__, number)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
