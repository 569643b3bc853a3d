"""How good texts and labels are, by the field's own libraries: sacreBLEU, rouge-score and scikit-learn.

Nothing is computed here that they compute; here is decided with which settings, once, so that two trials
compare. Every metric comes as `<prefix>/<name>`, or as `<name>` where the prefix is empty. Knows nothing of
models, tokens or data: texts are strings, labels are numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from models.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Labels = npt.ArrayLike
    """Shape (N,): one index into `labels` an example. Or shape (N, L): 1 where the example has the label,
    else 0."""

LABEL_CHARACTERS = 100
"""Of a label in a metric's name; trackers refuse names above 250."""


class _Words:
    """What ROUGE counts: runs of letters and digits of any script, with their combining marks, in lower case.

    rouge-score's own tokenizer drops everything but a-z and 0-9: of `Üben Größe` it leaves `ben`, `gr`, `e`.
    On ASCII the two are the same (tested).
    """

    def tokenize(self, text: str) -> list[str]:
        import regex

        words: list[str] = regex.findall(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*", text.lower())
        return words


def translation(
    prefix: str, hypotheses: Sequence[str], references: Sequence[str], *, rouge: bool = False
) -> dict[str, float]:
    """Scores of texts against one reference each, over the whole corpus.

    `bleu`: Papineni et al. 2002 as sacreBLEU has it (Post 2018), tokenizer 13a, 0 to 100. `chrf`: chrF2
    (Popović 2016), 0 to 100. `length_ratio`: words of the hypotheses by words of the references, as BLEU
    counts them; 0 where the references have none. With `rouge`: `rouge1`, `rouge2`, `rougeL`, the F-measures
    of Lin 2004, each example's by rouge-score without stemming, times 100, and their mean. Its words are
    those of any script, not only a-z and 0-9, which rouge-score keeps by itself; a script without spaces is
    not cut into words (13a does not either: there `chrf` is the one to read). An empty hypothesis scores 0.
    Raises DataError for no pairs or lists of different lengths.
    """
    _check_pairs(hypotheses, references)
    bleu, chrf = _corpus_metrics()
    found = bleu.corpus_score(hypotheses, [references])
    scores = {
        "bleu": found.score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "length_ratio": found.ratio,
    }
    if rouge:
        scores |= _rouge(hypotheses, references, ["rouge1", "rouge2", "rougeL"])
    return _named(prefix, scores)


def replies(prefix: str, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """`bleu` and `rougeL` of a dialogue's replies; both as in `translation`."""
    _check_pairs(hypotheses, references)
    bleu, _ = _corpus_metrics()
    found = bleu.corpus_score(hypotheses, [references])
    return _named(prefix, {"bleu": found.score, **_rouge(hypotheses, references, ["rougeL"])})


def signatures(*, rouge: bool = False) -> dict[str, str]:
    """What to put beside a score so that others can repeat it.

    `bleu`, `chrf`: sacreBLEU's signatures, letter by letter as it writes them. `rouge`: the version of
    rouge-score and its settings, in the same form.
    """
    from importlib.metadata import version

    signed = {}
    for name, metric in zip(("bleu", "chrf"), _corpus_metrics(), strict=True):
        metric.corpus_score(["a"], [["a"]])  # before it has scored, it does not know the number of references
        signed[name] = str(metric.get_signature())
    if rouge:
        settings = "nrefs:1|case:lc|stem:no|tok:unicode-words|agg:mean-f"
        signed["rouge"] = f"{settings}|version:{version('rouge-score')}"
    return signed


def classification(prefix: str, predicted: Labels, actual: Labels, labels: Sequence[str]) -> dict[str, float]:
    """Scores of predicted labels: one of L an example, or any number of them.

    predicted, actual: both of shape (N,), indices into `labels`, or both of shape (N, L), 0 or 1. labels:
    their names, all different. `accuracy`: share of examples with all labels right, 0 to 1. `f1/<label>`: of
    each label, 0 where nothing says otherwise (scikit-learn's `zero_division=0`). `macro_f1`: the mean of
    these over the labels that occur in `predicted` or `actual`, so that a label which the split lacks costs
    nothing unless it is predicted (for one label an example this is scikit-learn's default).

    In names, what trackers refuse in a label becomes `-`, and labels that would become the same get their
    index. Raises DataError for arrays that do not fit each other or the labels.
    """
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score

    predicted, actual = _checked(predicted, actual, labels)
    every = range(len(labels))
    each = f1_score(actual, predicted, labels=every, average=None, zero_division=0)
    if actual.ndim == 1:
        occurring = np.union1d(actual, predicted)
    else:
        occurring = np.flatnonzero((actual | predicted).any(axis=0))
    macro = f1_score(actual, predicted, labels=occurring, average="macro", zero_division=0) if len(occurring) else 0.0
    scores = {"macro_f1": macro, "accuracy": accuracy_score(actual, predicted)}
    return _named(prefix, scores | {f"f1/{name}": f1 for name, f1 in zip(_spelled(labels), each, strict=True)})


def confusion(predicted: Labels, actual: Labels, labels: Sequence[str]) -> list[list[int]]:
    """How many examples of each label (row) were given each label (column), both in the order of `labels`.

    For one label an example: both of shape (N,). Raises DataError otherwise.
    """
    from sklearn.metrics import confusion_matrix

    predicted, actual = _checked(predicted, actual, labels)
    if actual.ndim != 1:
        raise DataError(f"confusion: one label an example, got shape {actual.shape}. Use the F1 of each label.")
    table: list[list[int]] = confusion_matrix(actual, predicted, labels=range(len(labels))).tolist()
    return table


def _check_pairs(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(
            f"scores: one hypothesis for each reference and at least one, got {len(hypotheses)} hypotheses and "
            f"{len(references)} references. Score a split that has examples."
        )


def _corpus_metrics() -> tuple[Any, Any]:
    """sacreBLEU's BLEU and chrF with its defaults."""
    from sacrebleu import BLEU, CHRF

    # `force` changes no score: it leaves out the advice about texts that look tokenized, which a trial would
    # print at each rung.
    return BLEU(force=True), CHRF()


def _rouge(hypotheses: Sequence[str], references: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(kinds, tokenizer=_Words())
    found = [scorer.score(wanted, got) for got, wanted in zip(hypotheses, references, strict=True)]
    return {kind: 100 * sum(score[kind].fmeasure for score in found) / len(found) for kind in kinds}


def _named(prefix: str, scores: Mapping[str, Any]) -> dict[str, float]:
    return {f"{prefix}/{name}" if prefix else name: float(score) for name, score in scores.items()}


def _checked(
    predicted: Labels, actual: Labels, labels: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    import numpy as np

    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise DataError(f"labels: all different, got {twice[0]!r} more than once. Give each label once.")
    try:
        got, wanted = np.asarray(predicted), np.asarray(actual)
    except ValueError as error:  # rows of different lengths
        raise DataError(
            f"labels: several an example are rows of {len(labels)} numbers 0 or 1, got rows of different lengths. "
            "Write 1 where the example has the label."
        ) from error
    fitting = got.shape == wanted.shape and len(wanted) and wanted.shape[1:] in ((), (len(labels),))
    if not fitting:
        raise DataError(
            f"labels: predicted and actual must both be (N,) or (N, {len(labels)}) with N at least 1, got "
            f"{got.shape} and {wanted.shape}. Score a split that has examples, with its own labels."
        )
    bound = len(labels) if wanted.ndim == 1 else 2
    for name, values in (("predicted", got), ("actual", wanted)):
        if wrong := [value for value in np.unique(values).tolist() if value not in range(bound)]:
            raise DataError(f"{name}: whole numbers from 0 to {bound - 1}, got {wrong[0]}. Give indices of labels.")
    return got.astype(np.int64), wanted.astype(np.int64)


def _spelled(labels: Sequence[str]) -> list[str]:
    """The labels in the characters that trackers take in a name, each still different from all others."""
    import regex

    # No slash: it would begin a group of metrics.
    plain = [regex.sub(r"[^\w.\- ]", "-", label)[:LABEL_CHARACTERS] for label in labels]
    plain = [name if name.strip(". ") else "label" for name in plain]
    count = Counter(plain)
    # A label that needed no change keeps its name; of the others, those that are not alone get their index,
    # once more where what comes out is another label's name.
    names = plain
    while len(set(names)) < len(names):
        count = Counter(names)
        names = [
            name if plain[index] == labels[index] or count[name] == 1 else f"{name}-{index}"
            for index, name in enumerate(names)
        ]
    return names
