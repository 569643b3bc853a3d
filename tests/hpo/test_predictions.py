"""`hpo predict`: files in, predictions and metrics out, in this process; models are tiny."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
import saved_models

from hpo import cli

ROWS = [{"text": "gut", "label": "good"}, {"text": "schlecht", "label": "bad"}, {"text": "so; so", "label": "bad"}]
Predict = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    kinds = ("language_model", "dialogue_model", "classifier", "translator")
    return {kind: str(getattr(saved_models, kind)(root / kind)) for kind in kinds}


@pytest.fixture
def predict(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Predict:
    """Runs `hpo predict KIND ...` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(kind: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hpo", "predict", folders[kind], *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def written(suffix: str, rows: list[dict[str, Any]] = ROWS) -> str:
    """A file of these rows, in the current folder."""
    file = Path(f"rows{suffix}")
    match suffix:
        case ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            pandas.DataFrame(rows).to_csv(file, index=False)
        case ".parquet":
            pandas.DataFrame(rows).to_parquet(file)
        case _:
            file.write_text("".join(row["text"] + "\n" for row in rows))
    return str(file)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_predictions_and_nothing_else(predict: Predict, suffix: str) -> None:
    code, output, said = predict("classifier", written(suffix))
    rows = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    assert set(rows[0]) == {"text", "label", "probability", "probabilities"}
    assert ("accuracy: 0.6667" in said) is (suffix != ".txt")


def test_a_csv_is_written_whole(predict: Predict) -> None:
    code, output, _ = predict("classifier", written(".jsonl"), "--output", "out.csv", "--batch-size", "2")
    assert (code, output) == (0, "")
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    assert set(json.loads(rows[0]["probabilities"])) == {"bad", "good"}
    assert sorted(path.name for path in Path().iterdir()) == ["out.csv", "rows.jsonl"]


def test_what_fails_leaves_the_old_output_as_it_was(predict: Predict) -> None:
    Path("out.jsonl").write_text("old")
    file = written(".jsonl", [{"text": "a"}, {"text": 3}])
    code, _, said = predict("classifier", file, "--output", "out.jsonl")
    assert code == 2
    assert "texts must be text, got int 3" in said
    assert Path("out.jsonl").read_text() == "old"
    assert sorted(path.name for path in Path().iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_translations_are_scored_against_the_targets_of_the_file(predict: Predict) -> None:
    pairs = [{"source": "guten Tag", "target": "good day"}]
    code, output, said = predict("translator", written(".jsonl", pairs), "--beams", "2")
    assert code == 0
    assert set(json.loads(output)) == {"source", "translation"}
    assert "bleu: " in said
    assert "chrf: " in said
    assert "bleu" not in predict("translator", written(".jsonl", [{"source": "guten Tag"}]))[2]


def test_a_language_model_measures_each_text_and_all(predict: Predict) -> None:
    code, output, said = predict("language_model", written(".txt"))
    rows = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [row["tokens"] for row in rows] == [3, 8, 6]
    assert f"tokens: {3 + 8 + 6}" in said
    assert {"loss", "perplexity"} < set(rows[0])


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".txt"])
def test_dialogues_are_replied_to(predict: Predict, suffix: str) -> None:
    dialogue: Any = [{"role": "user", "content": "hi"}]
    match suffix:
        case ".csv":
            file = written(suffix, [{"messages": json.dumps(dialogue)}])
        case ".txt":
            file = written(suffix, [{"text": "hi"}])
        case _:
            file = written(suffix, [{"messages": dialogue}])
    code, output, _ = predict("dialogue_model", file)
    assert code == 0
    assert json.loads(output)["messages"] == dialogue
    assert isinstance(json.loads(output)["reply"], str)


def test_replies_are_scored_where_the_dialogues_have_them(predict: Predict) -> None:
    dialogue = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    for suffix, cell in ((".jsonl", dialogue), (".csv", json.dumps(dialogue))):
        code, output, said = predict("dialogue_model", written(suffix, [{"messages": cell}]))
        assert code == 0
        assert json.loads(output)["messages"] == dialogue[:1]
        assert "rougeL: " in said


def test_rows_without_a_text_are_left_out_and_said(predict: Predict) -> None:
    code, output, said = predict("classifier", written(".jsonl", [{"text": " "}, {"text": "a"}, {"text": None}]))
    assert (code, len(output.splitlines())) == (0, 1)
    assert "rows without a text, left out: 2" in said


def test_another_column_can_be_read(predict: Predict) -> None:
    code, output, _ = predict("classifier", written(".jsonl", [{"body": "a"}]), "--column", "body")
    assert (code, json.loads(output)["text"]) == (0, "a")


@pytest.mark.parametrize(
    ("name", "content", "arguments", "message"),
    [
        ("a.txt", b"", [], "a.txt is empty"),
        ("a.csv", b"text,label\n", [], "a.csv is empty"),
        ("a.txt", b"\n \n", [], "column 'text' is empty in every row"),
        ("a.txt", b"abc\xff", [], "a.txt: must be UTF-8, got byte 0xff at 3"),
        ("a.jsonl", b'{"txt": "a"}', [], "no column 'text'. Did you mean 'txt'? --column names another"),
        ("a.jsonl", b'{"text": "a"}\n{', [], "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b"[1]", [], "a.jsonl:1: expected a JSON object, got list"),
        ("a.jsonl", b'{"text": "\\ud800"}', [], "row 1: must be valid Unicode"),
        ("a.jsonl", b'{"text": "a", "label": "bad"}\n{"text": "b"}', [], "row 2 has no 'label', which other rows have"),
        ("a.jsonl", b'{"text": "a", "label": "badd"}', [], "'badd' is none that the model knows. Did you mean 'bad'"),
        ("a.csv", b"text,label\na\n", [], "a.csv:2: has other columns than the first line names"),
        ("a.parquet", b"no parquet", [], "a.parquet: cannot be read as parquet"),
        ("a.json", b"{}", [], "expected a file that ends in .txt, .jsonl, .csv, .parquet, got"),
        ("a.txt", b"a", ["--output", "b.txt"], "--output b.txt: expected a name that ends in .jsonl or .csv"),
        ("a.txt", b"a", ["--output", "none/b.csv"], "there is no folder none"),
        ("a.txt", b"a", ["--beams", "2"], "beams: only for models that translate"),
    ],
)
def test_a_file_that_cannot_be_predicted_is_one_line_and_exit_code_2(
    predict: Predict, name: str, content: bytes, arguments: list[str], message: str
) -> None:
    Path(name).write_bytes(content)
    code, output, said = predict("classifier", name, *arguments)
    assert (code, output) == (2, "")
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_file_that_is_not_there_is_named(predict: Predict) -> None:
    assert predict("classifier", "nothing.txt")[::2] == (2, "hpo: no file nothing.txt.\n")
