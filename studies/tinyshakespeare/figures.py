"""Tables and the picture of report.md, from the studies it names: python studies/tinyshakespeare/figures.py [STUDIES]

Prints Markdown; writes curves.svg beside this file from the confirmation runs.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from scipy.stats import spearmanr

from hpo.folder import StudyFolder
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


def confirmation(summaries: list[Summary]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for trial_number, label, color in ((0, "nanoGPT's settings", "tab:gray"), (1, "found by the search", "tab:red")):
        finals = []
        for summary in summaries:
            trial = summary.history.trials[trial_number]
            curve = [(m.progress, m.metrics[LOSS]) for m in trial.measurements]
            axes.plot(*zip(*curve, strict=True), color=color, label=label if not finals else None)
            finals.append(curve[-1][1])
        spread = f", standard deviation {statistics.stdev(finals):.4f}" if len(finals) > 1 else ""
        print(f"{label}: {', '.join(f'{value:.4f}' for value in finals)}; mean {statistics.mean(finals):.4f}{spread}")
    axes.axhline(1.88, color="black", linewidth=0.8, linestyle=":", label="nanoGPT's README: 1.88")
    axes.set(xlabel="training characters", ylabel="validation loss (nats a character)", ylim=(1.6, 2.8))
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


def main(studies: Path) -> None:
    for name, most in (("ts-final", 10), ("ts-full", 10), ("ts-halving", 5)):
        folder = StudyFolder(studies / name)
        if folder.exists:
            summary = Summary.read(folder)
            seconds = sum(trial.seconds for trial in summary.trials)
            print(f"\n## {name}: {len(summary.trials)} trials, {seconds / 60:.0f} minutes of training\n")
            table(summary, most)
            print()
            rank_agreement(summary)
    confirmed = [StudyFolder(path.parent) for path in sorted(studies.glob("ts-confirm-*/study.json"))]
    if confirmed:
        print("\n## fresh seeds\n")
        confirmation([Summary.read(folder) for folder in confirmed])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "studies"))
