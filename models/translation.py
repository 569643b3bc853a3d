"""The door to translation, summarising and rewriting: what a sweep names as `models.translation:train`.

Light to import: `Config` and nothing heavy. What a trial does stands in `models.sequence_to_sequence`, what it learns
from in `models.pairs`. Knows nothing of searches.
"""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models import identity, pretrained, requirements
from models.configuration import Augment, Generation, PairData, Preprocess, SequenceToSequence, Tokenizer, Training
from models.errors import SettingError
from models.metrics import Measurement

if TYPE_CHECKING:
    from models.examples import Prepared

PRELOAD: tuple[str, ...] = ("models.sequence_to_sequence", "models.warm")
"""Modules a fork server imports once, so that a forked trial imports next to nothing. None touches a GPU."""

SERVING = "models.serving"
"""The module with `_load_pyfunc(path)`, for MLflow's pyfunc flavour."""

REQUIREMENTS: tuple[str, ...] = requirements.PACKAGES
"""Packages that loading a saved model requires."""

METRICS: tuple[str, ...] = (
    "validation/bleu",
    "validation/chrf",
    "validation/loss",
    "validation/perplexity",
    "validation/rouge1",
    "validation/rouge2",
    "validation/rougeL",
    "validation/length_ratio",
    "train/loss",
    "train/tokens_per_second",
    "train/branch_tokens",
    "train/peak_memory_gib",
    "model/parameters",
)
"""What a search may optimize, of all that `train` measures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(Training):
    """Everything a translation trial can be told."""

    data: PairData = field(default_factory=PairData)
    """Where the pairs come from."""
    tokenizer: Tokenizer = field(default_factory=lambda: Tokenizer(vocabulary=4096))
    """How text becomes tokens; source and target share a vocabulary."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """How texts are cleaned; references are not."""
    augment: Augment = field(default_factory=Augment)
    """How sources are varied."""
    model: SequenceToSequence = field(default_factory=SequenceToSequence)
    """What is trained."""
    generation: Generation = field(default_factory=Generation)
    """How its texts are written where they are scored."""
    rouge: bool = False
    """Whether to measure ROUGE too, as for summaries."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        self.tokenizer.check(self.model.pretrained)

        # Of a pretrained model nothing is read here: whether it is a decoder alone is asked when data is prepared.
        alone = self.model.pretrained is None and self.model.family in ("gpt2", "llama")
        longest = self.model.context - 1 if alone else self.model.context
        if self.generation.max_new_tokens is not None and self.generation.max_new_tokens > longest:
            raise SettingError(
                f"generation.max_new_tokens: at most {longest} with model.context {self.model.context}, got "
                f"{self.generation.max_new_tokens}. Lower it, or leave it out."
            )

    @property
    def side(self) -> int:
        """Longest source, and longest target, in tokens: the context, of which a decoder alone has half for each."""
        return max(2, self.model.context // 2) if self._is_decoder else self.model.context

    @property
    def _is_decoder(self) -> bool:
        """Whether the model is a decoder alone; of a pretrained one its configuration says so. Raises DataError."""
        name = self.model.pretrained
        if name is None:
            return self.model.family in ("gpt2", "llama")
        file = Path(name).expanduser() / "config.json"
        if file.is_file():
            return not json.loads(file.read_text()).get("is_encoder_decoder", False)
        from models import architectures

        return not architectures.is_encoder_decoder(self.model)


def train(
    config: Config, *, seed: int, rungs: Sequence[int], directory: Path, divide: int = 1
) -> Generator[Measurement, None, None]:
    """Train one model and yield what it has reached at each rung and at the end.

    seed: of the weights, the order of the pairs, their variation and dropout. rungs: progresses in pairs at which to
    measure. directory: this run's own; what it holds of the same run is gone on with, and the first measurement is
    then the one it was left at. Closing the generator leaves a checkpoint there.
    divide: where memory does not suffice, into how many parts a forward pass is divided (see `training.train`); the
    curve stays the same.

    Raises ModelsError for data that cannot be read and for a directory that holds another run, Diverged where the
    losses are worse than a guess's, DoesNotFit where memory runs out and dividing further would not help.
    """
    from models import schedules, sequence_to_sequence, training

    prepared = _prepared(config)
    yield from training.train(
        sequence_to_sequence.task(config, prepared, seed=seed),
        config,
        segments=schedules.segments(rungs=rungs, tokens=length(config), example_tokens=1, batch_size=config.batch_size),
        seed=seed,
        directory=directory,
        identity=identity.of(config, seed=seed, rungs=rungs, digest=prepared.facts["digest"]),
        divide=divide,
    )


def prepare(config: Config) -> dict[str, str | int | float]:
    """Prepare the pairs, or find them prepared in the cache; their facts. Raises ModelsError for whatever of the
    data or the tokenizer cannot be read or used."""
    from models import scores

    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    signed = {f"signature.{metric}": text for metric, text in scores.signatures(rouge=config.rouge).items()}
    return {**_prepared(config).facts, **signed}


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
    """Pairs that a full trial trains on: `epochs` passes over the training split (one without)."""
    return identity.length(config, _prepared(config).count("train", "examples"))


def warmup(config: Config) -> int:
    """Pairs after which a trial may first have trained with its peak learning rate; 0 without a warm-up."""
    from models import schedules

    return schedules.warmup_end(config, tokens=length(config), example_tokens=1)


def save(config: Config, *, directory: Path, destination: Path) -> None:
    """Write what `train` left in `directory` as a Hugging Face folder: model, tokenizer, generation settings.

    `AutoModelForSeq2SeqLM` (of a decoder alone, `AutoModelForCausalLM`) and `AutoTokenizer` load it. Raises
    ModelsError where there is nothing to save, or something in the way.
    """
    from models import sequence_to_sequence

    sequence_to_sequence.save(config, _prepared(config), directory=directory, destination=destination)


def test(config: Config, *, directory: Path) -> dict[str, float]:
    """What `train` left in `directory`, measured on the whole test split: `test/bleu`, `test/chrf`, `test/loss`
    (nats a target token), ... Raises ModelsError where there is no test split or no trained model."""
    from models import memory, sequence_to_sequence

    prepared = _prepared(config)
    return memory.divide_until_it_fits(lambda: sequence_to_sequence.test(config, prepared, directory=directory))


def _prepared(config: Config) -> "Prepared":
    from models import examples, pairs

    wanted = examples.request(config.data, config.preprocess, config.tokenizer, config.augment, config.model.pretrained)
    return examples.prepare(pairs.Pairs(config.data, config.side), wanted)
