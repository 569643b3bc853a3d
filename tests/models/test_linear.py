"""The linear baseline on made texts: what it learns, what it chooses by, what it refuses."""

import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from models.errors import DataError
from models.linear import STRENGTHS, WORDS, Examples, Linear, fit
from models.scores import classification

SIGNS = ["who wrote", "where is", "how many"]
FILLERS = ["the", "old", "river", "town", "book", "king", "of", "in", "a", "song"]


def single(count: int, seed: int, noise: float = 0.0) -> Examples:
    """Questions of three kinds; `noise` of them have a random label."""
    chance = random.Random(seed)
    labels = [chance.randrange(3) for _ in range(count)]
    texts = [f"{SIGNS[label]} {' '.join(chance.choices(FILLERS, k=6))} ?" for label in labels]
    return Examples(texts, [chance.randrange(3) if chance.random() < noise else label for label in labels])


def several(count: int, seed: int) -> Examples:
    """Texts with the signs of 0 to 3 classes."""
    chance = random.Random(seed)
    rows = [[chance.randrange(2) for _ in SIGNS] for _ in range(count)]
    signs = [" ".join(sign for sign, has in zip(SIGNS, row, strict=True) if has) for row in rows]
    return Examples([f"{sign} {' '.join(chance.choices(FILLERS, k=6))}" for sign in signs], rows)


def test_it_learns_one_class_an_example() -> None:
    found = fit(single(200, 0), single(60, 1), classes=3)
    unseen = single(100, 2)
    assert found.predict(unseen.texts).shape == (100,)
    assert (found.predict(unseen.texts) == unseen.labels).mean() > 0.95


def test_it_learns_several_classes_an_example() -> None:
    found = fit(several(300, 0), several(60, 1), classes=3)
    unseen = several(100, 2)
    assert found.predict(unseen.texts).shape == (100, 3)
    assert (found.predict(unseen.texts) == unseen.labels).mean() > 0.95


@pytest.mark.parametrize("make", [single, several])
def test_it_is_scikit_learns_one_against_the_rest_with_the_chosen_strength(make: Any) -> None:
    train, unseen = make(200, 0), make(60, 2)
    found = fit(train, make(60, 1), classes=3)
    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORDS)
    theirs = OneVsRestClassifier(LogisticRegression(C=found.strength, solver="liblinear", max_iter=1000))
    theirs.fit(features.fit_transform(train.texts), np.asarray(train.labels))
    rows = features.transform(unseen.texts)
    np.testing.assert_array_equal(found.predict(unseen.texts), theirs.predict(rows))
    np.testing.assert_allclose(found.scores(unseen.texts), theirs.decision_function(rows))


def test_the_strength_is_the_best_on_the_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation = single(150, 0, noise=0.4), single(80, 1)
    chosen = fit(train, validation, classes=3)
    reached = {}
    for strength in STRENGTHS:
        monkeypatch.setattr("models.linear.STRENGTHS", (strength,))
        predicted = fit(train, validation, classes=3).predict(validation.texts)
        reached[strength] = classification("v", predicted, validation.labels, ["a", "b", "c"])["v/macro_f1"]
    assert len(set(reached.values())) > 1
    assert chosen.validation_macro_f1 == max(reached.values())
    assert reached[chosen.strength] == chosen.validation_macro_f1


def test_the_same_texts_give_the_same_model() -> None:
    first, second = (fit(single(100, 0, noise=0.2), single(50, 1), classes=3) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)
    assert first.strength == second.strength


def test_punctuation_and_single_letters_are_words() -> None:
    texts = ["so be it ?", "so be it !"] * 20
    found = fit(Examples(texts, [0, 1] * 20), Examples(texts, [0, 1] * 20), classes=2)
    assert found.predict(["it ?", "it !"]).tolist() == [0, 1]


def test_characters_read_words_that_training_has_not_seen() -> None:
    train = Examples(["walking running", "walked jumped", "jumping", "limped"] * 10, [0, 1, 0, 1] * 10)
    found = fit(train, train, classes=2, characters=True)
    assert found.predict(["swimming", "entered"]).tolist() == [0, 1]


def test_balanced_finds_more_of_a_rare_class() -> None:
    chance = random.Random(0)
    labels = [int(chance.random() < 0.1) for _ in range(400)]
    # The sign stands in most texts of the rare class and in some of the other.
    texts = [
        " ".join(chance.choices(FILLERS, k=5)) + (" odd" if chance.random() < (0.7, 0.1)[1 - label] else "")
        for label in labels
    ]
    data = Examples(texts, labels)
    plain, balanced = (fit(data, data, classes=2, balanced=given).scores(texts)[:, 1] for given in (False, True))
    assert (balanced > 0).sum() > (plain > 0).sum()


def test_a_class_without_examples_is_never_predicted() -> None:
    found = fit(single(100, 0), single(40, 1), classes=5)
    assert found.scores(["who wrote it ?"]).shape == (1, 5)
    assert set(found.predict(single(50, 2).texts)) <= {0, 1, 2}


def test_one_class_alone_is_always_predicted() -> None:
    only = Examples(["some text", "more text"], [1, 1])
    assert fit(only, only, classes=3).predict(["text", "unknown"]).tolist() == [1, 1]


def test_of_several_classes_one_in_every_example_is_always_predicted_and_one_in_none_never() -> None:
    train = Examples(["who wrote", "where is"] * 10, [[1, 0, 0], [1, 0, 1]] * 10)
    assert fit(train, train, classes=3).predict(["where is", "who wrote"]).tolist() == [[1, 0, 1], [1, 0, 0]]


def test_a_text_of_unknown_words_gets_a_class() -> None:
    assert fit(single(100, 0), single(40, 1), classes=3).predict(["", "zzz"]).shape == (2,)


def test_no_more_threads_than_given_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_info

    import models.linear

    counted: list[int] = []
    original = models.linear._regress
    monkeypatch.setattr(
        models.linear,
        "_regress",
        lambda *given: counted.extend(pool["num_threads"] for pool in threadpool_info()) or original(*given),
    )
    fit(single(50, 0), single(20, 1), classes=3)
    assert set(counted) == {1}


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (Examples([], []), single(5, 1), "train: .* got 0 texts"),
        (Examples(["a", "b"], [0]), single(5, 1), r"train: .* got 2 texts and labels of shape \(1,\)"),
        (single(5, 0), Examples(["a"], [0, 1]), r"validation: .* got 1 texts and labels of shape \(2,\)"),
        (single(5, 0), several(5, 1), r"validation: labels of shape \(5,\) and .* got .* shape \(5, 3\)"),
        (several(5, 0), single(5, 1), r"validation: labels of shape \(5, 3\) and .* got .* shape \(5,\)"),
        (Examples(["a"], [3]), single(5, 1), "train: labels are whole numbers from 0 to 2, got 3"),
        (Examples(["a"], [[0, 2, 0]]), several(5, 1), "train: labels are whole numbers from 0 to 1, got 2"),
        (Examples(["", " "], [0, 1]), single(5, 1), "train: texts with words in them, got 2 without"),
    ],
)
def test_what_does_not_fit_is_refused(train: Examples, validation: Examples, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(train, validation, classes=3)


def test_a_fitted_baseline_says_how_it_was_chosen() -> None:
    found = fit(single(100, 0), single(40, 1), classes=3)
    assert isinstance(found, Linear)
    assert found.strength in STRENGTHS
    assert 0 < found.validation_macro_f1 <= 1
    assert not found.several


def test_importing_linear_imports_no_library() -> None:
    program = (
        "import sys, models.linear; print(sorted({'numpy', 'sklearn', 'scipy', 'threadpoolctl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
