"""Where text comes from, how it is split, cleaned, varied and cut into tokens."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Lt

from models.configuration.ranges import Count, Positive, Probability, Share
from models.errors import SettingError

Step = Literal["html", "special_characters", "unicode", "lowercase", "sentences", "stop_words", "punctuation", "words"]

STEPS: tuple[Step, ...] = get_args(Step)
"""The steps of preprocessing in their usual order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Where the examples come from and how they are split: what all objectives share."""

    source: str = "sample"
    """`sample` (built in, no download), a file, a folder, a glob, or `hub:owner/name` on the Hugging Face
    hub."""
    configuration: str | None = None
    """A hub data set's configuration, such as `wikitext-103-raw-v1`."""
    revision: str | None = None
    """A hub data set's branch, tag or commit. None: `main` as it was when it was first prepared."""
    streaming: bool = False
    """Read a hub data set row by row over the network instead of downloading it whole first."""
    format: Literal["auto", "txt", "jsonl", "csv", "parquet"] = "auto"
    """Format of local files. auto: by their suffix."""
    split_by: Literal["hash", "position"] = "hash"
    """hash: each example (of plain text: each paragraph) goes where a hash of its text sends it, so that no
    text is in two splits. position: first train, then validation, then test (of plain text: by characters)."""
    validation: Annotated[float, Gt(0), Lt(1)] = 0.1
    """Share of the examples that validates, unless the source names a split for it."""
    test: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the examples kept for the test, unless the source names a split for it. 0: no test split."""
    train_split: str | None = None
    """Name of the training split: a hub split, or the stem of files in a folder. None: `train` where the
    source has that split, else everything (a hub set must have it)."""
    validation_split: str | None = None
    """Name of the validation split. None: `validation`, `valid`, `val` or `dev` where the source has one,
    else the share above of the train split."""
    test_split: str | None = None
    """Name of the test split. None: `test` where the source has it, else the share above of the train
    split."""
    limit: Positive | None = None
    """Train on at most this many examples (of running text: texts), the first ones. None: all."""

    def __post_init__(self) -> None:
        if self.validation + self.test >= 1:
            raise SettingError(
                f"data: validation + test must leave something to train on, got {self.validation} + "
                f"{self.test}. Lower one of them."
            )
        if not self.source.startswith("hub:"):
            for name in ("configuration", "revision", "streaming"):
                if value := getattr(self, name):
                    raise SettingError(
                        f"data.{name}: only for a data set of the hub, got {value!r} with data.source {self.source!r}. "
                        "Leave it out, or write the source as hub:owner/name."
                    )
        if self.format != "auto" and (self.source == "sample" or self.source.startswith(("hub:", "sample:"))):
            raise SettingError(
                f"data.format: only for files, got {self.format!r} with data.source {self.source!r}. Leave it out."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TextData(Data):
    """Running text or documents, for language modelling. There are two built-in texts: `sample` is Python's own help
    pages, `sample:help desk` invented documents, on which a base model for the sample of chat can be trained."""

    text_column: str = "text"
    """The column that holds the text (jsonl, csv, parquet, hub)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledData(Data):
    """Texts with labels, for classification. The built-in sample: documentation strings by subject."""

    text_column: str = "text"
    """The column that holds the text."""
    label_column: str = "label"
    """The column that holds the label: text or a whole number; with `multi_label`, a list of them, or several
    in one text with `label_separator` between them."""
    multi_label: bool = False
    """Whether a text has any number of labels, none included, instead of exactly one."""
    label_separator: str = ","
    """What stands between several labels in one text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairData(Data):
    """Pairs of texts, for translation, summarising or rewriting. The built-in sample: generated appointments."""

    source_column: str = "source"
    """The column that holds the text to read."""
    target_column: str = "target"
    """The column that holds the text to write."""
    source_suffix: str | None = None
    """For parallel files, aligned line by line: the suffix of the files to read, such as `de` for train.de."""
    target_suffix: str | None = None
    """For parallel files: the suffix of the files to write, such as `en` for train.en."""

    def __post_init__(self) -> None:
        Data.__post_init__(self)
        if (self.source_suffix is None) != (self.target_suffix is None):
            raise SettingError(
                f"data.source_suffix, data.target_suffix: parallel files need both, got {self.source_suffix!r} and "
                f"{self.target_suffix!r}. Give both, or neither for a table with columns."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DialogueData(Data):
    """Dialogues, for chat. The built-in sample: a generated help desk."""

    messages_column: str = "messages"
    """The column that holds a list of messages, each with `role` (system, user, assistant) and `content`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceData(Data):
    """A prompt with a better and a worse reply. The built-in sample: a generated help desk."""

    prompt_column: str = "prompt"
    """The column that holds the dialogue so far: a list of messages, or a text that the user says."""
    chosen_column: str = "chosen"
    """The column that holds the better reply, a text."""
    rejected_column: str = "rejected"
    """The column that holds the worse reply, a text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """How text is cleaned before anything sees it: training, validation, test, and a served model's input.

    Only what a model reads is cleaned: the references that translations and replies are scored against stay
    as they are in the data, and so no step can make a metric easier. Filters (`min_words`, `max_words`,
    `deduplicate`) take from the training split alone, so that all trials are measured on the same examples.
    """

    html: bool = False
    """Strip markup: tags go, entities become characters, scripts and styles go with their content."""
    unicode: Literal["none", "nfc", "nfkc"] = "none"
    """Normalise Unicode. nfc: composed characters. nfkc: compatible forms as well (ﬁ to fi, ² to 2)."""
    special_characters: bool = False
    """Mend wrongly decoded text (Ã© to é), straighten quotation marks and dashes, drop control and zero-width
    characters, and make each run of spaces one space; line ends stay."""
    lowercase: bool = False
    """Make everything lower case."""
    sentences: bool = False
    """Put each sentence on a line of its own."""
    stop_words: str | None = None
    """Remove the most frequent words of these languages: codes such as `en` or `de,fr`."""
    punctuation: bool = False
    """Remove punctuation."""
    words: bool = False
    """Separate words and punctuation by spaces, for tokenizers that cut at spaces."""
    order: tuple[Step, ...] = STEPS
    """In which order the steps that are switched on are taken; all of these names, each once."""
    min_words: Count = 0
    """Leave out training examples with fewer words (separated by white space)."""
    max_words: Positive | None = None
    """Leave out training examples with more words."""
    deduplicate: bool | None = None
    """Leave out training examples that have been there before, but for case, punctuation and spaces. None: yes,
    but not of running text, which may repeat a paragraph on purpose."""

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(STEPS):
            raise SettingError(
                f"preprocess.order: must name each step once ({', '.join(STEPS)}), got {', '.join(self.order)}. "
                "Which steps are taken is said by their own settings."
            )
        if self.stop_words is not None and not self.stop_words.strip(" ,"):
            raise SettingError(
                f"preprocess.stop_words: must name languages, got {self.stop_words!r}. Give codes such as en or "
                "de,fr, or leave it out."
            )
        if self.max_words is not None and self.max_words < self.min_words:
            raise SettingError(
                f"preprocess.max_words: must be at least preprocess.min_words, got {self.max_words} and "
                f"{self.min_words}. No example would be left."
            )

    @property
    def cleans(self) -> bool:
        """Whether any step that changes a text is switched on."""
        return self.unicode != "none" or any(getattr(self, step) for step in STEPS if step != "unicode")

    @property
    def counts_words(self) -> bool:
        """Whether there is a filter by length."""
        return self.min_words > 0 or self.max_words is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """How training text is varied, anew in each epoch from the trial's seed. Validation and test never are.

    0 switches a kind off. Taken in the order of this list. Of a pair, the source is varied; of a dialogue,
    what the user says; of a text with a label, the text.
    """

    sentence_order: Share = 0.0
    """Probability that a text's sentences are put in a random order (Lewis et al. 2020, BART, section 2.2)."""
    rotation: Share = 0.0
    """Probability that a text begins at a word drawn at random and wraps around (document rotation, ibid.)."""
    synonyms: Share = 0.0
    """Share of the words listed in `synonyms_file` that are replaced by a synonym."""
    synonyms_file: str | None = None
    """A text file: on each line, words or phrases that may stand for one another, separated by commas."""
    word_dropout: Probability = 0.0
    """Share of words left out (never all)."""
    word_swaps: Share = 0.0
    """Share of words that change places with another drawn at random (Wei & Zou 2019, EDA)."""
    word_shuffle: Count = 0
    """Words move at most this many places (Lample et al. 2018, section 2.3)."""
    span_mask: Probability = 0.0
    """Share of words masked in spans, whose lengths are Poisson with mean 3; a span becomes one `mask`
    (text infilling, BART, section 2.2)."""
    mask: str = "_"
    """What stands for a masked span."""
    characters: Share = 0.0
    """Share of letters with a typing error: a neighbouring key, a letter dropped, doubled or swapped with the
    next."""
    keyboard: Literal["qwerty", "qwertz", "azerty"] = "qwerty"
    """Whose neighbouring keys are hit by mistake."""
    mix: Share = 0.0
    """Share of an epoch's examples drawn from `mix_source` in place of one of their own (back-translated or
    other data)."""
    mix_source: str | None = None
    """A file, folder, glob or hub name with further training examples, read like `data.source`."""

    def __post_init__(self) -> None:
        for strength, needed in (("synonyms", "synonyms_file"), ("mix", "mix_source")):
            if getattr(self, strength) > 0 and getattr(self, needed) is None:
                raise SettingError(
                    f"augment.{needed}: needed where augment.{strength} is above 0, got none. Name it, or leave "
                    f"augment.{strength} out."
                )

    @property
    def varies_text(self) -> bool:
        """Whether any kind that changes a text is switched on."""
        kinds = ("sentence_order", "rotation", "synonyms", "word_dropout", "word_swaps", "word_shuffle", "span_mask")
        return any(getattr(self, kind) for kind in (*kinds, "characters"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenizer:
    """How text becomes tokens."""

    kind: Literal["characters", "bytes", "words", "bpe", "pretrained"] = "bpe"
    """characters: those of the train split. bytes: UTF-8. words: the most frequent words and signs of the
    train split. bpe: byte-level BPE, trained on the train split. pretrained: the one at `path`."""
    vocabulary: Annotated[int, Ge(257)] = 1024
    """Entries of a bpe or words vocabulary, special tokens (and, of bpe, 256 bytes) included."""
    path: str | None = None
    """A pretrained tokenizer: a folder or a hub name. None: that of `model.pretrained`."""

    def __post_init__(self) -> None:
        if self.path is not None and self.kind != "pretrained":
            raise SettingError(
                f"tokenizer.path: only for tokenizer.kind 'pretrained', got kind {self.kind!r}. "
                "Set the kind or leave the path out."
            )

    def check(self, model: str | None) -> None:
        """Raises SettingError where the tokenizer does not go with the pretrained model (`model.pretrained`)."""
        if model is not None and self.kind != "pretrained":
            raise SettingError(
                f"tokenizer.kind: must be 'pretrained' with model.pretrained, got {self.kind!r}. "
                "A pretrained model reads the tokens it was trained on."
            )
        if self.kind == "pretrained" and (self.path or model) is None:
            raise SettingError("tokenizer.path: needed for tokenizer.kind 'pretrained' without model.pretrained.")
