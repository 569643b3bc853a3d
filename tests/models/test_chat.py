"""Fine-tuning on dialogues, end to end on tiny models: packing, masks, measures, resumption, LoRA, saving."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from models import adapters, architectures, chat, language_modelling, replies, serving
from models.chat import Config
from models.configuration import Augment, Causal, DialogueData, Generation, Lora, TextData, Tokenizer
from models.errors import DataError, SettingError
from models.metrics import Measurement

Make = Callable[..., Config]
RUNGS = [1500, 3000]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A configuration of a tiny model on small dialogues; keywords change settings."""
    path = tmp_path / "dialogues.jsonl"
    names = ["Ada", "Bob", "Eve", "Kim", "Lea", "Max", "Ned", "Pia"]
    with path.open("w") as output:
        for number in range(240):
            name = names[number % 8]
            messages = [
                {"role": "user", "content": f"I am {name} {number}."},
                {"role": "assistant", "content": f"Hi {name}."},
            ] + [{"role": "user", "content": "Bye."}, {"role": "assistant", "content": "Bye!"}] * (number % 3)
            output.write(json.dumps({"messages": messages}) + "\n")

    def made(*, model: dict[str, Any] | None = None, **changes: Any) -> Config:
        shape = {"layers": 1, "width": 16, "heads": 2, "context": 64, **(model or {})}
        settings: dict[str, Any] = {
            "tokens": 4000,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "checkpoint_seconds": 1e9,
            "generation": Generation(max_new_tokens=8, sample=3, final_sample=4),
            "tokenizer": Tokenizer(kind="bpe", vocabulary=300),
            "data": DialogueData(source=str(path)),
        }
        return Config(model=Causal(**shape), **{**settings, **changes})

    return made


@pytest.fixture
def base(text_file: Path, tmp_path: Path) -> str:
    """The folder of a small language model, without chat template and tokens of roles."""
    config = language_modelling.Config(
        data=TextData(source=str(text_file)),
        tokenizer=Tokenizer(kind="bpe", vocabulary=300),
        model=Causal(layers=2, width=16, heads=2, context=64, family="llama"),
        tokens=2000,
    )
    list(language_modelling.train(config, seed=0, rungs=[], directory=tmp_path / "base-run"))
    language_modelling.save(config, directory=tmp_path / "base-run", destination=tmp_path / "base")
    return str(tmp_path / "base")


def tuned(make: Make, base: str, **changes: Any) -> Config:
    settings = {"tokenizer": Tokenizer(kind="pretrained"), **changes}
    return replace(make(), model=Causal(pretrained=base, context=64), **settings)


def curve(measurements: list[Measurement]) -> list[tuple[int, dict[str, float]]]:
    return [
        (
            item.progress,
            {name: value for name, value in item.metrics.items() if "second" not in name and "memory" not in name},
        )
        for item in measurements
    ]


def dialogues(config: Config, split: str = "train") -> list[tuple[Any, Any]]:
    prepared = chat._prepared(config)
    return list(zip(prepared.column(split, "tokens"), prepared.column(split, "reply"), strict=True))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_packing_and_padding_change_no_logits(make: Make, family: str, attention: str) -> None:
    config = make(model={"family": family, "attention": attention, "layers": 2, "context": 128})
    chosen = dialogues(config)[:5]
    torch.manual_seed(0)
    vocabulary = architectures.Vocabulary(chat._prepared(config).vocabulary, 0, 0)
    model = architectures.causal(config.model, vocabulary).eval()
    packed = replies.sequences([chosen[:3], chosen[3:4]], pad=0)  # a second, shorter row: padding is there too
    with torch.no_grad():
        logits = replies.logits_of(model, packed)
        start = 0
        for number, (tokens, _) in enumerate(chosen[:4]):
            alone = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0]
            row, start = (1, 0) if number == 3 else (0, start)
            torch.testing.assert_close(logits[row, start : start + len(tokens)], alone, atol=1e-5, rtol=0)
            start += len(tokens)
        assert (packed["positions"] == 0).sum() == 5  # four dialogues and the padding


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_loss_is_that_of_transformers_with_all_but_replies_masked(make: Make, family: str) -> None:
    config = make(model={"family": family})
    prepared = chat._prepared(config)
    model = architectures.causal(config.model, architectures.Vocabulary(prepared.vocabulary, 0, 0)).eval()
    total = count = 0.0
    with torch.no_grad():
        for tokens, reply in dialogues(config, "validation"):
            ids = torch.from_numpy(tokens.astype(np.int64))[None]
            labels = torch.where(torch.from_numpy(reply.astype(np.int64)) == 1, ids, -100)
            spoken = int((labels[0, 1:] != -100).sum())
            total, count = total + model(ids, labels=labels).loss.item() * spoken, count + spoken
        padded = replies.measured(model, prepared, "validation", device=torch.device("cpu"))
        batch = replies.sequences([dialogues(config, "validation")], pad=0)
        packed = replies.summed_loss(model, batch).item() / int((batch["labels"] != -100).sum())
    assert padded["validation/loss"] == pytest.approx(total / count, abs=1e-5)
    assert padded["validation/perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert packed == pytest.approx(total / count, abs=1e-5)


def test_only_replies_and_their_ends_are_learned(make: Make) -> None:
    config = make()
    batch = replies.task(config, chat._prepared(config), seed=0).draw(0, 2)
    decode = chat._prepared(config).encoder().backend.decode
    for tokens, labels in zip(batch.inputs["tokens"], batch.inputs["labels"], strict=True):
        learned = decode(labels[labels != -100].tolist(), skip_special_tokens=False)
        assert set(learned.replace("<|endoftext|>", " ").split()) <= {
            *("Hi", "Bye!", "Ada.", "Bob.", "Eve.", "Kim.", "Lea.", "Max.", "Ned.", "Pia.")
        }
        assert learned.count("<|endoftext|>") == decode(tokens.tolist(), skip_special_tokens=False).count(
            "<|assistant|>"
        )
    assert batch.weight == int((batch.inputs["labels"] != -100).sum())


def test_an_epoch_holds_each_dialogue_once_packed_or_not(make: Make) -> None:
    for packing in (True, False):
        config = make(packing=packing)
        prepared = chat._prepared(config)
        packs = replies._Packs(config, prepared, seed=3)
        number = prepared.count("train", "packs" if packing else "examples")
        seen = [tokens.tobytes() for pack in packs.draw(0, number) for tokens, _ in pack]
        assert sorted(seen) == sorted(row.tobytes() for row in prepared.column("train", "tokens"))
        assert [tokens.tobytes() for pack in packs.draw(number, number) for tokens, _ in pack] != seen


def test_a_model_learns_to_reply_and_is_measured_at_the_rungs(make: Make, tmp_path: Path) -> None:
    found = list(chat.train(make(tokens=12_000), seed=0, rungs=RUNGS, directory=tmp_path / "run"))
    assert [item.progress for item in found] == [*RUNGS, 12_000]
    losses = [item.metrics["validation/loss"] for item in found]
    assert losses[-1] < losses[0] / 2
    assert found[-1].metrics["validation/perplexity"] == pytest.approx(math.exp(losses[-1]))
    assert set(chat.METRICS) <= found[-1].metrics.keys()


@pytest.mark.parametrize("augment", [Augment(), Augment(characters=0.1, word_swaps=0.2)])
def test_a_resumed_run_equals_an_uninterrupted_one(make: Make, tmp_path: Path, augment: Augment) -> None:
    config = make(model={"dropout": 0.2}, augment=augment)
    whole = curve(list(chat.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "whole")))
    run = chat.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "stopped")
    next(run)
    run.close()
    resumed = curve(list(chat.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "stopped")))
    assert resumed == whole


def test_what_the_user_says_is_varied_within_the_room_and_replies_are_not(make: Make) -> None:
    config = make(augment=Augment(characters=0.3))
    prepared = chat._prepared(config)
    plain = replies._Packs(make(), prepared, seed=0).draw(0, 8)
    packs = replies._Packs(config, prepared, seed=0)
    varied = packs.draw(0, 8)
    assert max(sum(len(tokens) for tokens, _ in pack) for pack in varied) <= config.model.context
    differing = 0
    for before, after in zip(plain[0], varied[0], strict=True):
        differing += before[0].tolist() != after[0].tolist()
        spoken = [tokens[reply == 1].tolist() for tokens, reply in (before, after)]
        assert spoken[0][: len(spoken[1])] == spoken[1]
    assert differing
    again = replies._Packs(config, prepared, seed=0).draw(0, 8)
    assert [row.tolist() for pack in again for row, _ in pack] == [row.tolist() for pack in varied for row, _ in pack]


def test_other_dialogues_are_mixed_in(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    talk = [{"role": "user", "content": "More?"}, {"role": "assistant", "content": "Yes, more."}]
    path.write_text(
        "".join(json.dumps({"messages": [{**talk[0], "content": f"{n}?"}, talk[1]]}) + "\n" for n in range(50))
    )
    config = make(augment=Augment(mix=0.5, mix_source=str(path)))
    prepared = chat._prepared(config)
    decode = prepared.encoder().backend.decode
    packs = replies._Packs(config, prepared, seed=0).draw(0, 20)
    mixed = ["more" in decode(np.concatenate([row for row, _ in pack]).tolist()) for pack in packs]
    assert 3 <= sum(mixed) <= 17


def test_the_chat_model_of_a_base_model_serves_and_loads_as_it_was_tested(
    make: Make, base: str, tmp_path: Path
) -> None:
    config = tuned(make, base, tokens=8000)
    list(chat.train(config, seed=0, rungs=[], directory=tmp_path / "run"))
    tested = chat.test(config, directory=tmp_path / "run")
    assert tested["test/perplexity"] < tested["test/base_perplexity"] / 2
    assert tested["test/loss"] == pytest.approx(math.log(tested["test/perplexity"]))
    chat.save(config, directory=tmp_path / "run", destination=tmp_path / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(tmp_path / "model"), AutoModelForCausalLM.from_pretrained(tmp_path / "model")  # fmt: skip
    prepared = chat._prepared(config)
    with torch.no_grad():
        again = replies.measured(model.eval(), prepared, "test", device=torch.device("cpu"))
    assert again["test/loss"] == pytest.approx(tested["test/loss"], abs=1e-6)
    prompt = [{"role": "user", "content": "I am Ada 12."}]
    ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    (wanted,) = replies.write(config, model, prepared, [np.asarray(ids)])
    asked = pipeline("text-generation", model=model, tokenizer=tokenizer)
    answer = asked(prompt)[0]["generated_text"][-1]
    assert (answer["role"], answer["content"].strip()) == ("assistant", wanted)
    assert serving.load(tmp_path / "model").predict([prompt], {"temperature": 0.0})[0].strip() == wanted
    assert json.loads((tmp_path / "model" / "task.json").read_text())["task"] == "chat"


def test_a_lora_model_merged_equals_the_unmerged_one_also_in_its_new_tokens(
    make: Make, base: str, tmp_path: Path
) -> None:
    config = tuned(make, base, tuning="lora", lora=Lora(rank=2, targets="all"))
    measurements = list(chat.train(config, seed=5, rungs=[], directory=tmp_path / "run"))
    prepared = chat._prepared(config)
    unmerged = replies._trained(config, prepared, tmp_path / "run").eval()
    tokens, reply = dialogues(config)[0]
    inputs = replies.sequences([[(tokens, reply)]], pad=0)
    with torch.no_grad():
        before = replies.logits_of(unmerged, inputs)
        after = replies.logits_of(adapters.merged(unmerged).eval(), inputs)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    chat.save(config, directory=tmp_path / "run", destination=tmp_path / "model")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        torch.testing.assert_close(replies.logits_of(saved, inputs), before, atol=1e-5, rtol=0)
        found = replies.measured(saved, prepared, "validation", device=torch.device("cpu"))
    assert found["validation/loss"] == pytest.approx(measurements[-1].metrics["validation/loss"], abs=1e-5)


def test_label_smoothing_changes_training_and_not_validation(make: Make) -> None:
    config = make(label_smoothing=0.2)
    prepared = chat._prepared(config)
    model = architectures.causal(config.model, architectures.Vocabulary(prepared.vocabulary, 0, 0)).eval()
    job = replies.task(config, prepared, seed=0)
    inputs = job.draw(0, 2).inputs
    labels = inputs["labels"].flatten()
    with torch.no_grad():
        logits = replies.logits_of(model, inputs).flatten(0, 1)[labels != -100]
        wanted = functional.cross_entropy(logits, labels[labels != -100], reduction="sum", label_smoothing=0.2)
        assert job.loss(model, inputs).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"pretrained": "x", "layers": 4, "width": 128, "heads": 4}}, "must be 'pretrained' with model.pret"),
        ({"tokenizer": Tokenizer(kind="pretrained")}, "tokenizer.path: needed"),
        ({"generation": Generation(max_new_tokens=64)}, "must be below model.context.* got 64 and 64"),
        ({"tokens": 5, "epochs": 1.0}, "tokens, epochs: give one of them"),
    ],
)
def test_settings_that_contradict_each_other_are_told(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make(**changes)


def test_a_promotion_needs_a_test_split(make: Make) -> None:
    config = make()
    with pytest.raises(DataError, match=r"data.test: 0 leaves no test split"):
        chat.promotable(replace(config, data=replace(config.data, test=0.0)))


def test_check_shows_dialogues_and_one_varied(make: Make) -> None:
    found = chat.describe(make(augment=Augment(characters=0.5)))
    assert found["examples"][0].startswith("user: I am ")
    assert found["examples"][-1].startswith("varied: ")
    json.dumps(found)


def test_the_warm_up_lasts_until_the_first_measurement_with_a_step_at_the_peak(make: Make, tmp_path: Path) -> None:
    settings = make(schedule="constant", warmup_examples=9)
    step = settings.batch_size * chat._example_tokens(settings, chat._prepared(settings))
    rungs = [round(count * step) for count in range(1, 9)]
    found = list(chat.train(settings, seed=0, rungs=rungs, directory=tmp_path / "run"))[:8]
    at_peak = [item.metrics["train/learning_rate"] == settings.learning_rate for item in found]
    assert at_peak == [item.progress > chat.warmup(settings) for item in found]
    assert set(at_peak) == {False, True}
