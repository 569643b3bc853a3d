"""Direct preference optimisation, end to end on tiny models: the loss by hand, the reference, resumption, saving."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import adapters, chat, language_modelling, preference, preferring, serving
from models.configuration import Causal, DialogueData, Generation, Lora, PreferenceData, TextData, Tokenizer
from models.errors import DataError, SettingError
from models.metrics import Measurement
from models.preference import Config

Make = Callable[..., Config]
RUNGS = [40, 80]


def preferences(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def polite(number: int) -> dict[str, Any]:
    return {"prompt": f"Is it {number}?", "chosen": f"Yes, {number}.", "rejected": f"No {number % 7}."}


@pytest.fixture
def chat_model(tmp_path: Path) -> str:
    """The folder of a tiny chat model that answers yes and no alike."""
    path = tmp_path / "dialogues.jsonl"
    with path.open("w") as output:
        for number in range(200):
            answer = f"Yes, {number}." if number % 2 else f"No {number % 7}."
            messages = [
                {"role": "user", "content": f"Is it {number}?"},
                {"role": "assistant", "content": answer},
            ]
            output.write(json.dumps({"messages": messages}) + "\n")
    config = chat.Config(
        data=DialogueData(source=str(path)),
        tokenizer=Tokenizer(kind="bpe", vocabulary=300),
        model=Causal(layers=1, width=16, heads=2, context=48),
        tokens=6000,
        batch_size=4,
        learning_rate=1e-2,
        generation=Generation(max_new_tokens=8, final_sample=2),
    )
    list(chat.train(config, seed=0, rungs=[], directory=tmp_path / "chat-run"))
    chat.save(config, directory=tmp_path / "chat-run", destination=tmp_path / "chat")
    return str(tmp_path / "chat")


@pytest.fixture
def make(tmp_path: Path, chat_model: str) -> Make:
    """A configuration on small preferences; keywords change settings."""

    def made(
        *, model: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None, **changes: Any
    ) -> Config:
        source = preferences(tmp_path, [polite(n) for n in range(150)] if rows is None else rows)
        settings: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 8, "checkpoint_seconds": 1e9, **changes}
        settings.setdefault("data", PreferenceData(source=source))
        return Config(model=Causal(**{"pretrained": chat_model, "context": 48, **(model or {})}), **settings)

    return made


def curve(measurements: list[Measurement]) -> list[tuple[int, dict[str, float]]]:
    return [
        (
            item.progress,
            {name: value for name, value in item.metrics.items() if "second" not in name and "memory" not in name},
        )
        for item in measurements
    ]


def test_the_loss_is_that_of_the_paper_by_hand() -> None:
    policy = torch.tensor([[-10.0, -12.0], [-5.0, -4.0]])
    reference = torch.tensor([[-11.0, -11.0], [-5.0, -5.0]])
    # Rewards of the first pair: 0.5 x (1, -1), margin 1; of the second: 0.5 x (0, 1), margin -0.5.
    sigmoid = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(0.5))]
    assert preferring.margins(policy, reference, beta=0.5).tolist() == [1.0, -0.5]
    plain = preferring.dpo(policy, reference, beta=0.5)
    assert plain.tolist() == pytest.approx([-math.log(sigmoid[0]), -math.log(sigmoid[1])], rel=1e-6)
    assert plain.tolist() == pytest.approx([0.3132617, 0.9740770], abs=1e-6)
    wanted = [-0.9 * math.log(p) - 0.1 * math.log(1 - p) for p in sigmoid]
    assert preferring.dpo(policy, reference, beta=0.5, flipped=0.1).tolist() == pytest.approx(wanted, rel=1e-6)


def test_log_probabilities_are_those_of_the_replys_tokens_alone(make: Make) -> None:
    config = make()
    prepared = preference._prepared(config)
    pairs = preferring.Pairs(prepared, "validation")
    model: Any = preferring._whole(config, prepared).eval()
    found = pairs.measure(model, torch.device("cpu"))
    saved: Any = AutoTokenizer.from_pretrained(prepared.tokenizer)
    for column, side in enumerate(preferring.SIDES):
        ids = torch.from_numpy(pairs.columns[side][2].astype(np.int64))
        text = saved.decode(ids)
        prompt = saved(text[: text.index("<|assistant|>") + len("<|assistant|>")]).input_ids
        with torch.no_grad():
            logs = model(ids[None]).logits[0].log_softmax(-1)
        wanted = sum(logs[place - 1, ids[place]].item() for place in range(len(prompt), len(ids)))
        assert found[2, column] == pytest.approx(wanted, abs=1e-4)


def test_before_training_nothing_is_preferred(make: Make) -> None:
    config = make()
    prepared = preference._prepared(config)
    job = preferring.task(config, prepared, seed=0)
    model = job.build().eval()
    measured = job.evaluate(model, torch.device("cpu"), True)
    assert measured["validation/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert measured["validation/margin"] == pytest.approx(0, abs=1e-6)
    batch = job.draw(0, 4)
    assert job.loss(model, batch.inputs).item() / batch.weight == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_better_replies_are_learned_and_the_saved_model_is_the_trained_one(
    make: Make, tmp_path: Path, tuning: Any
) -> None:
    config = make(tuning=tuning, lora=Lora(rank=4), learning_rate=1e-2, epochs=3.0)
    found = list(preference.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "run"))
    assert [item.progress for item in found] == [*RUNGS, preference.length(config)]
    assert set(preference.METRICS) <= found[-1].metrics.keys()
    assert found[-1].metrics["validation/accuracy"] >= 0.9
    assert found[-1].metrics["validation/margin"] > 0
    tested = preference.test(config, directory=tmp_path / "run")
    assert tested["test/accuracy"] >= 0.9
    assert tested["test/base_perplexity"] > 1
    preference.save(config, directory=tmp_path / "run", destination=tmp_path / "model")
    prepared = preference._prepared(config)
    pairs = preferring.Pairs(prepared, "test")
    trained: Any = preferring._trained(config, prepared, tmp_path / "run").eval()
    saved: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    inputs = pairs.batch(np.arange(3))
    with torch.no_grad():
        before = trained(inputs["tokens"][0]).logits
        torch.testing.assert_close(saved(inputs["tokens"][0]).logits, before, atol=1e-5, rtol=0)
        torch.testing.assert_close(adapters.merged(trained)(inputs["tokens"][0]).logits, before, atol=1e-5, rtol=0)
    assert saved.generation_config.max_new_tokens == 8  # as the chat model had it
    card = json.loads((tmp_path / "model" / "task.json").read_text())
    assert (card["task"], card["generation"]["max_new_tokens"]) == ("chat", 8)
    (reply,) = serving.load(tmp_path / "model").predict(["Is it 3?"], {"temperature": 0.0})
    assert isinstance(reply, str)


def test_a_resumed_run_equals_an_uninterrupted_one(make: Make, tmp_path: Path) -> None:
    config = make(model={"dropout": 0.2})
    whole = curve(list(preference.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "whole")))
    run = preference.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "stopped")
    next(run)
    run.close()
    assert curve(list(preference.train(config, seed=0, rungs=RUNGS, directory=tmp_path / "stopped"))) == whole


def test_a_long_prompt_loses_its_beginning_the_same_for_both_replies(make: Make) -> None:
    long = [{**polite(n), "prompt": f"{n} " * 30} for n in range(150)]
    prepared = preference._prepared(make(rows=long, model={"context": 32}))
    chosen, rejected = (prepared.column("train", side) for side in ("chosen", "rejected"))
    assert prepared.count("train", "truncated") == prepared.count("train", "examples")
    for row in range(5):
        lengths = [len(side[row]) for side in (chosen, rejected)]
        assert max(lengths) == 32
        before = [int(np.argmax(prepared.column("train", f"{side}_reply")[row])) for side in ("chosen", "rejected")]
        assert before[0] == before[1]
        assert chosen[row][: before[0]].tolist() == rejected[row][: before[0]].tolist()
        assert prepared.encoder().backend.decode(chosen[row].tolist()).endswith(".")


def test_prompts_are_in_one_split_only(make: Make) -> None:
    rows = [{**polite(n), "chosen": f"Yes, {n} {again}."} for n in range(150) for again in range(2)]
    prepared = preference._prepared(make(rows=rows))
    decode = prepared.encoder().backend.decode
    prompts = {
        split: {decode(row.tolist()).split("?")[0] for row in prepared.column(split, "rejected")}
        for split in ("train", "validation", "test")
    }
    assert not prompts["train"] & prompts["validation"]
    assert not (prompts["train"] | prompts["validation"]) & prompts["test"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "Hi", "chosen": "Yes"}, "no column 'rejected'"),
        ({"prompt": "Hi", "chosen": "Yes", "rejected": "Yes"}, "row 1: the chosen and the rejected reply must differ"),
        ({"prompt": "Hi", "chosen": ["Yes"], "rejected": "No"}, "column 'chosen' must hold text, got list"),
        ({"prompt": [{"role": "bot", "content": "Hi"}], "chosen": "Yes", "rejected": "No"}, "role must be one of"),
        (
            {"prompt": [{"role": "assistant", "content": "Hi"}], "chosen": "Yes", "rejected": "No"},
            "row 1: column 'prompt' must end with what the user says",
        ),
        ({"prompt": " ", "chosen": "Yes", "rejected": "No"}, r"got 0; left out: \d+ as empty"),
    ],
)
def test_broken_rows_are_told(make: Make, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        preference.prepare(make(rows=[row] * 30))


def test_a_chat_model_is_needed(make: Make, text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"model.pretrained: needed"):
        Config()
    base = language_modelling.Config(
        data=TextData(source=str(text_file)), tokenizer=Tokenizer(kind="bytes"), tokens=500,
        model=Causal(layers=1, width=16, heads=2, context=48),
    )  # fmt: skip
    list(language_modelling.train(base, seed=0, rungs=[], directory=tmp_path / "base-run"))
    language_modelling.save(base, directory=tmp_path / "base-run", destination=tmp_path / "base")
    with pytest.raises(DataError, match="must have a chat template, got none"):
        preference.prepare(make(model={"pretrained": str(tmp_path / "base")}))


def test_check_shows_pairs(make: Make) -> None:
    found = preference.describe(make())
    assert "\nchosen: Yes, " in found["examples"][0]
    json.dumps(found)


def test_the_warm_up_lasts_until_the_first_measurement_with_a_step_at_the_peak(make: Make, tmp_path: Path) -> None:
    settings = make(schedule="constant", warmup=0.3)
    step = settings.batch_size
    rungs = [round(count * step) for count in range(1, 9)]
    found = list(preference.train(settings, seed=0, rungs=rungs, directory=tmp_path / "run"))[:8]
    at_peak = [item.metrics["train/learning_rate"] == settings.learning_rate for item in found]
    assert at_peak == [item.progress > preference.warmup(settings) for item in found]
    assert set(at_peak) == {False, True}
