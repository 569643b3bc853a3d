"""The settings: defaults, ranges as pydantic sees them, rules between fields."""

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from models.configuration import (
    Causal,
    Classifier,
    Preprocess,
    SequenceToSequence,
    TextData,
    TextTraining,
    Tokenizer,
    Training,
)
from models.errors import SettingError
from models.language_modelling import Config


def check(settings: dict[str, Any]) -> Config:
    return TypeAdapter(Config).validate_json(json.dumps(settings), strict=True)


def test_door_imports_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "datasets", "numpy", "tokenizers", "accelerate", "pydantic"]
    code = f"import sys, models.language_modelling; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_empty_configuration_is_valid() -> None:
    assert check({}) == Config()


def test_settings_are_read_strictly_from_json() -> None:
    config = check({"learning_rate": 0.002, "tokens": 5000, "model": {"family": "llama", "layers": 2}})
    assert (config.learning_rate, config.tokens, config.model.family) == (0.002, 5000, "llama")


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"learning_rate": 0.0}, ("learning_rate",)),
        ({"learning_rate": "1e-3"}, ("learning_rate",)),
        ({"batch_size": 0}, ("batch_size",)),
        ({"batch_size": 1.5}, ("batch_size",)),
        ({"warmup": 1.5}, ("warmup",)),
        ({"warmup_examples": -1}, ("warmup_examples",)),
        ({"optimizer": "lion"}, ("optimizer",)),
        ({"model": {"dropout": 1.0}}, ("model", "dropout")),
        ({"data": {"validation": 0.0}}, ("data", "validation")),
        ({"early_stopping": {"patience": 0}}, ("early_stopping", "patience")),
    ],
)
def test_a_value_out_of_range_is_found_where_it_stands(settings: dict[str, Any], where: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        check(settings)
    assert caught.value.errors()[0]["loc"][: len(where)] == where


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextTraining(tokens=10, epochs=1.0), "tokens, epochs: give one of them, got tokens 10"),
        (lambda: Causal(family="llama", hidden_dropout=0.1), "model.hidden_dropout: llama has no dropout of that kind"),
        (lambda: Causal(family="llama", embedding_dropout=0.1), "model.embedding_dropout: llama has no dropout"),
        (lambda: Classifier(family="bert", embedding_dropout=0.1), "model.embedding_dropout: bert has no dropout"),
        (lambda: SequenceToSequence(embedding_dropout=0.1), "model.embedding_dropout: marian has no dropout"),
        (lambda: SequenceToSequence(family="t5", attention_dropout=0.1), "model.attention_dropout: t5 has no dropout"),
        (lambda: SequenceToSequence(family="gpt2", decoder_layers=3), "model.decoder_layers: gpt2 is a decoder alone"),
        (lambda: TextData(source="a.txt", streaming=True), "data.streaming: only for a data set of the hub, got True"),
        (lambda: TextData(source="a.txt", revision="v1"), "data.revision: only for a data set of the hub, got 'v1'"),
        (lambda: TextData(configuration="x"), "data.configuration: only for a data set of the hub, got 'x'"),
        (lambda: TextData(source="hub:a/b", format="csv"), "data.format: only for files, got 'csv'"),
        (lambda: Preprocess(stop_words=""), "preprocess.stop_words: must name languages, got ''"),
        (lambda: Training(schedule="wsd", warmup=0.6, decay=0.5), "warmup, decay: together at most 1"),
        (
            lambda: Training(decay_at_rungs=True),
            "decay_at_rungs: only for schedule 'wsd', got True with 'cosine', whose learning rate depends on the run's",
        ),
        (
            lambda: Training(schedule="wsd", decay=0.0, decay_at_rungs=True),
            "decay: must be above 0 with decay_at_rungs",
        ),
        (
            lambda: Causal(width=130, heads=4),
            r"model\.width: must be divisible .* got 130 and 4\. Use width 128 or 132",
        ),
        (lambda: Causal(family="llama", width=12, heads=4), "even width a head, got 12 / 4 = 3"),
        (lambda: Causal(kv_heads=2), "only llama has it"),
        (lambda: Causal(family="llama", kv_heads=3), "must divide model.heads"),
        (lambda: Causal(pretrained="gpt2", layers=3), "model.layers: the shape comes from model.pretrained"),
        (lambda: TextData(validation=0.5, test=0.5), "leave something to train on, got 0.5 "),
        (lambda: Tokenizer(kind="bytes", path="x"), "only for tokenizer.kind 'pretrained', got kind 'bytes'"),
        (lambda: Config(model=Causal(pretrained="gpt2")), "must be 'pretrained' with model.pretrained, got 'bpe'"),
        (lambda: Config(tokenizer=Tokenizer(kind="pretrained")), "tokenizer.path: needed"),
    ],
)
def test_contradicting_settings_are_refused_in_words(make: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


def test_every_setting_is_explained() -> None:
    import ast
    import inspect

    from models import configuration

    for node in ast.parse(inspect.getsource(configuration)).body:
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)}"
