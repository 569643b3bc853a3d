"""What does one trial that answers for several horizons cost, and does its order of configurations say more?

    python studies/horizons/measure.py --source PATH/tinyshakespeare.txt [--configurations 16] [--decay 0.2]

Trains each of some random configurations of a small character model in every way that report.md compares: whole runs
of schedule wsd at a quarter, half and all of the tokens; one run with `decay_at_rungs`; whole runs of schedule cosine
at the same three. Prints the tables of report.md; one thread, one run after the other. `--keep FILE` writes all
measurements as JSON, `--read FILE` prints the tables of such a file and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from models.configuration import Causal, TextData, Tokenizer
from models.errors import Diverged
from models.language_modelling import Config, train

SHARES = (4, 2, 1)
"""Horizons: a quarter, half and all of the tokens."""
WAYS = (
    ("undecayed trunk, as the rate is", "wsd 1", "wsd 1"),
    ("decayed branch (decay_at_rungs)", "branches", "branches"),
    ("cosine, the curve of the whole run", "cosine 1", "cosine 1"),
    ("cosine, a run of that length", "cosine {share}", "cosine 1"),
)
"""What is compared, the run that it is read from at a share, and the run whose end it is to foretell."""
DRAWS = 2000

Found = dict[str, dict[str, dict[str, float]]]
"""By run and progress, the metrics."""


def configuration(chance: random.Random, base: Config, batch_sizes: Sequence[int]) -> Config:
    """A random configuration, from ranges such as a first search would have."""
    return replace(
        base,
        learning_rate=10 ** chance.uniform(-3.5, -1.5),
        batch_size=chance.choice(batch_sizes),
        weight_decay=10 ** chance.uniform(-2, 0),
        beta2=chance.choice([0.9, 0.95, 0.98, 0.99]),
        model=replace(base.model, dropout=chance.choice([0.0, 0.1, 0.2])),
    )


def measured(config: Config, horizons: Sequence[int]) -> dict[str, dict[str, float]]:
    """The metrics of one run by progress; where it diverges, infinite losses from there on."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            for item in train(config, seed=0, rungs=horizons, directory=Path(directory)):
                found[str(item.progress)] = dict(item.metrics)
        except Diverged:
            pass
    for progress in horizons:
        if progress <= (config.tokens or 0) and math.isnan(
            found.get(str(progress), {}).get("validation/loss", math.nan)
        ):
            found[str(progress)] = {"validation/loss": math.inf}
    return found


def trained(config: Config, tokens: int) -> Found:
    """All runs of one configuration, by name."""
    horizons = [tokens // share for share in SHARES]
    wsd = replace(config, schedule="wsd", tokens=tokens)
    runs = {"branches": replace(wsd, decay_at_rungs=True)}
    for share, length in zip(SHARES, horizons, strict=True):
        runs[f"wsd {share}"] = replace(wsd, tokens=length)
        runs[f"cosine {share}"] = replace(config, schedule="cosine", tokens=length)
    return {name: measured(run, horizons) for name, run in runs.items()}


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def interval(values: Sequence[float]) -> str:
    low, high = np.quantile(values, (0.05, 0.95))
    return f"{low:.2f} to {high:.2f}"


def tables(kept: Mapping[str, Any]) -> None:
    tokens, found = kept["tokens"], kept["found"]
    horizons = [tokens // share for share in SHARES]

    def losses(run: str, progress: int) -> np.ndarray:
        return np.array([one[run][str(progress)]["validation/loss"] for one in found])

    equal = sum(
        one["branches"][str(length)]["validation/loss"] == one[f"wsd {share}"][str(length)]["validation/loss"]
        for one in found
        for share, length in zip(SHARES, horizons, strict=True)
    )
    print(f"{len(found)} configurations, {tokens} tokens, decay {kept['decay']}")
    print(f"equal losses of branch and whole run: {equal} of {len(SHARES) * len(found)}\n")
    _costs(found, horizons)
    _orders(losses, horizons)
    _halving(losses, horizons)
    _values(kept["configurations"], losses, horizons)


def _costs(found: Sequence[Found], horizons: Sequence[int]) -> None:
    def seconds(run: str, length: int) -> float:
        return sum(one[run][str(length)].get("train/seconds", math.nan) for one in found)

    whole = [seconds(f"wsd {share}", length) for share, length in zip(SHARES, horizons, strict=True)]
    branches = sum(one["branches"][str(horizons[-1])]["train/branch_tokens"] for one in found) / len(found)
    print("| answering for | tokens | train/seconds, all configurations |\n|---|---|---|")
    print(f"| the end alone | {horizons[-1]:,} | {whole[-1]:.1f} |")
    print(f"| three horizons, three runs | {sum(horizons):,} | {sum(whole):.1f} |")
    print(f"| three horizons, one run with branches | {horizons[-1] + branches:,.0f} | ", end="")
    print(f"{seconds('branches', horizons[-1]):.1f} |\n")


def _orders(losses: Any, horizons: Sequence[int]) -> None:
    """How the orders at the shorter horizons correlate with that at the end, and how surely."""
    count = len(losses("wsd 1", horizons[-1]))
    draws = np.random.default_rng(0).integers(count, size=(DRAWS, count))
    print("| order by | at 1/4 | 5% to 95% | at 1/2 | 5% to 95% |\n|---|---|---|---|---|")
    spread: dict[tuple[int, int], np.ndarray] = {}
    for row, (what, source, end) in enumerate(WAYS):
        cells = []
        for share, length in zip(SHARES[:-1], horizons[:-1], strict=True):
            early, last = losses(source.format(share=share), length), losses(end, horizons[-1])
            spread[row, share] = np.array([spearman(early[draw], last[draw]) for draw in draws])
            cells += [f"{spearman(early, last):.3f}", interval(spread[row, share])]
        print(f"| {what} | {' | '.join(cells)} |")
    print("\ndifference of the decayed branch and the undecayed trunk, 5% to 95%: ", end="")
    print(", ".join(f"1/{share} {interval(spread[1, share] - spread[0, share])}" for share in SHARES[:-1]), "\n")


def _halving(losses: Any, horizons: Sequence[int]) -> None:
    """What would be lost in the end by going on only with the best half at a horizon, the best quarter, the best."""
    print("| kept by | 1/4: half | quarter | best | 1/2: half | quarter | best |\n|---|---|---|---|---|---|---|")
    for what, source, end in WAYS:
        cells = []
        for share, length in zip(SHARES[:-1], horizons[:-1], strict=True):
            early, last = losses(source.format(share=share), length), losses(end, horizons[-1])
            order = np.argsort(early, kind="stable")
            for kept in (max(1, len(early) // 2), max(1, len(early) // 4), 1):
                cells.append(f"{last[order[:kept]].min() - last.min():.4f}")
        print(f"| {what} | {' | '.join(cells)} |")
    print()


def _values(configurations: Sequence[Mapping[str, Any]], losses: Any, horizons: Sequence[int]) -> None:
    quarter, half, end = horizons
    columns = [losses("wsd 1", quarter), losses("branches", quarter), losses("cosine 1", quarter)]
    columns += [losses("wsd 1", half), losses("branches", half), losses("cosine 1", half)]
    columns += [losses("branches", end), losses("cosine 1", end)]
    print("| learning rate | batch | 1/4: trunk | branch | cosine | 1/2: trunk | branch | cosine | end: wsd | cosine |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for number in np.argsort(columns[-2], kind="stable"):
        config = configurations[number]
        cells = [f"{config['learning_rate']:.2g}", str(config["batch_size"])]
        print(f"| {' | '.join(cells + [f'{column[number]:.4f}' for column in columns])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="sample")
    parser.add_argument("--configurations", type=int, default=16)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--tokens", type=int, default=393_216)
    parser.add_argument("--decay", type=float, default=0.2)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--read", type=Path)
    given = parser.parse_args()
    if given.read:
        tables(json.loads(given.read.read_text()))
        return
    torch.set_num_threads(1)
    base = Config(
        data=TextData(source=given.source, split_by="position", validation=0.02, test=0.0),
        tokenizer=Tokenizer(kind="characters"),
        model=Causal(layers=given.layers, width=64, heads=4, context=64),
        decay=given.decay,
        warmup_examples=given.tokens // 64 // 50,
    )
    chance = random.Random(0)
    kept: dict[str, Any] = {"tokens": given.tokens, "decay": given.decay, "configurations": [], "found": []}
    for number in range(given.configurations):
        config = configuration(chance, base, given.batch_sizes)
        kept["configurations"].append(asdict(config))
        kept["found"].append(trained(config, given.tokens))
        if given.keep:
            given.keep.write_text(json.dumps(kept))
        seconds = sum(run[max(run, key=int)].get("train/seconds", 0.0) for run in kept["found"][-1].values())
        print(f"{number + 1} of {given.configurations}: {seconds:.0f} s", flush=True)
    tables(kept)


if __name__ == "__main__":
    main()
