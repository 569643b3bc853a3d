"""Naming the labels of a text: what the training loop does not know of classification.

Brings together prepared texts with labels, a transformer with a classification layer, the loss, and how labels are
scored; tests and saves what a run left. Heavy to import: the door does so when it trains. Knows nothing of where the
texts came from.

Shape suffixes: B examples of a batch, N of a split, T tokens, L labels.
"""

import importlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models import adapters, architectures, augment, folders, identity, labelled_texts, memory, scores, training
from models.architectures import Vocabulary
from models.batches import Drawn, Examples, by_length, padded
from models.corpora import Split
from models.examples import MIX, Prepared
from models.ragged import Array
from models.training import Batch, Inputs, Task

if TYPE_CHECKING:
    from models.classification import Config

EVALUATION_TOKENS = 8192
"""Tokens a batch while a split is measured."""
THRESHOLD = 0.5
"""Of several labels, those with at least this probability are named."""
F1_LABELS = 50
"""With more labels than this, the F1 of each is not reported: only their mean."""
CONFUSION = "confusion.json"


class Loss:
    """The loss of a batch, summed, and what the sum is divided by.

    One label an example: cross-entropy, divided by the examples. Any number: the binary cross-entropy of each label,
    divided by examples times labels. With class weights (scikit-learn's "balanced": n / (k n_c), each of several
    labels being two classes of its own) both sums are weighted, so that the loss is the same in scale.
    """

    def __init__(self, config: "Config", prepared: Prepared) -> None:
        self.multi_label = config.data.multi_label
        self.smoothing = config.label_smoothing
        self.labels = len(prepared.details["labels"])
        # With several labels: of an absent (row 0) and a present one (row 1), shape (2, L); else shape (L,).
        shape = (2, self.labels) if self.multi_label else (self.labels,)
        self.weights = torch.ones(shape)
        if config.class_weights == "balanced":
            self.weights = balanced(prepared, multi_label=self.multi_label)

    def divisor(self, labels: torch.Tensor) -> float:
        """What the summed loss is divided by. labels: shape (B,), or with several (B, L)."""
        return float(self._each(labels).sum())

    def _each(self, labels: torch.Tensor) -> torch.Tensor:
        weights = self.weights.to(labels.device)
        return torch.where(labels == 1, weights[1], weights[0]) if self.multi_label else weights[labels]

    def __call__(self, logits_BL: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The weighted and smoothed loss, summed, in nats; shape ()."""
        if not self.multi_label:
            return functional.cross_entropy(
                logits_BL.float(),
                labels,
                weight=self.weights.to(labels.device),
                reduction="sum",
                label_smoothing=self.smoothing,
            )
        wanted_BL = labels.float() * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(
            logits_BL.float(), wanted_BL, weight=self._each(labels), reduction="sum"
        )


def balanced(prepared: Prepared, *, multi_label: bool) -> torch.Tensor:
    """n / (k n_c) of each label, shape (L,), n examples and n_c of label c of k; with several, n / (2 n_c) of being
    absent and of being present, shape (2, L), 0 for what does not occur."""
    counts = prepared.details["counts"]["train"]
    present_L = torch.tensor([counts[label] for label in prepared.details["labels"]], dtype=torch.float64)
    examples = prepared.count("train", "examples")
    if not multi_label:
        return (examples / (len(present_L) * present_L)).float()
    occurring = torch.stack([examples - present_L, present_L])
    return torch.where(occurring > 0, examples / (2 * occurring.clamp(min=1)), 0.0).float()


def collate(rows: Sequence[Array], labels: np.ndarray[Any, Any], *, pad: int) -> Inputs:
    """Token rows of different lengths and their labels as the tensors of a batch: `tokens` and `mask`, shape (B, T),
    and `labels`, (B,) or (B, L)."""
    return {
        "tokens": padded(rows, pad),
        "mask": padded([np.ones(len(row), dtype=np.int64) for row in rows], 0),
        "labels": torch.from_numpy(np.asarray(labels, dtype=np.int64)),
    }


def logits_of(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """Shape (B, L)."""
    logits_BL: torch.Tensor = model(input_ids=inputs["tokens"], attention_mask=inputs["mask"]).logits
    return logits_BL


def task(config: "Config", prepared: Prepared, *, seed: int) -> Task:
    """The task for the loop. seed: of the order of the examples and of what is varied in them."""
    drawn = _Texts(config, prepared, seed=seed)
    summed = Loss(config, prepared)

    def draw(first: int, count: int) -> Batch:
        rows, labels = drawn.draw(first, count)
        inputs = collate(rows, labels, pad=prepared.pad)
        return Batch(inputs, weight=summed.divisor(inputs["labels"]), tokens=sum(map(len, rows)))

    def loss(model: nn.Module, inputs: Inputs) -> torch.Tensor:
        return summed(logits_of(model, inputs), inputs["labels"])

    def validate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        return evaluate(model, prepared, "validation", multi_label=config.data.multi_label, device=device)

    # Each of several labels is there or not, and the loss is the mean over them.
    answers = 2 if config.data.multi_label else len(prepared.details["labels"])
    return Task(
        build=lambda: _build(config, prepared),
        draw=draw,
        loss=loss,
        evaluate=validate,
        uniform_loss=math.log(answers),
    )


class _Texts:
    """The examples of a run in their order, varied where that is asked for."""

    def __init__(self, config: "Config", prepared: Prepared, *, seed: int) -> None:
        self.seed = seed
        splits = ("train", MIX) if prepared.count(MIX, "examples") else ("train",)
        self.tokens = {split: prepared.column(split, "tokens") for split in splits}
        self.texts = {split: prepared.column(split, "text") for split in splits}
        self.labels = {
            split: labelled_texts.targets(prepared, split, multi_label=config.data.multi_label) for split in splits
        }
        lengths = self.tokens["train"].lengths
        self.examples = Examples(lengths, seed=seed, mix=config.augment.mix, mixed=prepared.count(MIX, "examples"))
        self.change = augment.augmenter(config.augment) if config.augment.varies_text else None
        if self.change is not None:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # other trials have the other cores
            self.encoder = prepared.encoder()

    def draw(self, first: int, count: int) -> tuple[list[Array], np.ndarray[Any, Any]]:
        """Token rows and labels of the run's examples `first` to `first + count`."""
        drawn = [(MIX if item.mixed else "train", item) for item in self.examples.draw(first, count)]
        labels = np.stack([self.labels[split][item.index] for split, item in drawn])
        if self.change is None:
            return [self.tokens[split][item.index] for split, item in drawn], labels
        varied = [self._varied(self.texts[split].text(item.index), item) for split, item in drawn]
        return labelled_texts.inputs(self.encoder, varied), labels

    def _varied(self, text: str, item: Drawn) -> str:
        assert self.change is not None
        # An example mixed in and one of the training split have different numbers, and so different chances.
        number = 2 * item.index + item.mixed
        return self.change(text, augment.generator(self.seed, item.epoch, number))


def logits(model: nn.Module, prepared: Prepared, split: Split, *, device: torch.device) -> torch.Tensor:
    """A whole split's, in its order, shape (N, L), fp32 on the CPU. model: in evaluation mode."""
    rows = prepared.column(split, "tokens")
    found: list[torch.Tensor] = []
    order: list[Array] = []
    for chosen in by_length(rows.lengths, batch_tokens=EVALUATION_TOKENS):
        order.append(chosen)
        inputs = collate([rows[row] for row in chosen], chosen, pad=prepared.pad)
        found.append(logits_of(model, {name: tensor.to(device) for name, tensor in inputs.items()}).float())
    places = torch.from_numpy(np.argsort(np.concatenate(order), kind="stable"))
    return torch.cat(found).cpu()[places]


def evaluate(
    model: nn.Module, prepared: Prepared, split: Split, *, multi_label: bool, device: torch.device
) -> dict[str, float]:
    """Loss (nats, neither weighted nor smoothed), accuracy, macro-F1 and the F1 of each label over a whole split.

    The batches depend on nothing that a trial may vary, so equal models get equal numbers.
    """
    logits_NL = logits(model, prepared, split, device=device).double()
    actual = labelled_texts.targets(prepared, split, multi_label=multi_label)
    wanted = torch.from_numpy(actual)
    if multi_label:
        loss = functional.binary_cross_entropy_with_logits(logits_NL, wanted.double())
    else:
        loss = functional.cross_entropy(logits_NL, wanted)
    labels = prepared.details["labels"]
    predicted = decided(logits_NL, multi_label=multi_label)
    if not bool(torch.isfinite(logits_NL).all()):
        return {f"{split}/loss": float("nan")}
    reached = scores.classification(split, predicted, actual, labels)
    if len(labels) > F1_LABELS:
        reached = {name: value for name, value in reached.items() if not name.startswith(f"{split}/f1/")}
    return {f"{split}/loss": loss.item(), **reached}


def decided(logits_NL: torch.Tensor, *, multi_label: bool) -> np.ndarray[Any, Any]:
    """The number of the likeliest label, shape (N,); of several, 1 for each that is likely enough, shape (N, L)."""
    found = (logits_NL.sigmoid() >= THRESHOLD).long() if multi_label else logits_NL.argmax(-1)
    return found.numpy()


def test(config: "Config", prepared: Prepared, *, directory: Path) -> dict[str, float]:
    """Measure the model that a run left in `directory` on the test split, in fp32, beside the linear baseline."""
    identity.need_test(prepared.count("test", "examples"))
    model, device = _ready(config, prepared, directory)
    multi_label = config.data.multi_label
    with torch.no_grad():
        metrics = evaluate(model, prepared, "test", multi_label=multi_label, device=device)
    linear = labelled_texts.baseline(prepared, "test", multi_label=multi_label)
    compared = {f"test/{name}": linear[name] for name in ("linear_macro_f1", "linear_accuracy")}
    return {**metrics, **compared, "test/examples": float(prepared.count("test", "examples"))}


def save(config: "Config", prepared: Prepared, *, directory: Path, destination: Path) -> None:
    """Write the model that a run left in `directory` as a Hugging Face folder, whole or not at all; of one label an
    example, with `confusion.json`: how many examples of each label (row) were given each label (column)."""
    folders.write(
        lambda: _trained(config, prepared, directory),
        prepared.tokenizer,
        destination,
        task={
            "task": "classification",
            "preprocess": asdict(config.preprocess),
            "context": config.model.context,
            "labels": prepared.details["labels"],
            "multi_label": config.data.multi_label,
            "threshold": THRESHOLD,
            "text_column": config.data.text_column,
            "label_column": config.data.label_column,
            "label_separator": config.data.label_separator,
        },
    )
    if not config.data.multi_label:
        table = _confusion(config, prepared, directory)
        (destination / CONFUSION).write_text(json.dumps(table, ensure_ascii=False) + "\n")


def _confusion(config: "Config", prepared: Prepared, directory: Path) -> dict[str, Any]:
    split: Split = "test" if prepared.count("test", "examples") else "validation"
    model, device = _ready(config, prepared, directory)
    with torch.no_grad():
        found = memory.divide_until_it_fits(lambda: logits(model, prepared, split, device=device))
    predicted = decided(found, multi_label=False)
    actual = labelled_texts.targets(prepared, split, multi_label=False)
    labels = prepared.details["labels"]
    return {"split": split, "labels": labels, "matrix": scores.confusion(predicted, actual, labels)}


def _build(config: "Config", prepared: Prepared) -> nn.Module:
    model = architectures.classifier(
        config.model,
        Vocabulary(prepared.vocabulary, prepared.end, prepared.pad),
        labels=prepared.details["labels"],
        multi_label=config.data.multi_label,
    )
    model.config.pad_token_id = prepared.pad  # a decoder classifies the last token that is not this one
    return adapters.tuned(model, config)


def _trained(config: "Config", prepared: Prepared, directory: Path) -> nn.Module:
    model = _build(config, prepared)
    training.load_trained(directory, model)
    return model


def _ready(config: "Config", prepared: Prepared, directory: Path) -> tuple[nn.Module, torch.device]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = adapters.merged(_trained(config, prepared, directory))
    return model.to(device).train(False), device  # type: ignore[arg-type]


def _import_scikit_learn() -> None:
    """What `models.scores` imports late, once for all trials of a fork server: it takes a second or two. It brings
    pandas and pyarrow, whose allocator would start a thread, and a thread does not survive a fork."""
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    importlib.import_module("sklearn.metrics")


_import_scikit_learn()
