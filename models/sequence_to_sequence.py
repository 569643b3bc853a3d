"""Reading one text and writing another: what the training loop does not know of translation.

Brings together prepared pairs, an encoder-decoder or a decoder alone, the loss on the target's tokens, and how its
texts are scored. Heavy to import: the door does so when it trains. Knows nothing of where the pairs came from.

A decoder alone reads the source, its end-of-text token, and goes on with the target.

Shape suffixes: B pairs, S source tokens, T target tokens, V vocabulary.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models import adapters, architectures, augment, folders, identity, scores, training
from models.architectures import Vocabulary
from models.batches import Drawn, Examples, by_length, padded
from models.configuration import Generation
from models.corpora import Split
from models.examples import MIX, Prepared
from models.generation import generate
from models.metrics import perplexity
from models.training import Batch, Inputs, Task

if TYPE_CHECKING:
    from models.translation import Config

IGNORED = -100
"""The label of what is not predicted, as torch's cross-entropy has it."""
EVALUATION_TOKENS = 4096
"""Tokens a batch while a split is measured."""

Row = np.ndarray[Any, Any]


class Collator:
    """Pairs of token rows as the tensors of a batch, for an encoder-decoder or a decoder alone."""

    def __init__(self, *, pad: int, start: int | None) -> None:
        """start: what a decoder begins with, None for a decoder alone."""
        self.pad = pad
        self.start = start

    def __call__(self, sources: Sequence[Row], targets: Sequence[Row]) -> Inputs:
        """`tokens` and `mask` (what the model reads), `labels`, and of an encoder-decoder `before`: the target one
        place later, which its decoder reads. Rows of different lengths are padded."""
        if self.start is not None:
            before = [np.concatenate([[self.start], row[:-1]]) for row in targets]
            return {
                "tokens": padded(sources, self.pad),
                "mask": padded([np.ones(len(row), dtype=np.int64) for row in sources], 0),
                "before": padded(before, self.pad),
                "labels": padded(targets, IGNORED),
            }
        whole = [np.concatenate(pair) for pair in zip(sources, targets, strict=True)]
        labels = [
            np.concatenate([np.full(len(source) - 1, IGNORED), target])
            for source, target in zip(sources, targets, strict=True)
        ]
        return {"tokens": padded([row[:-1] for row in whole], self.pad), "labels": padded(labels, IGNORED)}


def logits_of(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The logits of what `labels` name, shape (B, T, V)."""
    if "before" in inputs:
        output = model(
            input_ids=inputs["tokens"],
            attention_mask=inputs["mask"],
            decoder_input_ids=inputs["before"],
            use_cache=False,
        )
    else:  # padding is at the end, where a causal model sees it only after all that counts
        output = model(input_ids=inputs["tokens"], use_cache=False)
    logits_BTV: torch.Tensor = output.logits
    return logits_BTV


def summed_loss(model: nn.Module, inputs: Inputs, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """The cross-entropy of every target token, summed, in nats; shape ()."""
    return functional.cross_entropy(
        logits_of(model, inputs).float().flatten(0, 1),
        inputs["labels"].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=label_smoothing,
    )


def task(config: "Config", prepared: Prepared, *, seed: int) -> Task:
    """The task for the loop. seed: of the order of pairs and of what is varied in them."""
    collate = Collator(pad=prepared.pad, start=architectures.decoder_start(config.model, prepared.pad))
    drawn = _Pairs(config, prepared, seed=seed)

    def draw(first: int, count: int) -> Batch:
        sources, targets = drawn.draw(first, count)
        predicted = sum(len(row) for row in targets)
        return Batch(collate(sources, targets), weight=predicted, tokens=predicted + sum(len(row) for row in sources))

    def loss(model: nn.Module, inputs: Inputs) -> torch.Tensor:
        return summed_loss(model, inputs, label_smoothing=config.label_smoothing)

    def validate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        sample = config.generation.final_sample if last else config.generation.sample
        return evaluate(config, model, prepared, "validation", device=device, sample=sample)

    return Task(
        build=lambda: _build(config, prepared),
        draw=draw,
        loss=loss,
        evaluate=validate,
        uniform_loss=math.log(prepared.vocabulary),
    )


class _Pairs:
    """The pairs of a run in their order, varied where that is asked for."""

    def __init__(self, config: "Config", prepared: Prepared, *, seed: int) -> None:
        self.seed = seed
        splits = ("train", MIX) if prepared.count(MIX, "examples") else ("train",)
        self.columns = {
            split: {name: prepared.column(split, name) for name in ("source", "target", "text")} for split in splits
        }
        train = self.columns["train"]
        lengths = np.maximum(train["source"].lengths, train["target"].lengths)
        mixed = prepared.count(MIX, "examples")
        self.examples = Examples(lengths, seed=seed, mix=config.augment.mix, mixed=mixed)
        self.change = augment.augmenter(config.augment) if config.augment.varies_text else None
        if self.change is not None:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # other trials have the other cores
            self.encoder = prepared.encoder()

    def draw(self, first: int, count: int) -> tuple[list[Row], list[Row]]:
        """Sources and targets of the run's pairs `first` to `first + count`."""
        drawn = self.examples.draw(first, count)
        tables = [self.columns[MIX if item.mixed else "train"] for item in drawn]
        targets = [table["target"][item.index] for table, item in zip(tables, drawn, strict=True)]
        if self.change is None:
            return [table["source"][item.index] for table, item in zip(tables, drawn, strict=True)], targets
        texts = [table["text"].text(item.index) for table, item in zip(tables, drawn, strict=True)]
        return self.encoder.inputs([self._varied(*pair) for pair in zip(texts, drawn, strict=True)]), targets

    def _varied(self, text: str, item: Drawn) -> str:
        assert self.change is not None
        # An example mixed in and one of the training split have different numbers, and so different chances.
        number = 2 * item.index + item.mixed
        return self.change(text, augment.generator(self.seed, item.epoch, number))


def evaluate(
    config: "Config", model: Any, prepared: Prepared, split: Split, *, device: torch.device, sample: int | None
) -> dict[str, float]:
    """Loss and perplexity of a whole split's targets, and the scores of what the model writes for `sample` of them.

    model: in evaluation mode. sample: how many, always the same, evenly spread over the split; None: all.
    """
    source, target = prepared.column(split, "source"), prepared.column(split, "target")
    collate = Collator(pad=prepared.pad, start=architectures.decoder_start(config.model, prepared.pad))
    batches = by_length(np.maximum(source.lengths, target.lengths), batch_tokens=EVALUATION_TOKENS)
    sums = []
    for rows in batches:
        inputs = collate([source[row] for row in rows], [target[row] for row in rows])
        sums.append(summed_loss(model, {name: tensor.to(device) for name, tensor in inputs.items()}))
    loss_nats = torch.stack(sums).cpu().double().sum().item() / int(target.lengths.sum())
    chosen = list(range(len(source)))
    if sample is not None and sample < len(source):
        chosen = np.linspace(0, len(source) - 1, sample).round().astype(int).tolist()
    written = write(model, prepared, [source[row] for row in chosen], _generation(config))
    reference = prepared.column(split, "reference")
    references = [reference.text(row) for row in chosen]
    return {
        f"{split}/loss": loss_nats,
        f"{split}/perplexity": perplexity(loss_nats),
        **scores.translation(split, written, references, rouge=config.rouge),
    }


def _generation(config: "Config") -> Generation:
    """How texts are written, the longest as long as the longest target where nothing else is said: the same while
    training, in the test and in a served model."""
    return replace(config.generation, max_new_tokens=config.generation.max_new_tokens or config.side)


def write(model: nn.Module, prepared: Prepared, sources: Sequence[Row], settings: Generation) -> list[str]:
    """What the model writes for each source, as text."""
    prompts = [row.tolist() for row in sources]
    found = generate(adapters.plain(model), prompts, settings=settings, end=prepared.end, pad=prepared.pad)
    decoder = prepared.encoder().backend
    return [decoder.decode(tokens, skip_special_tokens=True).strip() for tokens in found]


def test(config: "Config", prepared: Prepared, *, directory: Path) -> dict[str, float]:
    """Measure the model that a run left in `directory` on the test split, in fp32, every text of it written."""
    identity.need_test(prepared.count("test", "examples"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = adapters.merged(_trained(config, prepared, directory)).train(False).to(device)
    with torch.no_grad():
        metrics = evaluate(config, model, prepared, "test", device=device, sample=None)
    return {**metrics, "test/examples": float(prepared.count("test", "examples"))}


def save(config: "Config", prepared: Prepared, *, directory: Path, destination: Path) -> None:
    """Write the model that a run left in `directory` as a Hugging Face folder, whole or not at all."""
    start = architectures.decoder_start(config.model, prepared.pad)
    asked = _generation(config)
    generation = {
        "max_new_tokens": asked.max_new_tokens,
        "num_beams": asked.beams,
        "length_penalty": asked.length_penalty,
        "do_sample": False,
        "bos_token_id": prepared.end,
        "eos_token_id": prepared.end,
        "pad_token_id": prepared.pad,
        **({} if start is None else {"decoder_start_token_id": start}),
    }
    folders.write(
        lambda: _trained(config, prepared, directory),
        prepared.tokenizer,
        destination,
        task={
            "task": "translation",
            "preprocess": asdict(config.preprocess),
            "context": config.side,
            "generation": asdict(asked),
            "family": architectures.family(config.model),
            "separator": prepared.end if start is None else None,
            "source_column": config.data.source_column,
            "target_column": config.data.target_column,
        },
        generation=generation,
    )


def _build(config: "Config", prepared: Prepared) -> nn.Module:
    vocabulary = Vocabulary(prepared.vocabulary, prepared.end, prepared.pad)
    start = architectures.decoder_start(config.model, prepared.pad)
    model = (architectures.causal if start is None else architectures.encoder_decoder)(config.model, vocabulary)
    if start is not None:  # it writes as it is trained, whatever its folder says
        model.generation_config.decoder_start_token_id = start
    return adapters.tuned(model, config)


def _trained(config: "Config", prepared: Prepared, directory: Path) -> nn.Module:
    model = _build(config, prepared)
    training.load_trained(directory, model)
    return model
