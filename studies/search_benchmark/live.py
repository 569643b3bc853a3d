"""Does replay tell the truth? A small real search by our default and by Optuna's, beside what replay predicts of it.

    python studies/search_benchmark/live.py FOLDER [--sweep live.yaml] [--seeds 3] [--recorded 60]

Into FOLDER: a study of configurations spread evenly over the space, each trained in full (the table that is replayed),
then for each seed a study by `auto` and one by TPE with the median rule, one after the other, in turns. What each had
found is compared when both had trained the same number of tokens. Studies that are there are not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

from hpo.backtest import target
from hpo.folder import StudyFolder
from hpo.journal import History, lines
from hpo.replay.contest import Entrant, Terms, compete
from hpo.sweep import Strategy

HERE = Path(__file__).parent
HPO = str(Path(sys.executable).with_name("hpo"))
RUNGS = 'search.rungs=["1/9","1/3","2/3",1.0]'
OURS = ("auto", ("search.sampler=auto", "search.pruner=auto"), 60)
THEIRS = ("tpe", ("search.sampler=tpe", "search.pruner=median", RUNGS), 40)


def run(folder: Path, sweep: Path, name: str, trials: int, *assignments: str) -> None:
    if (folder / name / "study.json").exists() and History.read(folder / name / "journal.jsonl").state == "finished":
        return
    verb = ["run", str(sweep), "--name", name, "--trials", str(trials)]
    options = [part for text in assignments for part in ("--set", text)]
    if (folder / name / "study.json").exists():
        verb, options = ["resume", name], []
    subprocess.run([HPO, *verb, *options, "--studies", str(folder)], check=True, stdout=subprocess.DEVNULL)


def found(folder: Path, name: str) -> tuple[list[tuple[int, float]], int, int]:
    """Of a study: the best so far at each complete trial with the tokens trained until then, all tokens, trials."""
    tokens, at = 0, {}
    best: list[tuple[int, float]] = []
    for _, line in lines(StudyFolder(folder / name).journal):
        if line["event"] == "measured":
            tokens += line["progress"] - at.get(line["trial"], 0)
            at[line["trial"]] = line["progress"]
        if line["event"] == "ended" and line["ending"] == "complete":
            best.append((tokens, min(line["value"], best[-1][1] if best else line["value"])))
    return best, tokens, len(at)


def by(curve: list[tuple[int, float]], tokens: int) -> float:
    return [value for spent, value in curve if spent <= tokens][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sweep", type=Path, default=HERE / "live.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recorded", type=int, default=60)
    given = parser.parse_args()
    folder, sweep = given.folder, given.sweep
    for seed in range(given.seeds):
        for label, assignments, trials in (OURS, THEIRS) if seed % 2 == 0 else (THEIRS, OURS):
            run(folder, sweep, f"{label}-{seed}", trials, f"search.seed={seed}", *assignments)
    run(folder, sweep, "recorded", given.recorded, "search.sampler=qmc", "search.pruner=none", RUNGS)
    full = 200_000
    curves = {(label, seed): found(folder, f"{label}-{seed}") for label, *_ in (OURS, THEIRS)
              for seed in range(given.seeds)}  # fmt: skip
    most = min(tokens for _, tokens, _ in curves.values())
    print(f"equal training: {most:,} tokens, {most / full:.1f} whole trainings\n")
    print(
        "| seed | auto: trials | whole trainings | best at half | at equal tokens | tpe, median: trials | whole trainings | best at half | at equal tokens |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in range(given.seeds):
        row = [str(seed)]
        for label in ("auto", "tpe"):
            curve, tokens, trials = curves[label, seed]
            row += [str(trials), f"{tokens / full:.1f}", f"{by(curve, most // 2):.4f}", f"**{by(curve, most):.4f}**"]
        print("| " + " | ".join(row) + " |")
    with contextlib.redirect_stdout(io.StringIO()):
        replayed = target("recorded", folder).table
    shares = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
    taking_part = [Entrant("auto", Strategy("auto"), Strategy("pausing halving"), shares),
                   Entrant("tpe, median", Strategy("tpe"), Strategy("median"))]  # fmt: skip
    print(
        f"\nreplay of {len(replayed.rows)} recorded trials, 50 searches each, 2 slots, best recorded {replayed.best:.4f}:\n"
    )
    print("| search | best at half | at equal tokens | quartiles |\n|---|---|---|---|")
    for result in compete(replayed, taking_part, Terms(50, 2, most / full)):
        ends = sorted(result.regrets(most / full))
        half = statistics.median(result.regrets(most / full / 2))
        middle, low, high = statistics.median(ends), ends[12], ends[37]
        print(f"| {result.entrant.name} | {replayed.best + half:.4f} | **{replayed.best + middle:.4f}** | "
              f"{replayed.best + low:.4f} to {replayed.best + high:.4f} |")  # fmt: skip


if __name__ == "__main__":
    main()
