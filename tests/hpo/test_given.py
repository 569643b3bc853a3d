"""What no sampler chooses, the baseline with several seeds before all: its numbers, its seeds, and what they change."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hpo import warming
from hpo.check import sweep_view
from hpo.encoding import Encoding
from hpo.errors import SweepError
from hpo.exploring import Explorer, Fits
from hpo.folder import StudyFolder
from hpo.forecast import Simulation
from hpo.given import GivenTrials
from hpo.halving import Look
from hpo.journal import History, Journal, encode
from hpo.launch.inline import Inline
from hpo.observations import Observed, Seen
from hpo.parego import Weighed
from hpo.plan import Plan
from hpo.probe import Findings, Probed
from hpo.replay.recorded import study_table
from hpo.replay.synthetic import SPACE, synthetic
from hpo.run import conduct, create
from hpo.search import Search as Loop
from hpo.space import Choices, Parameter, Space
from hpo.spending import Rates
from hpo.study import Study, plan
from hpo.suggesting import _Model, _Table, standardized
from hpo.sweep import Search, Strategy, parse
from hpo.trials import Assignment, Direction, Ended, Ending, Measurement, Outcome, Progressed, Started, Value
from hpo.unbiased import Unbiased
from tests.hpo.test_view import shown

Write = Callable[..., Path]
CHOICES = Space((Parameter("a", Choices((1, 2, 3))), Parameter("b", Choices((1, 2, 3, 4)))))
EVERY_RUNG = (Fraction(1, 9), Fraction(1, 3), Fraction(1))
TEXT = "objective: a:b\nmetric: {name: m, direction: minimize}\nspace: {x: [1, 2]}\n%s\nsearch:\n  trials: 5\n  seeds: %s\n"


def given(seeds: int, *, share: float = 0.0, known: int = 1, seed: int = 0, grid: bool = False) -> GivenTrials:
    space = CHOICES if grid else SPACE
    configurations = [{"a": 1, "b": b + 1} for b in range(known)] if grid else [_drawn(one) for one in range(known)]
    sampler = Strategy("grid" if grid else "random")
    search = Search(100, sampler, Strategy("none"), seed=seed, unbiased=share, seeds=seeds)
    return GivenTrials(search, space, configurations)


def _drawn(seed: int) -> dict[str, Value]:
    return SPACE.draw(random.Random(seed))


# -- the numbering --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 7])
@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 1.0])
@pytest.mark.parametrize("known", [1, 4])
def test_after_the_repeats_every_trial_is_what_it_would_be_without_them(seeds: int, share: float, known: int) -> None:
    for seed in range(8):
        plain, several = (given(count, share=share, known=known, seed=seed) for count in (1, seeds))
        assert [several.seed(number) for number in range(seeds + 3)] == [seed + n for n in range(seeds)] + [seed] * 3
        for number in range(seeds):
            assert several.parameters(number) == _drawn(0)
            assert several.protected(number)
            assert several.repeated(number) == (0 if number else None)
        for number in range(seeds, 60):
            before = number - seeds + 1
            assert several.parameters(number) == plain.parameters(before)
            assert several.protected(number) == plain.protected(before)
            assert several.repeated(number) is None


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_with_one_seed_the_numbers_are_those_of_known_configurations_and_random_draws_alone(share: float) -> None:
    for seed in range(8):
        one, own = given(1, share=share, known=5, seed=seed), Unbiased(share, seed)
        for number in range(60):
            place = number - own.before(number)
            drawn = own.draw(SPACE, number) if own.takes(number) else None
            assert one.parameters(number) == (drawn or (_drawn(place) if place < 5 else None))
            assert one.protected(number) == (number == 0 or own.takes(number))
            assert (one.seed(number), one.repeated(number)) == (seed, None)


def test_repeats_come_before_a_grid_and_count_in_its_size() -> None:
    plain, several = given(1, known=2, grid=True), given(3, known=2, grid=True)
    assert (plain.size, several.size) == (12, 14)
    found = [several.parameters(number) for number in range(14)]
    assert found[:3] == [{"a": 1, "b": 1}] * 3
    assert found[2:] == [plain.parameters(number) for number in range(12)]
    assert len({tuple(one.items()) for one in found if one is not None}) == 12


def test_without_a_known_configuration_nothing_is_repeated() -> None:
    none = given(4, known=0)
    assert len(none.repeats) == 0
    assert not any(none.protected(number) for number in range(6))
    assert {none.seed(number) for number in range(6)} == {0}


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random", "cma-es", "qmc", "gp"])
def test_a_study_asks_for_the_repeats_first_whatever_its_sampler(sampler: str) -> None:
    search = Search(9, Strategy(sampler), Strategy("none"), seed=4, seeds=3, unbiased=0.25)
    study = Study(synthetic(1).asked_by(search, [_drawn(1), _drawn(2)]), None, History(), 1)
    asked = [study.ask() for _ in range(9)]
    assert [one.seed for one in asked] == [4, 5, 6, *[4] * 6]
    assert [dict(one.parameters) for one in asked[:3]] == [_drawn(1)] * 3
    assert all(one.protected for one in asked[:3])
    own = Unbiased(0.25, 4)
    assert [one.protected for one in asked[3:]] == [own.takes(number) for number in range(1, 7)]
    assert _drawn(2) in [dict(one.parameters) for one in asked[3:5]]
    assert [trial.params for trial in study.mirror.trials] == [one.parameters for one in asked]


# -- the sampler ----------------------------------------------------------------------------------------


def _seen(number: int, loss: float, *, repeat: bool = False) -> Seen:
    curve = [(100, loss + 1), (300, loss + 0.3), (900, loss)]
    return Seen(_drawn(0 if repeat else number), curve, 900, Ending.COMPLETE, loss, number, repeat=repeat)


def test_repeats_do_not_count_as_trials_of_the_start() -> None:
    observed = Observed(Direction.MINIMIZE)
    for number in range(5):
        observed.began(number, _drawn(0), repeat=number > 0)
    assert observed.useful == 1
    observed.ended(1, Ending.FAILED, None)  # which says nothing, and did not count
    assert observed.useful == 1
    observed.ended(0, Ending.FAILED, None)
    assert observed.useful == 0


@pytest.mark.parametrize("resumed", [False, True])
def test_the_start_is_spread_as_widely_with_seeds_as_without(resumed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spread: list[int] = []
    original = Explorer.spread

    def noted(self: Explorer, number: int, tried: set[bytes], fits: Fits) -> dict[str, Value]:
        spread.append(number)
        return original(self, number, tried, fits)

    monkeypatch.setattr(Explorer, "spread", noted)
    counts = []
    for seeds in (1, 4):
        spread.clear()
        search = Search(12, Strategy("auto"), Strategy("none"), seeds=seeds)
        history, question = History(), synthetic(1).asked_by(search, [_drawn(1)])
        study = Study(question, None, history, 1)
        for number in range(seeds + 6):
            if resumed:
                study = Study(question, None, history, 1)
            asked = study.ask()
            _happened(study, history, asked, 3.0 + 0.1 * number)
        counts.append([number - seeds + 1 for number in spread])
    assert counts[0] == counts[1] == [1, 2, 3]  # after the baseline, as far as four places in all


def _happened(study: Study, history: History, asked: Assignment, value: float) -> None:
    """A trial that measures once, at its end, in a study and in its record."""
    measurement = Measurement(243, {"validation/loss": value})
    study.report(asked, measurement, length=243)
    study.tell(asked.number, Outcome(Ending.COMPLETE))
    for event in (
        Started(asked, 0),
        Progressed(asked.number, measurement, 1.0, 243),
        Ended(asked.number, Outcome(Ending.COMPLETE), 1.0, value),
    ):
        history.add(json.loads(encode(event, 1.0)))


def test_what_a_level_is_like_is_decided_without_repeats() -> None:
    """Three seeds have the spread of noise; scaled by it, one better configuration would seem beyond all others."""
    own = [_seen(number, loss) for number, loss in enumerate([3.0, 4.0, 2.0, 5.0, 3.5])]
    again = [_seen(number + 5, loss, repeat=True) for number, loss in enumerate([3.001, 2.999])]
    plain, several = (_Table.of(seen, 1.0) for seen in (own, [own[0], *again, *own[1:]]))
    kept = [index for index, trial in enumerate(several.trial) if trial not in several.repeats]
    assert several.repeats == {1, 2}
    assert np.allclose(standardized(several)[kept], standardized(plain))
    assert len(standardized(several)) == len(standardized(plain)) + 2 * len(plain.trial) / 5
    assert np.isfinite(standardized(_Table.of(again, 1.0))).all()


def test_what_is_looked_for_is_decided_without_repeats() -> None:
    """Three seeds of one configuration trained in full are no three places known at the end."""
    early = [dataclasses.replace(_seen(number, 3.0), curve=[(100, 4.0)], ending=None, value=None) for number in (3, 4)]
    seen = [_seen(0, 3.0), _seen(1, 3.1, repeat=True), _seen(2, 2.9, repeat=True), *early]
    assert _Table.of(seen, 1.0).target() == _Table.of([seen[0], *early], 1.0).target()
    assert _Table.of(seen, 1.0).target()[0] == pytest.approx(math.log(1 / 9) / math.log(1 / 27))


def test_a_configuration_leads_once_however_often_it_was_trained() -> None:
    seen = [_seen(0, 1.0), *(_seen(n, 1.0 + n / 100, repeat=True) for n in range(1, 5)), _seen(5, 2.0), _seen(6, 3.0)]
    leaders = _Model(Encoding(SPACE), seen, 1.0).leaders()
    assert len(leaders) == len(np.unique(leaders, axis=0)) == 3


def test_repeats_are_repeats_where_a_trade_off_is_one_metric_too() -> None:
    observed = Observed(Direction.MINIMIZE)
    for number in range(3):
        observed.began(number, _drawn(0), repeat=number > 0)
        observed.measured(number, 900, 1.0, 900, (1.0, 2.0))
        observed.took(number, 900, 30.0 + number)
    weighed = Weighed(observed, (1.0,), 0).chosen(3, 64, 32, 12, 0)
    assert [trial.repeat for trial in weighed] == [False, True, True]
    assert [trial.pace for trial in weighed] == [30.0 / 900, 31.0 / 900, 32.0 / 900]


def test_repeats_do_not_change_how_others_rank_in_a_trade_off() -> None:
    """Five seeds of the baseline would make it the middle of all, and whatever beats it hardly better."""
    found = []
    for repeats in (0, 4):
        observed = Observed(Direction.MINIMIZE)
        for number in range(6 + repeats):
            which = max(0, number - repeats)
            observed.began(number, _drawn(which), repeat=0 < number <= repeats)
            # The last repeat is luckier than any other trial: no rank is below that of the best.
            lucky = 9.0 if 0 < number == repeats else 0.0
            observed.measured(number, 900, 1.0, 900, (5.0 - which - lucky, float(which) - lucky))
            observed.ended(number, Ending.COMPLETE, 1.0)
        weighed = Weighed(observed, (1.0,), 0).chosen(11, 64, 32, 12, 0)
        assert all(trial.value is not None and trial.value >= 0 for trial in weighed)
        found.append([trial.value for trial in weighed if not trial.repeat])
    assert found[0] == found[1]


# -- a study that is searched ---------------------------------------------------------------------------


class Bench:
    """A sweep on an objective whose loss depends on the seed, searched inline."""

    def __init__(self, planned: Plan, root: Path) -> None:
        self.planned, self.folder = planned, StudyFolder(root)
        root.mkdir(parents=True)

    @property
    def history(self) -> History:
        return History.read(self.folder.journal)

    def run(self, events: int | None = None) -> None:
        """To the end, or until the coordinator dies after so many events."""
        study = Study(self.planned, self.folder, self.history, 1)
        trials = self.planned.sweep.search.trials
        with Journal(self.folder.journal, lambda: 0.0) as journal:
            loop = Loop(
                study, Inline(self.planned.objective), journal, self.folder, self.history, trials, lambda: False
            )
            happening = loop.events()
            for _ in range(10**6 if events is None else events):
                if next(happening, None) is None:
                    return
            happening.close()


@pytest.fixture
def bench(write_sweep: Write, workplace: Path) -> Callable[..., Bench]:
    def make(*search: str, name: str = "study", noise: float = 0.1, changes: Sequence[tuple[str, str]] = ()) -> Bench:
        source = (workplace / "objective.py").read_text()
        drawn = f"loss(config, rung) + random.Random(f'{{seed}}/{{rung}}').gauss(0, {noise})"
        source = source.replace("else loss(config, rung)\n", f"else {drawn}\n").replace(
            "import json,", "import random, json,"
        )
        (workplace / "objective.py").write_text(source)
        lines = "\n".join(f"  {line}" for line in ("trials: 14", *search))
        path = write_sweep(("  trials: 6", lines), *changes)
        return Bench(plan(path.read_text(), path), workplace / name)

    return make


def what_happened(history: History) -> list[tuple[object, ...]]:
    return [(t.number, t.seed, t.state, t.value, tuple(t.parameters.items())) for t in history.trials.values()]


HALVING = ("rungs: [1/9, 1/3, 1.0]", "seeds: 3")


@pytest.mark.parametrize("rule", ["pausing halving", "successive halving", "best of rung"])
def test_repeats_are_trained_to_their_ends_each_with_its_seed(bench: Callable[..., Bench], rule: str) -> None:
    study = bench(*HALVING, f"pruner: {rule}")
    study.run()
    first = list(study.history.trials.values())[:3]
    assert [(t.seed, t.ending, t.protected) for t in first] == [(3 + n, Ending.COMPLETE, True) for n in range(3)]
    assert [t.repeat for t in study.history.trials.values()] == [False, True, True] + [False] * 11
    assert len({t.value for t in first}) == 3
    assert {t.seed for t in list(study.history.trials.values())[3:]} == {3}
    assert {t.ending for t in study.history.trials.values()} == {Ending.COMPLETE, Ending.STOPPED}


@pytest.mark.parametrize("rule", ["pausing halving", "successive halving"])
@pytest.mark.parametrize("after", [3, 5, 8, 12, 19, 27])
def test_a_study_cut_anywhere_and_resumed_has_the_seeds_and_the_noise_it_would_have_had(
    bench: Callable[..., Bench], rule: str, after: int
) -> None:
    changes = (*HALVING, f"pruner: {rule}")
    whole, cut = bench(*changes, name="whole"), bench(*changes, name="cut")
    whole.run()
    cut.run(after)
    cut.run()
    assert what_happened(cut.history) == what_happened(whole.history)


def test_what_the_seeds_differ_by_is_the_noise_of_the_rule(bench: Callable[..., Bench]) -> None:
    """As good as told beforehand: the deviation measured at the rungs, and the same trials are spared."""
    sampler = "sampler: random"
    measured = bench(*HALVING, sampler, "pruner: {name: successive halving}", name="measured", noise=0.5)
    none = bench(*HALVING, sampler, "pruner: {name: successive halving, noise: 0}", name="none", noise=0.5)
    for study in (measured, none):
        study.run()
    stopped = [{t.number for t in s.history.ended if t.ending is Ending.STOPPED} for s in (measured, none)]
    assert stopped[0] < stopped[1]
    for number in stopped[0]:
        trial = measured.history.trials[number]
        at = trial.progress
        arrived = [t for t in measured.history.trials.values() if t.number <= number and t.progress >= at]
        values = {
            t.number: next(m for m in t.measurements if m.progress == at).metrics["validation/loss"] for t in arrived
        }
        noise = statistics.stdev(values.pop(repeat) if repeat else values[0] for repeat in range(3))
        cut = sorted(values.values())[max(1, len(values) // 3) - 1]
        assert values[number] > cut + 2 * noise


def test_a_coordinator_that_hears_of_the_repeats_judges_as_the_one_that_ran_them() -> None:
    search = Search(12, Strategy("random"), Strategy("successive halving"), rungs=EVERY_RUNG, seeds=3)
    question = synthetic(1).asked_by(search, [_drawn(1)])
    here, there = (Study(question, None, History(), 1) for _ in range(2))
    first = [here.ask() for _ in range(3)]
    for asked, value in zip(first, [3.0, 3.2, 2.8], strict=True):
        measurement = Measurement(27, {"validation/loss": value})
        assert here.report(asked, measurement, length=243) is None
        there.hear(Started(asked, 0))
        there.hear(Progressed(asked.number, measurement, 1.0, 243))
    assert there._observed.useful == here._observed.useful == 1
    for study, value in ((here, 3.39), (there, 3.39), (here, 3.41), (there, 3.41)):  # 3.0 and two deviations of 0.2
        asked = study.ask()
        assert asked.seed == 0
        verdict = study.report(asked, Measurement(27, {"validation/loss": value}), length=243)
        assert (verdict is None) == (value < 3.4)


def test_only_the_best_of_other_configurations_keeps_its_checkpoint(bench: Callable[..., Bench]) -> None:
    changes = [("baseline: {learning_rate: 1e-4}", "baseline: {learning_rate: 2e-3}")]
    path = bench(*HALVING, "sampler: random", noise=1.0, changes=changes).planned.sweep.path
    planned, folder = create(path, Path("studies"), "whole", [])
    conduct(planned, folder, console=Console(quiet=True), inline=True)
    complete = [t for t in History.read(folder.journal).ended if t.ending is Ending.COMPLETE]
    best = min((t for t in complete if not t.repeat), key=lambda t: t.value or 0.0)
    assert min(complete, key=lambda t: t.value or 0.0).repeat  # the luckiest is the baseline once more
    assert [path.name for path in (folder.root / "trials").iterdir() if path.is_dir()] == [f"{best.number:04d}"]


def test_repeats_are_neither_replayed_nor_learned_from(bench: Callable[..., Bench]) -> None:
    study = bench(*HALVING)
    study.run()
    table = study_table(study.folder, study.planned.space, study.planned.tradeoff, study.history)
    assert [row.number for row in table.rows] == [0, *range(3, 14)]

    @dataclasses.dataclass
    class Record:
        name: str = "old"
        id: str = "i"
        facts: dict[str, str] = dataclasses.field(default_factory=dict)

    source = warming._Reader(study.planned, Record()).source(study.history)  # type: ignore[arg-type]
    assert [lesson.number for lesson in source.lessons] == [0, *range(3, 14)]
    assert source.left_out == {"with another seed": 2}


def test_a_forecast_counts_them_as_trials_of_the_baseline_that_are_not_stopped(bench: Callable[..., Bench]) -> None:
    planned = bench(*HALVING, changes=[("trials: 14", "trials: 3")]).planned
    findings = Findings([Probed("baseline", planned.baseline, seconds=10.0, rate=90.0)], (0.1, 0.3, 1.0), whole=True)
    found = Simulation(planned, findings, Rates.read({}), 1).forecast()
    assert found.trials == 3
    assert found.seconds.median == pytest.approx(30.0, rel=0.05)
    assert found.seconds.low > 20.0  # one that is stopped at its first rung takes a second


# -- what is told and refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("seeds: 3",), "how far they differ at a rung is the noise of pausing halving"),
        (("seeds: 3", "pruner: {name: auto, noise: 0.1}"), "no trial is spared for it"),
        (("seeds: 3", "pruner: median"), "no trial is spared for it"),
    ],
)
def test_check_says_what_the_seeds_are_for(bench: Callable[..., Bench], lines: tuple[str, ...], told: str) -> None:
    text = " ".join(shown(sweep_view(bench(*lines).planned), 300).split())
    assert "14 trials: the baseline with 3 seeds, then auto" in text
    assert "seeds 3 to 5 of the baseline, never stopped: " in text
    assert told in text


def test_check_says_nothing_of_seeds_where_there_is_one(bench: Callable[..., Bench]) -> None:
    assert "seeds" not in shown(sweep_view(bench().planned), 300)


@pytest.mark.parametrize(
    ("known", "seeds", "rule"),
    [
        ("baseline: {x: 1}", "0", "requires a whole number from 1, got 0."),
        ("baseline: {x: 1}", "1.5", "requires a whole number from 1, got 1.5."),
        ("baseline: {x: 1}", "true", "requires a whole number from 1, got True."),
        ("baseline: {x: 1}", "6", "requires no more than there are trials (5), got 6."),
    ],
)
def test_seeds_that_cannot_be_are_one_mistake_with_its_line(known: str, seeds: str, rule: str) -> None:
    (mistake,) = parse(TEXT % (known, seeds), Path("s.yaml"))[1]
    assert mistake.where == "s.yaml:7"
    assert f"search.seeds: {rule}" in mistake.text


@pytest.mark.parametrize("known", ["baseline: {x: 1}", "start_with: [{x: 1}]", "fixed: {}"])
def test_seeds_need_no_more_than_the_baseline_that_every_study_has(known: str) -> None:
    sweep, mistakes = parse(TEXT % (known, "5"), Path("s.yaml"))
    assert (sweep.search.seeds, mistakes) == (5, [])
    assert parse(TEXT.replace("\n  seeds: %s", "") % known, Path("s.yaml"))[0].search.seeds == 1


def test_fewer_trials_than_seeds_are_refused_from_the_command_line_too(write_sweep: Write) -> None:
    path = write_sweep(("  seed: 3", "  seeds: 3"))
    with pytest.raises(SweepError, match=r"search.seeds: requires no more than there are trials \(2\), got 3"):
        plan(path.read_text(), path, ["search.trials=2"])


def test_a_look_at_a_repeat_names_the_baseline() -> None:
    search = Search(12, Strategy("random"), Strategy("none"), rungs=EVERY_RUNG, seeds=2)
    study = Study(synthetic(1).asked_by(search, [_drawn(1)]), None, History(), 1)
    looks: list[Look] = []

    class Noted:
        def judge(self, look: Look, prunes: object) -> None:
            looks.append(look)

    study._rule = Noted()  # type: ignore[assignment]
    for asked in [study.ask() for _ in range(3)]:
        study.report(asked, Measurement(27, {"validation/loss": 1.0}), length=243)
    assert [(look.number, look.repeats) for look in looks] == [(0, None), (1, 0), (2, None)]
