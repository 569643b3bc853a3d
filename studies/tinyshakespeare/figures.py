"""Tables and the picture of report.md, from the studies it names: python studies/tinyshakespeare/figures.py [STUDIES]

Prints Markdown; writes curves.svg beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from scipy.stats import spearmanr

from hpo.folder import StudyFolder
from hpo.journal import TrialRecord
from hpo.summary import Summary
from hpo.trials import Ending

HERE = Path(__file__).parent
LOSS = "validation/loss"


def table(summary: Summary, most: int) -> None:
    names = list(summary.record.space)
    print(f"| trial | state | {LOSS} | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(names) + 3))
    complete = [t for t in summary.trials if t.ending is Ending.COMPLETE]
    for trial in sorted(complete, key=lambda t: t.value or 0)[:most]:
        values = [trial.parameters.get(name) for name in names]
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        label = f"{trial.number} (baseline)" if trial.protected else str(trial.number)
        print(f"| {label} | {trial.state} | {trial.value:.4f} | " + " | ".join(shown) + " |")


def rank_agreement(summary: Summary) -> None:
    """How well the order at each rung foretells the order at the end, over trials that were not stopped."""
    complete = [t for t in summary.trials if t.ending is Ending.COMPLETE and len(t.measurements) >= 3]
    final = [t.value for t in complete]
    for index, share in ((0, "1/9"), (1, "1/3")):
        values = [t.measurements[index].metrics[LOSS] for t in complete]
        best = min(range(len(complete)), key=lambda i: final[i] or 0)
        place = 1 + sum(value < values[best] for value in values)
        rho = spearmanr(values, final).statistic
        print(f"rung {share}: Spearman correlation with the end {rho:+.2f} over {len(complete)} trials; "
              f"the winner is in place {place} there")  # fmt: skip


def picture(summaries: list[Summary]) -> None:
    """Every trial that was trained in full, at its rungs; the last study's winner and its baseline in colour."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for summary in summaries:
        for trial in summary.trials:
            if trial.ending is Ending.COMPLETE:
                axes.plot(*curve(trial), color="lightgray", linewidth=0.8)
    last = summaries[0]
    for trial, color, label in (
        (last.baseline, "tab:blue", "nanoGPT's settings"),
        (last.best, "tab:red", "the winner"),
    ):
        if trial is not None:
            axes.plot(*curve(trial), color=color, marker="o", label=f"{label}: {trial.value:.3f}")
    axes.axhline(1.88, color="black", linewidth=0.8, linestyle=":", label="nanoGPT's README: 1.88")
    axes.set(xlabel="training characters", ylabel="validation loss (nats a character)", ylim=(1.6, 2.8))
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


def curve(trial: TrialRecord) -> tuple[list[int], list[float]]:
    return [m.progress for m in trial.measurements], [m.metrics[LOSS] for m in trial.measurements]


def main(studies: Path) -> None:
    summaries = [Summary.read(StudyFolder(studies / name)) for name in ("ts-final", "ts-full", "ts-halving")]
    for summary, most in zip(summaries, (10, 10, 5), strict=True):
        seconds = sum(trial.seconds for trial in summary.trials)
        ended = len(summary.history.ended)
        print(f"\n## {summary.record.name}\n\n{ended} trials ended, {seconds / 60:.0f} minutes of training;", end=" ")
        print("those in full, best first:\n")
        table(summary, most)
        print()
        rank_agreement(summary)
    picture(summaries)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "studies"))
