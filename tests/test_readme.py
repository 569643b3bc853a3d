"""The README's words are true: its commands run, its example objective works, its files exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HPO = str(Path(sys.executable).with_name("hpo"))


def block(label: str) -> str:
    """The code block that follows an HTML comment."""
    found = re.search(rf"<!-- {re.escape(label)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"no block {label!r} in the README"
    return found[1]


def test_its_own_objective_runs_and_beats_its_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HPO_STUDIES", raising=False)
    for name in ("digits.py", "digits.yaml"):
        (tmp_path / name).write_text(block(f"own objective: {name}"))
    command = [HPO, "run", "digits.yaml", "--set", "track={}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = subprocess.run([HPO, "show", "digits", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    study = json.loads(shown.stdout)
    assert len(study["trials"]) == 20
    assert study["best"]["value"] > study["baseline"]["value"]


def test_its_probe_forecasts_its_own_objective(tmp_path: Path) -> None:
    for name in ("digits.py", "digits.yaml"):
        (tmp_path / name).write_text(block(f"own objective: {name}"))
    command = [HPO, *block("probe command").split()[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "forecast of 20 trials" in done.stdout


def test_its_trade_off_finds_a_front(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(block("trade-off: small.yaml"))
    studies = ["--studies", str(tmp_path / "studies")]
    smaller = [part for one in ("track={}", "tokens=20_000", "search.trials=4") for part in ("--set", one)]
    command = [HPO, "run", str(tmp_path / "small.yaml"), *smaller, *studies]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = subprocess.run([HPO, "show", "small", "--json", *studies], capture_output=True, text=True, check=True)
    study = json.loads(shown.stdout)
    assert len(study["front"]) >= 1
    sizes = {trial["params"]["model.width"]: trial["metrics"]["model/parameters"] for trial in study["trials"]}
    assert sorted(sizes, key=sizes.__getitem__) == sorted(sizes)


def test_its_laws_say_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "centred.yaml").write_text(block("laws: centred.yaml"))
    command = [HPO, "check", "--no-data", "centred.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    said = re.search(r"```\n(step law: .*?)```", README, re.DOTALL)
    assert said
    assert " ".join(said[1].split()) in " ".join(done.stdout.split())


@pytest.mark.parametrize("package", ["hpo", "models"])
def test_its_layers_are_those_that_are_checked(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one.get("containers") == [package])
    shown = re.search(rf"^{package}/ +(.*\n(?: +> .*\n)*)", README, re.MULTILINE)
    assert shown
    levels = re.sub(r"\([^)]*\)", "", shown[1]).split(">")
    assert [{name.strip() for name in one.split("|")} for one in levels] == [
        {name.strip() for name in one.split("|")} for one in layers
    ]


def test_its_smallest_sweep_is_in_order(tmp_path: Path) -> None:
    found = re.search(r"smallest\nuseful one:\n\n```yaml\n(.*?)```", README, re.DOTALL)
    assert found
    (tmp_path / "small.yaml").write_text(found[1])
    subprocess.run([HPO, "check", "small.yaml"], cwd=tmp_path, capture_output=True, check=True)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_it_links_to_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_its_table_of_commands_is_that_of_the_program() -> None:
    shown = subprocess.run([HPO, "--help"], capture_output=True, text=True, check=True).stdout
    commands = set(re.findall(r"^  (\w+)  ", shown, re.MULTILINE))
    assert commands == set(re.findall(r"^\| `hpo (\w+)", README, re.MULTILINE))


@pytest.mark.parametrize("sweep", sorted(path.name for path in (ROOT / "sweeps").glob("*.yaml")))
def test_each_shipped_sweep_is_in_order(sweep: str) -> None:
    done = subprocess.run(
        [HPO, "check", "--no-data", f"sweeps/{sweep}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is in order" in done.stdout


@pytest.mark.parametrize(
    "sweep", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "studies").glob("*/sweep.yaml"))
)
def test_each_sweep_of_a_kept_report_is_in_order(sweep: str) -> None:
    if (ROOT / sweep).with_name("study.json").exists():
        pytest.skip("a study that was run here, not a kept report")
    done = subprocess.run([HPO, "check", "--no-data", sweep], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_row_of_what_can_fail_names_tests_that_there_are() -> None:
    _, _, section = README.partition("## What can fail, and what happens then")
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 15
    for row in rows:
        files = re.findall(r"`([a-z_/]+\.py)`", row.rstrip("| ").rpartition("|")[2])
        assert files, row
        assert all("def test_" in (ROOT / "tests" / file).read_text() for file in files), row
