"""Fine-tuning on a mixture of tasks, transfer and pretraining, all with one training loop and resume states."""

from hyperformer.training.finetuning import encode, train
from hyperformer.training.pretraining import pretrain
from hyperformer.training.states import remove_states
from hyperformer.training.transfer import adapt

__all__ = ["adapt", "encode", "pretrain", "remove_states", "train"]
