"""Open a graph with a provider: ONNX Runtime on the CPU or on a CUDA GPU, or OpenVINO on the CPU."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from hyperformer.core.errors import HyperFormerError
from hyperformer.runtime.files import convert_errors, list_graph_files

Provider = Literal["cpu", "cuda", "openvino"]
CUDA = "CUDAExecutionProvider"
FATAL = 4
"""onnxruntime's log level for fatal errors only; at lower levels, it also prints the errors that it raises."""
CONSTANTS_FOLDER_OPTION = "session.model_external_initializers_file_folder_path"
"""onnxruntime's option for the folder of a graph's external constants; the default is the working directory."""
NO_FOLDER = os.devnull
"""A path that holds no files, so that constants come from verified bytes only."""


class Session(Protocol):
    """A loaded graph; the interface is the part of `onnxruntime.InferenceSession` that bundles use."""

    def get_outputs(self) -> Sequence[Any]:
        """Return the outputs, each with `name` and `shape`."""

    def run(self, names: Sequence[str], inputs: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """Return the outputs of these names."""


def open_session(
    graph: Path, contents: Mapping[str, bytes], threads: int | None, provider: Provider = "cpu"
) -> Session:
    """Open a graph from its bytes, without reading a file.

    Args:
        graph: path of the graph, for messages; `contents` has the graph's bytes under its file name.
        contents: bytes of the graph and of the files of its external constants, by file name.
        threads: number of CPU threads; None for the provider's default.
        provider: what runs the graph.

    Returns:
        The session; thread-safe.

    Raises:
        HyperFormerError: the provider is not installed or has no device, or it cannot open the graph.
    """
    names = list_graph_files(graph.name, contents)
    files = {name: contents[name] for name in names}
    if provider == "openvino":
        return OpenVINOSession(graph, files, threads)
    return _open_onnxruntime(graph, files, threads, provider)


def _open_onnxruntime(graph: Path, files: Mapping[str, bytes], threads: int | None, provider: Provider) -> Session:
    options = onnxruntime.SessionOptions()
    # the memory of both grows with every new batch length, and inference is as fast without them
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    options.log_severity_level = FATAL  # onnxruntime warns of each input of a shared graph
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry(CONSTANTS_FOLDER_OPTION, NO_FOLDER)
    data = {name: content for name, content in files.items() if name != graph.name}
    if data:
        options.add_external_initializers_from_files_in_memory(
            list(data), list(data.values()), list(map(len, data.values()))
        )
    if provider == "cuda" and CUDA not in onnxruntime.get_available_providers():
        raise HyperFormerError(
            "the provider cuda requires onnxruntime-gpu in place of onnxruntime, which is not installed. Install "
            "it, or use the provider cpu."
        )
    providers = [*([CUDA] if provider == "cuda" else []), "CPUExecutionProvider"]
    retry = 0  # a retry would use the same provider, and print a message
    session = convert_errors(
        lambda: onnxruntime.InferenceSession(files[graph.name], options, providers=providers, enable_fallback=retry),
        f"{graph} cannot be opened",
    )
    if provider == "cuda" and CUDA not in session.get_providers():
        raise HyperFormerError(
            "the provider cuda found no GPU that onnxruntime-gpu can use. Check the driver, CUDA and cuDNN, or use the "
            "provider cpu."
        )
    session._model_bytes = None  # the session would keep them for its lifetime
    opened: Session = session
    return opened


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        HyperFormerError: it is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise HyperFormerError(
            "the provider openvino requires the package openvino, which is not installed. Install hyperformer with the "
            "extra 'openvino', or use the provider cpu."
        ) from None
    return openvino


def choose_openvino_precision(core: Any) -> str:
    """Return the precision that OpenVINO computes in on this CPU: `bf16` if it has instructions for it, else `f32`."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class OpenVINOSession:
    """A graph that OpenVINO runs on the CPU, in bf16 if the CPU has instructions for it, else in float32; thread-safe.

    Args:
        graph: path of the graph, for messages.
        files: bytes of the graph and of the files of its external constants, by file name.
        threads: number of CPU threads; None for OpenVINO's default.

    Raises:
        HyperFormerError: OpenVINO is not installed, or cannot open the graph.
    """

    def __init__(self, graph: Path, files: Mapping[str, bytes], threads: int | None) -> None:
        core = import_openvino().Core()
        self.precision = choose_openvino_precision(core)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        with tempfile.TemporaryDirectory() as folder:  # OpenVINO reads external constants from files only
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            self._model = convert_errors(
                lambda: core.compile_model(Path(folder) / graph.name, "CPU", {**options, "ENABLE_MMAP": False}),
                f"{graph} cannot be opened by OpenVINO",
            )
        self._local = threading.local()

    def get_outputs(self) -> list[_Output]:
        """Return the outputs, each with `name` and `shape`; a dynamic dimension is None."""
        return [
            _Output(output.any_name, [None if axis.is_dynamic else axis.get_length() for axis in output.partial_shape])
            for output in self._model.outputs
        ]

    def run(self, names: Sequence[str], inputs: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """Return the outputs of these names as float32; `options` must be None."""
        request = getattr(self._local, "request", None)
        if request is None:  # a request serves one thread at a time
            request = self._local.request = self._model.create_infer_request()
        outputs = request.infer(dict(inputs))
        return [np.asarray(outputs[name]) for name in names]


class _Output:
    def __init__(self, name: str, shape: list[int | None]) -> None:
        self.name, self.shape = name, shape
