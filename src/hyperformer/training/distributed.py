"""Training on several processes and machines, started by PyTorch's elastic launcher in the calling process."""

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

from torch import distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, record
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hyperformer.core.cpus import use_threads
from hyperformer.core.errors import HyperFormerError
from hyperformer.settings import TrainingSettings

log = logging.getLogger(__name__)

JOIN_SECONDS = 600  # time limit for all machines to join the rendezvous
SHUTDOWN_SECONDS = 10  # time limit for the other processes to end after one has failed
CAUSE_TIMEOUT = timedelta(seconds=5)  # time limit for the error of a failed process to reach the others
CAUSE = "hyperformer/cause"
RESUME_ADVICE = "Run the same command again to resume from the last resume state."


def launch(function: Callable[..., None], argument: Any, settings: TrainingSettings, threads: int) -> None:
    """Run `function(argument)` in this process, or in every process of a distributed run.

    Args:
        function: the function; it must be picklable, so it must be defined at the top level of a module.
        argument: the argument of the function; it must be picklable.
        settings: the training settings; `processes`, `machines` and `rendezvous` are used.
        threads: CPU threads on this machine, which its processes share.

    Raises:
        HyperFormerError: if a process fails (the message has its error), the machines cannot connect, a signal stops
            the run, or a launcher such as torchrun started this process.
        KeyboardInterrupt: on Ctrl-C.
        SystemExit: with status 0, on every machine but the first.
    """
    if is_distributed():
        raise HyperFormerError(
            f"this process is one of {os.environ['WORLD_SIZE']} that a launcher started; expected one start on each "
            "machine. Run without the launcher, and set training.processes, training.machines and training.rendezvous."
        )
    if settings.processes * settings.machines == 1:
        function(argument)
        return
    config = LaunchConfig(
        min_nodes=settings.machines,
        max_nodes=settings.machines,
        nproc_per_node=settings.processes,
        run_id="hyperformer",
        rdzv_backend="c10d",
        rdzv_endpoint=settings.rendezvous or "localhost:0",
        rdzv_configs={"join_timeout": JOIN_SECONDS},
        local_addr=None if settings.rendezvous else "localhost",
        max_restarts=0,
        monitor_interval=0.5,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    log.info("starting %d processes on each of %d machines", settings.processes, settings.machines)
    if settings.machines > 1:
        log.info("waiting at %s for the other machines, at most %d minutes", settings.rendezvous, JOIN_SECONDS // 60)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its errors are reported below
    try:
        results = elastic_launch(config, _run_rank)(function, argument, threads)
    except ChildFailedError as error:
        raise HyperFormerError(_failure_message(error.failures, settings)) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        name = signal.Signals(error.sigval).name
        raise HyperFormerError(f"training was stopped by {name}. {RESUME_ADVICE}") from None
    except RendezvousError as error:
        raise HyperFormerError(
            f"cannot connect the machines at training.rendezvous, {settings.rendezvous} ({error}); expected every "
            f"machine to join within {JOIN_SECONDS // 60} minutes. Check that it names the first machine, and that its "
            "port is free and open."
        ) from None
    if 0 not in results:
        log.info("this machine is done; the first machine writes the checkpoint")
        raise SystemExit(0)


@record
def _run_rank(function: Callable[..., None], argument: Any, threads: int) -> None:
    """Run the function in one process of the run."""
    threading.Thread(target=_exit_with, args=(os.getppid(),), daemon=True).start()
    first = os.environ["RANK"] == "0"
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("hyperformer").setLevel(logging.INFO if first else logging.ERROR)
    use_threads(max(1, threads // int(os.environ["LOCAL_WORLD_SIZE"])))
    try:
        function(argument)
    except Exception as error:
        raise HyperFormerError(_find_cause(error)) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _exit_with(launcher: int) -> None:
    """Exit when the launcher is gone, so that no orphan keeps training."""
    while os.getppid() == launcher:
        time.sleep(1)
    os._exit(1)


def _find_cause(error: Exception) -> str:
    """Return the error message of the first process that failed, which may be another process."""
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=CAUSE_TIMEOUT
    )
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        store.wait([CAUSE])  # a killed process stores nothing; the launcher notices it in the meantime
    else:
        known = isinstance(error, HyperFormerError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        store.compare_set(CAUSE, "", f"{_process_name(get_rank(), int(os.environ['WORLD_SIZE']))}: {message}")
    return str(store.get(CAUSE).decode())


def _process_name(number: int, ranks: int) -> str:
    return f"process {number} of {ranks} on {socket.gethostname()}"


def _failure_message(failures: dict[int, ProcessFailure], settings: TrainingSettings) -> str:
    """Return the error message of a run from the failures of its processes."""
    messages = [message for failure in failures.values() for message in [_reported_error(failure)] if message]
    if not messages:
        number, failure = next(iter(failures.items()))
        name = _process_name(number, settings.processes * settings.machines)
        status = failure.signal_name() if failure.exitcode < 0 else f"exit status {failure.exitcode}"
        messages = [
            f"{name}: ended with {status}. Check that there is enough memory for every process. {RESUME_ADVICE}"
        ]
    return f"training stopped in {messages[0]}"


def _reported_error(failure: ProcessFailure) -> str:
    """Return the message of the `HyperFormerError` that a process recorded; empty if it recorded no such error."""
    message = (failure.error_file_data or {}).get("message", "")
    text = message.get("message", "") if isinstance(message, dict) else message
    return str(text).partition(f"{HyperFormerError.__name__}: ")[2]


def is_distributed() -> bool:
    """Return whether this process is one of several that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def all_gather(value: Any) -> list[Any]:
    """Return the values of all ranks, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def get_rank() -> int:
    """Return the rank of this process, or 0 if there is only one process."""
    return int(os.environ["RANK"]) if is_distributed() else 0
