"""A trial's configuration trained and tested with several seeds.

    python studies/trec/seeds.py STUDY_FOLDER [best | baseline | a trial's number] SEED [SEED ...] [NAME=VALUE ...]

Two processes of one thread. Prints a Markdown table: each seed, then mean and standard deviation (n - 1).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

SHOWN = ("test/accuracy", "test/macro_f1", "test/loss")


def measured(settings: dict[str, Any], seed: int) -> dict[str, float]:
    """One training; what it reaches on validation at its end, and on the test split."""
    import torch

    from hpo.objective import load

    torch.set_num_threads(1)
    objective = load("models.classification:train", Path())
    config = objective.config(settings)
    with tempfile.TemporaryDirectory() as folder:
        *_, last = objective.train(config, seed=seed, rungs=[], directory=Path(folder))
        return {**last.metrics, **objective.module.test(config, directory=Path(folder))}


def main(study: Path, which: str, seeds: list[int], changes: dict[str, Any]) -> None:
    from hpo.folder import StudyFolder
    from hpo.summary import Summary

    summary = Summary.read(StudyFolder(study))
    named = {"best": summary.best, "baseline": summary.baseline}
    trial = named[which] if which in named else summary.history.trials[int(which)]
    assert trial is not None, "no trial was trained in full"
    settings = {**trial.settings, **changes}
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(measured, [settings] * len(seeds), seeds))
    names = ("validation/accuracy", "validation/macro_f1", *SHOWN)
    print(f"| trial {trial.number} ({which}), seed | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(names) + 1))
    for seed, metrics in zip(seeds, found, strict=True):
        print(f"| {seed} | " + " | ".join(f"{metrics[name]:.4f}" for name in names) + " |")
    columns = [[metrics[name] for metrics in found] for name in names]
    print("| mean | " + " | ".join(f"{statistics.mean(column):.4f}" for column in columns) + " |")
    print("| deviation | " + " | ".join(f"{statistics.stdev(column):.4f}" for column in columns) + " |")
    linear = found[0]
    print(f"\nlinear baseline: test/accuracy {linear['test/linear_accuracy']:.4f}, ", end="")
    print(f"test/macro_f1 {linear['test/linear_macro_f1']:.4f}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from hpo.document import load_yaml

    pairs = [text.partition("=")[::2] for text in sys.argv[3:] if "=" in text]
    changes = {name: load_yaml(f"value: {value}", name)[0]["value"] for name, value in pairs}
    main(Path(sys.argv[1]), sys.argv[2], [int(text) for text in sys.argv[3:] if "=" not in text], changes)
