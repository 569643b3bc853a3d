"""What is secret in the environment is in no file that a study leaves, in no store, in no log, on no screen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HPO = str(Path(sys.executable).with_name("hpo"))
Write = Callable[..., Path]

SECRETS = {
    "WANDB_API_KEY": "5ec1e7aaa0123456789abcdef0123456789abcd0",
    "MLFLOW_TRACKING_PASSWORD": "5ec1e7bbb-password",
    "MLFLOW_TRACKING_TOKEN": "5ec1e7ccc-token",
    "HF_TOKEN": "hf_5ec1e7ddd",
    "HPO_API_KEY": "5ec1e7eee-key",
    "HPO_WEBHOOK": "http://127.0.0.1:9/5ec1e7fff",
    "PGPASSWORD": "5ec1e7ggg-password",
}
MARK = "5ec1e7"


def told_anywhere(folder: Path) -> list[str]:
    """Files below a folder that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [str(path.relative_to(folder)) for path in files if MARK.encode() in path.read_bytes()]


@pytest.fixture
def home(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder and the user's home, in which nobody is logged in anywhere."""
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("HOME", str(workplace))
    monkeypatch.setenv("WANDB_MODE", "offline")
    return workplace


def command(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([HPO, *arguments], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_keys_and_passwords_of_the_environment_are_nowhere_after_a_run(
    home: Path, write_sweep: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(("track: {}", "track: [mlflow, wandb]\nnotify: {on: [finished], webhook: $HPO_WEBHOOK}"))
    code, said = command("run", "sweep.yaml", "--trials", "2", "--slots", "1")
    assert code == 0, said
    assert MARK not in said
    assert "runs written offline. Upload them:  wandb sync studies/sweep/tracking/wandb" in said
    files = {path.name for path in home.rglob("*") if path.is_file()}
    assert {"mlflow.db", "journal.jsonl", "mlflow.log", "wandb.log", "ledger.json"} <= files
    assert any(name.endswith(".wandb") for name in files)
    assert told_anywhere(home) == []
    # An address with a password in it, of a server that does not answer: errors like to repeat it.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{MARK}@127.0.0.1:9")
    code, said = command("sync", "sweep")
    assert code == 1
    assert "MLflow at http://me:***@127.0.0.1:9 cannot be written to: Connection refused." in said
    assert MARK not in said
    assert told_anywhere(home) == []


def test_a_sweep_that_would_carry_a_password_about_is_refused(write_sweep: Write) -> None:
    write_sweep(("track: {}", f"track: {{mlflow: {{tracking_uri: 'http://me:{MARK}@host:5000'}}}}"))
    code, said = command("run", "sweep.yaml")
    assert code == 2
    assert "track.mlflow.tracking_uri: requires an address without a password" in said
    assert MARK not in said
