"""Preferring one reply to another: direct preference optimisation (Rafailov et al. 2023, DPO), for the training loop.

Brings together prepared preferences, a chat model to start from, the loss, and how well the model tells the better
reply. The reference is the model before training; what it gives each reply is computed once, before the first step,
and held in memory (two numbers a pair). Heavy to import: the door does so when it trains.

Why not TRL's DPOTrainer (read in 1.16): for the reasons that `models.replies` gives, it would be a second loop. Its
loss `sigmoid` is the one here; it has fourteen others, reference models of their own and their synchronisation, which
this does not. Conservative DPO it has no longer: `label_smoothing` there is for its losses `robust`, `exo_pair` and
`aot` alone.

Shape suffixes: B pairs, T tokens, V vocabulary; a 2 is the chosen and the rejected reply.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from models import adapters, architectures, folders, identity, training
from models.architectures import Vocabulary
from models.batches import Examples, by_length
from models.corpora import Split
from models.examples import Prepared
from models.metrics import perplexity
from models.replies import IGNORED, sequences
from models.training import Batch, Inputs, Task

if TYPE_CHECKING:
    from models.preference import Config

EVALUATION_TOKENS = 4096
"""Tokens a batch while a split is measured."""
SIDES = ("chosen", "rejected")

Logs = npt.NDArray[np.float64]
"""Log-probabilities of the replies of a split in nats, shape (pairs, 2)."""


def dpo(policy_B2: torch.Tensor, reference_B2: torch.Tensor, *, beta: float, flipped: float = 0.0) -> torch.Tensor:
    """The loss of each pair in nats, shape (B,).

    policy, reference: log-probabilities of the replies, chosen first. Rafailov et al. 2023, equation 7:
    -log sigmoid(beta ((log pi(c) - log ref(c)) - (log pi(r) - log ref(r)))). flipped: the probability that the two
    are labelled the wrong way around, below 1/2 (Mitchell 2023, "A note on DPO with noisy preferences", equation 3:
    conservative DPO).
    """
    margin_B = margins(policy_B2, reference_B2, beta=beta)
    return -(1 - flipped) * functional.logsigmoid(margin_B) - flipped * functional.logsigmoid(-margin_B)


def margins(policy_B2: torch.Tensor, reference_B2: torch.Tensor, *, beta: float) -> torch.Tensor:
    """How much higher the implicit reward beta (log pi - log ref) of the chosen reply is, shape (B,)."""
    reward_B2 = beta * (policy_B2 - reference_B2)
    return reward_B2[:, 0] - reward_B2[:, 1]


def log_probabilities(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """Of each reply, summed over its tokens, its end included, in nats; shape (B, 2).

    inputs: `tokens` and `labels`, shape (B, 2, T).
    """
    tokens_BT, labels_BT = inputs["tokens"].flatten(0, 1), inputs["labels"].flatten(0, 1)
    # Padding is at the end, where a causal model sees it only after all that counts: it needs no mask.
    logits_BTV = model(input_ids=tokens_BT, use_cache=False).logits.float()
    loss_BT = functional.cross_entropy(logits_BTV.transpose(1, 2), labels_BT, ignore_index=IGNORED, reduction="none")
    return -loss_BT.sum(-1).view(-1, 2)


class Pairs:
    """The pairs of a split as batches."""

    def __init__(self, prepared: Prepared, split: Split) -> None:
        self.columns = {name: prepared.column(split, name) for side in SIDES for name in (side, f"{side}_reply")}
        self.pad = prepared.pad
        self.lengths = np.maximum(self.columns["chosen"].lengths, self.columns["rejected"].lengths)

    def batch(self, rows: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """`tokens` and `labels` of pairs, shape (B, 2, T)."""
        both = [(self.columns[side][row], self.columns[f"{side}_reply"][row]) for row in rows for side in SIDES]
        inputs = sequences([[dialogue] for dialogue in both], pad=self.pad)
        return {name: inputs[name].reshape(len(rows), 2, -1) for name in ("tokens", "labels")}

    def measure(self, model: nn.Module, device: torch.device) -> Logs:
        """The log-probabilities of all replies. model: in evaluation mode."""
        found = np.empty((len(self.lengths), 2))
        with torch.no_grad():
            for rows in by_length(self.lengths, batch_tokens=EVALUATION_TOKENS // 2):
                inputs = {name: tensor.to(device) for name, tensor in self.batch(rows).items()}
                found[rows] = log_probabilities(model, inputs).double().cpu().numpy()
        return found


class Reference:
    """The model before training: what it gives the replies, computed when it is first asked for."""

    def __init__(self, config: "Config", prepared: Prepared) -> None:
        self.config = config
        self.prepared = prepared
        self._found: dict[Split, Logs] = {}

    def __call__(self, split: Split, pairs: Pairs, *, precise: bool = False) -> Logs:
        """The log-probabilities of a split's replies. precise: in fp32, whatever the precision of training."""
        if split not in self._found:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            # The run's own generators go on as if this had not been; a resumed run computes it again.
            with torch.random.fork_rng(devices=[]):
                model: Any = _whole(self.config, self.prepared)
            reduced = not precise and _is_bf16(self.config, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                self._found[split] = pairs.measure(model.train(False).to(device), device)
        return self._found[split]


def task(config: "Config", prepared: Prepared, *, seed: int) -> Task:
    """The task for the loop. seed: of the order of pairs."""
    pairs: dict[Split, Pairs] = {"train": Pairs(prepared, "train"), "validation": Pairs(prepared, "validation")}
    examples = Examples(pairs["train"].lengths, seed=seed)
    reference = Reference(config, prepared)

    def draw(first: int, count: int) -> Batch:
        rows = np.asarray([item.index for item in examples.draw(first, count)])
        inputs = pairs["train"].batch(rows)
        before_B2 = torch.from_numpy(reference("train", pairs["train"])[rows]).float()
        read = sum(int(pairs["train"].columns[side].lengths[rows].sum()) for side in SIDES)
        return Batch({**inputs, "reference": before_B2}, weight=count, tokens=read)

    def loss(model: nn.Module, inputs: Inputs) -> torch.Tensor:
        policy_B2 = log_probabilities(model, inputs)
        return dpo(policy_B2, inputs["reference"], beta=config.beta, flipped=config.label_smoothing).sum()

    def validate(model: nn.Module, device: torch.device, last: bool) -> dict[str, float]:
        before = reference("validation", pairs["validation"])
        policy = pairs["validation"].measure(model, device)
        return metrics(
            "validation", policy, before, beta=config.beta, tokens=prepared.count("validation", "reply_tokens")
        )

    # No uniform loss: the model begins at log 2, and pairs that it is too sure of take it above that while it still
    # tells most of them right.
    return Task(build=lambda: _build(config, prepared), draw=draw, loss=loss, evaluate=validate)


def metrics(split: str, policy: Logs, reference: Logs, *, beta: float, tokens: int) -> dict[str, float]:
    """`loss` (nats a pair, labels as they are), `accuracy` (share of pairs whose chosen reply has the higher implicit
    reward), `margin` (mean difference of these rewards), `perplexity` of the chosen replies, whose tokens are `tokens`
    in all."""
    both = torch.from_numpy(policy), torch.from_numpy(reference)
    margin = margins(*both, beta=beta)
    return {
        f"{split}/loss": dpo(*both, beta=beta).mean().item(),
        f"{split}/accuracy": (margin > 0).double().mean().item(),
        f"{split}/margin": margin.mean().item(),
        f"{split}/perplexity": perplexity(-policy[:, 0].sum().item() / tokens),
    }


def test(config: "Config", prepared: Prepared, *, directory: Path) -> dict[str, float]:
    """Measure the model that a run left in `directory` on the test split, in fp32; `test/base_perplexity` is that of
    the chosen replies before."""
    identity.need_test(prepared.count("test", "examples"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pairs, tokens = Pairs(prepared, "test"), prepared.count("test", "reply_tokens")
    model: Any = adapters.merged(_trained(config, prepared, directory))
    before = Reference(config, prepared)("test", pairs, precise=True)
    policy = pairs.measure(model.train(False).to(device), device)
    return {
        **metrics("test", policy, before, beta=config.beta, tokens=tokens),
        "test/base_perplexity": perplexity(-before[:, 0].sum().item() / tokens),
        "test/examples": float(prepared.count("test", "examples")),
    }


def save(config: "Config", prepared: Prepared, *, directory: Path, destination: Path) -> None:
    """Write the model that a run left in `directory` as a Hugging Face folder, whole or not at all. It generates as
    the model did that it was made from."""
    folders.write(
        lambda: _trained(config, prepared, directory),
        prepared.tokenizer,
        destination,
        task={
            "task": "chat",
            "preprocess": asdict(config.preprocess),
            "context": config.model.context,
            "messages_column": "messages",
            **_generation(config),
        },
    )


def _generation(config: "Config") -> dict[str, Any]:
    """How the model writes where it is scored: as the one it was made from, where that says so."""
    card = Path(str(config.model.pretrained)).expanduser() / folders.TASK
    found = json.loads(card.read_text()).get("generation") if card.is_file() else None
    return {} if found is None else {"generation": found}


def _is_bf16(config: "Config", device: torch.device) -> bool:
    """Whether the loop will run the model in bfloat16."""
    can = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.precision == "bf16" or (config.precision == "auto" and can)


def _whole(config: "Config", prepared: Prepared) -> nn.Module:
    """The model before any training."""
    return architectures.causal(config.model, Vocabulary(prepared.vocabulary, prepared.end, prepared.pad))


def _build(config: "Config", prepared: Prepared) -> nn.Module:
    return adapters.tuned(_whole(config, prepared), config)  # type: ignore[arg-type]


def _trained(config: "Config", prepared: Prepared, directory: Path) -> nn.Module:
    model = _build(config, prepared)
    training.load_trained(directory, model)
    return model
