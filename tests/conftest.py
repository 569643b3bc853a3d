"""Small real things that many tests use: an objective in a file, a sweep on it, a folder for studies."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script; what the tests start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that take ten seconds or more begin first, so that no worker ends long after the other.
_LONGEST_FIRST = (
    "test_quickstart.py",
    "test_objectives.py",
    "test_cli.py",
    "test_wandb.py",
    "test_house.py",
    "test_server.py",
    "test_classification.py",
    "test_readme.py",
    "test_language_modelling.py",
    "test_kills.py",
    "test_sharing.py",
    "test_pump.py",
    "test_training.py",
    "test_conversation.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return _LONGEST_FIRST.index(item.path.name) if item.path.name in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=place)


OBJECTIVE = '''
"""A curve that is cheap to compute and has its optimum at learning_rate 3e-3."""
import json, math, os, signal, time
from dataclasses import dataclass, field
from typing import Annotated, Literal
from annotated_types import Ge, Gt, Le
from hpo.trials import Measurement

METRICS = ("validation/loss", "validation/accuracy")

@dataclass(frozen=True, kw_only=True)
class Model:
    dropout: Annotated[float, Ge(0), Le(1)] = 0.1
    width: Annotated[int, Gt(0)] = 64
    heads: Annotated[int, Gt(0)] = 4

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"model.width {self.width} is not divisible by model.heads {self.heads}")

@dataclass(frozen=True, kw_only=True)
class Config:
    learning_rate: Annotated[float, Gt(0)]
    tokens: Annotated[int, Gt(0)] = 900
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Ge(0), Le(1)] = 0.9
    model: Model = field(default_factory=Model)
    misbehave: str = ""
    misbehave_above: float = 1.0
    gate: str = ""

def length(config):
    return config.tokens

def loss(config, progress):
    return abs(math.log10(config.learning_rate / 3e-3)) + 100 / progress + config.model.dropout / 10

def train(config: Config, *, seed, rungs, directory):
    state = directory / "state.json"
    seen = json.loads(state.read_text()) if state.exists() else 0
    bad = config.misbehave if config.learning_rate > config.misbehave_above else ""
    for rung in rungs:
        if rung < seen:
            continue
        print("training to", rung, flush=True)
        while config.gate and not os.path.exists(config.gate):
            time.sleep(0.01)
        if bad == "raise":
            raise RuntimeError("this configuration does not work")
        if bad == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if bad == "exit":
            os._exit(3)
        if bad == "sys.exit":
            raise SystemExit(4)
        if bad == "decrease":
            yield Measurement(10_000_000, {"validation/loss": 1.0})
        if bad == "memory":
            raise MemoryError("no memory for this batch")
        value = math.nan if bad == "nan" else loss(config, rung)
        name = "validation/other" if bad == "metric" else "validation/loss"
        directory.mkdir(parents=True, exist_ok=True)
        state.write_text(json.dumps(rung))
        yield Measurement(rung, {name: value, "seed": float(seed)})

def prepare(config):
    if config.misbehave == "data":
        raise ValueError("data.source: no file 'x.txt'. Give a path that exists.")
    return {"dataset": "made", "digest": "d1", "test_tokens": 10}

def test(config, *, directory):
    return {"test/loss": loss(config, json.loads((directory / "state.json").read_text()))}

def save(config, *, directory, destination):
    destination.mkdir()
    (destination / "weights.json").write_text(str(config.learning_rate))
'''

SWEEP = """\
objective: objective.py:train
metric: {name: validation/loss, direction: minimize}
space:
  learning_rate: {low: 1e-5, high: 1e-1, log: true}
  model.dropout: {low: 0, high: 0.5, step: 0.1}
fixed:
  tokens: 900
baseline: {learning_rate: 1e-4}
search:
  trials: 6
  seed: 3
track: {}
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an objective and a sweep, as the current folder; studies go to ./studies."""
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPO_STUDIES", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def write_sweep(workplace: Path) -> Callable[..., Path]:
    """Write a changed sweep: each pair is a text of the sweep and what stands in its place."""

    def write(*changes: tuple[str, str]) -> Path:
        text = SWEEP
        for old, new in changes:
            assert old in text, f"{old!r} is not in the sweep"
            text = text.replace(old, new)
        path = workplace / "sweep.yaml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def hpo(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command within this process and require that it succeeds; what it printed."""

    def run(*command: str) -> str:
        from hpo.cli import app

        with pytest.raises(SystemExit) as ended:
            app(list(command))
        printed = capfd.readouterr()
        assert not ended.value.code, printed.err
        return printed.out

    return run
