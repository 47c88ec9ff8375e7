"""Settings of inference on the evaluation rows."""

from __future__ import annotations

from typing import Literal

from hyperformer.core.types import Scoring
from hyperformer.settings.base import Positive, SettingsModel


class EvaluationSettings(SettingsModel):
    """Settings of inference on the evaluation rows."""

    batch_size: Positive
    """Rows per batch."""
    label_scoring: Scoring | Literal["generated"] = "constrained"
    """Prediction in classification and regression tasks. `constrained`: score each answer, with the probability of each
    of its tokens normalized over the tokens that can follow in the task's answers; `likelihood`: score each answer,
    with the probabilities normalized over the whole vocabulary; `generated`: use the text that the backbone generates,
    as in the paper. Scores predict the most likely label or, in regression, the mean of the numbers weighted by
    probability. On an encoder, `likelihood` equals `constrained`, and `generated` is not allowed.
    """
    num_beams: Positive = 1
    """Beams of beam search when text is generated; 1 is greedy decoding."""
