"""The door to language modelling: what a sweep names as `models.language_modelling:train`.

Light to import: `Config` and nothing heavy, so that a sweep can be checked without torch. What a trial does
stands in `models.next_token`, which the functions here import when they are called (a fork server has it
already: `PRELOAD`). Knows nothing of searches: it gets settings, a seed, the progresses at which to measure
and a folder of its own.
"""

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import identity, laws, pretrained, requirements
from models.configuration import Augment, Causal, EarlyStopping, Lora, Preprocess, TextData, TextTraining, Tokenizer
from models.errors import ModelsError, SettingError
from models.metrics import Measurement

if TYPE_CHECKING:
    from models.preparation import Prepared

__all__ = [
    "LAWS",
    "METRICS",
    "PRELOAD",
    "REQUIREMENTS",
    "SERVING",
    "Augment",
    "Causal",
    "Config",
    "EarlyStopping",
    "Lora",
    "Measurement",
    "ModelsError",
    "Preprocess",
    "TextData",
    "Tokenizer",
    "describe",
    "length",
    "prepare",
    "promotable",
    "save",
    "test",
    "train",
    "warmup",
]

PRELOAD: tuple[str, ...] = ("models.next_token", "models.warm")
"""Modules a fork server imports once, so that a forked trial imports next to nothing. None touches a GPU."""

SERVING = "models.serving"
"""The module with `_load_pyfunc(path)`, for MLflow's pyfunc flavour."""

REQUIREMENTS: tuple[str, ...] = requirements.PACKAGES
"""Packages that loading a saved model requires."""

METRICS: tuple[str, ...] = (
    "validation/loss",
    "validation/perplexity",
    "validation/bits_per_byte",
    "train/loss",
    "train/tokens_per_second",
    "train/branch_tokens",
    "train/peak_memory_gib",
    "model/parameters",
)
"""What a search may optimize, of all that `train` measures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(TextTraining):
    """Everything a language modelling trial can be told."""

    data: TextData = field(default_factory=TextData)
    """Where the text comes from."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """How text becomes tokens."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """How text is cleaned."""
    augment: Augment = field(default_factory=Augment)
    """How training text is varied."""
    model: Causal = field(default_factory=Causal)
    """What is trained."""

    def __post_init__(self) -> None:
        TextTraining.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        self.tokenizer.check(self.model.pretrained)
        if self.augment.mix:
            raise SettingError(
                "augment.mix: not for language modelling, got a share above 0. Put the other text among data.source."
            )

    @property
    def tokenizer_path(self) -> str | None:
        """Folder or hub name of a pretrained tokenizer: `tokenizer.path`, else `model.pretrained`."""
        return self.tokenizer.path or self.model.pretrained


def train(
    config: Config, *, seed: int, rungs: Sequence[int], directory: Path, divide: int = 1
) -> Generator[Measurement, None, None]:
    """Train one model and yield what it has reached at each rung and at the end.

    seed: of the weights, the data order and dropout. rungs: progresses in tokens at which to measure (those
    beyond the run's end are passed over). directory: this run's own; what it holds of the same run is gone on
    with, and the first measurement is then the one it was left at. Closing the generator leaves a checkpoint
    there.
    divide: where memory does not suffice, into how many parts a forward pass is divided (see `training.train`); the
    curve stays the same.

    Raises ModelsError for data that cannot be read and for a directory that holds another run, Diverged where the
    losses are worse than a guess's, DoesNotFit where memory runs out and dividing further would not help.
    """
    from models import next_token, schedules, training

    prepared = _prepared(config)
    yield from training.train(
        next_token.task(config, prepared, seed=seed),
        config,
        segments=schedules.segments(
            rungs=rungs,
            tokens=_length(config, prepared),
            example_tokens=config.model.context,
            batch_size=config.batch_size,
        ),
        seed=seed,
        directory=directory,
        identity=identity.of(config, seed=seed, rungs=rungs, digest=prepared.facts["digest"]),
        divide=divide,
    )


def prepare(config: Config) -> dict[str, str | int | float]:
    """Tokenise the corpus, or find it tokenised in the cache; its facts (see `models.preparation.Prepared`).

    Raises ModelsError for whatever of the data or the tokenizer cannot be read or used.
    """
    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    return dict(_prepared(config).facts)


def describe(config: Config) -> dict[str, Any]:
    """What the text is like, for `hpo check`."""
    from models import descriptions

    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    found = descriptions.of_text(_prepared(config), config.preprocess, config.augment)
    found["cautions"] += descriptions.choices(config, config.model, config.tokenizer)
    return found


def promotable(config: Config) -> None:
    """Raises ModelsError where `test` could not be done, so that nobody trains for days to hear of it."""
    identity.need_test(_prepared(config).count("test", "tokens"))


def length(config: Config) -> int:
    """Tokens that a full trial trains on: `tokens`, or `epochs` passes over the training split (one without
    either).

    Reads facts of the prepared corpus where the length depends on it, and prepares it where that has not been
    done.
    """
    return config.tokens if config.tokens is not None else _length(config, _prepared(config))


def warmup(config: Config) -> int:
    """Tokens after which a trial may first have trained with its peak learning rate; 0 without a warm-up."""
    from models import schedules

    return schedules.warmup_end(config, tokens=length(config), example_tokens=config.model.context)


def save(config: Config, *, directory: Path, destination: Path) -> None:
    """Write what `train` left in `directory` as a Hugging Face folder: model, tokenizer, generation settings.

    destination: a new or empty folder. `AutoModelForCausalLM` and `AutoTokenizer` load it. Raises ModelsError
    where there is nothing to save, or something in the way.
    """
    from models import next_token

    next_token.save(config, _prepared(config), directory=directory, destination=destination)


def test(config: Config, *, directory: Path) -> dict[str, float]:
    """What `train` left in `directory`, measured on the test split: `test/loss` (nats a token),
    `test/perplexity`, `test/bits_per_byte`, `test/tokens`. Raises ModelsError where there is no test split or
    no trained model."""
    from models import memory, next_token

    prepared = _prepared(config)
    return memory.divide_until_it_fits(lambda: next_token.test(config, prepared, directory=directory))


def _step_law(config: Config) -> float:
    """Li et al. 2025 (arXiv 2503.04715): fitted on models of 215M to 537M parameters and 4B to 80B tokens"""
    laws.need_fit(config, config.model)
    return laws.step_law(laws.parameters(config.model), _tokens(config))


def _adamw_timescale(config: Config) -> float:
    """Bergsma et al. 2025 (arXiv 2505.13738): fitted on models of 111M to 3.3B parameters, on data seen once"""
    laws.need_fit(config, config.model)
    batch = config.batch_size * config.model.context
    return laws.adamw_timescale(laws.parameters(config.model), _tokens(config), batch, config.learning_rate)


LAWS: Mapping[str, Mapping[str, Callable[[Config], float]]] = {
    "learning_rate": {"step law": _step_law},
    "weight_decay": {"adamw timescale": _adamw_timescale},
}
"""By setting, what says where its best value is expected; each after those that it reads. SettingError where no law was
fitted, DataError where `epochs` says the length and the data cannot be read."""


def _tokens(config: Config) -> int:
    if config.tokens is not None:
        return config.tokens
    return identity.length(config, _train_tokens(config.data, config.tokenizer, config.preprocess))


@functools.lru_cache(maxsize=16)
def _train_tokens(data: TextData, tokenizer: Tokenizer, preprocess: Preprocess) -> int:
    """Of the training split; remembered, because a search asks for each configuration that it thinks of."""
    return _prepared(Config(data=data, tokenizer=tokenizer, preprocess=preprocess)).count("train", "tokens")


def _prepared(config: Config) -> "Prepared":
    from models import preparation

    pretrained = config.tokenizer_path if config.tokenizer.kind == "pretrained" else None
    return preparation.prepare(config.data, config.tokenizer, config.preprocess, pretrained=pretrained)


def _length(config: Config, prepared: "Prepared") -> int:
    if config.tokens is not None:
        return config.tokens
    return identity.length(config, prepared.count("train", "tokens"))
