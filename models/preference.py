"""The door to preference tuning: teaching a chat model which of two replies is better, by DPO; what a sweep names as
`models.preference:train`.

Light to import: `Config` and nothing heavy. What a trial does stands in `models.preferring`, what it learns from in
`models.preferences`. Knows nothing of searches.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Gt, Lt

from models import identity, pretrained, requirements
from models.configuration import Augment, Causal, PreferenceData, Preprocess, Tokenizer, Training
from models.configuration.ranges import Above0
from models.errors import SettingError
from models.metrics import Measurement

if TYPE_CHECKING:
    from models.examples import Prepared

PRELOAD: tuple[str, ...] = ("models.preferring", "models.warm")
"""Modules a fork server imports once, so that a forked trial imports next to nothing. None touches a GPU."""

SERVING = "models.serving"
"""The module with `_load_pyfunc(path)`, for MLflow's pyfunc flavour."""

REQUIREMENTS: tuple[str, ...] = requirements.PACKAGES
"""Packages that loading a saved model requires."""

METRICS: tuple[str, ...] = (
    "validation/loss",
    "validation/accuracy",
    "validation/margin",
    "validation/perplexity",
    "train/loss",
    "train/tokens_per_second",
    "train/branch_tokens",
    "train/peak_memory_gib",
    "model/parameters",
)
"""What a search may optimize, of all that `train` measures. The loss and the margin grow with `beta`: where that is
searched, compare by accuracy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(Training):
    """Everything a preference trial can be told."""

    learning_rate: Annotated[float, Gt(0)] = 1e-5
    """Peak learning rate; a hundredth of what a training from scratch takes."""
    label_smoothing: Annotated[float, Ge(0), Lt(0.5)] = 0.0
    """Probability that the two replies are labelled the wrong way around, in the training loss (conservative DPO).
    Validation is never smoothed."""
    data: PreferenceData = field(default_factory=PreferenceData)
    """Where the preferences come from."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """How prompts are cleaned: as they were for the chat model."""
    model: Causal = field(default_factory=Causal)
    """What is trained: `model.pretrained` must name a chat model. It reads its own tokens."""
    beta: Above0 = 0.1
    """How closely the model keeps to the one it starts from: the larger, the closer."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        if self.model.pretrained is None:
            raise SettingError(
                "model.pretrained: needed, for preferences are taught to a chat model, got none. Name the folder of "
                "one that models.chat trained, or one on the hub."
            )


def train(
    config: Config, *, seed: int, rungs: Sequence[int], directory: Path, divide: int = 1
) -> Generator[Measurement, None, None]:
    """Train one model and yield what it has reached at each rung and at the end.

    seed: of the order of the pairs, of adapters and dropout. rungs: progresses in pairs at which to measure.
    directory: this run's own; what it holds of the same run is gone on with, and the first measurement is then the
    one it was left at. Closing the generator leaves a checkpoint there.
    divide: where memory does not suffice, into how many parts a forward pass is divided (see `training.train`); the
    curve stays the same.

    Raises ModelsError for data that cannot be read and for a directory that holds another run, Diverged where the
    losses are worse than a guess's, DoesNotFit where memory runs out and dividing further would not help.
    """
    from models import preferring, schedules, training

    prepared = _prepared(config)
    yield from training.train(
        preferring.task(config, prepared, seed=seed),
        config,
        segments=schedules.segments(rungs=rungs, tokens=length(config), example_tokens=1, batch_size=config.batch_size),
        seed=seed,
        directory=directory,
        identity=identity.of(config, seed=seed, rungs=rungs, digest=prepared.facts["digest"]),
        divide=divide,
    )


def prepare(config: Config) -> dict[str, str | int | float]:
    """Prepare the preferences, or find them prepared in the cache; their facts. Raises ModelsError for whatever of
    the data or the tokenizer cannot be read or used."""
    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    return dict(_prepared(config).facts)


def describe(config: Config) -> dict[str, Any]:
    """What the data is like, for `hpo check`."""
    from models import descriptions

    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    return descriptions.describe(_prepared(config), config.preprocess, Augment())


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
    """Write what `train` left in `directory` as a Hugging Face folder, as `models.chat` does. Raises ModelsError
    where there is nothing to save, or something in the way."""
    from models import preferring

    preferring.save(config, _prepared(config), directory=directory, destination=destination)


def test(config: Config, *, directory: Path) -> dict[str, float]:
    """What `train` left in `directory`, measured on the test split: `test/loss` (nats a pair), `test/accuracy`,
    `test/margin`, `test/perplexity` of the chosen replies and `test/base_perplexity`, that before training. Raises
    ModelsError where there is no test split or no trained model."""
    from models import memory, preferring

    prepared = _prepared(config)
    return memory.divide_until_it_fits(lambda: preferring.test(config, prepared, directory=directory))


def _prepared(config: Config) -> "Prepared":
    from models import examples, preferences

    wanted = examples.request(
        config.data, config.preprocess, Tokenizer(kind="pretrained"), Augment(), config.model.pretrained
    )
    return examples.prepare(preferences.Preferences(config.data, config.model.context), wanted)
