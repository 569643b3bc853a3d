"""Low-rank additions to models from elsewhere: what begins at random is trained, kept and found again."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from models import adapters, architectures, checkpoints
from models.architectures import Vocabulary
from models.configuration import Causal, Classifier, Lora
from models.errors import DataError

VOCABULARY = Vocabulary(60, end=0, pad=1)


def masked(kind: str, folder: Path) -> Path:
    """A model that was trained on masks alone: it lacks what a classification needs."""
    if kind == "bert":
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        model: Any = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=60, **shape))
    else:
        config = transformers.DistilBertConfig(vocab_size=60, dim=16, n_layers=1, n_heads=2, hidden_dim=16)
        model = transformers.DistilBertForMaskedLM(config)
    model.save_pretrained(folder)
    return folder


def classifier(folder: Path, labels: str = "ab", dropout: float = 0.0) -> Any:
    settings = Classifier(pretrained=str(folder), context=16, dropout=dropout)
    return architectures.classifier(settings, VOCABULARY, labels=list(labels), multi_label=False)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_layers_that_begin_at_random_are_in_the_checkpoint(kind: str, tmp_path: Path) -> None:
    masked(kind, tmp_path)
    trained, again = (adapters.attach(classifier(tmp_path), Lora()).train(False) for _ in range(2))
    checkpoints.load_weights(again, checkpoints.weights(trained))
    tokens = torch.arange(2, 18).view(2, 8)
    assert torch.equal(trained(input_ids=tokens).logits, again(input_ids=tokens).logits)


def test_a_classifier_goes_on_with_other_labels(tmp_path: Path) -> None:
    masked("bert", tmp_path / "masked")
    classifier(tmp_path / "masked").save_pretrained(tmp_path / "two")
    assert classifier(tmp_path / "two", labels="abc").num_labels == 3


def test_a_model_without_the_weights_of_its_task_is_refused(tmp_path: Path) -> None:
    folder = masked("bert", tmp_path)
    transformers.BertModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(DataError, match="must hold every weight of the model, got none that fits for"):
        architectures.causal(Causal(pretrained=str(folder), context=16), VOCABULARY)


def test_dropout_of_a_pretrained_model_is_set_where_its_configuration_has_a_whole_number(tmp_path: Path) -> None:
    folder = masked("bert", tmp_path)
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0'))
    assert classifier(folder, dropout=0.3).config.hidden_dropout_prob == 0.3


def test_the_size_of_a_model_is_that_of_the_one_that_is_saved() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from models import adapters
    from models.configuration import Lora

    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    whole = model.num_parameters()
    assert adapters.size(model) == whole
    assert adapters.size(adapters.attach(model, Lora(rank=2))) == whole
