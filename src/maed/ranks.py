"""Processes that share one command, as `torchrun` or Slurm's `srun` starts them. Importing it costs nothing.

All are started with the same command. Process 0 does what a single one would, and alone writes and speaks. The others
read the same data, then wait for jobs: where work can be divided, process 0 hands them a function that they call with
their own context (`together`). They wait by asking the store of the rendezvous, so a stage that process 0 does alone
may take days. What ends one process ends all, with one line from the first that knows why, and exit code 2.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from maed.errors import MaedError

if TYPE_CHECKING:
    from torch import Tensor

Job = Callable[[Any], object]
"""Work for all processes: called with the context of the verb, the same in all of them. It is pickled."""

_OPERATION = timedelta(minutes=30)
"""Longest that a sum over processes may take, the wait for the slowest of them included."""

_GRACE = 3.0
"""Seconds between the line that says why all end, and the end: for what is being saved."""

_LOST = re.compile(
    r"connection (was )?(likely )?(closed|reset|refused|aborted)|broken pipe|timed out|socket|nccl|remote|gloo"
    r"|failed to (recv|send)",
    re.I,
)
"""What gloo, NCCL and the store say when another process is gone."""

_FAILED = "failed"


@dataclass(frozen=True)
class Place:
    """A process among those that share the command.

    Args:
        rank: Its number, from 0.
        world: Processes in all.
        local: Its number on its machine.
        here: Processes on its machine.
        address, port: Where they meet, on the machine of process 0.
    """

    rank: int
    world: int
    local: int
    here: int
    address: str
    port: int

    @property
    def machines(self) -> int:
        """Number of machines."""
        return self.world // self.here


@dataclass
class _Crew:
    place: Place
    store: Any
    threads: int  # of PyTorch, in a job
    alone: int  # of process 0, by itself
    jobs: int = 0
    ending: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


_crew: _Crew | None = None
_alone = False
"""Whether this process did not find process 0, which would have said the same."""


class Served(Exception):
    """Raised in processes other than 0 once the command is done."""


def place() -> Place | None:
    """This process by the environment of `torchrun` or of a step of Slurm's `srun`; None if it is the only one.

    Raises:
        MaedError: Variables that are missing or contradict one another.
    """
    env = os.environ
    if "RANK" in env and "WORLD_SIZE" in env:
        rank, world = _number("RANK"), _number("WORLD_SIZE")
        local = _number("LOCAL_RANK") if "LOCAL_RANK" in env else rank
        here = _number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in env else world
        address, port = env.get("MASTER_ADDR", ""), _number("MASTER_PORT") if "MASTER_PORT" in env else 0
    elif "SLURM_PROCID" in env and "SLURM_STEP_NUM_TASKS" in env:  # the second is there in steps of `srun` alone
        rank, world, local = _number("SLURM_PROCID"), _number("SLURM_STEP_NUM_TASKS"), _number("SLURM_LOCALID")
        each = re.match(r"\d+", env.get("SLURM_STEP_TASKS_PER_NODE", ""))  # such as 4(x2)
        here = int(each[0]) if each else world
        nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "")
        first = re.sub(r"\[(\d+).*", r"\1", nodes.partition(",")[0])  # gpu[07-09,12] begins with gpu07
        address = env.get("MASTER_ADDR") or first
        port = int(env.get("MASTER_PORT") or 15_000 + int(env.get("SLURM_JOB_ID", "0")) % 10_000)
    else:
        return None
    if world == 1:
        return None
    if not address or not port:
        raise MaedError(
            f"MASTER_ADDR must be the machine where the {world} processes meet, and MASTER_PORT a port there, got "
            f"{address!r} and {port}"
        )
    if rank >= world or world % here:
        raise MaedError(
            f"WORLD_SIZE must be above RANK and the same number of processes on each machine, got {world} "
            f"processes, {here} of them here, and RANK {rank}"
        )
    return Place(rank, world, local, here, address, port)


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        raise MaedError(f"{name} must be a whole number, got {os.environ.get(name)!r}") from None


def hush() -> None:
    """Keep from the terminal what PyTorch's C++ logs of lost connections, traces included; before it is imported."""
    if "WORLD_SIZE" in os.environ or "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")


def here() -> Place | None:
    """This process among those that were started together; None if it works alone."""
    return None if _crew is None else _crew.place


def rank() -> int:
    """Number of this process, from 0."""
    return 0 if _crew is None else _crew.place.rank


def world() -> int:
    """Number of processes that work together."""
    return 1 if _crew is None else _crew.place.world


def start(timeout: float, *, cuda: bool, threads: int | None = None) -> None:
    """Meet the other processes, where the environment says that there are others.

    Args:
        timeout: Seconds until it is given up.
        cuda: Use the GPU with the local number of this process, if there are GPUs.
        threads: CPU threads that somebody has asked for; those of process 0 are then the same at all times.

    Raises:
        MaedError: They do not all come.
    """
    global _alone, _crew
    if (found := place()) is None or _crew is not None:
        return

    def give_up() -> None:
        print(f"maed: {_not_met(found, timeout, 'no connection between processes')}", file=sys.stderr, flush=True)
        os._exit(2)

    _alone = True
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's agent holds the store
    if agents or found.rank:
        _reach(found, timeout)
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if cuda and torch.cuda.is_available():
        if found.here > torch.cuda.device_count():
            raise MaedError(
                f"trainer.accelerator must be cpu if a machine has more processes than GPUs, all of which each process "
                f"must see, got {found.here} processes and {torch.cuda.device_count()} GPUs"
            )
        torch.cuda.set_device(found.local)
    else:
        cuda = False
    names = {"RANK": found.rank, "WORLD_SIZE": found.world, "MASTER_ADDR": found.address, "MASTER_PORT": found.port}
    os.environ.update({name: str(value) for name, value in names.items()})
    patience = timedelta(seconds=timeout)
    watch = threading.Timer(timeout + _GRACE, give_up)  # gloo has one timeout for meeting and for everything later
    watch.daemon = True
    watch.start()
    missing = list(range(found.world))
    try:
        store, _, _ = next(rendezvous("env://", timeout=patience))
        _alone = agents  # otherwise process 0 holds the store
        store.set(f"here {found.rank}", "")
        until = time.monotonic() + timeout
        while missing := [other for other in missing if not store.check([f"here {other}"])]:
            _alone = agents and 0 in missing
            if time.monotonic() > until:
                raise _not_met(found, timeout, f"missing: {', '.join(map(str, missing))}")
            time.sleep(0.05)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=PrefixStore("group", store),
            rank=found.rank,
            world_size=found.world,
            timeout=_OPERATION,
        )
    except MaedError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        raise _not_met(found, timeout, _first_line(error)) from None
    finally:
        watch.cancel()
    own = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else own
    # torchrun gives each process one thread; a process that is bound to some cores has no others
    _crew = _Crew(found, store, own, own if threads else max(own, min(cores, own * found.here)))
    if found.rank == 0:
        import scipy.linalg  # noqa: F401 - whose BLAS, once loaded, heeds the number of threads

        _use(_crew.alone)
    _mind_sigterm()


def _use(threads: int) -> None:
    """Let PyTorch, and the BLAS of NumPy and of SciPy, use so many threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads, user_api="blas")


def _not_met(place: Place, timeout: float, reason: str) -> MaedError:
    return MaedError(
        f"rendezvous: the {place.world} processes did not meet at {place.address}:{place.port} in {timeout:g} s "
        f"({reason}); start all of them, and see that every machine reaches that address (trainer.rendezvous_timeout)"
    )


def _reach(place: Place, timeout: float) -> None:
    """Wait until somebody listens where the processes meet: torch's own attempts fill the terminal."""
    until = time.monotonic() + timeout
    while True:
        try:
            left = max(0.1, until - time.monotonic())
            socket.create_connection((place.address, place.port), timeout=left).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise _not_met(place, timeout, error.strerror or str(error)) from None
            time.sleep(min(0.2, timeout))


def _mind_sigterm() -> None:
    """End with a line where SIGTERM comes: so `torchrun` and `srun` end processes when another was lost.

    By a thread, for the main one may be waiting for a process that is gone.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def mind() -> None:
        while os.read(read, 1) != bytes([signal.SIGTERM]):
            pass
        line = str(_gone("this one was ended by SIGTERM, as when another was lost"))
        if speaks(line, gone=True):
            print(f"maed: {line}", file=sys.stderr, flush=True)
        time.sleep(_GRACE)  # the main thread may have noticed too, and be saving
        os._exit(2)

    threading.Thread(target=mind, daemon=True).start()


def _gone(reason: str) -> MaedError:
    return MaedError(
        f"processes: {reason}; run the same command again, with any number of processes: it continues from what "
        "finished stages and checkpoints hold"
    )


def lost(error: BaseException) -> MaedError | None:
    """The error for a process that is gone, where that is what `error` says; otherwise None."""
    if _crew is None or not isinstance(error, RuntimeError) or not _LOST.search(str(error)):
        return None
    others = [other for other in range(world()) if other != rank()]
    who = f"process {others[0]} of 2" if len(others) == 1 else f"one of {world()} processes"
    return _gone(f"{who} was lost ({_first_line(error)})")


def ending() -> bool:
    """True if this process is told to end, or has said why it does."""
    return _crew is not None and _crew.ending


def speaks(line: str, *, gone: bool = False) -> bool:
    """True if this process is to print why all end: the first one that knows it, once.

    Args:
        line: Why.
        gone: That another process was lost is all that it says.
    """
    if _crew is None:
        try:
            found = place()
        except MaedError:
            return True
        return found is None or found.rank == 0 or _alone  # what is refused before they meet, all refuse
    with _crew.lock:
        if _crew.ending:
            return False
        _crew.ending = True
    mine = f"{rank()} {line}"
    try:
        return _crew.store.compare_set(_FAILED, "", mine).decode() == mine
    except RuntimeError:  # the store went with process 0, which was lost or has said why
        return gone or rank() == 0


def leave(*, done: bool, gone: bool = False) -> None:
    """End working together. Process 0 waits for the others, which may need the store that it holds.

    Args:
        done: The command is done. Otherwise it failed, which others are told by `speaks`.
        gone: Because another process was lost.
    """
    global _crew
    if _crew is None:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to all once the first has ended
    crew, until = _crew, time.monotonic() + (60.0 if done else _GRACE)
    try:
        if rank() == 0 and done:
            _hand(None)
        left = crew.store.add("left", 1)
        left += gone  # at least one does not come
        while rank() == 0 and left < world() and time.monotonic() < until:
            time.sleep(0.02)
            left = crew.store.add("left", 0)
        if done:
            from torch import distributed

            distributed.destroy_process_group()
    except RuntimeError:  # all is said
        pass
    finally:
        _crew = None


@contextmanager
def together(job: Job) -> Iterator[None]:
    """Hand a job to all other processes while process 0 does its own part. Nothing where there are no others.

    Process 0 then has its share of the cores; by itself it has those that the others on its machine leave idle.
    """
    if _crew is None or rank():
        yield
        return
    _hand(job)
    _use(_crew.threads)
    try:
        yield
    finally:
        if _crew is not None:
            _use(_crew.alone)


def _hand(job: Job | None) -> None:
    from torch import device, distributed

    assert _crew is not None
    _crew.jobs += 1
    _crew.store.set(f"job {_crew.jobs}", "")
    distributed.broadcast_object_list([job], src=0, device=device("cpu"))


def work(context: Any) -> None:
    """Do the jobs that process 0 hands out, until the command is done.

    Raises:
        Served: It is done.
        MaedError: Another process has ended.
    """
    from torch import device, distributed

    assert _crew is not None
    while True:
        _crew.jobs += 1
        _wait_for(f"job {_crew.jobs}", 0.05)
        handed: list[Any] = [None]
        distributed.broadcast_object_list(handed, src=0, device=device("cpu"))
        if handed[0] is None:
            raise Served
        handed[0](context)


def _wait_for(key: str, pause: float) -> None:
    assert _crew is not None
    while not _crew.store.check([key]):
        if _crew.store.check([_FAILED]):
            raise MaedError("processes: another process has ended")  # it has said why
        time.sleep(pause)


def agreed(value: Any) -> Any:
    """What process 0 found, in all processes of a job."""
    if _crew is None:
        return value
    from torch import device, distributed

    held = [value]
    distributed.broadcast_object_list(held, src=0, device=device("cpu"))
    return held[0]


def gathered(value: Any) -> list[Any]:
    """What each process of a job found, by rank, in process 0; elsewhere nothing."""
    if _crew is None:
        return [value]
    from torch import distributed

    found = [None] * world() if rank() == 0 else None
    distributed.gather_object(value, found)
    return found or []


def add_up(tensors: list[Tensor]) -> list[Tensor]:
    """The sums over all processes, on the CPU; of use in process 0 alone."""
    held = [tensor.to("cpu", copy=True) for tensor in tensors]
    if _crew is not None:
        from torch import distributed

        for tensor in held:
            distributed.reduce(tensor, dst=0)
    return held


class Legs:
    """Numbers that the processes of one job take from one another, leg by leg: who is quicker takes more.

    Process 0 begins each leg; the others follow. After a leg, and before the next, all can add up.
    """

    def __init__(self) -> None:
        assert _crew is not None
        self._crew, self._leg, self._name = _crew, 0, f"leg {_crew.jobs}"

    def begin(self, numbers: range | None) -> None:
        """Process 0: the numbers of the next leg, or None after the last."""
        text = "" if numbers is None else f"{numbers.start} {numbers.stop}"
        self._crew.store.set(f"{self._name} {self._leg + 1}", text)

    def follow(self) -> Iterator[range]:
        """The others: one leg after the other, each to be taken from before the next is asked for."""
        while True:
            key = f"{self._name} {self._leg + 1}"
            _wait_for(key, 0.005)
            found = self._crew.store.get(key).decode()
            if not found:
                return
            start, stop = map(int, found.split())
            yield range(start, stop)

    def taken(self, numbers: range) -> Iterator[int]:
        """The numbers of this leg that fall to this process."""
        self._leg += 1
        counter = f"{self._name} {self._leg} taken"
        while (number := numbers.start + self._crew.store.add(counter, 1) - 1) < numbers.stop:
            yield number


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    text = re.sub(r"^\[[^\]]*\.(cpp|cc|h):\d+\] ", "", text)  # the place in gloo's code
    return re.split(r"\. This is typically", text)[0].rstrip(".")
