"""How much of its time does `hpo run` spend training? Beside a bare Python loop over the same trials.

    python studies/overhead/measure.py [--rounds 3]

Each round runs, one after the other: the bare loop (one process, one thread), `hpo run --slots 1`, `hpo run --slots 2`
and `hpo run --slots 2` without tracking, all on the same 16 configurations. Prints medians as a table.

    share     training seconds summed over trials / (slots x wall time of the whole command, imports included)
    searching the same, from the first trial's start to the last one's end
    refill    from the end of a trial's function to the first optimizer step of the next trial in its slot
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
BARE = """
import json, sys, time
from pathlib import Path
from fractions import Fraction
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
import objective
from hpo.objective import load
from hpo.trials import rung_tokens
door = load("objective.py:train", Path(sys.argv[1]))
configurations, root = json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
for number, settings in enumerate(configurations):
    config = door.config(settings)
    rungs = rung_tokens([Fraction(1, 9), Fraction(1, 3), Fraction(1)], door.length(config))
    directory = root / f"{number:04d}"
    directory.mkdir(parents=True)
    list(objective.train(config, seed=1, rungs=rungs, directory=directory))
"""


def timed(command: list[str], cwd: Path) -> float:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def figures(trials: Path, wall: float, slots: int, of_slot: dict[int, int]) -> dict[str, float]:
    times = [json.loads(path.read_text()) for path in sorted(trials.glob("*.times.json"))]
    training = sum(t["ended"] - t["began"] for t in times)
    span = max(t["ended"] for t in times) - min(t["began"] for t in times)
    refills = []
    for slot in range(slots):
        own = sorted((t for n, t in enumerate(times) if of_slot[n] == slot), key=lambda t: t["began"])
        refills += [after["first_step"] - before["ended"] for before, after in itertools.pairwise(own)]
    return {
        "wall": wall, "training": training, "share": training / slots / wall, "searching": training / slots / span,
        "refill": statistics.median(refills), "slowest refill": max(refills),
    }  # fmt: skip


def hpo_run(root: Path, slots: int, *, track: bool) -> tuple[dict[str, float], list[dict[str, object]]]:
    name = f"slots-{slots}-{'tracked' if track else 'untracked'}"
    shutil.rmtree(root / name, ignore_errors=True)
    hpo = str(Path(sys.executable).with_name("hpo"))
    command = [hpo, "run", str(HERE / "sweep.yaml"), "--name", name, "--slots", str(slots), "--studies", str(root)]
    command += ["--set", "launch.threads=1"] + ([] if track else ["--set", "track={}"])
    wall = timed(command, root)
    started = [json.loads(line) for line in (root / name / "journal.jsonl").read_text().splitlines()]
    started = [line for line in started if line["event"] == "started"]
    of_slot = {line["trial"]: line["slot"] for line in started}
    settings = [line["settings"] for line in sorted(started, key=lambda line: line["trial"])]
    return figures(root / name / "trials", wall, slots, of_slot), settings


def bare(root: Path, configurations: list[dict[str, object]]) -> dict[str, float]:
    trials, listed = root / "bare", root / "configurations.json"
    shutil.rmtree(trials, ignore_errors=True)
    listed.write_text(json.dumps(configurations))
    wall = timed([sys.executable, "-c", BARE, str(HERE.resolve()), str(listed), str(trials)], root)
    return figures(trials, wall, 1, dict.fromkeys(range(len(configurations)), 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _, configurations = hpo_run(root, 2, track=True)  # warms caches, makes the MLflow store, and says what is run
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for name, figure in (
                ("bare loop, 1 process", lambda: bare(root, configurations)),
                ("hpo run, 1 slot", lambda: hpo_run(root, 1, track=True)[0]),
                ("hpo run, 2 slots", lambda: hpo_run(root, 2, track=True)[0]),
                ("hpo run, 2 slots, untracked", lambda: hpo_run(root, 2, track=False)[0]),
            ):
                runs.setdefault(name, []).append(figure())
        print(f"{len(configurations)} trials, medians of {rounds} rounds")
        print(
            "| | wall s | training s | share | searching | refill s | slowest refill s |\n|---|---|---|---|---|---|---|"
        )
        for name, measured in runs.items():
            median = {key: statistics.median(run[key] for run in measured) for key in measured[0]}
            print(
                f"| {name} | {median['wall']:.1f} | {median['training']:.1f} | {median['share']:.2f} | "
                f"{median['searching']:.3f} | {median['refill']:.3f} | {median['slowest refill']:.3f} |"
            )


if __name__ == "__main__":
    main()
