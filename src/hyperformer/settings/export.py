"""Settings of the ONNX export."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from hyperformer.settings.base import SettingsModel


class ExportSettings(SettingsModel):
    """Settings of the ONNX export."""

    opset: Annotated[int, Field(ge=18)]
    """ONNX opset version of the exported graphs."""
    tolerance: Annotated[float, Field(gt=0)]
    """Maximum difference between a score in the ONNX graph and in PyTorch, on nearly all texts. If the scores of two
    answers differ by at most this much, either may be the prediction.
    """
    openvino: bool = False
    """Compare the answers of OpenVINO with onnxruntime's on the validation rows, and refuse to load a bundle with the
    provider openvino if they differ too much. Needs the package openvino.
    """
    examples: bool = False
    """Store the texts of a validation row in each bundle, as an example that the page of the server shows."""
    label_names: dict[str, dict[str, Annotated[str, Field(min_length=1)]]] = Field(default={})
    """Task → trained label → label that the bundle shows instead; labels that are not listed keep their names. Only for
    classification tasks. Changing it needs no training.
    """
    allow_below_majority: tuple[str, ...] = ()
    """Tasks that may have a mean validation metric that is not above the majority baseline's (`hyperformer.quality`).
    The bundles of other such tasks are not published, and the run fails after the report is written.
    """
