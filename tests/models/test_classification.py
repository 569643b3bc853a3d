"""The door, end to end on a tiny model: learning, losses, padding, resumption, testing, saving, serving."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, pipeline
from transformers import logging as transformers_logging

from models import adapters, classification, labelling, serving
from models.classification import Config, describe, length, objection, save, train
from models.configuration import Augment, Classifier, LabelledData, Tokenizer
from models.errors import DataError, SettingError
from models.metrics import Measurement
from models.training import load_trained

Make = Callable[..., Config]
RUNGS = [96, 192]
FAMILIES = ["modernbert", "bert", "gpt2", "llama"]
KINDS = {"sky": "sun moon star cloud", "sea": "fish wave salt boat", "land": "tree hill rock road"}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts of random words, whose label is what their one telling word belongs to."""
    chance = random.Random(0)
    rows = []
    for number in range(240):
        label = chance.choice(sorted(KINDS))
        words = [*chance.choices(["the", "a", "of", "and", "to", "is", "in"], k=chance.randint(2, 9))]
        words.insert(chance.randrange(len(words)), chance.choice(KINDS[label].split()))
        rows.append({"text": " ".join(words) + f" {number}", "label": label, "labels": [label, "text"][number % 2 :]})
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(texts: Path) -> Make:
    """A configuration of a tiny model on `texts`; keywords change settings, `model=` and `data=` by dict."""

    def make(*, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Config:
        shape = {"layers": 1, "width": 16, "heads": 2, "context": 12, **(model or {})}
        settings = {"epochs": 2.0, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_seconds": 1e9, **changes}
        settings.setdefault("tokenizer", Tokenizer(kind="words", vocabulary=300))
        source = LabelledData(**{"source": str(texts), **(data or {})})
        return Config(data=source, model=Classifier(**shape), **settings)

    return make


@pytest.fixture
def several() -> dict[str, Any]:
    """What makes `texts` a task with several labels."""
    return {"label_column": "labels", "multi_label": True}


def measure(config: Config, directory: Path, seed: int = 0) -> list[Measurement]:
    return list(train(config, seed=seed, rungs=RUNGS, directory=directory))


def curve(measurements: list[Measurement]) -> list[tuple[int, dict[str, float]]]:
    return [
        (
            item.progress,
            {name: value for name, value in item.metrics.items() if "second" not in name and "memory" not in name},
        )
        for item in measurements
    ]


def weights(directory: Path) -> bytes:
    (found,) = directory.glob("checkpoint-*/model.safetensors")
    return found.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_learns_and_is_measured_at_exactly_the_rungs(config: Make, tmp_path: Path, family: str) -> None:
    settings = config(model={"family": family}, epochs=10.0)
    found = measure(settings, tmp_path / "run")
    assert [item.progress for item in found] == [*RUNGS, length(settings)]
    assert found[-1].metrics["validation/loss"] < found[0].metrics["validation/loss"]
    assert found[-1].metrics["validation/accuracy"] > 0.6
    assert set(classification.METRICS) < set(found[-1].metrics)
    assert {f"validation/f1/{label}" for label in KINDS} < set(found[-1].metrics)


@pytest.mark.parametrize("kind", ["bpe", "characters", "bytes"])
def test_every_kind_of_tokenizer_trains(config: Make, tmp_path: Path, kind: Any) -> None:
    settings = config(tokenizer=Tokenizer(kind=kind, vocabulary=300), model={"context": 24})
    assert measure(settings, tmp_path / "run")[-1].metrics["train/loss"] < 1.5


def test_several_labels_are_learned(config: Make, tmp_path: Path, several: dict[str, Any]) -> None:
    found = measure(config(data=several, epochs=8.0), tmp_path / "run")
    assert "validation/f1/text" in found[-1].metrics
    assert found[-1].metrics["validation/macro_f1"] > found[0].metrics["validation/macro_f1"]


def test_two_runs_with_one_seed_give_the_same_curve_and_weights(config: Make, tmp_path: Path) -> None:
    settings = config(model={"dropout": 0.2}, augment=Augment(word_dropout=0.2))
    assert curve(measure(settings, tmp_path / "a")) == curve(measure(settings, tmp_path / "b"))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.parametrize("measured", [1, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(config: Make, tmp_path: Path, measured: int) -> None:
    settings = config(model={"dropout": 0.2}, augment=Augment(word_dropout=0.2), ema_decay=0.9)
    whole = measure(settings, tmp_path / "whole")
    first = train(settings, seed=0, rungs=RUNGS, directory=tmp_path / "parts")
    before = [next(first) for _ in range(measured)]
    first.close()
    assert curve(before[:-1] + measure(settings, tmp_path / "parts")) == curve(whole)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_logits(config: Make, family: str) -> None:
    settings = config(model={"family": family, "layers": 2})
    prepared = classification._prepared(settings)
    torch.manual_seed(1)
    model = labelling._build(settings, prepared).train(False)
    for matrix in (parameter for parameter in model.parameters() if parameter.ndim == 2):
        matrix.data *= 5  # as if trained: what a text says then shows in the logits
    rows = [np.asarray(tokens, dtype=np.int64) for tokens in prepared.column("train", "tokens")][:20]
    assert len({len(row) for row in rows}) > 3
    with torch.no_grad():
        batch = labelling.logits_of(model, labelling.collate(rows, np.zeros(20), pad=prepared.pad))
        alone = [labelling.logits_of(model, labelling.collate([row], np.zeros(1), pad=prepared.pad)) for row in rows]
    assert float((batch - torch.cat(alone)).abs().max()) < 1e-5
    assert float(batch.std(dim=0).min()) > 1e-3  # they do differ between texts


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_additions_give_the_logits_of_the_tuned_model(config: Make, tmp_path: Path, family: str) -> None:
    settings = config(model={"family": family}, tuning="lora")
    measure(settings, tmp_path / "run")
    prepared = classification._prepared(settings)
    model = labelling._trained(settings, prepared, tmp_path / "run").train(False)
    cpu = torch.device("cpu")
    with torch.no_grad():
        tuned = labelling.logits(model, prepared, "validation", device=cpu)
        merged = labelling.logits(adapters.merged(model), prepared, "validation", device=cpu)
    assert float((tuned - merged).abs().max()) < 1e-5


def test_balanced_weights_are_scikit_learns(config: Make) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    prepared = classification._prepared(config())
    actual = labelling.labelled_texts.targets(prepared, "train", multi_label=False)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=actual)
    assert labelling.balanced(prepared, multi_label=False).numpy() == pytest.approx(expected, rel=1e-6)


def test_balanced_weights_of_several_labels_are_those_of_each(config: Make, several: dict[str, Any]) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    prepared = classification._prepared(config(data=several))
    actual = labelling.labelled_texts.targets(prepared, "train", multi_label=True)
    expected = [compute_class_weight("balanced", classes=np.array([0, 1]), y=column) for column in actual.T[:3]]
    found = labelling.balanced(prepared, multi_label=True).numpy().T
    assert found[:3] == pytest.approx(np.asarray(expected), rel=1e-6)
    assert found[3].tolist() == [0, 0.5]  # each text has the last label: its absence never weighs anything


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_weighted_loss_is_that_of_torch(config: Make, smoothing: float) -> None:
    settings = config(class_weights="balanced", label_smoothing=smoothing)
    loss = labelling.Loss(settings, classification._prepared(settings))
    logits, labels = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 2])
    expected = functional.cross_entropy(logits, labels, weight=loss.weights, label_smoothing=smoothing)
    assert float(loss(logits, labels) / loss.divisor(labels)) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_several_labels_is_the_mean_over_them(config: Make, several: dict[str, Any]) -> None:
    settings = config(data=several)
    loss = labelling.Loss(settings, classification._prepared(settings))
    logits, labels = torch.randn(5, 4), torch.randint(2, (5, 4))
    expected = functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert float(loss(logits, labels) / loss.divisor(labels)) == pytest.approx(float(expected), rel=1e-5)


def test_class_weights_change_training_and_not_how_validation_is_measured(config: Make, tmp_path: Path) -> None:
    plain, weighted = config(epochs=0.1, learning_rate=1e-9), config(
        epochs=0.1, learning_rate=1e-9, class_weights="balanced", label_smoothing=0.3
    )  # fmt: skip
    first, second = (measure(settings, tmp_path / name)[-1] for settings, name in ((plain, "a"), (weighted, "b")))
    assert second.metrics["validation/loss"] == pytest.approx(first.metrics["validation/loss"], rel=1e-5)
    assert second.metrics["train/loss"] != first.metrics["train/loss"]


def test_a_micro_batch_gives_the_curve_of_the_whole_batch(config: Make, tmp_path: Path) -> None:
    settings = config(class_weights="balanced")
    whole = measure(settings, tmp_path / "whole")
    parts = measure(replace(settings, micro_batch_size=3), tmp_path / "parts")
    for first, second in zip(whole, parts, strict=True):
        assert second.metrics["validation/loss"] == pytest.approx(first.metrics["validation/loss"], abs=2e-3)


def test_a_draw_is_the_same_in_every_batch(config: Make) -> None:
    settings = config(augment=Augment(word_dropout=0.3))
    task = labelling.task(settings, classification._prepared(settings), seed=3)
    whole = task.draw(4, 8).inputs
    for row in range(8):
        alone = task.draw(4 + row, 1).inputs
        size = alone["tokens"].shape[1]
        assert whole["tokens"][row, :size].tolist() == alone["tokens"][0].tolist()
        assert int(whole["mask"][row].sum()) == size
        assert whole["labels"][row] == alone["labels"][0]


def test_data_is_mixed_in_as_asked(config: Make, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"text": f"{w} more {w}", "label": "sky"}) + "\n" for w in "abcdefgh"))
    settings = config(augment=Augment(mix=1.0, mix_source=str(other)))
    drawn = labelling.task(settings, classification._prepared(settings), seed=0).draw(0, 50)
    assert drawn.inputs["labels"].unique().tolist() == [2]  # land, sea, sky


def test_validation_agrees_with_the_loss_of_transformers(config: Make, tmp_path: Path, several: dict[str, Any]) -> None:
    for name, data in (("one", {}), ("several", several)):
        settings = config(data=data, epochs=1.0)
        found = measure(settings, tmp_path / name)[-1].metrics["validation/loss"]
        prepared = classification._prepared(settings)
        model: Any = labelling._trained(settings, prepared, tmp_path / name).train(False)
        rows = [np.asarray(row) for row in prepared.column("validation", "tokens")]
        labels = labelling.labelled_texts.targets(prepared, "validation", multi_label=bool(data))
        batch = labelling.collate(rows, labels, pad=prepared.pad)
        wanted = batch["labels"].float() if data else batch["labels"]
        loss = model(input_ids=batch["tokens"], attention_mask=batch["mask"], labels=wanted).loss
        assert found == pytest.approx(loss.item(), rel=1e-5)


def test_a_run_that_breaks_down_ends_in_a_measurement_of_nan(config: Make, tmp_path: Path) -> None:
    settings = config(learning_rate=1e30, optimizer="sgd", gradient_clip=None, warmup=0.0)
    assert np.isnan(measure(settings, tmp_path / "run")[-1].metrics["validation/loss"])


def test_the_test_split_is_measured_beside_the_linear_baseline(config: Make, tmp_path: Path) -> None:
    settings = config(epochs=4.0)
    measure(settings, tmp_path / "run")
    found = classification.test(settings, directory=tmp_path / "run")
    assert found["test/examples"] == classification.prepare(settings)["test_examples"]
    assert 0 < found["test/macro_f1"] <= 1
    assert found["test/linear_macro_f1"] > 0.9  # one telling word a text is what it is made for
    assert all(isinstance(value, float) for value in found.values())


def test_a_model_worse_than_the_linear_baseline_meets_an_objection(config: Make) -> None:
    worse = {"test/macro_f1": 0.5, "test/linear_macro_f1": 0.75}
    assert objection(config(), worse) == (
        "the linear baseline (TF-IDF and logistic regression, fitted in seconds) is better on the test split: "
        "macro-F1 0.7500 against 0.5000"
    )
    assert objection(config(), {"test/macro_f1": 0.75, "test/linear_macro_f1": 0.75}) is None


def test_a_missing_test_split_is_told(config: Make) -> None:
    with pytest.raises(DataError, match=r"leaves no test split.*Set data\.test to a share"):
        classification.promotable(config(data={"test": 0.0}))


def test_what_the_data_is_like_is_described(config: Make) -> None:
    found = describe(config(augment=Augment(word_dropout=0.2)))
    assert [split["split"] for split in found["splits"]] == ["train", "validation", "test"]
    assert any("linear baseline" in note for note in found["notes"])
    assert found["examples"][0].split(": ")[0] in KINDS
    assert found["examples"][-1].startswith("varied: ")
    json.dumps(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_saved_folder_answers_as_it_was_measured(config: Make, tmp_path: Path, texts: Path, family: str) -> None:
    settings = config(model={"family": family})
    measure(settings, tmp_path / "run")
    save(settings, directory=tmp_path / "run", destination=tmp_path / "saved")
    prepared = classification._prepared(settings)
    test_texts = [prepared.column("test", "text").text(row) for row in range(prepared.count("test", "examples"))]
    model, device = labelling._ready(settings, prepared, tmp_path / "run")
    with torch.no_grad():
        expected = labelling.logits(model, prepared, "test", device=device).softmax(-1)
    transformers_logging.set_verbosity_error()
    answers = pipeline("text-classification", model=str(tmp_path / "saved"), top_k=None, batch_size=7)(test_texts)
    served = serving.load(tmp_path / "saved").predict(test_texts)
    for answer, ours, row in zip(answers, served, expected.tolist(), strict=True):
        wanted = dict(zip(prepared.details["labels"], row, strict=True))
        assert {item["label"]: item["score"] for item in answer} == pytest.approx(wanted, abs=1e-5)
        assert ours["probabilities"] == pytest.approx(wanted, abs=1e-5)


def test_the_saved_folder_names_several_labels(config: Make, tmp_path: Path, several: dict[str, Any]) -> None:
    settings = config(data=several, epochs=8.0)
    measure(settings, tmp_path / "run")
    save(settings, directory=tmp_path / "run", destination=tmp_path / "saved")
    transformers_logging.set_verbosity_error()
    (answer,) = pipeline("text-classification", model=str(tmp_path / "saved"), top_k=None)(["the sun of a is"])
    (served,) = serving.load(tmp_path / "saved").predict(["the sun of a is"])
    assert served["labels"] == sorted(item["label"] for item in answer if item["score"] >= 0.5)
    assert not (tmp_path / "saved" / "confusion.json").exists()


def test_the_saved_folder_holds_the_confusion_of_the_test_split(config: Make, tmp_path: Path) -> None:
    settings = config(epochs=4.0)
    measure(settings, tmp_path / "run")
    save(settings, directory=tmp_path / "run", destination=tmp_path / "saved")
    table = json.loads((tmp_path / "saved" / "confusion.json").read_text())
    matrix = np.asarray(table["matrix"])
    found = classification.test(settings, directory=tmp_path / "run")
    assert table["labels"] == sorted(KINDS)
    assert table["split"] == "test"
    assert np.trace(matrix) / matrix.sum() == pytest.approx(found["test/accuracy"])


@pytest.mark.parametrize("family", FAMILIES)
def test_training_goes_on_from_a_saved_model(config: Make, tmp_path: Path, family: str) -> None:
    first = config(model={"family": family})
    before = measure(first, tmp_path / "first")[-1].metrics["validation/loss"]
    save(first, directory=tmp_path / "first", destination=tmp_path / "saved")
    go_on = replace(
        config(epochs=0.01, learning_rate=1e-9),
        model=Classifier(pretrained=str(tmp_path / "saved"), context=12),
        tokenizer=Tokenizer(kind="pretrained"),
    )
    (after,) = train(go_on, seed=0, rungs=[], directory=tmp_path / "second")
    assert after.metrics["validation/loss"] == pytest.approx(before, rel=1e-4)


def test_a_saved_language_model_becomes_a_classifier(config: Make, tmp_path: Path, text_file: Path) -> None:
    from models import language_modelling
    from models.configuration import Causal, TextData

    settings = language_modelling.Config(
        data=TextData(source=str(text_file)), model=Causal(layers=1, width=16, heads=2, context=16), tokens=256
    )
    list(language_modelling.train(settings, seed=0, rungs=[], directory=tmp_path / "first"))
    language_modelling.save(settings, directory=tmp_path / "first", destination=tmp_path / "saved")
    go_on = replace(
        config(epochs=4.0),
        model=Classifier(pretrained=str(tmp_path / "saved"), context=16),
        tokenizer=Tokenizer(kind="pretrained"),
    )
    prepared = classification._prepared(go_on)
    assert prepared.column("train", "tokens")[0][-1] == prepared.end  # a decoder reads it last
    transformers_logging.set_verbosity_error()
    found = list(train(go_on, seed=0, rungs=[200], directory=tmp_path / "second"))
    assert found[-1].metrics["validation/loss"] < found[0].metrics["validation/loss"]
    save(go_on, directory=tmp_path / "second", destination=tmp_path / "classifier")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "classifier")
    model = labelling._build(go_on, prepared)
    load_trained(tmp_path / "second", model)
    assert torch.equal(saved.score.weight, model.score.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"pretrained": "x", "layers": 2, "width": 128, "heads": 4}}, r"tokenizer\.kind: must be"),
        ({"tokenizer": Tokenizer(kind="pretrained")}, r"tokenizer\.path: needed"),
    ],
)
def test_settings_that_contradict_each_other_are_told(config: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        config(**changes)


def test_a_pretrained_folder_that_is_not_there_is_told(config: Make) -> None:
    settings = replace(
        config(), model=Classifier(pretrained="./nowhere", context=12), tokenizer=Tokenizer(kind="pretrained")
    )
    with pytest.raises(DataError, match=r"model\.pretrained: cannot load './nowhere': there is no such folder"):
        classification.prepare(settings)


def test_preloading_starts_no_thread_and_no_gpu() -> None:
    code = (
        "import importlib, os, models.classification as door;"
        "[importlib.import_module(name) for name in door.PRELOAD]; import torch;"
        "print(len(os.listdir('/proc/self/task')), torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_the_door_and_its_length_are_light(config: Make, texts: Path) -> None:
    classification.prepare(config())
    code = (
        "import sys; from models.classification import *; from models.configuration import *;"
        f"length({config()!r}); warmup({config()!r});"
        "print([name for name in ('torch', 'transformers', 'datasets', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_warm_up_lasts_until_the_first_measurement_with_a_step_at_the_peak(config: Make, tmp_path: Path) -> None:
    settings = config(schedule="constant", warmup_examples=20)
    step = settings.batch_size
    rungs = [round(count * step) for count in range(1, 9)]
    found = list(classification.train(settings, seed=0, rungs=rungs, directory=tmp_path / "run"))[:8]
    at_peak = [item.metrics["train/learning_rate"] == settings.learning_rate for item in found]
    assert at_peak == [item.progress > classification.warmup(settings) for item in found]
    assert set(at_peak) == {False, True}
