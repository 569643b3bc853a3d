"""The door to classification: what a sweep names as `models.classification:train`.

Light to import: `Config` and nothing heavy. What a trial does stands in `models.labelling`, what it learns from in
`models.labelled_texts`. Knows nothing of searches.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from models import identity, pretrained, requirements
from models.configuration import Augment, Classifier, LabelledData, Preprocess, Tokenizer, Training
from models.metrics import Measurement

if TYPE_CHECKING:
    from models.examples import Prepared

PRELOAD: tuple[str, ...] = ("models.labelling", "models.warm")
"""Modules a fork server imports once, so that a forked trial imports next to nothing. None touches a GPU."""

SERVING = "models.serving"
"""The module with `_load_pyfunc(path)`, for MLflow's pyfunc flavour."""

REQUIREMENTS: tuple[str, ...] = requirements.PACKAGES
"""Packages that loading a saved model requires."""

METRICS: tuple[str, ...] = (
    "validation/macro_f1",
    "validation/accuracy",
    "validation/loss",
    "train/loss",
    "train/tokens_per_second",
    "train/branch_tokens",
    "train/peak_memory_gib",
    "model/parameters",
)
"""What a search may optimize, of all that `train` measures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config(Training):
    """Everything a classification trial can be told."""

    data: LabelledData = field(default_factory=LabelledData)
    """Where the texts and their labels come from."""
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    """How text becomes tokens."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """How texts are cleaned."""
    augment: Augment = field(default_factory=Augment)
    """How training texts are varied."""
    model: Classifier = field(default_factory=Classifier)
    """What is trained."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: each example weighs in the training loss as its label is rare, n / (k n_c), for n examples of k
    labels, n_c of this one; with `data.multi_label`, presence and absence of each label weigh the same. Validation
    is never weighted."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)  # not super(): slots=True makes a new class, which super() does not know
        self.tokenizer.check(self.model.pretrained)


def train(
    config: Config, *, seed: int, rungs: Sequence[int], directory: Path, divide: int = 1
) -> Generator[Measurement, None, None]:
    """Train one model and yield what it has reached at each rung and at the end.

    seed: of the weights, the order of the examples, their variation and dropout. rungs: progresses in examples at
    which to measure. directory: this run's own; what it holds of the same run is gone on with, and the first
    measurement is then the one it was left at. Closing the generator leaves a checkpoint there.
    divide: where memory does not suffice, into how many parts a forward pass is divided (see `training.train`); the
    curve stays the same.

    Raises ModelsError for data that cannot be read and for a directory that holds another run, Diverged where the
    losses are worse than a guess's, DoesNotFit where memory runs out and dividing further would not help.
    """
    from models import labelling, schedules, training

    prepared = _prepared(config)
    yield from training.train(
        labelling.task(config, prepared, seed=seed),
        config,
        segments=schedules.segments(rungs=rungs, tokens=length(config), example_tokens=1, batch_size=config.batch_size),
        seed=seed,
        directory=directory,
        identity=identity.of(config, seed=seed, rungs=rungs, digest=prepared.facts["digest"]),
        divide=divide,
    )


def prepare(config: Config) -> dict[str, str | int | float]:
    """Prepare the texts, or find them prepared in the cache; their facts. Raises ModelsError for whatever of the
    data or the tokenizer cannot be read or used."""
    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    return dict(_prepared(config).facts)


def describe(config: Config) -> dict[str, Any]:
    """What the data is like, for `hpo check`: with the balance of the labels, and what the linear baseline reaches."""
    from models import descriptions, labelled_texts

    pretrained.fits(config.model, freeze_layers=config.freeze_layers)
    prepared = _prepared(config)
    found = descriptions.describe(prepared, config.preprocess, config.augment)
    found["cautions"] += descriptions.choices(config, config.model, config.tokenizer)
    return {**found, "notes": [*found["notes"], *labelled_texts.notes(prepared, multi_label=config.data.multi_label)]}


def promotable(config: Config) -> None:
    """Raises ModelsError where `test` could not be done, so that nobody trains for days to hear of it."""
    identity.need_test(_prepared(config).count("test", "examples"))


def objection(config: Config, tested: Mapping[str, float]) -> str | None:
    """Why a tested model should not be put to use although it beats other models, or None: a linear model, ready in
    seconds, names the labels better. tested: what `test` returned."""
    reached, linear = tested["test/macro_f1"], tested["test/linear_macro_f1"]
    if reached >= linear:
        return None
    return (
        f"the linear baseline (TF-IDF and logistic regression, fitted in seconds) is better on the test split: "
        f"macro-F1 {linear:.4f} against {reached:.4f}"
    )


def length(config: Config) -> int:
    """Examples that a full trial trains on: `epochs` passes over the training split (one without)."""
    return identity.length(config, _prepared(config).count("train", "examples"))


def warmup(config: Config) -> int:
    """Examples after which a trial may first have trained with its peak learning rate; 0 without a warm-up."""
    from models import schedules

    return schedules.warmup_end(config, tokens=length(config), example_tokens=1)


def save(config: Config, *, directory: Path, destination: Path) -> None:
    """Write what `train` left in `directory` as a Hugging Face folder: model, tokenizer, `confusion.json`.

    `AutoModelForSequenceClassification`, `AutoTokenizer` and `pipeline("text-classification")` load it. Raises
    ModelsError where there is nothing to save, or something in the way.
    """
    from models import labelling

    labelling.save(config, _prepared(config), directory=directory, destination=destination)


def test(config: Config, *, directory: Path) -> dict[str, float]:
    """What `train` left in `directory`, measured on the whole test split: `test/loss`, `test/accuracy`,
    `test/macro_f1`, `test/f1/<label>` (with at most 50 labels), `test/examples`; and beside it
    `test/linear_macro_f1` and `test/linear_accuracy` of the linear baseline. Raises ModelsError where there is no
    test split or no trained model."""
    from models import labelling, memory

    prepared = _prepared(config)
    return memory.divide_until_it_fits(lambda: labelling.test(config, prepared, directory=directory))


def _prepared(config: Config) -> "Prepared":
    from models import examples, labelled_texts

    wanted = examples.request(config.data, config.preprocess, config.tokenizer, config.augment, config.model.pretrained)
    return examples.prepare(labelled_texts.LabelledTexts(config.data, config.model), wanted)
