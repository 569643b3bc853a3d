"""How a study is carried out: what the sections of a sweep that say so mean, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.operation import Budget, Launch, MlflowSettings, Notify, OnFailure, WandbSettings
from hpo.sweep import Sweep, parse
from tests.conftest import SWEEP


def read(text: str, *assignments: str) -> tuple[Sweep, list[str]]:
    sweep, mistakes = parse(SWEEP.replace("track: {}\n", "") + text, Path("sweep.yaml"), assignments)
    return sweep, [str(mistake) for mistake in mistakes]


def test_nothing_said_is_the_defaults() -> None:
    sweep, mistakes = read("")
    assert not mistakes
    assert (sweep.launch, sweep.on_failure, sweep.budget) == (Launch(), OnFailure(), Budget())
    assert (sweep.mlflow, sweep.wandb) == (MlflowSettings(), None)
    assert (sweep.storage, sweep.notify, sweep.warm_start) == (None, None, ())


def test_each_section_is_read() -> None:
    sweep, mistakes = read("""\
on_failure: {retries: 5, wait: 1m, out_of_memory: end, hung_after: never, same_error: 4, slot_failures: 2}
budget: {time: 2h, gpu_hours: 20, cost: 50, price_per_gpu_hour: 2.5}
launch: {memory_gib: 8}
storage: postgresql://me@there/studies
track: [mlflow, wandb]
notify: {on: [best], command: say it, webhook: $HPO_WEBHOOK}
warm_start: [earlier, ../other.hpo.zip]
""")
    assert not mistakes
    assert sweep.on_failure == OnFailure(5, 60.0, "end", None, 4, 2)
    assert sweep.budget == Budget(7200.0, 20.0, 50.0, 2.5)
    assert sweep.launch.memory_gib == 8.0
    assert sweep.storage is not None
    assert sweep.storage.address == "postgresql://me@there/studies"
    assert (sweep.mlflow, sweep.wandb) == (MlflowSettings(), WandbSettings())
    assert sweep.notify == Notify(("best",), "say it", "$HPO_WEBHOOK")
    assert sweep.warm_start == ("earlier", "../other.hpo.zip")


def test_the_budget_may_count_trials_and_the_command_line_has_the_last_word() -> None:
    text = "budget: {trials: 9}\n"
    assert read(text, "search={seed: 1}")[0].search.trials == 9
    assert read(text, "search={seed: 1}", "search.trials=4")[0].search.trials == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("on_failure: {retries: -1}", "on_failure.retries: requires a whole number from 0, got -1."),
        ("on_failure: {wait: soon}", "on_failure.wait: requires a time such as 90s, 30m, 2h or 1d, got 'soon'."),
        ("on_failure: {hung_after: 0.5}", "on_failure.hung_after: requires a number above 1 or never, got 0.5."),
        ("on_failure: {out_of_memory: halve}", "on_failure.out_of_memory: requires divide or end, got 'halve'."),
        ("on_failure: {retry: 3}", "on_failure.retry: no such key. Did you mean 'retries'?"),
        ("budget: {cost: 5}", "budget.cost: requires the price of a GPU: add price_per_gpu_hour."),
        ("budget: {gpu_hours: 0}", "budget.gpu_hours: requires a number above 0, got 0."),
        ("budget: {trials: 3}", "budget.trials: is set twice: search.trials says it too. Keep one."),
        ("launch: {memory_gib: all}", "launch.memory_gib: requires a number above 0, got 'all'."),
        (
            "storage: mysql://x",
            "storage: requires an address such as postgresql://user@host/database, got 'mysql://x'.",
        ),
        ("storage: postgresql://me:secret@there/x", "requires an address without a password: set PGPASSWORD"),
        ("track: {wandb: {mode: never}}", "track.wandb.mode: requires auto or online or offline, got 'never'."),
        ("notify: {on: [always], command: x}", "requires some of finished, failed, budget, best, got ['always']."),
        ("notify: {webhook: https://hooks.example/secret}", "requires the environment variable that holds the address"),
        ("notify: {on: [best]}", "notify: requires a command or a webhook."),
        ("warm_start: 3", "warm_start: requires a list of studies, by name or path, got 3."),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, words: str) -> None:
    _, mistakes = read(text + "\n")
    assert len(mistakes) == 1
    assert mistakes[0].startswith("sweep.yaml:12: ")
    assert words in mistakes[0]


def test_a_password_in_an_address_is_not_repeated() -> None:
    _, mistakes = read("storage: postgresql://me:secret@there/x\n")
    assert "secret" not in mistakes[0]


def test_an_override_of_one_tracker_keeps_the_other() -> None:
    sweep, mistakes = read("track: [mlflow, wandb]\n", "track.wandb.mode=offline")
    assert not mistakes
    assert sweep.mlflow is not None
    assert sweep.wandb == WandbSettings(mode="offline")
