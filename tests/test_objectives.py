"""Each kind of model, the whole way a user goes: search, promote, load, predict; cut down to what runs in seconds.

The shipped quickstart sweeps are used as they are, with fewer trials and shorter runs; the slow test runs them whole.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HPO = str(Path(sys.executable).with_name("hpo"))
SMALL = ("track={}", "data.validation=0.02", "data.test=0.02")


def hpo(studies: Path, *arguments: str, limit: int = 280) -> subprocess.CompletedProcess[str]:
    command = [HPO, *arguments, "--studies", str(studies)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def promoted(studies: Path, name: str, *changes: str, full: tuple[str, ...] = ()) -> Path:
    """Two trials of a shipped sweep, the better one promoted; the promotion's folder."""
    settings = [part for change in (*SMALL, *changes) for part in ("--set", change)]
    hpo(studies, "run", f"sweeps/{name}.yaml", "--trials", "2", *settings)
    hpo(studies, "promote", name, *[part for change in full for part in ("--set", change)])
    return studies / name / "promotions/0001"


def metrics_of(promotion: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((promotion / "promotion.json").read_text())["test"]
    return found


def hold_out(rows: Iterable[Mapping[str, Any]], text: str, path: Path) -> None:
    """Write the rows that the sample's test split is made of."""
    from models.corpora import drawn
    from models.preprocess import key

    held = [row for row in rows if drawn(key(row[text]), 0.02, 0.02) == "test"]
    path.write_text("".join(json.dumps(row) + "\n" for row in held))


def predicted(studies: Path, name: str, rows: Path) -> dict[str, str]:
    """The scores that `hpo predict` shows for a file, by name."""
    done = hpo(studies, "predict", name, str(rows), "--output", str(rows.with_suffix(".out.jsonl")))
    return dict(re.findall(r"^(\S+): (\S+)$", done.stderr, re.MULTILINE))


def test_a_classifier_goes_the_whole_way(tmp_path: Path) -> None:
    from transformers import pipeline

    from models import samples

    promotion = promoted(tmp_path, "classification_quickstart", "epochs=1", full=("epochs=1",))
    test = metrics_of(promotion)
    assert 0 < test["test/macro_f1"] < 1
    assert test["test/linear_macro_f1"] > 0.5
    hold_out(samples.docstrings(), "text", tmp_path / "test.jsonl")
    shown = predicted(tmp_path, "classification_quickstart", tmp_path / "test.jsonl")
    for metric in ("macro_f1", "accuracy"):
        assert shown[metric] == f"{test[f'test/{metric}']:.4g}"
    answer = pipeline("text-classification", model=str(promotion / "model"))("send a mail message to the server")
    assert answer[0]["label"] in {row["label"] for row in samples.docstrings()}


def test_a_translator_goes_the_whole_way(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    from models import samples

    promotion = promoted(tmp_path, "translation_quickstart", "epochs=1", "generation.sample=4", full=("epochs=1",))
    test = metrics_of(promotion)
    hold_out(samples.dates(), "source", tmp_path / "test.jsonl")
    shown = predicted(tmp_path, "translation_quickstart", tmp_path / "test.jsonl")
    assert shown["chrf"] == f"{test['test/chrf']:.4g}"
    assert AutoModelForSeq2SeqLM.from_pretrained(promotion / "model").config.model_type == "marian"


def test_a_base_is_fine_tuned_for_dialogue_by_lora(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = promoted(tmp_path, "chat_base_quickstart", "tokens=30_000", full=("tokens=30_000",))
    promotion = promoted(
        tmp_path,
        "chat_quickstart",
        f"model.pretrained={base / 'model'}",
        "epochs=0.05",
        "baseline.tuning=lora",
        "baseline.lora.rank=4",
        "baseline.lora.targets=attention",
        "generation.sample=2",
        "generation.final_sample=5",
        full=("epochs=0.05",),
    )
    test = metrics_of(promotion)
    assert test["test/perplexity"] < test["test/base_perplexity"]
    tokenizer: Any = AutoTokenizer.from_pretrained(promotion / "model")
    assert "lora" not in " ".join(AutoModelForCausalLM.from_pretrained(promotion / "model").state_dict())
    message = [{"role": "user", "content": "When are you open?"}]
    assert tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True).endswith("<|assistant|>")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["quickstart", "translation_quickstart", "classification_quickstart"])
def test_a_quickstart_beats_its_baseline(tmp_path: Path, name: str) -> None:
    hpo(tmp_path, "run", f"sweeps/{name}.yaml", limit=1700)
    study = json.loads(hpo(tmp_path, "show", name, "--json").stdout)
    better = max if study["metric"]["direction"] == "maximize" else min
    best, baseline = study["best"]["value"], study["baseline"]["value"]
    assert best != baseline
    assert better(best, baseline) == best
