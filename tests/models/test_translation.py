"""Translation: pairs read and cut, losses that no padding changes, texts written and scored, models saved whole."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from models import adapters, architectures, sequence_to_sequence, translation
from models.architectures import Vocabulary
from models.configuration import (
    Augment,
    Generation,
    Lora,
    PairData,
    Preprocess,
    SequenceToSequence,
    Tokenizer,
)
from models.errors import DataError, SettingError
from models.metrics import Measurement
from models.sequence_to_sequence import IGNORED, Collator
from models.translation import Config

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ZAHLEN = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn"]
FAMILIES = ["marian", "t5", "gpt2", "llama"]
Make = Callable[..., Config]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three hundred pairs of counted things, English and German, all different."""
    rows = []
    for first in range(10):
        for second in range(10):
            for third in range(3):
                numbers = (first, second, third, second, first)
                rows.append(
                    {
                        "source": " ".join(NUMBERS[n] for n in numbers),
                        "target": " ".join(ZAHLEN[n] for n in numbers),
                    }
                )
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(pairs: Path) -> Make:
    def make(*, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any) -> Config:
        shape = {"layers": 1, "width": 32, "heads": 2, "context": 32, **(model or {})}
        settings: dict[str, Any] = {"batch_size": 8, "learning_rate": 5e-3, "checkpoint_seconds": 1e9, **changes}
        settings.setdefault("tokenizer", Tokenizer(kind="words", vocabulary=257))
        settings.setdefault("generation", Generation(max_new_tokens=8, sample=5))
        return Config(
            data=PairData(**{"source": str(pairs), **(data or {})}), model=SequenceToSequence(**shape), **settings
        )

    return make


def run(settings: Config, directory: Path, rungs: tuple[int, ...] = ()) -> list[Measurement]:
    return list(translation.train(settings, seed=1, rungs=rungs, directory=directory))


def model_of(family: str, *, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    settings = SequenceToSequence(family=family, width=32, heads=2, context=40, layers=2, attention=attention)  # type: ignore[arg-type]
    vocabulary = Vocabulary(50, end=48, pad=49)
    whole = architectures.is_encoder_decoder(settings)
    made = (architectures.encoder_decoder if whole else architectures.causal)(settings, vocabulary)
    return made.train(False)


def rows(*lengths: int) -> list[np.ndarray[Any, Any]]:
    chance = np.random.default_rng(sum(lengths))
    return [np.append(chance.integers(0, 48, length - 1), 48) for length in lengths]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_logits(family: str, attention: str) -> None:
    model = model_of(family, attention=attention)
    collate = Collator(pad=49, start=49 if model.config.is_encoder_decoder else None)
    sources, targets = rows(4, 9, 2), rows(7, 3, 5)
    together = collate(sources, targets)
    batched = sequence_to_sequence.logits_of(model, together)
    for index, pair in enumerate(zip(sources, targets, strict=True)):
        alone = collate([pair[0]], [pair[1]])
        logits = sequence_to_sequence.logits_of(model, alone)[0]
        counted = alone["labels"][0] != IGNORED
        assert torch.allclose(batched[index, : len(logits)][counted], logits[counted], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers(family: str) -> None:
    model = model_of(family)
    collate = Collator(pad=49, start=49 if model.config.is_encoder_decoder else None)
    inputs = collate(rows(4, 9, 2), rows(7, 3, 5))
    mine = sequence_to_sequence.summed_loss(model, inputs) / int((inputs["labels"] != IGNORED).sum())
    if "before" in inputs:
        theirs = model(input_ids=inputs["tokens"], attention_mask=inputs["mask"], labels=inputs["labels"]).loss
    else:  # transformers moves the labels by one itself
        labels = torch.nn.functional.pad(inputs["labels"], (1, 0), value=IGNORED)
        tokens = torch.nn.functional.pad(inputs["tokens"], (0, 1), value=49)
        theirs = model(input_ids=tokens, labels=labels).loss
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize("family", ["marian", "gpt2"])
def test_it_learns_to_translate(config: Make, tmp_path: Path, family: str) -> None:
    first, *_, last = run(config(model={"family": family, "width": 64}, epochs=10.0), tmp_path / "run", (100,))
    assert last.metrics["validation/loss"] < 0.6 * first.metrics["validation/loss"]
    assert last.metrics["validation/bleu"] > 20
    assert last.progress == 10 * round(last.progress / 10)


def test_scores_are_those_of_the_library_on_what_was_written(config: Make, tmp_path: Path) -> None:
    settings = config(epochs=2.0, generation=Generation(max_new_tokens=8))
    run(settings, tmp_path / "run")
    tested = translation.test(settings, directory=tmp_path / "run")
    prepared = translation._prepared(settings)
    model = sequence_to_sequence._trained(settings, prepared, tmp_path / "run").train(False)
    sources = list(prepared.column("test", "source"))
    written = sequence_to_sequence.write(model, prepared, sources, settings.generation)
    column = prepared.column("test", "reference")
    references = [column.text(row) for row in range(len(column))]
    assert tested["test/bleu"] == sacrebleu.corpus_bleu(written, [references], force=True).score
    assert tested["test/chrf"] == sacrebleu.corpus_chrf(written, [references]).score
    assert tested["test/examples"] == len(references)


def test_the_signature_is_among_the_facts(config: Make) -> None:
    facts = translation.prepare(config())
    metric = sacrebleu.BLEU()
    metric.corpus_score(["a"], [["a"]])
    assert facts["signature.bleu"] == str(metric.get_signature())


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_stopped_run_that_goes_on_equals_an_uninterrupted_one(config: Make, tmp_path: Path, tuning: str) -> None:
    settings = config(
        model={"dropout": 0.1}, tuning=tuning, augment=Augment(word_dropout=0.1), ema_decay=0.9, gradient_noise=0.01
    )
    whole = run(settings, tmp_path / "whole", (100,))
    generator = translation.train(settings, seed=1, rungs=(100,), directory=tmp_path / "parts")
    next(generator)
    generator.close()
    parts = run(settings, tmp_path / "parts", (100,))
    for one, other in zip(whole, parts, strict=True):
        assert one.metrics["validation/loss"] == other.metrics["validation/loss"]
        assert one.metrics["train/loss"] == other.metrics["train/loss"]


def test_the_order_of_pairs_does_not_depend_on_the_batch_size(config: Make) -> None:
    settings = config(augment=Augment(word_swaps=0.5))
    drawn = sequence_to_sequence._Pairs(settings, translation._prepared(settings), seed=3)
    together, _ = drawn.draw(0, 12)
    apart = [row for first in range(0, 12, 4) for row in drawn.draw(first, 4)[0]]
    assert all((one == other).all() for one, other in zip(together, apart, strict=True))


def test_only_the_training_sources_are_varied_and_anew_in_each_epoch(config: Make) -> None:
    settings = config(augment=Augment(word_dropout=0.5))
    prepared = translation._prepared(settings)
    drawn = sequence_to_sequence._Pairs(settings, prepared, seed=3)
    count = prepared.count("train", "examples")
    epochs = [sorted(row.tobytes() for row in drawn.draw(epoch * count, count)[0]) for epoch in (0, 1)]
    assert epochs[0] != epochs[1]
    assert prepared.facts["digest"] == translation._prepared(config()).facts["digest"]


def test_other_data_is_mixed_in_by_its_share(config: Make, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"source": f"ten ten {n}", "target": "neu"}) + "\n" for n in range(40)))
    settings = config(augment=Augment(mix=0.5, mix_source=str(other)))
    prepared = translation._prepared(settings)
    drawn = sequence_to_sequence._Pairs(settings, prepared, seed=0).examples.draw(0, 200)
    assert 70 < sum(item.mixed for item in drawn) < 130
    assert prepared.count("mix", "examples") == 40


@pytest.mark.parametrize(("family", "auto"), [("marian", AutoModelForSeq2SeqLM), ("llama", AutoModelForCausalLM)])
def test_the_saved_folder_loads_and_reads_what_was_trained_on(
    config: Make, tmp_path: Path, family: str, auto: Any
) -> None:
    settings = config(model={"family": family}, epochs=0.2)
    run(settings, tmp_path / "run")
    translation.save(settings, directory=tmp_path / "run", destination=tmp_path / "saved")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "saved")
    prepared = translation._prepared(settings)
    text = prepared.column("train", "text").text(0)
    assert tokenizer(text)["input_ids"] == prepared.column("train", "source")[0].tolist()
    loaded = auto.from_pretrained(tmp_path / "saved")
    trained = sequence_to_sequence._trained(settings, prepared, tmp_path / "run")
    state = trained.state_dict()
    assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items() if name in state)
    assert json.loads((tmp_path / "saved" / "task.json").read_text())["task"] == "translation"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_adapter_gives_the_logits_of_the_unmerged(family: str) -> None:
    adapted = adapters.attach(model_of(family), Lora(rank=4)).train(False)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    collate = Collator(pad=49, start=49 if adapters.plain(adapted).config.is_encoder_decoder else None)
    inputs = collate(rows(4, 9), rows(7, 3))
    unmerged = sequence_to_sequence.logits_of(adapted, inputs)
    merged = sequence_to_sequence.logits_of(adapters.merged(copy.deepcopy(adapted)), inputs)
    assert torch.allclose(unmerged, merged, atol=1e-5)
    assert not torch.allclose(unmerged, sequence_to_sequence.logits_of(model_of(family), inputs), atol=1e-3)


def test_parallel_files_are_read_line_by_line(config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "parallel"
    folder.mkdir()
    for split, count in (("train", 30), ("val", 5), ("test_2016_flickr", 4)):
        (folder / f"{split}.en").write_text("".join(f"{split} number {n}\n" for n in range(count)))
        (folder / f"{split}.de").write_text("".join(f"{split} Zahl {n}\n" for n in range(count)))
    data = {"source": str(folder), "source_suffix": "en", "target_suffix": "de", "test_split": "test_2016_flickr"}
    facts = translation.prepare(config(data=data))
    assert [facts[f"{split}_examples"] for split in ("train", "validation", "test")] == [30, 5, 4]
    (folder / "val.de").write_text("nur eine\n")
    with pytest.raises(DataError, match=r"val\.en: must have as many lines as .*val\.de, got 5 and 1"):
        translation.prepare(config(data=data))
    (folder / "val.de").unlink()
    with pytest.raises(DataError, match="must come in pairs, got 'val'"):
        translation.prepare(config(data=data))


def test_a_source_in_two_splits_is_left_out_of_training_and_counted(config: Make, tmp_path: Path) -> None:
    folder = tmp_path / "splits"
    folder.mkdir()
    text = {"train": ["A dog.", "A cat.", "A cat.", "A bird.", ""], "validation": ["a dog!"], "test": ["A hen."]}
    for split, sources in text.items():
        lines = [json.dumps({"source": source, "target": "x y"}) + "\n" for source in sources]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    facts = translation.prepare(config(data={"source": str(folder)}))
    found = {name: facts[f"train_{name}"] for name in ("examples", "leaked", "duplicates", "empty")}
    assert found == {"examples": 2, "leaked": 1, "duplicates": 1, "empty": 1}


def test_references_stay_as_they_are(config: Make, tmp_path: Path) -> None:
    path = tmp_path / "shouting.jsonl"
    path.write_text("".join(json.dumps({"source": f"S {n}", "target": f"GROSS {n}"}) + "\n" for n in range(60)))
    settings = config(data={"source": str(path)}, preprocess=Preprocess(lowercase=True))
    prepared = translation._prepared(settings)
    assert prepared.column("validation", "reference").text(0).startswith("GROSS")
    assert prepared.encoder().backend.decode(prepared.column("train", "target")[0].tolist()).startswith("gross")


def test_sources_longer_than_the_context_are_cut_and_counted(config: Make) -> None:
    settings = config(model={"context": 3}, generation=Generation(max_new_tokens=3))
    facts = translation.prepare(settings)
    assert facts["train_truncated"] == facts["train_examples"]
    found = translation.describe(settings)
    assert any("are longer than 3 tokens and are cut" in note for note in found["notes"])
    assert found["cautions"][-1].startswith("model.context: 100% of the training examples are cut to 3 tokens")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"target_column": "targte"}}, r"no column 'targte' \(data\.target_column\).*Did you mean 'target'"),
        (
            {"preprocess": Preprocess(min_words=9)},
            r"train split of .* must hold examples, got 0; left out: \d+ by preproc",
        ),
        ({"data": {"validation": 0.0001}}, r"data\.validation: the validation split .* must hold examples, got 0"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_words(config: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        translation.prepare(config(**changes))


def test_text_in_another_encoding_is_refused_with_its_place(config: Make, tmp_path: Path) -> None:
    for name, text in (("train.de", "grün\n" * 9), ("train.en", "green\n" * 9)):
        (tmp_path / name).write_bytes(text.encode("latin1"))
    data = {"source": str(tmp_path), "source_suffix": "de", "target_suffix": "en"}
    with pytest.raises(DataError, match=r"train\.de: must be UTF-8, got the byte 0xfc at offset 2"):
        translation.prepare(config(data=data))


def test_a_value_that_is_no_text_is_refused_with_its_row(config: Make, tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text('{"source": 1, "target": 2}\n' * 3)
    with pytest.raises(DataError, match=r"row 1: column 'source' must hold text, got int 1"):
        translation.prepare(config(data={"source": str(path)}))


def test_answers_longer_than_the_context_are_refused_before_training(config: Make) -> None:
    with pytest.raises(SettingError, match=r"max_new_tokens: at most 31 with model\.context 32, got 40"):
        config(model={"family": "gpt2"}, generation=Generation(max_new_tokens=40))


def test_measurements_are_finite_and_named(config: Make, tmp_path: Path) -> None:
    (only,) = run(config(epochs=0.2, rouge=True), tmp_path / "run")
    assert set(only.metrics) >= set(translation.METRICS)
    assert all(math.isfinite(value) for value in only.metrics.values())


def test_a_pretrained_decoder_has_half_its_context_for_each_side(config: Make, tmp_path: Path) -> None:
    first = config(model={"family": "gpt2", "context": 12})
    run(first, tmp_path / "base")
    translation.save(first, directory=tmp_path / "base", destination=tmp_path / "model")
    settings = Config(
        data=first.data,
        tokenizer=Tokenizer(kind="pretrained"),
        model=SequenceToSequence(pretrained=str(tmp_path / "model"), context=12),
        epochs=0.1,
    )
    assert settings.side == first.side == 6
    assert math.isfinite(run(settings, tmp_path / "run")[-1].metrics["validation/loss"])
    translation.save(settings, directory=tmp_path / "run", destination=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "task.json").read_text())["family"] == "gpt2"


def test_a_saved_model_writes_as_long_as_it_was_scored(config: Make, tmp_path: Path) -> None:
    settings = config(model={"context": 30}, generation=Generation(sample=2, final_sample=2), epochs=0.1)
    run(settings, tmp_path / "run")
    translation.save(settings, directory=tmp_path / "run", destination=tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert model.generation_config.max_new_tokens == 30
    assert json.loads((tmp_path / "model" / "task.json").read_text())["generation"]["max_new_tokens"] == 30


def test_a_pretrained_decoder_begins_with_its_own_token(config: Make, tmp_path: Path) -> None:
    first = config()
    run(first, tmp_path / "base")
    translation.save(first, directory=tmp_path / "base", destination=tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        held = json.loads((tmp_path / "model" / name).read_text())
        (tmp_path / "model" / name).write_text(json.dumps({**held, "decoder_start_token_id": 7}))
    settings = Config(
        data=first.data,
        tokenizer=Tokenizer(kind="pretrained"),
        model=SequenceToSequence(pretrained=str(tmp_path / "model"), context=32),
    )
    prepared = translation._prepared(settings)
    task = sequence_to_sequence.task(settings, prepared, seed=0)
    assert set(task.draw(0, 4).inputs["before"][:, 0].tolist()) == {7}
    assert task.build().generation_config.decoder_start_token_id == 7  # type: ignore[union-attr]


def test_mixed_in_data_need_not_have_the_named_splits(config: Make, tmp_path: Path) -> None:
    rows = [json.dumps({"source": f"{NUMBERS[n]} {n}", "target": ZAHLEN[n]}) + "\n" for n in range(10)]
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "train.jsonl").write_text("".join(rows[:5]))
    (tmp_path / "named" / "held.jsonl").write_text("".join(rows[5:8]))
    (tmp_path / "more.jsonl").write_text("".join(rows[8:]))
    settings = config(
        data={"source": str(tmp_path / "named"), "validation_split": "held", "test": 0.0},
        augment=Augment(mix=0.5, mix_source=str(tmp_path / "more.jsonl")),
    )
    assert translation.prepare(settings)["mix_examples"] == 2


def test_what_cleaning_makes_equal_is_left_out_of_training_alone(config: Make, tmp_path: Path) -> None:
    texts = [text for n in range(60) for text in (f"<b>word{n}</b> is", f"word{n} is")]
    path = tmp_path / "marked.jsonl"
    path.write_text("".join(json.dumps({"source": text, "target": "x"}) + "\n" for text in texts))
    data = {"source": str(path), "validation": 0.3, "test": 0.3}
    plain, cleaned = config(data=data), config(data=data, preprocess=Preprocess(html=True))
    prepared = translation._prepared(cleaned)
    found = {}
    for split in ("train", "validation", "test"):
        column = prepared.column(split, "text")
        found[split] = {column.text(row) for row in range(len(column))}
    assert not found["train"] & (found["validation"] | found["test"])
    assert prepared.count("train", "leaked") > 0
    for split in ("validation", "test"):
        assert prepared.count(split, "examples") == translation.prepare(plain)[f"{split}_examples"]


def test_a_target_that_cleaning_empties_is_not_trained_on(config: Make, tmp_path: Path) -> None:
    rows = [{"source": f"{NUMBERS[n % 10]} {n}", "target": "!!!" if n % 2 else "gut"} for n in range(60)]
    path = tmp_path / "empty.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config(data={"source": str(path)}, preprocess=Preprocess(punctuation=True))
    assert translation._prepared(settings).column("train", "target").lengths.min() > 1


def test_choices_that_rarely_make_sense_are_cautioned_against(config: Make) -> None:
    cautions = translation.describe(config(tuning="lora", freeze_layers=0))["cautions"]
    assert any(caution.startswith("tuning: 'lora' without model.pretrained") for caution in cautions)
    assert not any(caution.startswith("tuning") for caution in translation.describe(config())["cautions"])


def test_the_warm_up_lasts_until_the_first_measurement_with_a_step_at_the_peak(config: Make, tmp_path: Path) -> None:
    settings = config(schedule="constant", warmup=0.1, epochs=1.0)
    step = settings.batch_size
    rungs = [round(count * step) for count in range(1, 9)]
    found = list(translation.train(settings, seed=0, rungs=rungs, directory=tmp_path / "run"))[:8]
    at_peak = [item.metrics["train/learning_rate"] == settings.learning_rate for item in found]
    assert at_peak == [item.progress > translation.warmup(settings) for item in found]
    assert set(at_peak) == {False, True}
