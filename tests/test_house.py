"""The law of the house: style, types and imports are checked with the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "imports": ["lint-imports"],
}


@pytest.mark.parametrize("check", COMMANDS)
def test_the_house_is_in_order(check: str) -> None:
    command, *arguments = COMMANDS[check]
    executable = Path(sys.executable).with_name(command)
    done = subprocess.run([executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [["--help"], ["check", "sweeps/quickstart.yaml"]], ids=["help", "check"])
def test_quick_commands_import_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys, contextlib\n"
        "from hpo.cli import main\n"
        f"sys.argv = ['hpo', *{command!r}]\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "print(sorted({'torch', 'transformers', 'mlflow', 'datasets', 'accelerate', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("package", ["hpo", "models"])
def test_files_and_top_level_keep_to_their_size_and_place(package: str) -> None:
    long = {
        path.name: count
        for path in (ROOT / package).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 450
    }
    assert long == {}


def test_the_top_level_is_the_one_agreed_on() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in done.stdout.splitlines()}
    allowed = {"pyproject.toml", "sweeps", "hpo", "models", "tests", "studies", "README.md", "LICENSE", "uv.lock"}
    assert {name for name in top if not name.startswith(".")} <= allowed
