"""What prepared examples are like, for the person who checks a sweep: sizes, what was left out, examples.

Light: reads facts, and varies a few texts. Knows nothing of what is done with the words.
"""

from pathlib import Path
from typing import Any

from models import augment, preprocess, synonyms
from models.configuration import Augment, Network, Preprocess, Tokenizer, Training
from models.corpora import SPLITS as CORPUS_SPLITS
from models.examples import Prepared
from models.preparation import Prepared as Corpus

SPLITS = ("train", "validation", "test", "mix")
LEFT_OUT = {
    "duplicates": "that were there already",
    "leaked": "that validation or test has too",
    "filtered": "that preprocess filters, or are empty after it",
    "empty": "that are empty",
}

MUCH_CUT = 0.1
"""Share of training examples cut to the context above which a person is cautioned."""


def describe(prepared: Prepared, cleaning: Preprocess, varying: Augment) -> dict[str, Any]:
    """Plain JSON: `splits` (a row each), `notes`, `examples` and `cautions` (sentences).

    Raises DataError for a list of synonyms that cannot be read, whether or not this configuration uses it.
    """
    _check_files(varying)
    return {
        "splits": splits(prepared),
        "notes": notes(prepared),
        "examples": examples(prepared, varying),
        "cautions": [*preprocess.cautions(cleaning, str(prepared.facts["task"])), *_much_cut(prepared)],
    }


def _check_files(varying: Augment) -> None:
    """A search may use synonyms in some trials alone: their file is read before the first one."""
    if varying.synonyms_file is not None:
        synonyms.read(Path(varying.synonyms_file))


def _much_cut(prepared: Prepared) -> list[str]:
    """A caution where the context cuts more of the training split than a few long examples."""
    share = prepared.count("train", "truncated") / max(1, prepared.count("train", "examples"))
    if share <= MUCH_CUT:
        return []
    return [
        f"model.context: {100 * share:.0f}% of the training examples are cut to {prepared.shape.context} tokens, and "
        "what is cut off is never learned. Raise it, or leave out the long ones (preprocess.max_words)."
    ]


def choices(training: Training, model: Network, tokenizer: Tokenizer) -> list[str]:
    """Cautions about settings that are allowed together and rarely make sense."""
    found: list[str] = []
    if model.pretrained is None:
        if training.tuning == "lora":
            found.append(
                "tuning: 'lora' without model.pretrained leaves the random weights of a new model as they are."
            )
        if training.freeze_layers:
            found.append("freeze_layers: without model.pretrained, the frozen blocks stay random.")
    if tokenizer.kind not in ("bpe", "words") and tokenizer.vocabulary != Tokenizer().vocabulary:
        found.append(f"tokenizer.vocabulary: of no effect with tokenizer.kind {tokenizer.kind!r}.")
    return found


def of_text(prepared: Corpus, cleaning: Preprocess, varying: Augment) -> dict[str, Any]:
    """The same of a tokenised corpus."""
    _check_files(varying)
    text = _beginning(prepared)
    shown = [text]
    if varying.varies_text:
        shown.append(f"varied: {augment.augmenter(varying)(text, augment.generator(0, 0, 0))}")
    units = ("texts", "tokens", "bytes", "unknown")
    return {
        "splits": [
            {
                "split": split,
                "from": prepared.facts[f"{split}_origin"],
                **{unit: prepared.count(split, unit) for unit in units},
            }
            for split in CORPUS_SPLITS
            if prepared.count(split, "tokens")
        ],
        "notes": [f"a vocabulary of {prepared.vocabulary:,} tokens"],
        "examples": [" ".join(example.split()) for example in shown],
        "cautions": preprocess.cautions(cleaning, "language modelling"),
    }


def _beginning(prepared: Corpus) -> str:
    """The first hundred tokens of the training text."""
    import tokenizers

    backend: Any = tokenizers.Tokenizer.from_file(str(prepared.tokenizer / "tokenizer.json"))
    text: str = backend.decode(prepared.tokens("train")[:100].tolist(), skip_special_tokens=False)
    return text


def splits(prepared: Prepared) -> list[dict[str, Any]]:
    """Size of each split, and what share of its examples is cut to the context."""
    return [
        {
            "split": split,
            "from": prepared.facts.get(f"{split}_origin", ""),
            "examples": prepared.count(split, "examples"),
            "tokens": prepared.count(split, "tokens"),
            "truncated": prepared.count(split, "truncated") / prepared.count(split, "examples"),
        }
        for split in SPLITS
        if prepared.count(split, "examples")
    ]


def notes(prepared: Prepared) -> list[str]:
    """What was left out of the data, and what will be cut."""
    found = [
        f"{prepared.count(split, why):,} examples left out of {split} {words}"
        for split in SPLITS
        for why, words in LEFT_OUT.items()
        if prepared.count(split, why)
    ]
    context = prepared.shape.context
    return found + [
        f"{prepared.count(split, 'truncated'):,} of {prepared.count(split, 'examples'):,} {split} examples are longer "
        f"than {context} tokens and are cut"
        for split in SPLITS
        if prepared.count(split, "truncated")
    ]


def examples(prepared: Prepared, varying: Augment) -> list[str]:
    """A few training examples as they are after preprocessing, and the first of them varied."""
    found: list[str] = list(prepared.details.get("examples", []))
    if varying.varies_text and found:
        text = prepared.column("train", "text").text(0)
        found.append(f"varied: {augment.augmenter(varying)(text, augment.generator(0, 0, 0))}")
    return found
