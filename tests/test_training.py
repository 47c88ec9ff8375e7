"""Sampling, corruption, and runs that stop and go on."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import method_settings, train_settings
from transformers import TrainerCallback

from hyperformer import evaluation, training
from hyperformer.config import PretrainingSettings
from hyperformer.data import generator, read_rows, read_tokens
from hyperformer.model import CONFIGURATION, WEIGHTS, MultiTaskModel
from hyperformer.training import (
    GROUPED_BATCHES,
    Permutations,
    TaskSampler,
    corrupt,
    fresh_state,
    length_grouped,
    task_shares,
)

# Checkpoints less than a second apart, as only a test makes them.
pytestmark = pytest.mark.filterwarnings("ignore:mtime may not be reliable on this filesystem:UserWarning")

ROWS = [400, 40, 7]


def sampler(rows=ROWS, weights=None, temperature=10.0, batch_size=6, seed=0, steps=60) -> TaskSampler:
    counts, given = (dict(enumerate(part)) for part in (rows, weights or [1.0] * len(rows)))
    shares = task_shares(counts, given, temperature)
    return TaskSampler(rows, list(shares.values()), batch_size, seed, steps)


def pretraining(**changes) -> PretrainingSettings:
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4}
    given = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "precision": "fp32",
        "rows": 8,
        "vocabulary": 240,
        "sizes": sizes,
        "max_tokens": 32,
    }
    return PretrainingSettings(**{**given, **changes})


# --- which rows


def test_each_pass_of_a_permutation_holds_every_row_once_in_another_order():
    order = Permutations(17, 3, 1)
    passes = [[order[17 * number + place] for place in range(17)] for number in range(3)]
    assert all(sorted(rows) == list(range(17)) for rows in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0]


def test_a_permutation_is_a_pure_function_of_seed_stream_and_position():
    positions = [40, 3, 16, 17, 0, 40, 5]
    order = Permutations(17, 3, 1)
    assert [order[p] for p in positions] == [Permutations(17, 3, 1)[p] for p in positions]
    first = [order[p] for p in range(17)]
    assert first != [Permutations(17, 4, 1)[p] for p in range(17)]
    assert first != [Permutations(17, 3, 2)[p] for p in range(17)]


def test_a_steps_rows_are_a_pure_function_of_seed_and_step():
    forward = sampler()
    steps = [forward[step] for step in range(60)]
    for step in (59, 0, 31, 30, 59):
        assert forward[step] == steps[step] == sampler()[step]
    other = sampler(seed=1)
    assert [other[step] for step in range(60)] != steps


def test_a_longer_run_begins_with_the_rows_of_a_shorter_one():
    short, long = sampler(steps=20), sampler(steps=60)
    assert [long[step] for step in range(20)] == [short[step] for step in range(20)]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_tasks_are_drawn_in_proportion_to_rows_to_the_power_of_one_over_the_temperature(temperature):
    wanted = [rows ** (1 / temperature) for rows in ROWS]
    wanted = [share / sum(wanted) for share in wanted]
    drawn = sampler(temperature=temperature, batch_size=50, steps=400)
    counts = Counter(task for step in range(400) for task, _ in drawn[step])
    for task, share in enumerate(wanted):
        assert drawn.shares[task] == pytest.approx(share)
        assert counts[task] / 20_000 == pytest.approx(share, abs=5 * (share * (1 - share) / 20_000) ** 0.5)


def test_at_temperature_one_tasks_are_drawn_in_proportion_to_their_rows():
    assert sampler(temperature=1.0).shares.tolist() == pytest.approx([rows / sum(ROWS) for rows in ROWS])


def test_a_weight_multiplies_a_tasks_share():
    plain, weighted = sampler().shares, sampler(weights=[1.0, 3.0, 1.0]).shares
    assert weighted[1] / weighted[0] == pytest.approx(3 * plain[1] / plain[0])
    assert weighted[2] / weighted[0] == pytest.approx(plain[2] / plain[0])


def test_every_row_of_a_task_is_seen_once_a_pass():
    drawn = sampler()
    seen = {task: [] for task in range(3)}
    for step in range(60):
        for task, row in drawn[step]:
            seen[task].append(row)
    assert len(seen[2]) > 3 * 7
    for task, count in enumerate(ROWS):
        for start in range(0, len(seen[task]), count):
            part = seen[task][start : start + count]
            assert len(set(part)) == len(part)
        assert set(seen[task]) <= set(range(count))
    assert sorted(seen[2][:7]) == list(range(7))


# --- span corruption


def test_batches_of_like_length_hold_every_row_once_and_little_padding():
    lengths = [int(length) for length in np.random.default_rng(0).integers(3, 60, 1000)]
    order = length_grouped(lengths, 8, 0)
    assert sorted(order.tolist()) == list(range(1000))
    batches = [[lengths[row] for row in order[start : start + 8]] for start in range(0, 1000, 8)]
    assert np.mean([max(batch) - min(batch) for batch in batches]) < 8
    assert np.mean(np.diff([batch[0] for batch in batches]) > 0) < 0.7  # not from short to long


def test_rows_stay_within_their_stretch_of_batches_and_a_last_short_batch_stays_last():
    order = length_grouped(list(range(300, 0, -1)), 8, 0)
    stretch = 8 * GROUPED_BATCHES
    assert [set(order[start : start + stretch]) for start in (0, stretch)] == [
        set(range(stretch)),
        set(range(stretch, 2 * stretch)),
    ]
    assert set(order[-4:]) == set(range(256, 260))  # the longest of the last stretch


def reassembled(source: list[int], target: list[int], sentinels: list[int]) -> list[int]:
    """The text of a corrupted pair: each sentinel of the source replaced by what follows it in the target."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in sentinels:
            assert token not in spans
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    text: list[int] = []
    for token in source:
        text += spans.pop(token) if token in sentinels else [token]
    assert not spans
    return text


def test_source_and_target_of_a_corrupted_text_reassemble_to_it():
    sentinels = list(range(900, 932))
    settings = pretraining(noise_density=0.3, mean_span=2.0)
    for length in range(2, 60):
        ids = list(range(100, 100 + length))
        source, target = corrupt(ids, sentinels, settings, generator(0, length))
        assert reassembled(source, target, sentinels) == ids
        used = [token for token in source if token in sentinels]
        assert used == sentinels[: len(used)] == [token for token in target if token in sentinels]
        assert len(used) < len(source), "something is left to read"


@pytest.mark.parametrize(("density", "mean_span"), [(0.15, 3.0), (0.5, 5.0), (0.3, 1.0)])
def test_corruption_hides_about_the_asked_share_in_spans_of_about_the_asked_length(density, mean_span):
    sentinels = list(range(900, 932))
    settings = pretraining(noise_density=density, mean_span=mean_span)
    hidden = spans = total = 0
    for number in range(100):
        ids = list(range(60))
        source, _ = corrupt(ids, sentinels, settings, generator(0, number))
        marks = sum(token in sentinels for token in source)
        hidden += len(ids) - (len(source) - marks)
        spans += marks
        total += len(ids)
    assert hidden / total == pytest.approx(density, rel=0.05)
    assert hidden / spans == pytest.approx(mean_span, rel=0.15)


def test_corruption_hides_other_places_each_time():
    sources = {tuple(corrupt(range(40), [900, 901, 902], pretraining(), generator(0, n))[0]) for n in range(20)}
    assert len(sources) > 15


def test_corruption_stays_within_the_sentinels():
    source, target = corrupt(range(60), [900, 901], pretraining(noise_density=0.5, mean_span=1.0), generator(0))
    assert [token for token in source if token >= 900] == [900, 901]
    assert reassembled(source, target, [900, 901]) == list(range(60))


# --- runs


class Interrupt(TrainerCallback):
    """Ends the process's work at the end of a step, as a person at the keyboard does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.at:
            raise KeyboardInterrupt


@pytest.fixture
def run(make_model, toy_tokens, tmp_path):
    """Trains a fresh toy model by `run_loop` over batches of all tasks; the model, and its tensors before."""

    def go(state, settings, seed=0, callbacks=()):
        model = make_model()
        parts = {name: (read_tokens(toy_tokens, name), 1 / len(model.tasks)) for name in model.tasks}
        batches = training.mixed_batches(model, parts, settings, seed)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        try:
            training.run_loop(model, batches, settings, seed, tmp_path / state, callbacks, save_every=2)
        finally:
            model.save_pretrained(tmp_path / f"{state} saved")
        return model, before

    return go


class InterruptAtMessage(logging.Handler):
    """The same from outside: when the log says so."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith(self.words):
            raise KeyboardInterrupt


@contextmanager
def interrupted(words: str) -> Iterator[None]:
    """Interrupts what is inside when the log says this."""
    handler, logger = InterruptAtMessage(words), logging.getLogger("hyperformer.training")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def test_a_run_that_was_interrupted_ends_in_the_bytes_of_one_that_was_not(run, tmp_path):
    settings = train_settings()
    model, before = run("whole", settings)
    assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.1 for m in model.modules())
    with pytest.raises(KeyboardInterrupt):
        run("halved", settings, callbacks=[Interrupt(5)])
    half = (tmp_path / "halved saved" / WEIGHTS).read_bytes()
    assert [path.name for path in (tmp_path / "halved").glob("checkpoint-*")] == ["checkpoint-4"]
    run("halved", settings)
    whole = (tmp_path / "whole saved" / WEIGHTS).read_bytes()
    assert (tmp_path / "halved saved" / WEIGHTS).read_bytes() == whole
    assert half != whole
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_interrupted_training_goes_on_to_the_same_checkpoint_and_history(train, tmp_path):
    settings = train_settings()
    writer, history = train(settings, 0, tmp_path / "whole states")
    writer(tmp_path / "whole")

    with interrupted("step 6  validation"), pytest.raises(KeyboardInterrupt):
        train(settings, 0, tmp_path / "halved states")
    (state,) = (tmp_path / "halved states" / "train").iterdir()
    assert [path.name for path in state.glob("1/checkpoint-*")] == ["checkpoint-4"]
    assert [line["step"] for line in json.loads((state / "1" / "history.json").read_text())] == [2, 4]

    writer, again = train(settings, 0, tmp_path / "halved states")
    writer(tmp_path / "halved")
    assert again == history
    assert (tmp_path / "halved" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_another_seed_trains_otherwise(run, tmp_path):
    settings = train_settings(steps=2)
    run("a", settings, seed=0)
    run("b", settings, seed=1)
    first, second = ((tmp_path / f"{name} saved" / WEIGHTS).read_bytes() for name in "ab")
    assert first != second


def test_a_resume_state_holds_no_frozen_tensor(run, tmp_path):
    model, _ = run("state", train_settings(steps=2))
    tensors = load_file(tmp_path / "state" / "checkpoint-2" / "trained.safetensors")
    assert set(tensors) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_equal_runs_write_equal_checkpoints_and_leave_no_state(train, tmp_path):
    histories = []
    for name in ("first", "second"):
        writer, history = train(train_settings(), 0, tmp_path / f"{name} states")
        writer(tmp_path / name)
        histories.append(history)
        assert not [*(tmp_path / f"{name} states").rglob("*.safetensors")]
    assert histories[0] == histories[1]
    for file in (WEIGHTS, CONFIGURATION):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_the_checkpoint_of_the_best_mean_is_kept(train, toy_rows, tmp_path):
    settings = train_settings(learning_rate=0.1, steps=12)
    writer, history = train(settings, 0, tmp_path / "states")
    writer(tmp_path / "checkpoint")
    assert [line["step"] for line in history] == [2, 4, 6, 8, 10, 12]
    means = [line["mean"] for line in history]
    assert max(means) > means[-1], "the toy run must get worse again, or this test shows nothing"
    for line in history:
        assert line["mean"] == pytest.approx(np.mean([line[name] for name in ("mood", "mood3", "likeness")]))
    kept = MultiTaskModel.from_pretrained(tmp_path / "checkpoint")
    results = {
        name: evaluation.evaluate(kept.answer, task, read_rows(toy_rows, name, "validation").select(range(8)))[0]
        for name, task in kept.tasks.items()
    }
    assert evaluation.mean_of(results) == pytest.approx(max(means))


def test_training_stops_when_patience_ends(train, tmp_path):
    settings = train_settings(steps=40, learning_rate=1e-30, patience=2)
    _, history = train(settings, 0, tmp_path)
    assert [line["step"] for line in history] == [2, 4, 6]
    assert len({line["mean"] for line in history}) == 1


def test_without_patience_training_goes_on_to_its_last_step(train, tmp_path):
    _, history = train(train_settings(learning_rate=1e-30, steps=7), 0, tmp_path)
    assert [line["step"] for line in history] == [2, 4, 6, 7]


@pytest.mark.parametrize("method", ["adapters_per_task", "fine_tuning_per_task"])
def test_models_a_task_share_the_steps_out_and_are_trained_apart(train, tmp_path, toy_rows, method):
    settings = train_settings(steps=30, evaluate_every=10, warmup_steps=3)
    writer, history = train(settings, 0, tmp_path / "states", method_settings(method))
    writer(tmp_path / "checkpoint")
    assert [line["step"] for line in history][-1] == pytest.approx(30, abs=1)
    assert all(set(line) == {"step", "mean", "mood", "mood3", "likeness"} for line in history)
    kept = MultiTaskModel.from_pretrained(tmp_path / "checkpoint")
    best = [max(line[name] for line in history) for name in kept.tasks]
    found = [
        evaluation.evaluate(kept.answer, task, read_rows(toy_rows, name, "validation").select(range(8)))[0]["mean"]
        for name, task in kept.tasks.items()
    ]
    assert found == best
    files = sorted((tmp_path / "checkpoint").glob("*.safetensors"))
    assert len({file.read_bytes() for file in files}) == len(files) == 3


def test_interrupted_between_two_models_training_goes_on_to_the_same_checkpoint(train, tmp_path):
    settings = train_settings(steps=12, evaluate_every=6)
    method = method_settings("adapters_per_task")
    writer, history = train(settings, 0, tmp_path / "whole states", method)
    writer(tmp_path / "whole")
    with interrupted("model 3 of 3"), pytest.raises(KeyboardInterrupt):
        train(settings, 0, tmp_path / "halved states", method)
    (state,) = (tmp_path / "halved states" / "train").iterdir()
    assert sorted(path.name for path in state.iterdir()) == ["1", "2"]
    writer, again = train(settings, 0, tmp_path / "halved states", method)
    writer(tmp_path / "halved")
    assert again == history
    for file in sorted((tmp_path / "whole").iterdir()):
        assert (tmp_path / "halved" / file.name).read_bytes() == file.read_bytes()


def test_a_task_that_has_but_one_answer_is_named_as_training_goes_on(train, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        train(train_settings(steps=1, learning_rate=1e-30), 0, tmp_path)
    (line,) = [message for message in caplog.messages if "validation mean" in message]
    assert "one answer only: " in line


def test_a_state_of_another_seed_is_neither_used_nor_kept(train, tmp_path, caplog):
    settings = train_settings(steps=4)
    writer, history = train(settings, 1, tmp_path / "clean")
    writer(tmp_path / "wanted")

    train(settings, 0, tmp_path / "states")  # its checkpoint is never written, so its state stays
    (other,) = (tmp_path / "states" / "train").iterdir()
    assert (other / "1" / "checkpoint-4").is_dir()
    with caplog.at_level(logging.INFO, logger="hyperformer.training"):
        writer, found = train(settings, 1, tmp_path / "states")
    writer(tmp_path / "found")
    assert not other.exists()
    assert str(other) in caplog.text
    assert found == history
    assert (tmp_path / "found" / WEIGHTS).read_bytes() == (tmp_path / "wanted" / WEIGHTS).read_bytes()


def test_the_state_of_the_same_work_is_found_again_and_of_other_work_removed(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.txt").write_text("1")

    def state(seed=0, **changes):
        return fresh_state(tmp_path / "states", [train_settings(**changes)], [rows], seed)

    first = state()
    (first / "kept").write_text("")
    assert state() == first
    assert (first / "kept").exists()
    assert state(seed=1) != first
    assert not first.exists()
    assert state(steps=9) != state()
    before = state()
    (rows / "a.txt").write_text("2")
    assert state() != before
    assert len(list((tmp_path / "states").iterdir())) == 1
