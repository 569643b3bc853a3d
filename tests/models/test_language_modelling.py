"""The door, end to end on a tiny model: equal curves, resumption, measurement, saving, serving."""

import math
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from models import language_modelling, next_token, serving
from models.configuration import Augment, EarlyStopping, Tokenizer
from models.errors import CheckpointError, DataError, Diverged, SettingError
from models.language_modelling import Config, Measurement, length, prepare, save, train

Make = Callable[..., Config]
RUNGS = [512, 1000, 1500]


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


def measure(config: Config, directory: Path, seed: int = 0) -> list[Measurement]:
    return list(train(config, seed=seed, rungs=RUNGS, directory=directory))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_learns_and_is_measured_at_exactly_the_rungs(config: Make, tmp_path: Path, family: str) -> None:
    found = measure(config(model={"family": family}), tmp_path / "run")
    assert [item.progress for item in found] == [*RUNGS, 2048]
    assert found[-1].metrics["validation/loss"] < found[0].metrics["validation/loss"] < math.log(257)
    assert found[-1].metrics["validation/perplexity"] == pytest.approx(math.exp(found[-1].metrics["validation/loss"]))


def test_two_runs_with_one_seed_give_the_same_curve_and_weights(config: Make, tmp_path: Path) -> None:
    settings = config(model={"dropout": 0.2})
    assert curve(measure(settings, tmp_path / "a")) == curve(measure(settings, tmp_path / "b"))
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.parametrize("measured", [1, 2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(config: Make, tmp_path: Path, measured: int) -> None:
    settings = config(model={"dropout": 0.2})
    whole = measure(settings, tmp_path / "whole")
    first = train(settings, seed=0, rungs=RUNGS, directory=tmp_path / "parts")
    before = [next(first) for _ in range(measured)]
    first.close()
    assert curve(before[:-1] + measure(settings, tmp_path / "parts")) == curve(whole)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


def test_a_decay_at_a_rung_measures_what_a_run_of_that_length_ends_with(config: Make, tmp_path: Path) -> None:
    changes = {"model": {"dropout": 0.2}, "schedule": "wsd", "warmup_examples": 8, "decay": 0.3}
    found = measure(config(**changes, decay_at_rungs=True), tmp_path / "trunk")
    for item in found:
        whole = measure(config(**changes, tokens=item.progress), tmp_path / str(item.progress))
        for name in ("validation/loss", "validation/bits_per_byte", "train/loss", "train/gradient_norm"):
            assert whole[-1].metrics[name] == item.metrics[name]
    assert weights(tmp_path / "trunk") == weights(tmp_path / str(found[-1].progress))
    assert found[-1].metrics["train/branch_tokens"] == pytest.approx(0.3 * sum(RUNGS), abs=100)


def test_a_killed_run_that_goes_on_equals_an_uninterrupted_one(config: Make, tmp_path: Path) -> None:
    settings = config(model={"dropout": 0.2}, checkpoint_seconds=0.0)
    whole = measure(settings, tmp_path / "whole")
    code = (
        "import os, signal; from pathlib import Path; from models.language_modelling import *;"
        f"found = train({settings!r}, seed=0, rungs={RUNGS}, directory=Path({str(tmp_path / 'killed')!r}));"
        "next(found), next(found); os.kill(os.getpid(), signal.SIGKILL)"
    )
    # A process of its own, not a fork: this one has torch's threads by now, and a fork of those hangs.
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert curve(measure(settings, tmp_path / "killed")) == curve(whole[1:])
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_a_micro_batch_gives_the_curve_of_the_whole_batch(config: Make, tmp_path: Path) -> None:
    whole = measure(config(), tmp_path / "whole")
    parts = measure(config(micro_batch_size=3), tmp_path / "parts")
    for first, second in zip(whole, parts, strict=True):
        assert second.metrics["validation/loss"] == pytest.approx(first.metrics["validation/loss"], abs=1e-3)


def test_a_folder_of_other_settings_is_refused_by_their_names(config: Make, tmp_path: Path) -> None:
    measure(config(), tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"holds another run: model\.width was 16, is now 32"):
        measure(config(model={"width": 32}), tmp_path / "run")


def test_how_often_to_save_may_change_when_a_run_goes_on(config: Make, tmp_path: Path) -> None:
    found = measure(config(), tmp_path / "run")
    assert measure(config(checkpoint_seconds=0.0), tmp_path / "run") == [found[-1]]


def test_a_high_learning_rate_ends_in_a_measurement_of_nan(config: Make, tmp_path: Path) -> None:
    settings = config(learning_rate=1e30, optimizer="sgd", gradient_clip=None, warmup=0.0)
    found = measure(settings, tmp_path / "run")
    assert len(found) < 4
    assert math.isnan(found[-1].metrics["validation/loss"])


def test_a_learning_rate_that_makes_a_model_worse_than_a_guess_ends_the_run(config: Make, tmp_path: Path) -> None:
    settings = config(learning_rate=2.0, schedule="constant", warmup=0.0)
    rungs = range(128, 2048, 128)
    for _ in range(2):  # the second goes on from what the first has left
        found: list[Measurement] = []
        with pytest.raises(Diverged, match=r"is above the 5\.549 of a uniform guess"):
            found.extend(train(settings, seed=0, rungs=rungs, directory=tmp_path / "run"))
    (again,) = found
    assert 5.549 * 1.05 < again.metrics["validation/loss"] < math.inf


def test_early_stopping_is_reached_through_the_door(config: Make, tmp_path: Path) -> None:
    settings = config(early_stopping=EarlyStopping(patience=1, min_gain=10.0))
    assert [item.progress for item in measure(settings, tmp_path / "run")] == RUNGS[:2]


def test_the_length_of_a_trial_is_its_tokens_or_its_epochs(config: Make) -> None:
    train_tokens = int(prepare(config())["train_tokens"])
    assert length(config(tokens=77)) == 77
    assert length(config(tokens=None, epochs=2.5)) == round(2.5 * train_tokens)
    assert length(config(tokens=None)) == train_tokens


def test_the_length_is_known_without_torch(config: Make, text_file: Path) -> None:
    prepare(config())
    code = (
        "import sys; from models.language_modelling import *; from models.configuration import *;"
        f"config = Config(data=TextData(source={str(text_file)!r}), tokenizer=Tokenizer(kind='bytes'));"
        "length(config); warmup(config);"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_preloading_starts_no_thread_and_no_gpu() -> None:
    code = (
        "import importlib, os, models.language_modelling as door;"
        "[importlib.import_module(name) for name in door.PRELOAD]; import torch;"
        "print(len(os.listdir('/proc/self/task')), torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_a_preloaded_process_trains_without_importing_more(config: Make, tmp_path: Path) -> None:
    prepare(config())
    settings = repr(config())
    code = (
        "import importlib, sys, pathlib; from models.language_modelling import *;"
        "[importlib.import_module(name) for name in PRELOAD]; before = set(sys.modules);"
        f"list(train({settings}, seed=0, rungs=[], directory=pathlib.Path({str(tmp_path / 'run')!r})));"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['torch.profiler._cupti_monitor']")


def test_validation_agrees_with_the_loss_of_transformers(config: Make, tmp_path: Path) -> None:
    settings = config()
    found = measure(settings, tmp_path / "run")
    save(settings, directory=tmp_path / "run", destination=tmp_path / "saved")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokens = language_modelling._prepared(settings).tokens("validation").astype("int64")
    total = 0.0
    for start in range(0, len(tokens) - 1, 16):
        window = torch.from_numpy(tokens[start : start + 17])[None]
        with torch.no_grad():
            inputs, labels = window[:, :-1], window[:, 1:]
            loss = model(input_ids=inputs, labels=inputs, shift_labels=labels).loss
        total += loss.item() * labels.numel()
    assert found[-1].metrics["validation/loss"] == pytest.approx(total / (len(tokens) - 1), rel=1e-5)


def test_bits_per_byte_of_bytes_is_the_loss_in_bits(config: Make, tmp_path: Path) -> None:
    metrics = measure(config(), tmp_path / "run")[-1].metrics
    assert metrics["validation/bits_per_byte"] == pytest.approx(metrics["validation/loss"] / math.log(2))


def test_the_test_split_is_measured_from_what_was_left(config: Make, tmp_path: Path) -> None:
    settings = config()
    measure(settings, tmp_path / "run")
    found = language_modelling.test(settings, directory=tmp_path / "run")
    assert set(found) == {"test/loss", "test/perplexity", "test/bits_per_byte", "test/tokens"}
    assert found["test/tokens"] == prepare(settings)["test_tokens"]
    assert 0 < found["test/loss"] < math.log(257)


def test_a_missing_test_split_is_told(config: Make, tmp_path: Path) -> None:
    settings = config(data={"test": 0.0})
    measure(settings, tmp_path / "run")
    with pytest.raises(DataError, match=r"leaves no test split.*Set data\.test to a share"):
        language_modelling.test(settings, directory=tmp_path / "run")


def test_an_untrained_folder_cannot_be_saved(config: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        save(config(), directory=tmp_path / "run", destination=tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_what_is_in_the_way_is_not_overwritten(config: Make, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="must be a new or empty folder"):
        save(config(), directory=tmp_path / "run", destination=tmp_path / "saved")


@pytest.fixture
def saved(config: Make, tmp_path: Path) -> Path:
    settings = config(tokenizer=Tokenizer(kind="bpe", vocabulary=300), tokens=512)
    measure(settings, tmp_path / "run")
    save(settings, directory=tmp_path / "run", destination=tmp_path / "saved")
    return tmp_path / "saved"


def test_the_saved_folder_generates_with_transformers_alone(saved: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    output = model.generate(**tokenizer("the quick", return_tensors="pt"))
    assert tokenizer.decode(output[0]).startswith("the quick")
    assert output.shape[1] <= 16


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_training_goes_on_from_a_saved_model(config: Make, tmp_path: Path, family: str) -> None:
    first = config(model={"family": family}, tokens=4096)
    before = measure(first, tmp_path / "first")[-1].metrics["validation/loss"]
    save(first, directory=tmp_path / "first", destination=tmp_path / "saved")
    # The same text read with the saved tokenizer, which is the same one.
    go_on = replace(
        config(tokens=16, learning_rate=1e-9),
        model=language_modelling.Causal(pretrained=str(tmp_path / "saved"), context=16, dropout=0.1),
        tokenizer=Tokenizer(kind="pretrained"),
    )
    (after,) = train(go_on, seed=0, rungs=[], directory=tmp_path / "second")
    assert after.metrics["validation/loss"] == pytest.approx(before, rel=1e-4)


def test_a_context_beyond_a_pretrained_models_positions_is_refused(config: Make, saved: Path, tmp_path: Path) -> None:
    settings = replace(
        config(),
        model=language_modelling.Causal(pretrained=str(saved), context=32),
        tokenizer=Tokenizer(kind="pretrained"),
    )
    with pytest.raises(SettingError, match=r"model\.context: at most the 16 positions"):
        measure(settings, tmp_path / "other")


def test_without_bias_the_biases_of_gpt2_stay_zero(config: Make, tmp_path: Path) -> None:
    for bias in (False, True):
        directory = tmp_path / str(bias)
        settings = config(model={"bias": bias})
        measure(settings, directory)
        model = next_token._trained(settings, language_modelling._prepared(settings), directory)
        biases = [p for name, p in model.named_parameters() if name.endswith(".bias")]
        assert any(bool(parameter.any()) for parameter in biases) is bias


def test_serving_continues_prompts_of_any_length(saved: Path) -> None:
    model = serving._load_pyfunc(str(saved))
    prompts = ["the quick", "", "the quick brown fox jumps over a lazy dog " * 30]
    found = model.predict(prompts, {"max_new_tokens": 40, "temperature": 0.7, "seed": 1})
    assert len(found) == 3
    assert all(isinstance(text, str) for text in found)
    assert found == model.predict(prompts, {"max_new_tokens": 40, "temperature": 0.7, "seed": 1})


def test_serving_reads_a_table_by_its_prompt_column(saved: Path) -> None:
    model = serving._load_pyfunc(str(saved))
    greedy = {"temperature": 0, "max_new_tokens": 5}
    table = pandas.DataFrame({"id": [1, 2], "prompt": ["the", "a lazy"]})
    assert model.predict(table, greedy) == model.predict(["the", "a lazy"], greedy)
    assert model.predict(table[["prompt"]].rename(columns={"prompt": "x"}), greedy) == model.predict(table, greedy)


def test_greedy_serving_agrees_with_transformers(saved: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    inputs = tokenizer("the quick", return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    expected = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    given = {"temperature": 0, "max_new_tokens": 4}
    assert serving._load_pyfunc(str(saved)).predict(["the quick"], given) == [expected]


@pytest.mark.parametrize(
    ("given", "params", "message"),
    [
        (["a"], {"temperture": 1.0}, "Did you mean 'temperature'"),
        (["a"], {"max_new_tokens": -1}, "max_new_tokens at least 1"),
        ([3], {}, "prompts must be text, got int 3"),
        (pandas.DataFrame({"a": ["x"], "b": ["y"]}), {}, "must have a column 'prompt', got 'a', 'b'"),
    ],
)
def test_what_cannot_be_served_is_told(saved: Path, given: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        serving._load_pyfunc(str(saved)).predict(given, params)


def test_training_leaves_no_thread_behind(config: Make, tmp_path: Path) -> None:
    before = set(threading.enumerate())  # some of them, of earlier tests, may end meanwhile
    measure(config(), tmp_path / "run")
    assert set(threading.enumerate()) <= before


def test_training_text_is_varied_and_validation_is_not(config: Make, tmp_path: Path) -> None:
    from models.configuration import Augment

    plain, varied = (config(tokens=1024, augment=Augment(word_dropout=drop)) for drop in (0.0, 0.3))
    tasks = [next_token.task(settings, language_modelling._prepared(settings), seed=1) for settings in (plain, varied)]
    first, other = (task.draw(0, 4).inputs["tokens"] for task in tasks)
    assert first.shape == other.shape
    assert not torch.equal(first, other)
    assert torch.equal(other[2:], tasks[1].draw(2, 2).inputs["tokens"])
    assert language_modelling.prepare(plain)["digest"] == language_modelling.prepare(varied)["digest"]


def test_text_is_cleaned_in_all_splits_and_filtered_in_training_alone(config: Make, text_file: Path) -> None:
    from models.configuration import Preprocess

    plain = prepare(config())
    cleaned = prepare(config(preprocess=Preprocess(lowercase=True, min_words=15)))
    assert cleaned["train_texts"] < plain["train_texts"]
    assert cleaned["validation_texts"] == plain["validation_texts"]


def test_a_list_of_synonyms_is_read_when_the_data_is_described_though_the_baseline_uses_none(
    config: Make, tmp_path: Path
) -> None:
    listed = tmp_path / "synonyms.txt"
    listed.write_text("river, stream\nhouse\n")
    with pytest.raises(DataError, match=r"augment\.synonyms_file: .*synonyms\.txt:2: must hold at least two"):
        language_modelling.describe(config(augment=Augment(synonyms_file=str(listed))))


def test_what_the_text_is_like_can_be_shown(config: Make) -> None:
    found = language_modelling.describe(config())
    assert [row["split"] for row in found["splits"]] == ["train", "validation", "test"]
    assert "wizards" in found["examples"][0] or "tea" in found["examples"][0]


def test_varied_documents_keep_their_ends(config: Make, tmp_path: Path) -> None:
    from models.configuration import Augment

    path = tmp_path / "documents.jsonl"
    path.write_text("".join(f'{{"text": "one two three {n}"}}\n' for n in range(400)))
    varied = config(data={"source": str(path)}, model={"context": 64}, augment=Augment(word_swaps=0.5))
    prepared = language_modelling._prepared(varied)
    plain = config(data={"source": str(path)}, model={"context": 64})
    ends = []
    for settings in (plain, varied):
        tokens = next_token.task(settings, prepared, seed=1).draw(0, 20).inputs["tokens"]
        ends.append(int((tokens == prepared.end_token).sum()))
    assert ends[0] > 40
    assert ends[0] == ends[1]  # swapping words changes no length


def test_the_warm_up_lasts_until_the_first_measurement_with_a_step_at_the_peak(config: Make, tmp_path: Path) -> None:
    settings = config(schedule="constant", warmup=0.3)
    step = settings.batch_size * settings.model.context
    rungs = [round(count * step) for count in range(1, 9)]
    found = list(language_modelling.train(settings, seed=0, rungs=rungs, directory=tmp_path / "run"))[:8]
    at_peak = [item.metrics["train/learning_rate"] == settings.learning_rate for item in found]
    assert at_peak == [item.progress > language_modelling.warmup(settings) for item in found]
    assert set(at_peak) == {False, True}
