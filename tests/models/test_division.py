"""Divided forward passes: the curve of each kind of task stays the same, at any divisor and across an interruption."""

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import (
    chat,
    classification,
    generation,
    labelling,
    language_modelling,
    memory,
    next_token,
    preference,
    preferring,
    replies,
    sequence_to_sequence,
    translation,
)
from models.configuration import (
    Causal,
    Classifier,
    DialogueData,
    Generation,
    LabelledData,
    PairData,
    PreferenceData,
    SequenceToSequence,
    TextData,
    Tokenizer,
)
from models.metrics import Measurement

BATCH = 6
# Plain SGD, so that the weights show the gradients; Adam makes much of little differences.
TRAINING: dict[str, Any] = {
    "batch_size": BATCH,
    "optimizer": "sgd",
    "momentum": 0.0,
    "learning_rate": 0.05,
    "label_smoothing": 0.1,
    "checkpoint_seconds": 1e9,
}
SHAPE: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "dropout": 0.0}
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def rows(folder: Path, name: str, found: list[dict[str, Any]]) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)


def texts() -> list[str]:
    chance = random.Random(0)
    return [" ".join(chance.choices(WORDS, k=chance.randint(2, 12))) + f" {number}" for number in range(60)]


def of_text(folder: Path, **changes: Any) -> tuple[Any, Any, list[int]]:
    path = folder / "words.txt"
    path.write_text("\n\n".join(texts()) + "\n")
    config = language_modelling.Config(
        data=TextData(source=str(path)),
        tokenizer=Tokenizer(kind="bytes"),
        model=Causal(**SHAPE, context=16),
        tokens=16 * 28,
        **{**TRAINING, **changes},
    )
    return language_modelling, config, [16 * 14]


def of_pairs(folder: Path, **changes: Any) -> tuple[Any, Any, list[int]]:
    found = [{"source": text, "target": text.upper()[: 5 + 3 * (n % 5)]} for n, text in enumerate(texts())]
    config = translation.Config(
        data=PairData(source=rows(folder, "pairs", found), validation=0.2),
        tokenizer=Tokenizer(kind="words", vocabulary=60),
        model=SequenceToSequence(**SHAPE, context=16),
        generation=Generation(max_new_tokens=6, beams=2),
        epochs=0.6,
        **{**TRAINING, **changes},
    )
    return translation, config, [14]


def labelled(folder: Path, *, several: bool, **changes: Any) -> tuple[Any, Any, list[int]]:
    found = []
    for text in texts():
        held = [word for word in ("one", "two", "three") if word in text.split()]
        found.append({"text": text, "label": held if several else (held or ["none"])[0]})
    config = classification.Config(
        data=LabelledData(source=rows(folder, "labelled", found), validation=0.2, multi_label=several),
        tokenizer=Tokenizer(kind="words", vocabulary=60),
        model=Classifier(**SHAPE, context=16),
        class_weights="balanced",
        epochs=0.6,
        **{**TRAINING, **changes},
    )
    return classification, config, [14]


def of_labels(folder: Path, **changes: Any) -> tuple[Any, Any, list[int]]:
    return labelled(folder, several=False, **changes)


def of_several_labels(folder: Path, **changes: Any) -> tuple[Any, Any, list[int]]:
    return labelled(folder, several=True, **changes)


def of_dialogues(folder: Path, **changes: Any) -> tuple[Any, Any, list[int]]:
    found = []
    for number, text in enumerate(texts()):
        said = [{"role": "user", "content": text}, {"role": "assistant", "content": text[:9]}]
        found.append({"messages": said * (1 + number % 3)})
    config = chat.Config(
        data=DialogueData(source=rows(folder, "dialogues", found), validation=0.2),
        tokenizer=Tokenizer(kind="bpe", vocabulary=300),
        model=Causal(**SHAPE, context=128),
        generation=Generation(max_new_tokens=6, final_sample=9),
        tokens=1200,
        **{**TRAINING, **changes},
    )
    return chat, config, [600]


def of_preferences(folder: Path, **changes: Any) -> tuple[Any, Any, list[int]]:
    door, base, _ = of_dialogues(folder, batch_size=16)
    list(door.train(base, seed=0, rungs=[], directory=folder / "base-run"))
    door.save(base, directory=folder / "base-run", destination=folder / "base")
    found = [{"prompt": text, "chosen": text[:9], "rejected": text[-4:]} for text in texts()]
    config = preference.Config(
        data=PreferenceData(source=rows(folder, "preferences", found), validation=0.2),
        model=Causal(pretrained=str(folder / "base"), context=64),
        epochs=0.6,
        **{**TRAINING, **changes},
    )
    return preference, config, [14]


KINDS = [of_text, of_pairs, of_labels, of_several_labels, of_dialogues, of_preferences]


@contextmanager
def watched() -> Iterator[dict[bool, list[tuple[int, ...]]]]:
    """The shapes of the token batches that models read, by whether they were training."""
    found: dict[bool, list[tuple[int, ...]]] = {True: [], False: []}

    def look(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        ids = arguments[0] if isinstance(module, nn.Embedding) and arguments else None
        if isinstance(ids, torch.Tensor) and ids.ndim == 2:
            found[module.training].append(tuple(ids.shape))

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield found
    finally:
        handle.remove()


def agree(one: list[Measurement], other: list[Measurement]) -> None:
    assert [found.progress for found in one] == [found.progress for found in other]
    for first, second in zip(one, other, strict=True):
        assert first.metrics.keys() == second.metrics.keys()
        for name, value in first.metrics.items():
            if "second" not in name and "memory" not in name:
                assert second.metrics[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_divided_run_has_the_curve_of_a_whole_one(tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (next_token, sequence_to_sequence, labelling, replies, preferring):
        monkeypatch.setattr(module, "EVALUATION_TOKENS", 128)  # so that the small splits here are several batches
    door, config, rungs = kind(tmp_path)
    shapes = {}
    curves = {}
    for divide in (1, 2, 4):
        with watched() as shapes[divide]:
            curves[divide] = list(
                door.train(config, seed=0, rungs=rungs, directory=tmp_path / str(divide), divide=divide)
            )
        agree(curves[1], curves[divide])
    width = 2 if kind is of_preferences else 1  # a pair is two rows
    for divide in (2, 4):
        assert max(rows for rows, _ in shapes[divide][True]) == math.ceil(BATCH / divide) * width
        assert len(shapes[divide][False]) > len(shapes[divide // 2][False])  # the evaluation's batches are smaller


def test_batches_of_texts_to_write_are_divided() -> None:
    def sizes() -> list[int]:
        return [len(batch) for batch in generation._batches([10] * 24, beams=2, row_tokens=20, batch_tokens=480)]

    with memory.Division(3):
        divided = sizes()
    assert (sizes(), divided) == ([12, 12], [4] * 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_may_be_divided_from_a_checkpoint_on(tmp_path: Path, kind: Any) -> None:
    door, config, rungs = kind(tmp_path)
    whole = list(door.train(config, seed=0, rungs=rungs, directory=tmp_path / "whole"))
    first = door.train(config, seed=0, rungs=rungs, directory=tmp_path / "parts")
    begun = next(first)
    first.close()
    rest = list(door.train(config, seed=0, rungs=rungs, directory=tmp_path / "parts", divide=2))
    assert rest[0] == begun
    agree(whole, rest)


def test_a_micro_batch_is_divided_further(tmp_path: Path) -> None:
    door, config, rungs = of_text(tmp_path, micro_batch_size=4)
    whole = list(door.train(config, seed=0, rungs=rungs, directory=tmp_path / "whole"))
    with watched() as shapes:
        parts = list(door.train(config, seed=0, rungs=rungs, directory=tmp_path / "parts", divide=3))
    assert max(rows for rows, _ in shapes[True]) == 2
    agree(whole, parts)


def test_a_part_of_a_batch_in_which_nothing_is_predicted_adds_nothing(tmp_path: Path) -> None:
    door, config, _ = of_dialogues(tmp_path)
    task = replies.task(config, door._prepared(config), seed=0)
    inputs = task.draw(0, 2).inputs
    silent = {**inputs, "labels": torch.full_like(inputs["labels"], replies.IGNORED)}
    model = task.build()
    loss = task.loss(model, silent)
    loss.backward()
    assert loss.item() == 0
    assert all(not bool(x.grad.any()) for x in model.parameters() if x.grad is not None)


ROOMS = [
    (of_text, next_token),
    (of_pairs, sequence_to_sequence),
    (of_labels, labelling),
    (of_several_labels, labelling),
    (of_dialogues, replies),
]


@pytest.mark.parametrize(("kind", "room"), ROOMS)
def test_a_model_that_knows_nothing_has_the_loss_of_a_uniform_guess(tmp_path: Path, kind: Any, room: Any) -> None:
    # torch smooths a weighted loss by the mean weight of the labels, not of the examples.
    door, config, _ = kind(tmp_path, label_smoothing=0.0 if kind is of_labels else 0.1)
    task = room.task(config, door._prepared(config), seed=0)
    model = task.build().train(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        batch = task.draw(0, BATCH)
        trained = task.loss(model, batch.inputs).item() / batch.weight
        measured = task.evaluate(model, torch.device("cpu"), False)["validation/loss"]
    assert (trained, measured) == (pytest.approx(task.uniform_loss), pytest.approx(task.uniform_loss))


def test_preferences_have_no_uniform_guess(tmp_path: Path) -> None:
    door, config, _ = of_preferences(tmp_path)
    assert preferring.task(config, door._prepared(config), seed=0).uniform_loss is None


def test_a_model_is_tested_in_smaller_batches_where_larger_ones_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door, config, _ = of_text(tmp_path)
    list(door.train(config, seed=0, rungs=[], directory=tmp_path / "run"))
    whole = door.test(config, directory=tmp_path / "run")
    summed = next_token.summed_loss

    def full(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        if len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return summed(model, tokens)

    monkeypatch.setattr(next_token, "summed_loss", full)
    assert door.test(config, directory=tmp_path / "run") == pytest.approx(whole, rel=1e-6)
