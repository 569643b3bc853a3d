"""Recorded trials searched again: what they cost, what is guessed, and that it is the real search that runs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from hpo.backtest import shares, strategy, target
from hpo.errors import UserError
from hpo.journal import History
from hpo.replay.contest import RECORDED, Entrant, Terms, compete
from hpo.replay.recorded import read_tables
from hpo.replay.simulation import replay
from hpo.replay.synthetic import synthetic
from hpo.replay.tables import Point, Row, Table, continued
from hpo.space import Choices, FloatRange, Parameter, Space
from hpo.study import Study
from hpo.sweep import Search, Strategy
from hpo.trials import Direction, Metric, Value

THIRDS = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
LOSS = Metric("loss", Direction.MINIMIZE)


def row(which: int, values: list[float], complete: bool = True) -> Row:
    points = tuple(Point(at, value, 10.0 * at) for at, value in enumerate(values, start=1))
    return Row({"which": which}, points, complete, number=which)


def table(*rows: Row, length: int = 9) -> Table:
    space = Space((Parameter("which", Choices(tuple(range(len(rows))))),))
    return Table("made", space, LOSS, rows, length, cost_unit="seconds")


def searched(
    made: Table, pruner: str, slots: int = 1, budget: float | None = None, shares: tuple[Fraction, ...] = THIRDS
):  # type: ignore[no-untyped-def]
    search = Search(trials=len(made.rows), sampler=Strategy("grid"), pruner=Strategy(pruner), rungs=shares)
    study = Study(made.asked_by(search), None, History(), 1)
    return replay(made, study, count=len(made.rows), slots=slots, budget=budget)


def falling(which: int, level: float) -> Row:
    return row(which, [level + 1 / at for at in range(1, 10)])


def test_a_search_that_stops_nothing_costs_what_the_trials_cost_and_takes_it_in_each_slot() -> None:
    made = table(*(falling(which, float(which)) for which in range(6)))
    alone, three = searched(made, "none"), searched(made, "none", slots=3)
    assert alone.spent == three.spent == 6 * 90.0
    assert alone.seconds == 540.0
    assert three.seconds == 180.0
    assert [step.value for step in alone.steps] == pytest.approx([which + 1 / 9 for which in range(6)])


def test_what_a_paused_trial_had_trained_is_not_paid_for_twice() -> None:
    made = table(*(falling(which, float(which)) for which in range(9)))
    found = searched(made, "pausing halving")
    # Nine at 1/9, three of them on to 1/3, one to the end.
    assert found.spent == 9 * 10.0 + 3 * 20.0 + 60.0
    assert found.endings == {"complete": 1, "stopped": 8}
    assert found.best(Direction.MINIMIZE.better) == pytest.approx(1 / 9)


def test_a_budget_ends_a_search_at_the_next_measurement() -> None:
    made = table(*(falling(which, float(which)) for which in range(9)))
    found = searched(made, "none", budget=200.0)
    assert 200.0 <= found.spent <= 200.0 + 60.0
    assert len(found.steps) == 2


def test_a_row_that_diverged_ends_so() -> None:
    made = table(falling(0, 1.0), Row({"which": 1}, row(1, [3.0, 2.0]).points, diverged=True), falling(2, 0.5))
    found = searched(made, "none", shares=())
    assert found.endings == {"complete": 2, "diverged": 1}
    assert found.spent == 90.0 + 20.0 + 90.0
    assert made.values == pytest.approx([0.5 + 1 / 9, 1 + 1 / 9])


def test_the_nearest_answers_and_says_how_far_it_is() -> None:
    space = Space((Parameter("rate", FloatRange(1e-4, 1e-2, log=True)), Parameter("kind", Choices(("a", "b")))))
    rows = tuple(
        Row({"rate": rate, "kind": kind}, (Point(1, value, 1.0),))
        for rate, kind, value in ((1e-4, "a", 1.0), (1e-2, "a", 2.0), (1e-3, "b", 3.0))
    )
    made = Table("made", space, LOSS, rows, 1)
    asked: Mapping[str, Value] = {"rate": 2e-4, "kind": "a"}
    found, distance = made.nearest(asked)
    assert found is rows[0]
    assert distance == pytest.approx(0.1505, abs=1e-3)
    assert made.nearest({"rate": 1e-3, "kind": "b"}) == (rows[2], 0.0)
    assert sorted(made.distances) == [1.0, 1.0, 2.0]


def test_a_stopped_trial_goes_on_as_the_others_did_on_average_and_the_error_is_told() -> None:
    made = table(falling(0, 1.0), falling(1, 2.0), row(2, [3.0, 2.5, 2.4], complete=False))
    whole, count, error = continued(made)
    assert count == 1
    guessed = whole.rows[2]
    assert guessed.complete
    assert guessed.points[2].value == 2.4
    assert guessed.points[-1].value == pytest.approx(2.4 + 1 / 9 - 1 / 3)
    assert guessed.points[-1].cost == pytest.approx(90.0)
    assert error == pytest.approx(0.0)  # these curves are parallel


def test_recorded_trials_are_replayed_in_their_order() -> None:
    made = table(*(falling(which, float((7 * which) % 9)) for which in range(9)))
    (result,) = compete(made, [Entrant("as it was", RECORDED, Strategy("none"), THIRDS)], Terms(5, 1, None))
    (found,) = result.replays
    assert [step.number for step in found.steps] == list(range(9))
    assert max(found.off_table) == 0.0
    assert result.regrets() == [0.0]


def test_repeats_are_paired_by_seed_and_go_the_same_way_again() -> None:
    made = synthetic(5)
    entrants = [Entrant("one", Strategy("auto"), Strategy("pausing halving"), THIRDS), Entrant("random")]
    one, again = (list(compete(made, entrants, Terms(3, 4, 5.0))) for _ in range(2))
    assert [result.replays for result in one] == [result.replays for result in again]
    assert len({replayed.steps for replayed in one[1].replays}) == 3


def test_the_cost_to_reach_a_regret_is_where_the_median_curve_crosses_it() -> None:
    (result,) = compete(synthetic(6), [Entrant("random")], Terms(9, 1, 8.0))
    at_end = result.curve([8.0])[0]
    cost = result.cost_to_reach(at_end)
    assert result.curve([cost])[0] <= at_end
    assert result.curve([cost * 0.999])[0] > at_end
    assert result.cost_to_reach(-1.0) == float("inf")


def test_the_best_of_a_synthetic_surface_is_the_best() -> None:
    generator = random.Random(3)
    for seed in range(5):
        made = synthetic(seed)
        assert made.answers is not None
        for _ in range(200):
            drawn = made.answers(made.space.draw(generator))
            value = made.value(drawn)
            assert value is None or value > made.best - 0.05


# -- files ----------------------------------------------------------------------------------------------

FILES = {
    "steps.csv": "lr,bs,ti,loss,smooth loss,D,N\n0.001,32,10,2.5,2.4,1000,5000000\n0.002,64,10,2.3,2.2,1000,5000000\n",
    "nmt_x.csv": "bpe_symbols,num_layers,num_embed,ffn_hidden,attention_heads,initial_learning_rate,dev_bleu,"
    "dev_gpu_time\n30000.0,2.0,512.0,1024.0,8.0,0.0003,18.2,771.8\n10000.0,4.0,256.0,2048.0,16.0,0.001,18.3,1143.9\n",
    "lora.csv": "model,lr,lora_rank,test_nll,train_nll,wall_time_min\nx/m,4e-05,1,0.60,0.6,10\nx/m,1e-04,4,0.59,0.6,20\n",
    "curves.jsonl": "\n".join(
        json.dumps({"src": "a", "trg": "b", "perplexity_curve": curve, "hyperparams": {
            "bpe": 1, "num_layers": layers, "model_size": 256, "ff_num_hidden": 1024, "initial_lr": 0.1}})
        for layers, curve in ((1, [9.0, 8.0]), (2, [9.0, 7.0, 7.5]))
    ),
    "cells.jsonl": "\n".join(
        json.dumps({"recepie": json.dumps({"f": {"op": op, "input": []}}), "num_params": size,
                    "val_losses": losses, "wall_times": [5.0] * 50})
        for op, size, losses in (("linear", 10, [5.0] * 50), ("blend", 20, [5.0, 4.5, float("nan")]))
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "best", "cost", "curves"),
    [
        ("steps.csv", 2.2, 1000.0, False),
        ("nmt_x.csv", 18.3, 957.85, False),
        ("lora.csv", 0.59, 15.0, False),
        ("curves.jsonl", 1.9459101, 2.5, True),
        ("cells.jsonl", 5.0, 130.0, True),
    ],
)
def test_each_publication_is_known_by_its_columns(
    tmp_path: Path, name: str, best: float, cost: float, curves: bool
) -> None:
    (tmp_path / name).write_text(FILES[name])
    (made,) = read_tables(tmp_path / name)
    assert made.best == pytest.approx(best)
    assert made.full_cost == pytest.approx(cost)
    assert made.has_curves is curves
    (result,) = compete(made, [Entrant("random")], Terms(2, 1, None, trials=6))
    assert min(result.regrets()) <= 0.11


def test_rungs_are_shares_of_what_trials_take_rather_than_of_what_they_may() -> None:
    early = table(*(row(which, [5.0, 4.0, 3.0, 3.0, 3.0, 3.0]) for which in range(3)), length=100)
    assert early.rungs((Fraction(1, 3), Fraction(1))) == (2, 100)
    assert table(falling(0, 1.0)).rungs(THIRDS) == THIRDS


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("synthetic:x", "has a number"),
        ("nothing.csv", "cannot read nothing.csv"),
        ("other.csv", "no table that is known here"),
        ("two.csv", "has 2 tables; name one"),
        ("two.csv#lora-n", "no table 'lora-n'. Did you mean 'lora-m'?"),
        ("studee", "no study 'studee'"),
    ],
)
def test_a_wrong_target_is_said_in_one_line(workplace: Path, name: str, said: str) -> None:
    Path("other.csv").write_text("a,b\n1,2\n")
    Path("two.csv").write_text(FILES["lora.csv"] + FILES["lora.csv"].splitlines()[1].replace("x/m", "x/n") + "\n"
                               + FILES["lora.csv"].splitlines()[2].replace("x/m", "x/o2").replace("4e-05", "3e-05") + "\n"
                               + "x/o2,1e-04,4,0.59,0.6,20\nx/o2,2e-04,8,0.59,0.6,20\n")  # fmt: skip
    with pytest.raises(UserError) as error:
        target(name, workplace / "studies")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_strategies_and_rungs_of_the_command_line_are_checked() -> None:
    assert strategy("successive halving, reduction_factor=4", ("successive halving",), "pruner") == Strategy(
        "successive halving", {"reduction_factor": 4}
    )
    with pytest.raises(UserError, match="Did you mean 'median'"):
        strategy("medain", ("median",), "pruner")
    with pytest.raises(UserError, match="NAME=VALUE"):
        strategy("median,4", ("median",), "pruner")
    assert shares("1/4, 1/2") == (Fraction(1, 4), Fraction(1, 2), Fraction(1))
    for wrong in ("a", "2", "0,1/2", "1/0"):
        with pytest.raises(UserError, match="--rungs"):
            shares(wrong)


def test_a_finished_study_is_replayed_by_one_command(
    write_sweep: Callable[..., Path], workplace: Path, hpo: Callable[..., str]
) -> None:
    rule = "seed: 3\n  sampler: random\n  pruner: successive halving\n  rungs: [1/9, 1/3, 1.0]"
    path = write_sweep(("trials: 6", "trials: 14"), ("seed: 3", rule))

    hpo("run", str(path), "--name", "mine", "--inline")
    told = hpo("replay", "mine", "--repeats", "3", "--budget", "6", "--plot", str(workplace / "curve.svg"))
    assert "14 recorded trials, minimize validation/loss" in told
    assert "were stopped early: from there they go on here as" in told
    rules = {line.split("  ")[0]: line for line in told.splitlines() if "%" in line and "of 14" in line}
    assert set(rules) == {
        "nothing stopped", "median", "successive halving at 1/9, 1/3", "pausing halving at 1/9, 1/3",
        "best of rung at 1/9, 1/3",
    }  # fmt: skip
    assert " 0%  14 of 14" in rules["nothing stopped"]
    assert rules["nothing stopped"].endswith("kept")
    assert "auto, auto at 1/9, 1/3" in told
    assert (workplace / "curve.svg").stat().st_size > 5000
