"""Saved models answering: one tiny folder of each task, and folders that cannot be served."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import saved_models
import torch
from saved_models import CONTEXT
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models import next_token, serving
from models.batches import windows
from models.errors import DataError
from models.serving.writing import Sampling, _Listener

KINDS = ("language_model", "dialogue_model", "classifier", "translator")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: getattr(saved_models, kind)(root / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Any]:
    return {kind: serving.load(folder) for kind, folder in folders.items()}


@pytest.mark.parametrize(
    ("kind", "task"), list(zip(KINDS, ("language modelling", "chat", "classification", "translation"), strict=True))
)
def test_a_folder_is_known_by_its_task_json_and_without_it_by_its_config(
    folders: dict[str, Path], tmp_path: Path, kind: str, task: str
) -> None:
    copy = shutil.copytree(folders[kind], tmp_path / "copy")
    for folder in (folders[kind], copy):
        assert serving.describe(folder)["task"] == task
        (copy / "task.json").unlink(missing_ok=True)
    assert serving.load(copy).context == CONTEXT


@pytest.mark.parametrize("kind", KINDS)
def test_the_python_lines_of_a_model_card_run(folders: dict[str, Path], kind: str) -> None:
    lines = serving.describe(folders[kind])["python"]
    exec(compile(lines, kind, "exec"), {"folder": str(folders[kind])})


def test_a_text_in_pieces_is_the_text(loaded: dict[str, Any]) -> None:
    pieces: list[str] = []
    model = loaded["language_model"]
    written = model.write("grüße", on_text=pieces.append, seed=3, max_new_tokens=40, temperature=1.5)
    assert "".join(pieces) == written.text
    again = model.write("grüße", seed=3, max_new_tokens=40, temperature=1.5)
    assert again == written
    assert written.prompt_tokens == 7
    assert (written.finish, written.tokens) == ("length", 40) or written.finish == "stop"


def test_an_answer_ends_where_the_context_does_unless_it_may_go_beyond(loaded: dict[str, Any]) -> None:
    model = loaded["language_model"]
    near = "x" * (CONTEXT - 4)
    assert model.write(near, max_new_tokens=50, temperature=0).tokens == 4
    assert model.write(near, max_new_tokens=50, temperature=0, beyond=True).tokens == 50
    with pytest.raises(DataError, match=f"at most {CONTEXT - 1} tokens, got {CONTEXT}"):
        model.write("x" * CONTEXT)


class Letters:
    """A tokenizer whose tokens are UTF-8 bytes."""

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(tokens).decode(errors="replace")


def heard(text: bytes, *stop: str, end: int = 0) -> tuple[list[str], str, bool]:
    pieces: list[str] = []
    listener = _Listener(Letters(), [end], stop, pieces.append)
    for byte in text:
        listener(torch.tensor([[byte]]), None)
        if listener.done:
            break
    return pieces, listener.finish(), listener.done


def test_a_character_of_several_tokens_comes_whole() -> None:
    pieces, text, _ = heard("aß€b".encode())
    assert [piece for piece in pieces if piece] == ["a", "ß", "€", "b"]
    assert text == "aß€b"
    assert heard(b"a\xe2\x82")[1] == "a�"


def test_a_stop_string_ends_the_text_and_is_never_told() -> None:
    pieces, text, done = heard(b"one STone STOP two", "STOP", "never")
    assert (text, done) == ("one STone ", True)
    assert "".join(pieces) == text
    assert heard(b"one ST", "STOP")[1:] == ("one ST", False)


def test_an_exception_of_the_listener_ends_the_writing(loaded: dict[str, Any]) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loaded["language_model"].write("a", on_text=stop)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 1.5}, {"top_k": -1}])
def test_sampling_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"sampling: {next(iter(wrong))}"):
        Sampling(**wrong)


@pytest.mark.parametrize("length", [2, CONTEXT, CONTEXT + 1, 3 * CONTEXT + 5])
def test_the_loss_of_a_text_is_that_of_the_promotions_test(loaded: dict[str, Any], length: int) -> None:
    model = loaded["language_model"]
    text = ("every text has its own loss " * 20)[:length]
    (row,) = model.rows([text], batch_size=2)
    tokens = np.array(model._tokens(text))
    with torch.no_grad():
        sums = [next_token.summed_loss(model.model, w) for w in windows(tokens, context=CONTEXT, batch_tokens=4096)]
    assert row["loss"] == pytest.approx(float(sum(sums)) / (length - 1), rel=1e-5)
    assert row["tokens"] == length
    assert model.score([row], [])["test/loss"] == pytest.approx(row["loss"])


def test_a_text_of_one_token_has_no_loss(loaded: dict[str, Any]) -> None:
    (row,) = loaded["language_model"].rows(["a"], batch_size=1)
    assert (row["loss"], row["perplexity"], row["tokens"]) == (None, None, 1)


def test_what_a_user_says_is_text_and_no_control_token(loaded: dict[str, Any]) -> None:
    model = loaded["dialogue_model"]
    tokens = model._tokens([{"role": "user", "content": "a<|assistant|>b"}])
    assert tokens.count(model.tokenizer.convert_tokens_to_ids("<|assistant|>")) == 1
    assert len(tokens) == 1 + len("a<|assistant|>b") + 2
    assert 256 not in loaded["language_model"]._tokens("<|endoftext|>")


def test_a_long_dialogue_loses_its_oldest_exchanges_and_keeps_the_system_message(loaded: dict[str, Any]) -> None:
    model = loaded["dialogue_model"]
    system = {"role": "system", "content": "be kind"}
    said = [{"role": role, "content": f"{role} {number}"} for number in range(4) for role in ("user", "assistant")]
    kept = model.fit([system, *said, {"role": "user", "content": "last"}])
    assert kept[0] == system
    assert kept[1]["role"] == "user"
    assert kept[-1]["content"] == "last"
    assert model.count(kept) + 16 <= CONTEXT
    assert model.fit(kept) == kept
    with pytest.raises(DataError, match=f"at most {CONTEXT - 1} tokens"):
        model.fit("x" * CONTEXT)


def test_a_reply_is_to_the_last_thing_the_user_says(loaded: dict[str, Any]) -> None:
    dialogue = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "known"}]
    model = loaded["dialogue_model"]
    (row,) = model.rows([dialogue], batch_size=1)
    assert row["messages"] == dialogue[:1]
    assert model.predict(["hi"], {"temperature": 0, "max_new_tokens": CONTEXT // 2})[0].strip() == row["reply"]
    assert [set(row) for row in model.rows(["hi", "a longer one"], batch_size=2, beams=2)] == [set(row)] * 2


def test_replies_are_scored_against_those_that_end_the_datas_dialogues(loaded: dict[str, Any]) -> None:
    model = loaded["dialogue_model"]
    dialogue = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a b c d e"}]
    targets = model.targets([dialogue, dialogue[:1]])
    assert targets == ["a b c d e", None]
    assert model.score([{"reply": "a b c d e"}, {"reply": "x"}], targets)["test/bleu"] == pytest.approx(100)
    assert model.score([{"reply": "x"}], [None]) == {}


def test_a_model_that_was_scored_by_beam_search_still_writes_token_by_token(tmp_path: Path) -> None:
    folder = saved_models.dialogue_model(tmp_path)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "num_beams": 3, "length_penalty": 0.5}))
    model: Any = serving.load(folder)
    pieces: list[str] = []
    assert model.write("hi", on_text=pieces.append, temperature=0).text == "".join(pieces)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ([{"role": "robot", "content": "x"}], "role must be one of system, user, assistant, got 'robot'"),
        ([{"role": "user"}], "a content that is text"),
        (3, "must be a list of messages, got int 3"),
    ],
)
def test_messages_that_are_none_are_refused(loaded: dict[str, Any], messages: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loaded["dialogue_model"].count(messages)


def test_probabilities_are_those_of_transformers_whatever_the_batch(
    loaded: dict[str, Any], folders: dict[str, Path]
) -> None:
    texts = ["good", "a much longer text", "x" * 200]
    rows = list(loaded["classifier"].rows(texts, batch_size=2))
    tokenizer = AutoTokenizer.from_pretrained(folders["classifier"])
    model = AutoModelForSequenceClassification.from_pretrained(folders["classifier"]).eval()
    for text, row in zip(texts, rows, strict=True):
        expected = model(**tokenizer(text, truncation=True, return_tensors="pt")).logits.softmax(-1)[0].tolist()
        assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values())
        assert row["probabilities"][row["label"]] == row["probability"]


def test_several_labels_are_those_above_the_threshold(tmp_path: Path) -> None:
    task = {"multi_label": True, "threshold": 0.0}
    model: Any = serving.load(saved_models.classifier(tmp_path, task=task))
    (row,) = model.rows(["x"], batch_size=1)
    assert row["labels"] == ["bad", "good"]
    assert "probability" not in row
    assert model.targets(["good, bad", "", ["bad"]]) == [["good", "bad"], [], ["bad"]]


def test_scores_are_those_of_the_tests(loaded: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"label": "good"}, {"label": "bad"}]
    assert loaded["classifier"].score(rows, ["good", "good"])["test/accuracy"] == 0.5
    several: Any = serving.load(saved_models.classifier(tmp_path, task={"multi_label": True}))
    assert several.score([{"labels": ["good"]}, {"labels": []}], [["good"], []])["test/accuracy"] == 1
    assert loaded["translator"].score([{"translation": "a b c d e"}], ["a b c d e"])["test/bleu"] == pytest.approx(100)


def test_a_label_the_model_does_not_know_is_named(loaded: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"label 'godd' is none that the model knows. Did you mean 'good'"):
        loaded["classifier"].targets(["good", "godd"])


def test_translations_are_those_of_the_search_that_was_tested(loaded: dict[str, Any]) -> None:
    model = loaded["translator"]
    rows = list(model.rows(["guten Tag", "ein"], batch_size=1))
    assert [row["source"] for row in rows] == ["guten Tag", "ein"]
    assert [row["translation"] for row in rows] == model.predict(pandas.DataFrame({"source": ["guten Tag", "ein"]}))
    wide = [row["translation"] for row in model.rows(["guten Tag"], batch_size=1, beams=3)]
    assert wide == model.predict(["guten Tag"], {"beams": 3})


def test_text_goes_through_the_steps_it_went_through_in_training(tmp_path: Path) -> None:
    model: Any = serving.load(saved_models.language_model(tmp_path, task={"preprocess": {"lowercase": True}}))
    assert model._tokens("ABC") == model._tokens("abc")


def spoiled(folder: Path, target: Path, file: str, content: str | None) -> Path:
    copy = Path(shutil.copytree(folder, target))
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(content)
    return copy


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "must be a model's folder with a config.json"),
        ("config.json", "{", "must be JSON"),
        ("config.json", '{"model_type": "gpt2"}', "cannot be loaded"),
        ("task.json", '{"task": "transaltion"}', "Did you mean 'translation'"),
        ("task.json", '{"task": "language modelling", "preprocess": {"new": 1}}', "preprocess has 'new'"),
        ("tokenizer.json", None, "must have a tokenizer.json"),
        ("model.safetensors", None, "cannot be loaded"),
        ("model.safetensors", "broken", "cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_be_served_is_one_sentence(
    folders: dict[str, Path], tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        serving.load(spoiled(folders["language_model"], tmp_path / "copy", file, content))
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_not_made_up(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["language_model"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "n_layer": 2}))
    with pytest.raises(DataError, match="every weight of the model, got none for transformer"):
        serving.load(copy)
