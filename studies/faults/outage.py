"""What does it cost a search that MLflow's server is frozen, stopped and started again while it runs?

    python studies/faults/outage.py [--rounds 5] [--trials 80]
    python studies/faults/outage.py --phases 20

Each round runs the same search twice, against one real server: undisturbed, and with the server frozen (SIGSTOP) for
six seconds, then stopped for four, then started again, all while trials train. Which of the two comes first alternates.
The undisturbed run has the same done, at the same time, to a second server that it has nothing to do with: starting one
takes seconds of a core, and that is not what is asked here.
After each, `hpo sync`, and every value in MLflow is compared with the journal. Prints medians as a table.

`--phases` compares within one search, for a machine that others use too: the server is frozen for six trials, goes on
for six, and so on; trials that ran wholly in one kind of phase are compared.

    trial s    time inside the trial function, median of the run's trials, which all compute the same
    training s the same, summed over the trials
    search s   from the first trial's start to the last one's end
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from hpo.track.mlflow import store
from hpo.track.mlflow.server import Server, serve_ui

HERE = Path(__file__).parent
HPO = str(Path(sys.executable).with_name("hpo"))
FROZEN_SECONDS, STOPPED_SECONDS = 6.0, 4.0


class Host:
    """The server, on a core of its own where there is one: it is another machine that fails, not this one."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._server = self._start(0)
        self.url = self._server.url

    def _start(self, port: int) -> Server:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
        try:
            return serve_ui(self._uri, port)
        finally:
            os.sched_setaffinity(0, cores)

    def signal(self, number: int) -> None:
        assert self._server.process is not None
        keeper = psutil.Process(self._server.process.pid)
        for process in [keeper, *keeper.children(recursive=True)]:
            process.send_signal(number)

    def fail(self) -> None:
        self.signal(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        self.signal(signal.SIGCONT)
        time.sleep(1)
        self.stop()
        time.sleep(STOPPED_SECONDS)
        self._server = self._start(int(self.url.rpartition(":")[2]))

    def stop(self) -> None:
        self._server.stop()


def lines(journal: Path, event: str) -> list[dict[str, Any]]:
    found = [json.loads(raw) for raw in journal.read_bytes().splitlines()] if journal.exists() else []
    return [line for line in found if line["event"] == event]


def search(root: Path, host: Host, decoy: Host, trials: int, *, disturbed: bool) -> dict[str, float]:
    name = "disturbed" if disturbed else "undisturbed"
    shutil.rmtree(root / name, ignore_errors=True)
    command = [HPO, "run", str(HERE / "sweep.yaml"), "--name", name, "--studies", str(root), "--trials", str(trials)]
    command += ["--set", f"track.mlflow.tracking_uri={host.url}"]
    journal = root / name / "journal.jsonl"
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) as process:
        while len(lines(journal, "ended")) < 3:
            time.sleep(0.05)
        (host if disturbed else decoy).fail()
        during = len(lines(journal, "ended"))
        assert process.wait(600) == 0
    if disturbed:
        print(f"  the server was back after {during} of {trials} trials", file=sys.stderr)
    subprocess.run([HPO, "sync", name, "--studies", str(root)], check=True, stdout=subprocess.DEVNULL)
    compare(journal, host.url, json.loads((root / name / "study.json").read_text())["id"])
    ended = lines(journal, "ended")
    seconds = [line["seconds"] for line in ended]
    span = ended[-1]["at"] - lines(journal, "started")[0]["at"]
    return {"trial s": statistics.median(seconds), "training s": sum(seconds), "search s": span}


def phases(root: Path, host: Host, count: int) -> None:
    """One search, the server frozen in every second phase of six trials."""
    command = [HPO, "run", str(HERE / "sweep.yaml"), "--name", "phases", "--studies", str(root)]
    command += ["--trials", str(6 * count), "--set", f"track.mlflow.tracking_uri={host.url}"]
    journal, turns = root / "phases" / "journal.jsonl", [0.0]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) as process:
        for phase in range(count - 1):
            while len(lines(journal, "ended")) < 6 * (phase + 1) and process.poll() is None:
                time.sleep(0.05)
            host.signal(signal.SIGSTOP if phase % 2 == 0 else signal.SIGCONT)
            turns.append(time.time())
        host.signal(signal.SIGCONT)
        assert process.wait(600) == 0
    subprocess.run([HPO, "sync", "phases", "--studies", str(root)], check=True, stdout=subprocess.DEVNULL)
    compare(journal, host.url, json.loads((root / "phases" / "study.json").read_text())["id"])
    began = {line["trial"]: line["at"] for line in lines(journal, "started")}
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for line in lines(journal, "ended"):
        of_start, of_end = (sum(at >= turn for turn in turns) for at in (began[line["trial"]], line["at"]))
        if of_start == of_end:
            seconds[(of_start - 1) % 2].append(line["seconds"])
    answering, frozen = statistics.median(seconds[0]), statistics.median(seconds[1])
    print(f"server answering: {len(seconds[0])} trials, median {answering:.4f} s")
    print(f"server frozen: {len(seconds[1])} trials, median {frozen:.4f} s, ratio {frozen / answering:.4f}")


def compare(journal: Path, url: str, study: str) -> None:
    """Every measurement of the journal is in MLflow, once, and nothing else is."""
    client = store.client(url)
    wanted: dict[int, list[tuple[int, float]]] = {}
    for line in lines(journal, "measured"):
        wanted.setdefault(line["trial"], []).append((line["progress"], line["metrics"]["validation/loss"]))
    experiment = client.get_experiment_by_name("sweep").experiment_id
    runs = [run for run in store.runs_of(client, experiment, study) if run.data.tags["kind"] == "trial"]
    found = {
        int(run.data.tags["hpo.trial"]): sorted(
            (point.step, point.value) for point in client.get_metric_history(run.info.run_id, "validation/loss")
        )
        for run in runs
    }
    assert len(runs) == len(found) == len(wanted)
    assert found == wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--phases", type=int, default=0)
    given = parser.parse_args()
    measured: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        host, decoy = Host(f"sqlite:///{root}/mlflow.db"), Host(f"sqlite:///{root}/decoy.db")
        try:
            if given.phases:
                phases(root, host, given.phases)
                return
            for number in range(given.rounds):
                for disturbed in (False, True) if number % 2 == 0 else (True, False):
                    measured[disturbed].append(search(root, host, decoy, given.trials, disturbed=disturbed))
        finally:
            host.stop()
            decoy.stop()
    medians = {
        disturbed: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for disturbed, runs in measured.items()
    }
    print(f"{given.trials} trials, medians of {given.rounds} rounds\n")
    print("| | trial s | training s | search s |\n|---|---|---|---|")
    for disturbed, label in ((False, "undisturbed"), (True, "disturbed")):
        median = medians[disturbed]
        print(f"| {label} | {median['trial s']:.4f} | {median['training s']:.2f} | {median['search s']:.2f} |")
    ratios = {key: medians[True][key] / medians[False][key] for key in medians[True]}
    print("| ratio | " + " | ".join(f"{ratios[key]:.4f}" for key in ("trial s", "training s", "search s")) + " |")
    print("\nratio of each round's training s:", ", ".join(f"{ratio:.3f}" for ratio in _by_round(measured)))


def _by_round(measured: dict[bool, list[dict[str, float]]]) -> list[float]:
    pairs = zip(measured[True], measured[False], strict=True)
    return [disturbed["training s"] / undisturbed["training s"] for disturbed, undisturbed in pairs]


if __name__ == "__main__":
    main()
