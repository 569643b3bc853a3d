"""The linear baseline of text classification: TF-IDF of word n-grams and logistic regression.

Strong on short texts and ready in seconds (Wang & Manning 2012, Baselines and Bigrams; the weighting is
scikit-learn's TfidfVectorizer with sublinear term frequency). What it reaches says what a transformer's score
is worth. Lives in memory only and is fitted anew wherever it is needed: nothing in it is random, so that the
same texts give the same model. Knows nothing of files, tokens or trials.

Shape suffixes: N examples, L classes, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.errors import DataError
from models.scores import classification

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)
"""The inverse regularisation strengths C that are tried; TF-IDF rows have norm 1, and less than 1 underfits."""

WORDS = r"(?u)\w+|[^\w\s]"
"""A word of any length or a punctuation mark: `?`, `!` and `I` say something about a short text."""


@dataclass(frozen=True)
class Examples:
    """A split.

    labels: of shape (N,), each example's class in [0, L); or of shape (N, L), 1 where it has the class, else 0.
    """

    texts: Sequence[str]
    labels: npt.ArrayLike


@dataclass(frozen=True)
class Linear:
    """A fitted baseline.

    strength: the C that was chosen. validation_macro_f1: what it was chosen by, 0 to 1. several: whether an
    example may have any number of classes. weights: of shape (F, L). bias: of shape (L,).
    """

    strength: float
    validation_macro_f1: float
    several: bool
    features: Any  # a fitted vectoriser of scikit-learn
    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Log-odds of each class against the others, of shape (N, L); plus or minus infinity for a class
        that all or no training examples had."""
        return _scores(self.features.transform(texts), self.weights, self.bias)

    def predict(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """The likeliest class of each text, of shape (N,); with several, 0 or 1 of shape (N, L)."""
        return _decide(self.scores(texts), self.several)


def fit(
    train: Examples,
    validation: Examples,
    *,
    classes: int,
    characters: bool = False,
    balanced: bool = False,
    threads: int = 1,
) -> Linear:
    """The baseline fitted to `train`, its C the one of STRENGTHS with the best macro-F1 on `validation` (the
    smallest of equals).

    One logistic regression a class against all others, L2, for one class an example and for several alike.
    Macro-F1 is that of `scores.classification`. classes: L. characters: also n-grams of 2 to 5 characters
    inside words, for spelling and rich inflection, in five to nine times the time. balanced: weigh the
    examples so that a class and the rest count the same. threads: the most that are used; almost all of the
    work uses one. Raises DataError where texts and labels do not fit, or where no text has a word.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads):
        targets_NL, several = _targets(train, classes, "train")
        wanted_NL, _ = _targets(validation, classes, "validation", several)
        features = _features(characters)
        try:
            train_NF = features.fit_transform(train.texts)
        except ValueError as error:  # an empty vocabulary
            raise DataError(f"train: texts with words in them, got {len(train.texts)} without. Check them.") from error
        validation_NF = features.transform(validation.texts)
        best: Linear | None = None
        for strength in STRENGTHS:
            weights_FL, bias_L = _regress(train_NF, targets_NL, strength, balanced)
            predicted = _decide(_scores(validation_NF, weights_FL, bias_L), several)
            reached = _macro_f1(predicted, wanted_NL)
            if best is None or reached > best.validation_macro_f1:
                best = Linear(strength, reached, several, features, weights_FL, bias_L)
    assert best is not None
    return best


def _features(characters: bool) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORDS)
    if not characters:
        return words
    inside = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return FeatureUnion([("words", words), ("characters", inside)])


def _regress(
    rows_NF: Any, targets_NL: npt.NDArray[np.int64], strength: float, balanced: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weights (F, L) and biases (L,). liblinear's trust region on the primal: it draws no random numbers and,
    unlike lbfgs with its default tolerance, has converged where it stops."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    classes = targets_NL.shape[1]
    weights_FL, bias_L = np.zeros((rows_NF.shape[1], classes)), np.empty(classes)
    for index in range(classes):
        target_N = targets_NL[:, index]
        if target_N.min() == target_N.max():  # nothing to tell apart
            bias_L[index] = np.inf if target_N[0] else -np.inf
            continue
        weighting = "balanced" if balanced else None
        one = LogisticRegression(C=strength, solver="liblinear", max_iter=1000, class_weight=weighting)
        one.fit(rows_NF, target_N)
        weights_FL[:, index], bias_L[index] = one.coef_[0], one.intercept_[0]
    return weights_FL, bias_L


def _scores(
    rows_NF: Any, weights_FL: npt.NDArray[np.float64], bias_L: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    scores_NL: npt.NDArray[np.float64] = rows_NF @ weights_FL + bias_L
    return scores_NL


def _decide(scores_NL: npt.NDArray[np.float64], several: bool) -> npt.NDArray[np.int64]:
    import numpy as np

    return (scores_NL > 0).astype(np.int64) if several else scores_NL.argmax(axis=1)


def _macro_f1(predicted: npt.NDArray[np.int64], wanted_NL: npt.NDArray[np.int64]) -> float:
    wanted = wanted_NL if predicted.ndim == 2 else wanted_NL.argmax(axis=1)
    return classification("", predicted, wanted, [str(index) for index in range(wanted_NL.shape[1])])["macro_f1"]


def _targets(
    examples: Examples, classes: int, split: str, several: bool | None = None
) -> tuple[npt.NDArray[np.int64], bool]:
    """The labels as 0 or 1 of shape (N, L), and whether there may be several. several: whether there may be
    in the split that this one must be like."""
    import numpy as np

    labels = np.asarray(examples.labels)
    texts = len(examples.texts)
    shapes = {False: (texts,), True: (texts, classes)}
    allowed = [shape for key, shape in shapes.items() if several is None or key == several]
    if not texts or labels.shape not in allowed:
        raise DataError(
            f"{split}: labels of shape {' or '.join(map(str, allowed))} and at least one text, got {texts} texts "
            f"and labels of shape {labels.shape}. Give each text its label."
        )
    bound = classes if labels.ndim == 1 else 2
    if wrong := [label for label in np.unique(labels).tolist() if label not in range(bound)]:
        raise DataError(f"{split}: labels are whole numbers from 0 to {bound - 1}, got {wrong[0]}. Give indices.")
    if labels.ndim == 1:
        return np.eye(classes, dtype=np.int64)[labels.astype(np.int64)], False
    return labels.astype(np.int64), True
