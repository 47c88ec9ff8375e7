"""Training on several processes and machines: torch's elastic launcher, started from where the work is asked for."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, record
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hyperformer.config import TrainingSettings
from hyperformer.types import HyperFormerError

log = logging.getLogger(__name__)

SECONDS_TO_MEET = 600  # for all machines to be started
SECONDS_TO_END = 10  # for the other processes when one has died
SECONDS_TO_TELL = timedelta(seconds=5)  # for its cause to reach them
CAUSE = "hyperformer/cause"
GO_ON = "The same command goes on from the last resume state"


def launch(work: Callable[..., None], given: Any, settings: TrainingSettings) -> None:
    """Runs `work(given)` here, or as one rank of several.

    Args:
        work: a function of a module, `given` what can be pickled.
    Raises:
        HyperFormerError: a process died, with its own error; or this one is itself a rank of some launcher.
        SystemExit: with 0, on a machine that only helped.
    """
    if launched():
        raise HyperFormerError(
            f"got a process that a launcher started as one of {os.environ['WORLD_SIZE']}; expected one start on each "
            "machine: set training.processes, training.machines and training.rendezvous, and leave the launcher out"
        )
    if settings.processes * settings.machines == 1:
        work(given)
        return
    config = LaunchConfig(
        min_nodes=settings.machines,
        max_nodes=settings.machines,
        nproc_per_node=settings.processes,
        run_id="hyperformer",
        rdzv_backend="c10d",
        rdzv_endpoint=settings.rendezvous or "localhost:0",
        rdzv_configs={"join_timeout": SECONDS_TO_MEET},
        local_addr=None if settings.rendezvous else "localhost",
        max_restarts=0,
        monitor_interval=0.5,
        shutdown_timeout=SECONDS_TO_END,
    )
    log.info("starting %d processes on each of %d machines", settings.processes, settings.machines)
    if settings.machines > 1:
        log.info("waiting at %s for the others, %d minutes at most", settings.rendezvous, SECONDS_TO_MEET // 60)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it knows is said below
    try:
        done = elastic_launch(config, _rank)(work, given)
    except ChildFailedError as error:
        raise HyperFormerError(_said(error.failures, settings)) from None
    except SignalException as error:
        name = signal.Signals(error.sigval).name
        raise HyperFormerError(f"training was ended by {name}. {GO_ON}") from None
    except RendezvousError as error:
        raise HyperFormerError(
            f"the machines did not meet at training.rendezvous, {settings.rendezvous} ({error}); see that its name "
            "is the first machine's, its port free and open, and that every machine was started within "
            f"{SECONDS_TO_MEET // 60} minutes"
        ) from None
    if 0 not in done:
        log.info("this machine's part is done; the first one writes the checkpoint")
        raise SystemExit(0)


@record
def _rank(work: Callable[..., None], given: Any) -> None:
    """One process of the run."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    first = os.environ["RANK"] == "0"
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.INFO if first else logging.ERROR)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    try:
        work(given)
    except Exception as error:
        raise HyperFormerError(_cause(error)) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _end_with(launcher: int) -> None:
    """Ends this process when its launcher is gone: nobody would wait for what it goes on to write."""
    while os.getppid() == launcher:
        time.sleep(1)
    os._exit(1)


def _cause(error: Exception) -> str:
    """What ended the run: this process's own error, or that of the one whose death it has noticed."""
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=SECONDS_TO_TELL
    )
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        store.wait([CAUSE])  # if it was killed, it tells nothing, and the launcher notices meanwhile
    else:
        known = isinstance(error, HyperFormerError)
        words = str(error) if known else f"{type(error).__name__}: {error}"
        store.compare_set(CAUSE, "", f"{_named(rank(), int(os.environ['WORLD_SIZE']))}: {words}")
    return str(store.get(CAUSE).decode())


def _named(number: int, ranks: int) -> str:
    return f"process {number} of {ranks} on {socket.gethostname()}"


def _said(failures: dict[int, ProcessFailure], settings: TrainingSettings) -> str:
    """What ended the run, out of what is known of the processes that failed."""
    told = [words for failure in failures.values() for words in [_told(failure)] if words]
    if not told:
        number, failure = next(iter(failures.items()))
        named = _named(number, settings.processes * settings.machines)
        how = failure.signal_name() if failure.exitcode < 0 else f"exit status {failure.exitcode}"
        told = [f"{named}: was ended by {how}; see that there is memory for every process. {GO_ON}"]
    return f"training stopped, {told[0]}"


def _told(failure: ProcessFailure) -> str:
    """The words of the error that a process wrote down before it ended."""
    message = (failure.error_file_data or {}).get("message", "")
    words = message.get("message", "") if isinstance(message, dict) else message
    return str(words).partition(f"{HyperFormerError.__name__}: ")[2]


def launched() -> bool:
    """Whether this process is one of several that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def gathered(value: Any) -> list[Any]:
    """The values of all ranks, in their order; of a single process, its own."""
    if not dist.is_initialized():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def rank() -> int:
    """This process's number; 0 where there is only one."""
    return int(os.environ["RANK"]) if launched() else 0
