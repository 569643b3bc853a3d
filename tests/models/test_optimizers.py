"""Which parameters learn, how fast, and what the loop averages."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models import adapters, architectures, checkpoints, optimizers
from models.architectures import Vocabulary
from models.averages import Average
from models.configuration import Causal, Lora, SequenceToSequence, Training
from models.errors import SettingError

VOCABULARY = Vocabulary(50, end=48, pad=49)


def gpt2(layers: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return architectures.causal(Causal(layers=layers, width=16, heads=2, context=8, bias=True), VOCABULARY)


def scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Learning rate of each trained parameter as a share of the run's."""
    built = optimizers.build(Training(layer_decay=layer_decay), model)
    by_id = {id(p): float(group["scale"]) for group in built.param_groups for p in group["params"]}
    return {name: by_id[id(parameter)] for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_each_block_learns_more_slowly_than_the_one_above() -> None:
    found = scales(gpt2(), 0.5)
    blocks = [found[f"transformer.h.{number}.mlp.c_fc.weight"] for number in range(3)]
    assert blocks == [0.125, 0.25, 0.5]
    assert found["transformer.wte.weight"] == 0.0625
    assert found["transformer.ln_f.weight"] == 1.0


def test_a_decoder_stands_above_its_encoder() -> None:
    settings = SequenceToSequence(layers=2, width=16, heads=2, context=8)
    found = scales(architectures.encoder_decoder(settings, VOCABULARY), 0.5)
    order = [f"model.{side}.layers.{number}.fc1.weight" for side in ("encoder", "decoder") for number in (0, 1)]
    assert [found[name] for name in order] == [0.0625, 0.125, 0.25, 0.5]


def test_without_layer_decay_all_learn_alike() -> None:
    assert set(scales(gpt2(), 1.0).values()) == {1.0}


def test_biases_and_gains_do_not_decay() -> None:
    built = optimizers.build(Training(weight_decay=0.3), gpt2())
    for group in built.param_groups:
        assert group["weight_decay"] == (0.3 if group["params"][0].ndim >= 2 else 0.0)


def test_adamw_multiplies_what_has_no_gradient_by_1_less_rate_times_decay() -> None:
    """As models.laws has it: by the rate of the step and not by the decay alone (Loshchilov & Hutter 2019)."""
    model = gpt2()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    built = optimizers.build(Training(learning_rate=0.02, weight_decay=0.3), model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for rate in (0.02, 0.05):  # the loop sets the rate before each step
        for group in built.param_groups:
            group["lr"] = rate
        built.step()
    for name, parameter in model.named_parameters():
        factor = (1 - 0.02 * 0.3) * (1 - 0.05 * 0.3) if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)


def test_frozen_blocks_and_embeddings_are_not_trained() -> None:
    model = adapters.tuned(gpt2(), Training(freeze_layers=2))  # type: ignore[arg-type]
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith(("transformer.h.2.", "transformer.ln_f.")) for name in trained)


def test_more_frozen_blocks_than_there_are_is_refused() -> None:
    with pytest.raises(SettingError, match="at most the model's 3 blocks, got 4"):
        optimizers.freeze(gpt2(), 4)


def test_of_an_adapted_model_only_what_is_trained_is_kept(tmp_path: Path) -> None:
    model = adapters.attach(gpt2(), Lora(rank=2))  # type: ignore[arg-type]
    kept = checkpoints.weights(model)
    assert kept
    assert all("lora_" in name for name in kept)
    checkpoints.load_weights(model, {name: torch.ones_like(tensor) for name, tensor in kept.items()})
    assert all(bool((tensor == 1).all()) for tensor in checkpoints.weights(model).values())


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_additions_go_where_they_are_wanted(targets: str) -> None:
    model = adapters.attach(gpt2(), Lora(rank=2, targets=targets))  # type: ignore[arg-type]
    places = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in checkpoints.weights(model)}
    assert places == ({"c_attn"} if targets == "attention" else {"c_attn", "c_proj", "c_fc"})


def test_the_average_follows_the_weights_by_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = Average(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(steps=100)
    assert average.tensors["weight"].item() == 2.0
    with average.in_place():
        assert model.weight.item() == 2.0
    assert model.weight.item() == 3.0


def test_the_average_soon_forgets_the_beginning() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, decay=0.999)
    with torch.no_grad():
        model.weight.fill_(5.0)
    average.update(steps=0)
    assert abs(average.tensors["weight"].item() - 5.0) < 0.6  # the first step keeps a tenth
