"""What a probe measures, and whether the forecast made of it holds what the sweep then costs."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hpo.corners import configuration, ends
from hpo.errors import HpoError
from hpo.forecast import Forecast, Simulation, stops_at_most
from hpo.launch import Begun, Finished, Happening, Job, Report
from hpo.pace import Look, Trace, pace
from hpo.plan import Plan
from hpo.probe import Findings, Probe
from hpo.spending import Rates
from hpo.study import plan
from hpo.sweep import Strategy
from hpo.trials import Ending, Measurement, Outcome, rung_tokens

HPO = str(Path(sys.executable).with_name("hpo"))

OBJECTIVE = """
import time
from dataclasses import dataclass

from hpo.trials import Measurement


@dataclass(frozen=True)
class Config:
    width: int = 64
    batch: int = 8
    rate: float = 0.01
    kind: str = "plain"
    rank: int = 4
    tokens: int = 10_000
    second: float = 100_000.0


def length(config):
    return config.tokens


def train(config: Config, *, seed, rungs):
    if config.width > 500:
        raise MemoryError("a width of 512 takes 3 TiB")
    seen = 0
    for rung in sorted({*rungs, config.tokens}):
        time.sleep((rung - seen) / config.second * config.width / 64)
        seen = rung
        yield Measurement(rung, {"loss": config.rate + 1 / rung})
"""

SWEEP = """
objective: objective.py:train
metric: {name: loss, direction: minimize}
space:
  width: [32, 64, 128]
  batch: {low: 4, high: 16, log: true}
  rate: {low: 1e-3, high: 1e-1, log: true}
baseline: {width: 64, batch: 8, rate: 0.01}
search: {trials: 12, sampler: random, pruner: none, seed: 3}
track: {}
"""


def planned(folder: Path, sweep: str = SWEEP, *assignments: str) -> Plan:
    (folder / "objective.py").write_text(OBJECTIVE)
    return plan(sweep, folder / "sweep.yaml", assignments)


Cost = Callable[[Mapping[str, Any]], float]


class Machine:
    """A launcher whose trials take the seconds that `cost` says of their settings, on a clock of its own.

    A quarter of a second of each is its start. Slots that are busy at once slow each other down by `crowding`.
    """

    warmup = 0

    def __init__(self, cost: Cost, slots: int = 1, crowding: float = 1.0, told: bool = False) -> None:
        self.slots, self.cost, self.crowding, self.told = slots, cost, crowding, told
        self.now = 0.0
        self.jobs: dict[int, Iterator[Happening]] = {}
        self.ran: list[Mapping[str, Any]] = []
        self.killed = False

    def clock(self) -> float:
        return self.now

    @property
    def free(self) -> list[int]:
        return list(range(len(self.jobs), self.slots))

    def start(self, job: Job, slot: int) -> None:
        self.ran.append(job.settings)
        self.jobs[job.number] = self._trial(job)

    def _trial(self, job: Job) -> Iterator[Happening]:
        length, whole = job.settings.get("tokens", 10_000), self.cost(job.settings)
        assert isinstance(length, int)
        yield Begun(job.number, length)
        if whole < 0:
            yield Finished(job.number, Outcome(Ending.OUT_OF_MEMORY, "no room"), 0.1)
            return
        seen, seconds, trained = 0, 0.25, 0.0
        for rung in sorted({*rung_tokens(job.rungs, length), length}):
            step = (rung - seen) / length * (whole - 0.25) * (self.crowding if len(self.jobs) > 1 else 1.0)
            seen, seconds, trained = rung, seconds + step, trained + step
            self.now += step / len(self.jobs)
            metrics = {"train/seconds": trained, "validation/seconds": 0.0, "train/peak_memory_gib": whole}
            measurement = Measurement(rung, metrics if self.told else {})
            yield Report(job.number, measurement, seconds, length, self.warmup)
        yield Finished(job.number, Outcome(Ending.COMPLETE), seconds)

    def wait(self, timeout: float | None) -> Iterator[Happening]:
        for number in list(self.jobs):
            if self.killed:
                del self.jobs[number]
                yield Finished(number, Outcome(Ending.KILLED), 0.0)
                continue
            happened = next(self.jobs[number])
            if isinstance(happened, Finished):
                del self.jobs[number]
            yield happened
        self.killed = False

    def answer(self, number: int, *, go_on: bool) -> None:
        assert go_on

    def end(self, number: int, outcome: Outcome) -> None:
        raise NotImplementedError

    def call(self, companion: str, settings: Mapping[str, object], log: Path, **arguments: Any) -> Any:
        raise NotImplementedError

    def kill(self) -> None:
        self.killed = bool(self.jobs)

    def close(self) -> None:
        """Nothing is held."""


def probed(sweep: Plan, folder: Path, machine: Machine) -> Findings:
    probe = Probe(sweep, machine, folder, range(machine.slots), machine.clock)
    list(probe.run())
    return probe.findings


def by_width(settings: Mapping[str, Any]) -> float:
    """20 s of the baseline, in proportion to its width; a tenth more for each doubling of the batch."""
    return float(20.0 * settings["width"] / 64 * (0.8 + 0.2 * settings["batch"] / 8))


# -- one trial --------------------------------------------------------------------------------------------


def test_the_pace_leaves_out_the_warm_up_and_tells_validation_from_training_by_the_objectives_own_clock() -> None:
    looks = [
        Look(100, 8.0, {"train/seconds": 3.0, "validation/seconds": 2.0}),
        Look(300, 12.0, {"train/seconds": 5.0, "validation/seconds": 2.0}),
    ]
    found = pace(Trace(looks, 1000))
    assert found is not None
    assert found.rate == pytest.approx(100.0)
    assert found.start == pytest.approx(3.0 + 2.0)  # outside of training, and the first 100 should have taken 1 s
    assert found.seconds(1000, 3) == pytest.approx(5.0 + 10.0 + 3 * 2.0)


def test_the_pace_tells_them_apart_by_steps_of_unequal_length_where_the_objective_measures_no_time() -> None:
    looks = [
        Look(progress, 2.0 + progress / 100 + count * 0.5, {}) for count, progress in enumerate((100, 200, 400), 1)
    ]
    found = pace(Trace(looks, 1000))
    assert found is not None
    assert found.validation == pytest.approx(0.5)
    assert found.rate == pytest.approx(100.0)


def test_nothing_is_said_of_a_trial_that_measured_nothing() -> None:
    assert pace(Trace()) is None


# -- which configurations -----------------------------------------------------------------------------------


def test_an_end_of_a_conditional_setting_brings_what_it_requires(tmp_path: Path) -> None:
    sweep = SWEEP.replace("baseline:", "  kind: [plain, low]\n  rank: {low: 2, high: 64, when: {kind: low}}\nbaseline:")
    conditional = planned(tmp_path, sweep.replace("rate: 0.01}", "rate: 0.01, kind: plain}"))
    assert configuration(conditional, {"rank": 64})["kind"] == "low"
    assert "rank" not in configuration(conditional, {})


def test_the_largest_of_each_setting_is_measured_before_the_others_of_any(tmp_path: Path) -> None:
    chosen, left = ends(planned(tmp_path))
    assert chosen == [("width", 128), ("batch", 16), ("width", 32), ("batch", 4)]
    assert left == []
    many = SWEEP.replace("[32, 64, 128]", "[8, 16, 24, 32, 40, 48, 64, 96, 128]")
    chosen, left = ends(planned(tmp_path, many))
    assert len(chosen) == 6
    assert left[0].startswith("width ")


def test_a_costly_real_number_is_found_out(tmp_path: Path) -> None:
    sweep = SWEEP.replace("baseline:", "  second: {low: 1e5, high: 4e5}\nbaseline:").replace(
        "0.01}", "0.01, second: 1e5}"
    )
    found = probed(planned(tmp_path, sweep), tmp_path, Machine(lambda s: 20.0 * s["second"] / 1e5))
    alone = {probe.changed for probe in found.probed}
    assert {"rate", "second"} <= alone
    cheap = probed(planned(tmp_path, sweep), tmp_path, Machine(by_width))
    assert "rate" not in {probe.changed for probe in cheap.probed}


# -- the probe ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
def test_each_probed_configuration_is_known_within_a_few_percent(tmp_path: Path, told: bool) -> None:
    machine = Machine(by_width, told=told)
    found = probed(planned(tmp_path), tmp_path, machine)
    assert found.whole
    for one in found.probed:
        assert one.seconds == pytest.approx(by_width(one.values), rel=0.05)
    assert machine.now < 20.0 + len(found.probed) * 8.0  # the baseline in full, of the others a few seconds


def test_the_costliest_ends_are_measured_together(tmp_path: Path) -> None:
    found = probed(planned(tmp_path), tmp_path, Machine(by_width, told=True))
    together = next(one for one in found.probed if one.what == "the slowest together")
    assert (together.values["width"], together.values["batch"]) == (128, 16)


def test_a_configuration_that_does_not_fit_is_named(tmp_path: Path) -> None:
    found = probed(planned(tmp_path), tmp_path, Machine(lambda s: -1.0 if s["width"] == 128 else 5.0))
    trouble = {one.what: one.trouble for one in found.probed if one.trouble}
    assert trouble["width 128"] == Outcome(Ending.OUT_OF_MEMORY, "no room")


def test_without_a_baseline_nothing_is_forecast(tmp_path: Path) -> None:
    with pytest.raises(HpoError, match=r"the baseline cannot be probed.*out of memory: no room"):
        probed(planned(tmp_path), tmp_path, Machine(lambda settings: -1.0))


def test_a_long_baseline_is_not_trained_in_full(tmp_path: Path) -> None:
    machine = Machine(lambda s: 500 * by_width(s), told=True)
    found = probed(planned(tmp_path), tmp_path, machine)
    assert not found.whole
    assert found.baseline.seconds == pytest.approx(10_000, rel=0.05)
    assert machine.now < 0.2 * 10_000


def test_slots_that_share_a_device_are_measured_all_at_once(tmp_path: Path) -> None:
    found = probed(planned(tmp_path), tmp_path, Machine(by_width, slots=3, crowding=1.7))
    assert found.crowding == pytest.approx(1.7, rel=0.1)


# -- the forecast -------------------------------------------------------------------------------------------


def forecast(sweep: Plan, folder: Path, cost: Cost, slots: int = 1, price: float | None = None) -> Forecast:
    found = probed(sweep, folder, Machine(cost, slots, told=True))
    return Simulation(sweep, found, Rates(1.0, price), slots).forecast()


def test_the_interval_holds_what_the_sweep_costs_and_is_no_wider_than_it_must_be(tmp_path: Path) -> None:
    sweep = planned(tmp_path, SWEEP, "search.trials=30")
    found = forecast(sweep, tmp_path, by_width)
    generator = random.Random(17)
    held = 0
    for _ in range(40):
        draws = [sweep.baseline, *(sweep.space.draw(generator) for _ in range(29))]
        held += found.seconds.holds(sum(by_width(values) for values in draws))
    assert held >= 36
    assert found.seconds.high / found.seconds.low < 4.0  # widths differ by 4, and a sampler may prefer any


def test_costs_that_do_not_vary_make_a_narrow_interval(tmp_path: Path) -> None:
    found = forecast(planned(tmp_path), tmp_path, lambda settings: 20.0, slots=2)
    assert found.seconds.holds(120.0)
    assert found.seconds.high / found.seconds.low < 1.5
    assert found.gpu_hours.holds(240 / 3600)


def test_early_stopping_widens_it_down_to_what_the_rule_stops_at_most(tmp_path: Path) -> None:
    assignments = ("search.pruner=successive halving", "search.trials=27")
    found = forecast(planned(tmp_path, SWEEP, *assignments), tmp_path, lambda settings: 20.0)
    assert found.seconds.holds(27 * 20.0 * 0.95)  # nothing stopped, on a machine a little faster
    assert found.seconds.holds(9 * 20.0 + 18 * 20.0 / 3)  # all but a third stopped at the first rung


@pytest.mark.parametrize("seconds", [20.0, 20_000.0])  # the baseline in full, and its beginning
def test_no_trial_is_expected_to_be_stopped_in_its_warm_up(tmp_path: Path, seconds: float) -> None:
    assignments = ("search.pruner=successive halving", "search.trials=27", "search.rungs=[1/9,1/3,1.0]")
    plan = planned(tmp_path, SWEEP, *assignments)
    least = []
    for warmup, incomparable in ((0, 0), (2_000, 1), (10_000, 3)):  # of 10,000 tokens
        machine = Machine(lambda settings: seconds, told=True)
        machine.warmup = warmup
        found = probed(plan, tmp_path, machine)
        assert (found.whole, found.incomparable) == (seconds < 60, incomparable)
        least.append(Simulation(plan, found, Rates(1.0, None), 1).forecast().seconds.low / seconds)
    assert least[0] < 0.8 * (9 + 18 / 3) < least[1]  # all but a third stopped at 1/3, on a machine a little faster
    assert least[2] > 0.8 * 27  # nothing stopped


def test_the_chance_to_be_stopped_is_the_rules() -> None:
    assert stops_at_most(Strategy("none"), 9, 9) == 0.0
    assert stops_at_most(Strategy("successive halving"), 0, 1) == 0.0
    assert stops_at_most(Strategy("successive halving", {"reduction_factor": 4}), 9, 8) == 0.75
    assert stops_at_most(Strategy("median"), 2, 3) == 0.0
    assert stops_at_most(Strategy("median"), 7, 8) == 0.5


@pytest.mark.parametrize(
    ("budget", "limit", "ended"),
    [("budget.time=100", "wall time", 5), ("budget.gpu_hours=0.0556", "hours", 10), ("search.time_limit=60", "time limit", 3)],
)  # fmt: skip
def test_a_budget_cuts_the_forecast(tmp_path: Path, budget: str, limit: str, ended: int) -> None:
    found = forecast(planned(tmp_path, SWEEP, budget), tmp_path, lambda settings: 20.0)
    assert found.limit == limit
    assert abs(found.ended.median - ended) <= 1
    assert found.ended.high < 12


def test_money_is_gpu_hours_at_their_price(tmp_path: Path) -> None:
    assignments = ("budget.cost=0.1", "budget.price_per_gpu_hour=3")
    found = forecast(planned(tmp_path, SWEEP, *assignments), tmp_path, lambda settings: 20.0, price=3.0)
    assert found.limit == "money"
    assert found.cost is not None
    assert found.cost.median == pytest.approx(0.1, rel=0.01)


# -- the command --------------------------------------------------------------------------------------------


def test_the_command_forecasts_and_names_what_will_not_fit(tmp_path: Path) -> None:
    sweep = SWEEP.replace("[32, 64, 128]", "[64, 128, 512]").replace("search: {", "search: {rungs: [1/3, 1.0], ")
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    (tmp_path / "sweep.yaml").write_text(sweep)
    command = [HPO, "check", "sweep.yaml", "--probe", "--slots", "2", "--set", "budget.price_per_gpu_hour=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "will not fit: width 512, batch 8, rate 0.01 (a width of 512 takes 3 TiB)" in done.stdout
    assert "forecast of 12 trials" in done.stdout
    for row in ("wall time", "slot-hours", "cost"):
        assert any(line.startswith(row) for line in done.stdout.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "objective.py",
        "sweep.yaml",
    ]


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "objective.py").write_text(OBJECTIVE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (folder := tmp_path / "temporary").mkdir()
    command = [HPO, "check", "sweep.yaml", "--probe", "--set", "second=100"]
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stdout if line.startswith("probing"))
        while not list(folder.glob("*/*.log")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130, said
    assert said.strip() == "hpo: the probe was stopped; nothing is left of it."
    assert list(folder.iterdir()) == []


def test_its_forecast_holds_what_hpo_run_then_takes(tmp_path: Path) -> None:
    sweep = planned(tmp_path, SWEEP, "search.trials=6", "second=30000")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    from hpo.probe import probing

    with probing(sweep, 2) as (probe, _):
        list(probe.run())
    found = Simulation(sweep, probe.findings, Rates(), 2).forecast()
    command = [HPO, "run", "sweep.yaml", "--trials", "6", "--slots", "2", "--set", "second=30000"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    shown = subprocess.run([HPO, "show", "sweep", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)
    truth = json.loads(shown.stdout)["spent"]
    assert found.gpu_hours.holds(truth["gpu_hours"]), (found, truth)
