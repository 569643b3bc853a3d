"""The door to chat: supervised fine-tuning on dialogues, what a sweep names as `models.chat:train`.

Light to import: `Config` and nothing heavy. What a trial does stands in `models.replies`, what it learns from in
`models.dialogues`. Knows nothing of searches.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import identity, pretrained, requirements
from models.configuration import Augment, Causal, DialogueData, Generation, Preprocess, TextTraining, Tokenizer
from models.errors import SettingError
from models.metrics import Measurement

if TYPE_CHECKING:
    from models.examples import Prepared

PRELOAD: tuple[str, ...] = ("models.replies", "models.warm")
"""Modules a fork server imports once, so that a forked trial imports next to nothing. None touches a GPU."""

SERVING = "models.serving"
"""The module with `_load_pyfunc(path)`, for MLflow's pyfunc flavour."""

REQUIREMENTS: tuple[str, ...] = requirements.PACKAGES
"""Packages that loading a saved model requires."""

METRICS: tuple[str, ...] = (
    "validation/loss",
    "validation/perplexity",
    "validation/bleu",
    "validation/rougeL",
    "train/loss",
    "train/tokens_per_second",
    "train/branch_tokens",
    "train/peak_memory_gib",
    "model/parameters",
)
"""What a search may optimize, of all that `train` measures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(TextTraining):
    """Everything a chat trial can be told."""

    data: DialogueData = field(default_factory=DialogueData)
    """Where the dialogues come from."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """How text becomes tokens. A pretrained one without a chat template gets ours."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """How what the user and the system say is cleaned; replies are not."""
    augment: Augment = field(default_factory=Augment)
    """How what the user says is varied."""
    model: Causal = field(default_factory=Causal)
    """What is trained."""
    generation: Generation = field(default_factory=Generation)
    """How replies are written where they are scored."""
    packing: bool = True
    """Put several dialogues into one sequence, none of which sees another. false: one dialogue a sequence, padded."""

    def __post_init__(self) -> None:
        TextTraining.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        self.tokenizer.check(self.model.pretrained)
        if (self.generation.max_new_tokens or 0) >= self.model.context:
            raise SettingError(
                f"generation.max_new_tokens: must be below model.context, for the dialogue is read there too, got "
                f"{self.generation.max_new_tokens} and {self.model.context}. Lower it."
            )


def train(
    config: Config, *, seed: int, rungs: Sequence[int], directory: Path, divide: int = 1
) -> Generator[Measurement, None, None]:
    """Train one model and yield what it has reached at each rung and at the end.

    seed: of new weights, the order of the dialogues, their variation and dropout. rungs: progresses in tokens of
    dialogues (padding not counted) at which to measure. directory: this run's own; what it holds of the same run is
    gone on with, and the first measurement is then the one it was left at. Closing the generator leaves a checkpoint
    there.
    divide: where memory does not suffice, into how many parts a forward pass is divided (see `training.train`); the
    curve stays the same.

    Raises ModelsError for data that cannot be read and for a directory that holds another run, Diverged where the
    losses are worse than a guess's, DoesNotFit where memory runs out and dividing further would not help.
    """
    from models import replies, schedules, training

    prepared = _prepared(config)
    yield from training.train(
        replies.task(config, prepared, seed=seed),
        config,
        segments=schedules.segments(
            rungs=rungs,
            tokens=_length(config, prepared),
            example_tokens=_example_tokens(config, prepared),
            batch_size=config.batch_size,
        ),
        seed=seed,
        directory=directory,
        identity=identity.of(config, seed=seed, rungs=rungs, digest=prepared.facts["digest"]),
        divide=divide,
    )


def prepare(config: Config) -> dict[str, str | int | float]:
    """Prepare the dialogues, or find them prepared in the cache; their facts, and how BLEU and ROUGE are measured.

    Raises ModelsError for whatever of the data or the tokenizer cannot be read or used.
    """
    from models import scores

    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    signed = scores.signatures(rouge=True)
    return {**_prepared(config).facts, **{f"signature.{metric}": signed[metric] for metric in ("bleu", "rouge")}}


def describe(config: Config) -> dict[str, Any]:
    """What the data is like, for `hpo check`."""
    from models import descriptions

    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    found = descriptions.describe(_prepared(config), config.preprocess, config.augment)
    found["cautions"] += descriptions.choices(config, config.model, config.tokenizer)
    return found


def promotable(config: Config) -> None:
    """Raises ModelsError where `test` could not be done, so that nobody trains for days to hear of it."""
    identity.need_test(_prepared(config).count("test", "examples"))


def length(config: Config) -> int:
    """Tokens that a full trial trains on: `tokens`, or `epochs` passes over the training split (one without
    either). All tokens count, though only those of replies are learned."""
    return config.tokens if config.tokens is not None else _length(config, _prepared(config))


def warmup(config: Config) -> int:
    """Tokens after which a trial may first have trained with its peak learning rate; 0 without a warm-up."""
    from models import schedules

    prepared = _prepared(config)
    tokens, example_tokens = _length(config, prepared), _example_tokens(config, prepared)
    return schedules.warmup_end(config, tokens=tokens, example_tokens=example_tokens)


def save(config: Config, *, directory: Path, destination: Path) -> None:
    """Write what `train` left in `directory` as a Hugging Face folder: model, tokenizer with its chat template,
    generation settings.

    `AutoModelForCausalLM` and `AutoTokenizer` load it, and `pipeline("text-generation")` takes messages. Raises
    ModelsError where there is nothing to save, or something in the way.
    """
    from models import replies

    replies.save(config, _prepared(config), directory=directory, destination=destination)


def test(config: Config, *, directory: Path) -> dict[str, float]:
    """What `train` left in `directory`, measured on the whole test split: `test/loss` (nats a token of a reply),
    `test/perplexity`, `test/bleu`, `test/rougeL`; with `model.pretrained` also `test/base_perplexity`, that of the
    model before. Raises ModelsError where there is no test split or no trained model."""
    from models import memory, replies

    prepared = _prepared(config)
    return memory.divide_until_it_fits(lambda: replies.test(config, prepared, directory=directory))


def _prepared(config: Config) -> "Prepared":
    from models import dialogues, examples

    wanted = examples.request(config.data, config.preprocess, config.tokenizer, config.augment, config.model.pretrained)
    return examples.prepare(dialogues.Dialogues(config.data, config.model.context), wanted)


def _length(config: Config, prepared: "Prepared") -> int:
    if config.tokens is not None:
        return config.tokens
    return identity.length(config, prepared.count("train", "tokens"))


def _example_tokens(config: Config, prepared: "Prepared") -> float:
    """Mean tokens of a sequence."""
    return prepared.count("train", "tokens") / prepared.count("train", "packs" if config.packing else "examples")
