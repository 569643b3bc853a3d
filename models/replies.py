"""Replying in a dialogue: what the training loop does not know of supervised fine-tuning.

Brings together prepared dialogues, a causal language model, the loss on the replies' tokens, and how replies are
scored. Heavy to import: the door does so when it trains. Knows nothing of where the dialogues came from.

Dialogues share a sequence (packing), each with positions from 0; transformers' mask is made of the positions, and no
token sees another dialogue (`masking_utils.find_packed_sequence_indices`; tested here for each family).

Why not TRL's SFTTrainer (read in 1.16): it is a transformers Trainer, which owns the loop. Under a generator that
yields at exact numbers of tokens it would be a second loop beside `models.training`, driven by callbacks, with
another way of counting progress, of accumulating gradients, of resuming. It finds the replies only in templates with
`{% generation %}`, or swaps the template for one that it knows. What it does better is what a single CPU or GPU does
not need: many devices, memory-saving kernels, images.

Shape suffixes: B sequences, T tokens, V vocabulary, N predicted tokens.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
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
from models.chat_templates import ChatTemplate
from models.configuration import Augment, Generation
from models.corpora import Split
from models.examples import MIX, Prepared
from models.generation import generate
from models.messages import Message
from models.metrics import perplexity
from models.training import Batch, Inputs, Task

if TYPE_CHECKING:
    from models.chat import Config

IGNORED = -100
"""The label of what is not predicted, as torch's cross-entropy has it."""
EVALUATION_TOKENS = 4096
"""Tokens a batch while a split is measured."""

Row = np.ndarray[Any, Any]


def sequences(packs: Sequence[Sequence[tuple[Row, Row]]], *, pad: int) -> Inputs:
    """Packs of dialogues, each (tokens, reply), as the tensors of a batch.

    `tokens`, `positions` (from 0 in each dialogue), `labels` (the next token where it is part of a reply, else
    IGNORED); all of shape (B, T), int64. What fills up a sequence counts as one more dialogue.
    """
    tokens = [np.concatenate([tokens for tokens, _ in pack]) for pack in packs]
    positions = [np.concatenate([np.arange(len(tokens)) for tokens, _ in pack]) for pack in packs]
    labels = [np.concatenate([_labels(*dialogue) for dialogue in pack]) for pack in packs]
    longest = max(len(row) for row in tokens)
    filled = [np.concatenate([row, np.arange(longest - len(row))]) for row in positions]
    return {"tokens": padded(tokens, pad), "positions": padded(filled, 0), "labels": padded(labels, IGNORED)}


def _labels(tokens: Row, reply: Row) -> Row:
    """The token after each, where it is part of a reply; none after the last."""
    return np.append(np.where(reply[1:] == 1, tokens[1:].astype(np.int64), IGNORED), IGNORED)


def logits_of(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The logits of a batch's sequences, shape (B, T, V)."""
    # No mask is given: then transformers makes one of the positions. A cache would keep it from doing so.
    output = model(input_ids=inputs["tokens"], position_ids=inputs["positions"], use_cache=False)
    logits_BTV: torch.Tensor = output.logits
    return logits_BTV


def summed_loss(model: nn.Module, inputs: Inputs, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """The cross-entropy of the replies' tokens, summed, in nats; shape ()."""
    labels = inputs["labels"]
    spoken = labels != IGNORED
    logits_NV = logits_of(model, inputs)[spoken].float()
    return functional.cross_entropy(logits_NV, labels[spoken], reduction="sum", label_smoothing=label_smoothing)


def task(config: "Config", prepared: Prepared, *, seed: int) -> Task:
    """The task for the loop. seed: of the order of packs and of what is varied in them."""
    drawn = _Packs(config, prepared, seed=seed)

    def draw(first: int, count: int) -> Batch:
        packs = drawn.draw(first, count)
        inputs = sequences(packs, pad=prepared.pad)
        predicted = int((inputs["labels"] != IGNORED).sum())
        return Batch(inputs, weight=max(1, predicted), tokens=sum(len(row) for pack in packs for row, _ in pack))

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


class _Packs:
    """The packs of a run in their order, what the user says varied where that is asked for."""

    def __init__(self, config: "Config", prepared: Prepared, *, seed: int) -> None:
        self.context = config.model.context
        splits = ("train", MIX) if prepared.count(MIX, "examples") else ("train",)
        names = ("tokens", "reply", "messages", "packs")
        self.columns = {split: {name: prepared.column(split, name) for name in names} for split in splits}
        self.packing = config.packing
        lengths = self.columns["train"]["tokens"].lengths
        if self.packing:
            lengths = np.asarray([lengths[pack].sum() for pack in self.columns["train"]["packs"]], dtype=np.int64)
        mixed = prepared.count(MIX, "packs" if self.packing else "examples")
        self.examples = Examples(lengths, seed=seed, mix=config.augment.mix, mixed=mixed)
        self.varied = _Varied(config.augment, prepared, seed=seed) if config.augment.varies_text else None

    def draw(self, first: int, count: int) -> list[list[tuple[Row, Row]]]:
        """Packs `first` to `first + count` of the run, each a list of dialogues (tokens, reply)."""
        return [self._pack(item) for item in self.examples.draw(first, count)]

    def _pack(self, item: Drawn) -> list[tuple[Row, Row]]:
        columns = self.columns[MIX if item.mixed else "train"]
        dialogues = columns["packs"][item.index].tolist() if self.packing else [item.index]
        plain = [(columns["tokens"][place], columns["reply"][place]) for place in dialogues]
        if self.varied is None:
            return plain
        found: list[tuple[Row, Row]] = []
        room = self.context - sum(len(tokens) for tokens, _ in plain)
        for place, (unvaried, _) in zip(dialogues, plain, strict=True):
            room += len(unvaried)  # its own, and what the ones before have left
            tokens, reply = self.varied.vary(columns["messages"].text(place), item, place)
            found.append((tokens[:room], reply[:room]))
            room -= len(found[-1][0])
        return found


class _Varied:
    """Dialogues with what the user says in them varied, and made tokens of again."""

    def __init__(self, settings: Augment, prepared: Prepared, *, seed: int) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # other trials have the other cores
        self.seed = seed
        self.change = augment.augmenter(settings)
        self.template = _template(prepared)

    def vary(self, messages: str, item: Drawn, place: int) -> tuple[Row, Row]:
        """Tokens and reply of the dialogue at `place`, the same for the same epoch."""
        # A dialogue mixed in and one of the training split have different numbers, and so different chances.
        chance = augment.generator(self.seed, item.epoch, 2 * place + item.mixed)
        read: list[Message] = json.loads(messages)
        for message in read:
            if message["role"] == "user":
                message["content"] = self.change(message["content"], chance)
        (found,) = self.template.transcripts([read], ["a varied dialogue"])
        return found.tokens, found.reply


def evaluate(
    config: "Config", model: nn.Module, prepared: Prepared, split: Split, *, device: torch.device, sample: int | None
) -> dict[str, float]:
    """Loss and perplexity of a whole split's replies, and the scores of the last replies that the model writes in
    `sample` of its dialogues.

    model: in evaluation mode. sample: how many, always the same, evenly spread over the split; None: all.
    """
    references = prepared.column(split, "reference")
    chosen: Sequence[int] = range(len(references))
    if sample is not None and sample < len(references):
        chosen = np.linspace(0, len(references) - 1, sample).round().astype(np.int64).tolist()
    written = write(config, model, prepared, prompts(config, prepared, split, chosen))
    return {
        **measured(model, prepared, split, device=device),
        **scores.replies(split, written, [references.text(row) for row in chosen]),
    }


def measured(model: nn.Module, prepared: Prepared, split: Split, *, device: torch.device) -> dict[str, float]:
    """Loss (nats a token) and perplexity of a whole split's replies, each dialogue by itself."""
    tokens, reply = prepared.column(split, "tokens"), prepared.column(split, "reply")
    sums = []
    for rows in by_length(tokens.lengths, batch_tokens=EVALUATION_TOKENS):
        inputs = sequences([[(tokens[row], reply[row])] for row in rows], pad=prepared.pad)
        # Padding is at the end, where a causal model sees it only after all that counts: it needs no mask.
        inputs = {**inputs, "positions": torch.arange(inputs["tokens"].shape[1])[None]}
        sums.append(summed_loss(model, {name: tensor.to(device) for name, tensor in inputs.items()}))
    loss_nats = torch.stack(sums).cpu().double().sum().item() / prepared.count(split, "reply_tokens")
    return {f"{split}/loss": loss_nats, f"{split}/perplexity": perplexity(loss_nats)}


def prompts(config: "Config", prepared: Prepared, split: Split, chosen: Sequence[int]) -> list[Row]:
    """What the model reads before the last reply of the chosen dialogues; of one that leaves too little room for a
    reply, without the oldest exchanges, as a served model reads it."""
    room = config.model.context - _longest_reply(config.generation, config.model.context)
    tokens, before = prepared.column(split, "prompt"), prepared.column(split, "before")
    found: list[Row] = [tokens[row] for row in chosen]
    if any(len(row) > room for row in found):
        template = _template(prepared)
        for place, row in enumerate(chosen):
            if len(found[place]) > room:
                found[place] = template.fitted(json.loads(before.text(row)), f"{split} {row}", room=room)
    return found


def _template(prepared: Prepared) -> ChatTemplate:
    details = prepared.details
    return ChatTemplate(prepared.encoder(), details["template"], details["names"])


def _longest_reply(settings: Generation, context: int) -> int:
    return settings.max_new_tokens or max(1, context // 2)


def write(config: "Config", model: nn.Module, prepared: Prepared, prompts: Sequence[Row]) -> list[str]:
    """The model's reply to each prompt, as text."""
    most = _longest_reply(config.generation, config.model.context)
    found = generate(
        adapters.plain(model),
        [prompt.tolist() for prompt in prompts],
        settings=replace(config.generation, max_new_tokens=most),
        end=prepared.end,
        pad=prepared.pad,
    )
    decoder = prepared.encoder().backend
    return [decoder.decode(tokens, skip_special_tokens=True).strip() for tokens in found]


def test(config: "Config", prepared: Prepared, *, directory: Path) -> dict[str, float]:
    """Measure the model that a run left in `directory` on the test split, in fp32, a reply to every dialogue
    written; and, of a pretrained model, the replies' perplexity before it was fine-tuned."""
    identity.need_test(prepared.count("test", "examples"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = adapters.merged(_trained(config, prepared, directory))
    with torch.no_grad():
        metrics = evaluate(config, model.train(False).to(device), prepared, "test", device=device, sample=None)
        if config.model.pretrained is not None:
            before: Any = _whole(config, prepared)
            found = measured(before.train(False).to(device), prepared, "test", device=device)
            metrics["test/base_perplexity"] = found["test/perplexity"]
    return {**metrics, "test/examples": float(prepared.count("test", "examples"))}


def save(config: "Config", prepared: Prepared, *, directory: Path, destination: Path) -> None:
    """Write the model that a run left in `directory` as a Hugging Face folder, whole or not at all."""
    folders.write(
        lambda: _trained(config, prepared, directory),
        prepared.tokenizer,
        destination,
        task={
            "task": "chat",
            "preprocess": asdict(config.preprocess),
            "context": config.model.context,
            "generation": asdict(config.generation),
            "messages_column": config.data.messages_column,
        },
        generation=generation_settings(config.generation, prepared, context=config.model.context),
    )


def generation_settings(settings: Generation, prepared: Prepared, *, context: int) -> Mapping[str, Any]:
    """How a saved model writes: as it was scored."""
    return {
        "max_new_tokens": _longest_reply(settings, context),
        "num_beams": settings.beams,
        **({"length_penalty": settings.length_penalty} if settings.beams > 1 else {}),
        "do_sample": False,
        "bos_token_id": prepared.end,
        "eos_token_id": prepared.end,
        "pad_token_id": prepared.pad,
    }


def _whole(config: "Config", prepared: Prepared) -> nn.Module:
    """The model before any training."""
    return architectures.causal(config.model, Vocabulary(prepared.vocabulary, prepared.end, prepared.pad))


def _build(config: "Config", prepared: Prepared) -> nn.Module:
    return adapters.tuned(_whole(config, prepared), config)  # type: ignore[arg-type]


def _trained(config: "Config", prepared: Prepared, directory: Path) -> nn.Module:
    model = _build(config, prepared)
    training.load_trained(directory, model)
    return model
