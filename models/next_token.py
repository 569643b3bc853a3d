"""Predicting the next token: what the training loop does not know of a language model.

Brings together a prepared corpus, the order of its sequences, an architecture, the loss and how it is
measured; tests and saves what a run left. Heavy to import: the door does so when it trains. Knows nothing of
where the text came from.

Shape suffixes: B sequences, T tokens of context, S = T + 1, V vocabulary, N = B x T.
"""

import itertools
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from models import adapters, architectures, augment, folders, identity, tokenizers, training
from models.architectures import Vocabulary
from models.batches import Sequences, windows
from models.configuration import Augment
from models.corpora import Split
from models.metrics import loss_metrics
from models.preparation import Prepared
from models.training import Batch, Inputs, Task

if TYPE_CHECKING:
    from models.language_modelling import Config

EVALUATION_TOKENS = 4096
"""Tokens a batch while a split is measured; more are slower on a CPU (28,000 a second at 16,384, 36,000 at
4,096)."""
EVALUATION_LOGITS = 2**27
"""Logits a batch while a split is measured, which a large vocabulary comes to first: 512 MiB in fp32."""
NEW_TOKENS = 256
"""Tokens a saved model generates at most when it is not told, if its context allows."""


def task(config: "Config", prepared: Prepared, *, seed: int) -> Task:
    """The task for the loop. seed: of the order of sequences and of what is varied in them."""
    context = config.model.context
    sequences = Sequences(prepared.tokens("train"), context=context, seed=seed)
    varied = _Varied(config.augment, prepared, seed=seed) if config.augment.varies_text else None

    def draw(first: int, count: int) -> Batch:
        tokens_BS = sequences.draw(first, count)
        if varied is not None:
            tokens_BS = varied.vary(tokens_BS, first, sequences)
        return Batch({"tokens": tokens_BS}, weight=count * context, tokens=count * context)

    def loss(model: nn.Module, inputs: Inputs) -> torch.Tensor:
        return summed_loss(model, inputs["tokens"], label_smoothing=config.label_smoothing)

    def validate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        return evaluate(model, prepared, "validation", context=context, device=device)

    return Task(
        build=lambda: _build(config, prepared),
        draw=draw,
        loss=loss,
        evaluate=validate,
        uniform_loss=math.log(prepared.vocabulary),
    )


class _Varied:
    """Sequences with their text varied: decoded, varied, encoded again, and filled up with what follows.

    A sequence that has become shorter goes on with the tokens that come after it in the text; a longer one is cut.
    """

    def __init__(self, settings: Augment, prepared: Prepared, *, seed: int) -> None:
        self.seed = seed
        self.change = augment.augmenter(settings)
        self.encoder = tokenizers.load(prepared.tokenizer)

    def vary(self, tokens_BS: torch.Tensor, first: int, sequences: Sequences) -> torch.Tensor:
        """The sequences from the run's `first` on, varied; the same for the same sequence of the run."""
        length = tokens_BS.shape[1]
        for row, tokens_S in enumerate(tokens_BS.numpy()):
            epoch, place = divmod(first + row, sequences.epoch_sequences)
            chance = augment.generator(self.seed, epoch, place)
            ids = self._of(tokens_S.tolist(), chance)[:length]
            following = sequences.following(first + row)[: length - len(ids)]
            tokens_BS[row] = torch.tensor([*ids, *following], dtype=torch.int64)
        return tokens_BS

    def _of(self, tokens: list[int], chance: random.Random) -> list[int]:
        """The tokens varied, each document in them by itself: the end-of-text tokens between them stay."""
        end = self.encoder.end
        ids: list[int] = []
        for is_end, document in itertools.groupby(tokens, key=lambda token: token == end):
            if is_end:
                ids += document
            else:
                text = self.encoder.backend.decode(list(document), skip_special_tokens=True)
                ids += self.encoder.backend.encode(self.change(text, chance), add_special_tokens=False).ids
        return ids


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


def test(config: "Config", prepared: Prepared, *, directory: Path) -> dict[str, float]:
    """Measure the model that a run left in `directory` on the test split, in fp32."""
    identity.need_test(prepared.count("test", "tokens"))
    model = _trained(config, prepared, directory).train(False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.no_grad():
        metrics = evaluate(model.to(device), prepared, "test", context=config.model.context, device=device)
    return {**metrics, "test/tokens": float(prepared.count("test", "tokens"))}


def save(config: "Config", prepared: Prepared, *, directory: Path, destination: Path) -> None:
    """Write the model that a run left in `directory` as a Hugging Face folder, whole or not at all.

    destination: must not exist, or be an empty folder.
    """
    end = prepared.end_token
    folders.write(
        lambda: _trained(config, prepared, directory),
        prepared.tokenizer,
        destination,
        task={
            "task": "language modelling",
            "preprocess": asdict(config.preprocess),
            "context": config.model.context,
            "text_column": config.data.text_column,
        },
        generation={
            # Half the context leaves the other half for the prompt.
            "max_new_tokens": min(NEW_TOKENS, config.model.context // 2),
            "do_sample": True,
            "bos_token_id": end,
            "eos_token_id": end,
            "pad_token_id": end,
        },
    )


def _build(config: "Config", prepared: Prepared) -> nn.Module:
    end = prepared.end_token
    return adapters.tuned(architectures.causal(config.model, Vocabulary(prepared.vocabulary, end, end)), config)


def _trained(config: "Config", prepared: Prepared, directory: Path) -> nn.Module:
    model = _build(config, prepared)
    training.load_trained(directory, model)
    return model
