"""Does the forecast hold what a sweep then costs? A probe and a run of each shipped quickstart, one after the other.

    python studies/forecasts/measure.py [--slots 2] [--trials N] [SWEEP ...]

Works in a temporary folder, so that the studies here are left alone; before a sweep that goes on from another one's
model (chat from chat_base, preference from chat), that one must be named too. Prints the table of report.md.
`load` is the machine's mean number of running processes in the minute before the probe and before the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hpo.forecast import Forecast, Interval, Simulation, peak_memory
from hpo.probe import Findings, probing
from hpo.run import read_sweep
from hpo.spending import Rates
from hpo.wording import duration, number

SWEEPS = Path(__file__).parents[2] / "sweeps"
ORDER = ("quickstart", "classification_quickstart", "translation_quickstart", "chat_base_quickstart",
         "chat_quickstart", "preference_quickstart")  # fmt: skip
PROMOTED = ("chat_base_quickstart", "chat_quickstart")
HPO = str(Path(sys.executable).with_name("hpo"))
HEAD = ("sweep", "trials", "probe", "load", "wall time, forecast", "true", "slot-hours, forecast", "true",
        "peak GiB, probed", "true", "held")  # fmt: skip


def probe(sweep: Path, slots: int, trials: list[str]) -> tuple[Forecast, Findings, float]:
    """The forecast that `hpo check --probe` prints, and how long it took to make, in seconds."""
    began = time.monotonic()
    _, plan = read_sweep(sweep, trials)
    with probing(plan, slots) as (made, shape):
        for _ in made.run():
            pass
    rates = Rates.of(plan.sweep.launch, plan.sweep.budget, len(shape.gpus), shape.slots)
    return Simulation(plan, made.findings, rates, shape.slots).forecast(), made.findings, time.monotonic() - began


def run(sweep: Path, slots: int, trials: list[str]) -> dict[str, Any]:
    """What `hpo show --json` says of the study that `hpo run` made."""
    assignments = [part for text in trials for part in ("--set", text)]
    command = [HPO, "run", str(sweep), "--slots", str(slots), *assignments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shown = subprocess.run([HPO, "show", sweep.stem, "--json"], check=True, capture_output=True, text=True)
    return dict(json.loads(shown.stdout))


def load() -> float:
    return os.getloadavg()[0]


def row(name: str, slots: int, trials: list[str]) -> tuple[str, ...]:
    sweep, before = SWEEPS / f"{name}.yaml", load()
    found, findings, took = probe(sweep, slots, trials)
    between = load()
    study = run(sweep, slots, trials)
    spent = study["spent"]
    wall, hours = spent["wall_seconds"], spent["gpu_hours"]
    held = [word for word, interval, true in (("wall", found.seconds, wall), ("hours", found.gpu_hours, hours))
            if interval.holds(true)]  # fmt: skip
    most = peak_memory(findings)
    peaks = [trial["metrics"].get("train/peak_memory_gib") for trial in study["trials"]]
    return (
        name, str(found.trials), duration(took), f"{before:.1f}, {between:.1f}",
        _times(found.seconds), f"**{duration(wall)}**", _numbers(found.gpu_hours), f"**{number(hours, 3)}**",
        number(most.memory if most else None, 3), number(max((p for p in peaks if p), default=None), 3),
        "both" if len(held) == 2 else f"only {held[0]}" if held else "neither",
    )  # fmt: skip


def _times(interval: Interval) -> str:
    return f"{duration(interval.median)} ({duration(interval.low)} to {duration(interval.high)})"


def _numbers(interval: Interval) -> str:
    return f"{number(interval.median, 3)} ({number(interval.low, 3)} to {number(interval.high, 3)})"


def line(cells: tuple[str, ...]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("sweeps", nargs="*", default=ORDER, help="names of quickstarts")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--trials", type=int, help="fewer, to try this out")
    given = parser.parse_args()
    trials = [f"search.trials={given.trials}"] if given.trials else []
    os.environ.pop("HPO_STUDIES", None)
    with tempfile.TemporaryDirectory(prefix="hpo-forecasts-") as folder:
        os.chdir(folder)
        line(HEAD)
        line(("---",) * len(HEAD))
        for name in given.sweeps:
            line(row(name, given.slots, trials))
            if name in PROMOTED:
                subprocess.run([HPO, "promote", name], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
