"""Predicting the next token: what the training loop does not know of a language model.

Brings together a prepared corpus, the order of its sequences, an architecture, the loss and how it is
measured; tests and saves what a run left. Heavy to import: the door does so when it trains. Knows nothing of
where the text came from.

Shape suffixes: B sequences, T tokens of context, S = T + 1, V vocabulary, N = B x T.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel

from models import architectures, training
from models.batches import Sequences, windows
from models.configuration import Causal
from models.corpora import Split
from models.errors import DataError
from models.metrics import loss_metrics
from models.preparation import Prepared
from models.training import Batch, Inputs, Task

EVALUATION_TOKENS = 4096
"""Tokens a batch while a split is measured; more are slower on a CPU (28,000 a second at 16,384, 36,000 at
4,096)."""
EVALUATION_LOGITS = 2**27
"""Logits a batch while a split is measured, which a large vocabulary comes to first: 512 MiB in fp32."""
NEW_TOKENS = 256
"""Tokens a saved model generates at most when it is not told, if its context allows."""


def task(settings: Causal, prepared: Prepared, *, seed: int, label_smoothing: float) -> Task:
    """The task for the loop. seed: of the order of sequences. label_smoothing: in [0, 1), of the training
    loss."""
    sequences = Sequences(prepared.tokens("train"), context=settings.context, seed=seed)

    def draw(first: int, count: int) -> Batch:
        tokens_BS = sequences.draw(first, count)
        return Batch({"tokens": tokens_BS}, weight=count * settings.context)

    def loss(model: nn.Module, inputs: Inputs) -> torch.Tensor:
        return summed_loss(model, inputs["tokens"], label_smoothing=label_smoothing)

    def validate(model: nn.Module, device: torch.device) -> dict[str, float]:
        return evaluate(model, prepared, "validation", context=settings.context, device=device)

    return Task(build=lambda: _build(settings, prepared), draw=draw, loss=loss, evaluate=validate)


def summed_loss(model: nn.Module, tokens_BS: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """The cross-entropy of every token but the first of each sequence, summed, in nats; shape ()."""
    logits_BTV = model(input_ids=tokens_BS[:, :-1], use_cache=False).logits
    targets_N = tokens_BS[:, 1:].reshape(-1)
    return functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), targets_N, reduction="sum", label_smoothing=label_smoothing
    )


def evaluate(
    model: nn.Module, prepared: Prepared, split: Split, *, context: int, device: torch.device
) -> dict[str, float]:
    """Loss, perplexity and bits a byte over a whole split, each token but the first predicted once.

    The model sees at most `context` tokens, in windows that do not overlap, as karpathy/nanoGPT measures
    (though over the whole split, where that draws windows at random). model: in evaluation mode. The batches
    depend on nothing that a trial may vary but the context, so equal models get equal numbers.
    """
    batch_tokens = min(EVALUATION_TOKENS, EVALUATION_LOGITS // prepared.vocabulary)
    tokens = prepared.tokens(split)
    sums = [
        summed_loss(model, tokens_BS.to(device))
        for tokens_BS in windows(tokens, context=context, batch_tokens=batch_tokens)
    ]
    loss_nats = torch.stack(sums).cpu().double().sum().item() / (len(tokens) - 1)
    return loss_metrics(split, loss_nats, tokens=len(tokens), utf8_bytes=prepared.count(split, "bytes"))


def test(settings: Causal, prepared: Prepared, *, directory: Path) -> dict[str, float]:
    """Measure the model that a run left in `directory` on the test split, in fp32."""
    if not prepared.count("test", "tokens"):
        raise DataError(
            f"data.test: {prepared.facts['dataset']!r} was prepared without a test split, so there is "
            "nothing to test on. Set data.test above 0 or name data.test_split."
        )
    model = _trained(settings, prepared, directory).train(False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.no_grad():
        metrics = evaluate(model.to(device), prepared, "test", context=settings.context, device=device)
    return {**metrics, "test/tokens": float(prepared.count("test", "tokens"))}


def save(
    settings: Causal, prepared: Prepared, *, directory: Path, destination: Path, task_card: Mapping[str, object]
) -> None:
    """Write the model that a run left in `directory` as a Hugging Face folder, whole or not at all.

    destination: must not exist, or be an empty folder. task_card: the folder's `task.json`, by which
    `models.serving` knows how to use the model.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise DataError(f"{destination}: must be a new or empty folder to save a model in. Name another.")
    model = _trained(settings, prepared, directory)
    end = prepared.end_token
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        # Half the context leaves the other half for the prompt.
        max_new_tokens=min(NEW_TOKENS, settings.context // 2),
        do_sample=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(prepared.tokenizer, temporary)
        model.save_pretrained(temporary)
        (temporary / "task.json").write_text(json.dumps(task_card, indent=2) + "\n")
        temporary.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(settings: Causal, prepared: Prepared) -> PreTrainedModel:
    return architectures.build(settings, vocabulary=prepared.vocabulary, end=prepared.end_token)


def _trained(settings: Causal, prepared: Prepared, directory: Path) -> PreTrainedModel:
    model = _build(settings, prepared)
    training.load_trained(directory, model)
    return model
