"""The numbers are the libraries' own, to the last digit; what is decided here is said and kept."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from models.errors import DataError
from models.scores import classification, confusion, replies, signatures, translation

HYPOTHESES = ["The cat sat on the mat, again.", "a dog barks at the_moon", "It's 3 o'clock already", ""]
REFERENCES = ["The cat is sitting on the mat.", "A dog barked at the moon tonight", "It's three o'clock", "Nothing."]
LABELS = ["abbreviation", "entity", "human"]


def test_bleu_chrf_and_length_ratio_are_sacrebleus() -> None:
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    found = bleu.corpus_score(HYPOTHESES, [REFERENCES])
    assert found.score > 0
    assert translation("test", HYPOTHESES, REFERENCES) == {
        "test/bleu": found.score,
        "test/chrf": chrf.corpus_score(HYPOTHESES, [REFERENCES]).score,
        "test/length_ratio": found.sys_len / found.ref_len,
    }


def test_rouge_on_ascii_is_rouge_scores_with_its_own_tokenizer() -> None:
    kinds = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(kinds, use_stemmer=False)
    each = [scorer.score(wanted, got) for got, wanted in zip(HYPOTHESES, REFERENCES, strict=True)]
    scores = translation("v", HYPOTHESES, REFERENCES, rouge=True)
    for kind in kinds:
        assert scores[f"v/{kind}"] == 100 * sum(score[kind].fmeasure for score in each) / len(each)
        assert 0 < scores[f"v/{kind}"] < 100


@pytest.mark.parametrize("text", ["Über größere Straßen", "Где находится библиотека", "हिन्दी में लिखा", "१२ ٣"])
def test_rouge_reads_every_script(text: str) -> None:
    assert translation("v", [text], [text], rouge=True)["v/rougeL"] == 100
    halved = " ".join(text.split()[:-1])
    assert 0 < translation("v", [halved], [text], rouge=True)["v/rouge1"] < 100


def test_combining_marks_do_not_cut_words() -> None:
    # Two words of three: with words cut at their vowel signs it would be more pieces than that.
    assert translation("v", ["हिन्दी में"], ["हिन्दी में लिखा"], rouge=True)["v/rouge1"] == pytest.approx(80)


def test_replies_have_bleu_and_rouge_l_of_translation() -> None:
    scores = translation("chat", HYPOTHESES, REFERENCES, rouge=True)
    assert replies("chat", HYPOTHESES, REFERENCES) == {name: scores[name] for name in ("chat/bleu", "chat/rougeL")}


def test_an_empty_prefix_leaves_the_bare_names() -> None:
    assert set(translation("", HYPOTHESES, REFERENCES)) == {"bleu", "chrf", "length_ratio"}


def test_signatures_are_sacrebleus_letter_by_letter() -> None:
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    bleu.corpus_score(HYPOTHESES, [REFERENCES])
    chrf.corpus_score(HYPOTHESES, [REFERENCES])
    assert signatures() == {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    assert signatures()["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_rouge_signs_with_its_version_and_settings() -> None:
    assert re.fullmatch(
        r"nrefs:1\|case:lc\|stem:no\|tok:unicode-words\|agg:mean-f\|version:0\.[\d.]+", signatures(rouge=True)["rouge"]
    )


def test_empty_hypotheses_score_nothing() -> None:
    scores = translation("v", ["", " "], ["some words here", "and more of them"], rouge=True)
    assert set(scores.values()) == {0.0}


def test_empty_references_are_no_error() -> None:
    assert set(translation("v", ["word"], [""], rouge=True).values()) == {0.0}


def test_tokenized_texts_are_scored_without_a_word_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    texts = ["A text that was cut into tokens ."] * 200
    assert translation("v", texts, texts)["v/bleu"] == pytest.approx(100)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], ["a", "b"])])
def test_pairs_that_are_none_are_refused(hypotheses: list[str], references: list[str]) -> None:
    for score in (translation, replies):
        with pytest.raises(DataError, match=rf"got {len(hypotheses)} hypotheses and {len(references)} references"):
            score("v", hypotheses, references)


def test_single_labels_score_as_scikit_learn_scores_them() -> None:
    chance = np.random.default_rng(0)
    actual, predicted = chance.integers(3, size=(2, 50))
    each = f1_score(actual, predicted, average=None)
    assert classification("test", predicted, actual, LABELS) == {
        "test/macro_f1": f1_score(actual, predicted, average="macro"),
        "test/accuracy": accuracy_score(actual, predicted),
        **{f"test/f1/{label}": f1 for label, f1 in zip(LABELS, each, strict=True)},
    }


def test_several_labels_score_as_scikit_learn_scores_them() -> None:
    chance = np.random.default_rng(0)
    actual, predicted = chance.integers(2, size=(2, 50, 3))
    each = f1_score(actual, predicted, average=None)
    assert classification("test", predicted, actual, LABELS) == {
        "test/macro_f1": f1_score(actual, predicted, average="macro"),
        "test/accuracy": accuracy_score(actual, predicted),
        **{f"test/f1/{label}": f1 for label, f1 in zip(LABELS, each, strict=True)},
    }


@pytest.mark.parametrize("rows", [lambda labels: labels, lambda labels: np.eye(3, dtype=int)[labels].tolist()])
def test_a_label_that_the_split_lacks_costs_nothing(rows: Any) -> None:
    perfect = classification("v", rows([0, 2, 2]), rows([0, 2, 2]), LABELS)
    assert (perfect["v/macro_f1"], perfect["v/accuracy"], perfect["v/f1/entity"]) == (1, 1, 0)


@pytest.mark.parametrize("rows", [lambda labels: labels, lambda labels: np.eye(3, dtype=int)[labels].tolist()])
def test_a_label_that_is_predicted_and_absent_costs(rows: Any) -> None:
    scores = classification("v", rows([0, 1]), rows([0, 0]), LABELS)
    assert scores["v/macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_one_class_alone_is_no_error() -> None:
    scores = classification("v", [1, 1, 1], [1, 1, 1], LABELS)
    assert (scores["v/macro_f1"], scores["v/f1/entity"], scores["v/f1/human"]) == (1, 1, 0)


def test_no_label_anywhere_has_no_f1() -> None:
    nothing = np.zeros((4, 3), dtype=int)
    scores = classification("v", nothing, nothing, LABELS)
    assert (scores["v/macro_f1"], scores["v/accuracy"]) == (0, 1)


def test_label_names_are_what_trackers_take_and_stay_apart() -> None:
    labels = ["C++", "C--", "C#", "C-", "a/b", "größe", "..", "", "x" * 300, "x" * 301, "C---0", "new\nline"]
    names = list(classification("v", [0], [0], labels))[2:]
    assert len(set(names)) == len(labels)
    assert names[1] == "v/f1/C--"  # what needs no change keeps its name
    assert names[5] == "v/f1/größe"
    assert names[10] == "v/f1/C---0"
    for name in names:
        prefix, group, label = name.split("/")
        assert (prefix, group) == ("v", "f1")
        assert re.fullmatch(r"[\w.\- ]{1,120}", label)
        assert label.strip(".")


def test_names_do_not_depend_on_what_is_predicted() -> None:
    labels = ["a+", "a=", "b"]
    assert list(classification("v", [0], [1], labels)) == list(classification("v", [2], [2], labels))


def test_confusion_has_a_row_and_a_column_for_each_label_in_their_order() -> None:
    table = confusion([0, 0, 2], [0, 2, 2], LABELS)
    assert table == confusion_matrix([0, 2, 2], [0, 0, 2], labels=[0, 1, 2]).tolist()
    assert table == [[1, 0, 0], [0, 0, 0], [1, 0, 1]]


def test_confusion_is_for_one_label_an_example() -> None:
    with pytest.raises(DataError, match=r"one label an example, got shape \(1, 3\)"):
        confusion([[1, 0, 0]], [[1, 0, 0]], LABELS)


@pytest.mark.parametrize(
    ("predicted", "actual", "message"),
    [
        ([], [], r"got \(0,\) and \(0,\)"),
        ([0], [0, 1], r"got \(1,\) and \(2,\)"),
        ([[0, 1]], [[0, 1]], r"got \(1, 2\) and \(1, 2\)"),
        ([0], [[1, 0, 0]], r"got \(1,\) and \(1, 3\)"),
        ([[1], [0, 2]], [[0], [1]], "rows of 3 numbers 0 or 1, got rows of different lengths"),
        ([3], [0], "predicted: whole numbers from 0 to 2, got 3"),
        ([0], [-1], "actual: whole numbers from 0 to 2, got -1"),
        ([0.5], [0], "predicted: whole numbers from 0 to 2, got 0.5"),
        ([[2, 0, 0]], [[1, 0, 0]], "predicted: whole numbers from 0 to 1, got 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(predicted: Any, actual: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classification("v", predicted, actual, LABELS)


def test_a_label_given_twice_is_refused() -> None:
    with pytest.raises(DataError, match="all different, got 'a' more than once"):
        classification("v", [0], [0], ["a", "b", "a"])


def test_importing_scores_imports_none_of_the_libraries() -> None:
    heavy = {"numpy", "sklearn", "sacrebleu", "rouge_score", "nltk", "regex"}
    program = f"import sys, models.scores; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
