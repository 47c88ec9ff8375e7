"""Training: fine-tuning over a mixture of tasks and pretraining share one engine, its states, and its launcher."""

from hyperformer.training.finetuning import encode, train
from hyperformer.training.pretraining import pretrain

__all__ = ["encode", "pretrain", "train"]
