"""Batches that are made while the one before is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from torch.utils.data import Dataset


class Numbered(Protocol):
    """Batches by their number, from 0."""

    def __getitem__(self, number: int, /) -> Any: ...


class Batches(Numbered, Protocol):
    """So many of them, each with a method `to` that moves it to a device."""

    def __len__(self) -> int: ...


class Ahead(Dataset[Any]):
    """The same batches, the next one made in a thread: reading and normalizing overlap with the training step.

    A batch depends on its number alone, so that none of them changes. One thread makes all, in turn, for the sake of
    what is no function of the number but a store, such as the order of an epoch.

    Args:
        batches: Asked for in ascending order; in any other order, the batch that was made ahead is thrown away.
        end: The number of the first batch that nobody will ask for.
    """

    def __init__(self, batches: Numbered, end: int) -> None:
        self._batches, self._end = batches, end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="maed-batches")
        self._next: tuple[int, Future[Any]] | None = None

    def __getitem__(self, number: int) -> Any:
        made = self._next
        future = made[1] if made is not None and made[0] == number else self._made(number)
        batch = future.result()
        self._next = (number + 1, self._made(number + 1)) if number + 1 < self._end else None
        return batch

    def _made(self, number: int) -> Future[Any]:
        return self._thread.submit(self._batches.__getitem__, number)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
