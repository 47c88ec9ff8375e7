"""Tokenizers with the layout of T5's: one that is trained, and the one of ByT5."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTINELS = 32  # sentinel tokens of a tokenizer from `train_tokenizer`
BYTE_SENTINELS = 125  # sentinel tokens of ByT5's tokenizer


def build_byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build ByT5's tokenizer (Xue et al. 2022) as a fast one: <pad> 0, </s> 1, <unk> 2, then a token per byte."""
    special = ["<pad>", "</s>", "<unk>"]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # `ByteLevel` maps other bytes to 256, 257, …
    others = [code for code in range(256) if code not in plain]
    characters = {code: chr(code) for code in plain} | {code: chr(256 + i) for i, code in enumerate(others)}
    vocabulary = {token: i for i, token in enumerate([*special, *(characters[code] for code in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(BYTE_SENTINELS)],
    )


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a lower-case byte-pair tokenizer with the layout of T5's: <pad> 0, </s> 1, <unk> 2, sentinels last.

    The same texts give the same tokenizer.

    Args:
        texts: the training corpus.
        vocabulary: maximum number of tokens, sentinels included.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - SENTINELS,
        min_frequency=2,
        special_tokens=["<pad>", "</s>", "<unk>"],
        initial_alphabet=[chr(code) for code in range(33, 127) if not chr(code).isupper()],
        limit_alphabet=200,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(SENTINELS)],
        model_max_length=512,
    )
