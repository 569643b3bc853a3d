"""What prepared examples are like, for the person who checks a sweep: sizes, what was left out, examples.

Light: reads facts, and varies a few texts. Knows nothing of what is done with the words.
"""

from typing import Any

from models import augment, preprocess
from models.configuration import Augment, Preprocess
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


def describe(prepared: Prepared, cleaning: Preprocess, varying: Augment) -> dict[str, Any]:
    """Plain JSON: `splits` (a row each), `notes`, `examples` and `cautions` (sentences)."""
    return {
        "splits": splits(prepared),
        "notes": notes(prepared),
        "examples": examples(prepared, varying),
        "cautions": preprocess.cautions(cleaning, str(prepared.facts["task"])),
    }


def of_text(prepared: Corpus, cleaning: Preprocess, varying: Augment) -> dict[str, Any]:
    """The same of a tokenised corpus."""
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
