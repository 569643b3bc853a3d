"""A sweep file: what is read, and that each kind of mistake is one clear line with its place."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from hpo.errors import SweepError, UserError
from hpo.space import Choices, FloatRange, IntRange
from hpo.study import plan
from hpo.sweep import parse
from hpo.trials import Direction

Write = Callable[..., Path]


def errors_of(path: Path, *assignments: str) -> list[str]:
    with pytest.raises(SweepError) as caught:
        plan(path.read_text(), path, assignments, name="sweep.yaml")
    return [str(mistake) for mistake in caught.value.mistakes]


BROKEN = {
    "unknown setting": (
        ("  learning_rate: {low", "  learnin_rate: {low"), ("baseline: {learning_rate: 1e-4}", "baseline: {}"),
        "sweep.yaml:4: space.learnin_rate: no such setting of objective.py. Did you mean 'learning_rate'?",
    ),
    "unknown nested setting": (
        ("  model.dropout", "  model.dropuot"),
        "sweep.yaml:5: space.model.dropuot: no such setting of objective.py. Did you mean 'model.dropout'?",
    ),
    "setting without its group": (
        ("  tokens: 900", "  width: 64"),
        "sweep.yaml:7: fixed.width: no such setting of objective.py. Did you mean 'model.width'?",
    ),
    "value of the wrong type": (
        ("  tokens: 900", "  tokens: many"), "sweep.yaml:7: fixed.tokens: should be a valid integer, got 'many'.",
    ),
    "quoted number": (
        ("  tokens: 900", '  tokens: "900"'), "sweep.yaml:7: fixed.tokens: should be a valid integer, got '900'.",
    ),
    "value out of range": (
        ("  tokens: 900", "  tokens: 0"), "sweep.yaml:7: fixed.tokens: should be greater than 0, got 0.",
    ),
    "choice that is not allowed": (
        ("  tokens: 900", "  optimizer: adam"), "sweep.yaml:7: fixed.optimizer: should be 'adamw' or 'sgd', got 'adam'.",
    ),
    "settings that do not go together": (
        ("  tokens: 900", "  model: {width: 60, heads: 7}"),
        "sweep.yaml:7: fixed.model: model.width 60 is not divisible by model.heads 7",
    ),
    "range outside what the setting allows": (
        ("high: 0.5, step: 0.1", "high: 1.5, step: 0.1"),
        "sweep.yaml:5: space.model.dropout: should be less than or equal to 1, got 1.5.",
    ),
    "range upside down": (
        ("low: 1e-5, high: 1e-1", "low: 1e-1, high: 1e-5"),
        "sweep.yaml:4: space.learning_rate: requires low <= high, got low 0.1 and high 1e-05.",
    ),
    "log range from zero": (
        ("low: 1e-5", "low: 0"), "sweep.yaml:4: space.learning_rate.low: a log range requires low > 0, got 0.",
    ),
    "log range with a step": (
        ("log: true}", "log: true, step: 0.1}"),
        "sweep.yaml:4: space.learning_rate.step: a log range cannot have a step; leave one out.",
    ),
    "range without an end": (
        ("low: 1e-5, high: 1e-1, log", "low: 1e-5, log"), "sweep.yaml:4: space.learning_rate: a range requires `high`.",
    ),
    "real range of a whole setting": (
        ("  model.dropout: {low: 0, high: 0.5, step: 0.1}", "  tokens: {low: 1.5, high: 9}"), ("  tokens: 900", "  {}"),
        "sweep.yaml:5: space.tokens: takes whole numbers, got the range 1.5 to 9. Write low, high and step without a point.",
    ),
    "value where a range belongs": (
        ("{low: 0, high: 0.5, step: 0.1}", "0.1"),
        "sweep.yaml:5: space.model.dropout: requires a range {low, high} or a list of choices, got 0.1. "
        "A value that does not vary belongs in `fixed`.",
    ),
    "choice twice": (
        ("{low: 0, high: 0.5, step: 0.1}", "[0.1, 0.2, 0.1]"),
        "sweep.yaml:5: space.model.dropout.2: the choice 0.1 is there twice.",
    ),
    "misspelt key of a range": (
        ("low: 1e-5, high: 1e-1, log: true", "low: 1e-5, high: 1e-1, logg: true"),
        "sweep.yaml:4: space.learning_rate.logg: no such key. Did you mean 'log'?",
    ),
    "searched and fixed": (
        ("  tokens: 900", "  learning_rate: 1e-3"),
        "sweep.yaml:4: space.learning_rate: is searched and fixed at once (sweep.yaml:7). Keep one.",
    ),
    "unknown section": (
        ("track: {}", "tracking: {}"), "sweep.yaml:12: tracking: no such section. Did you mean 'track'?",
    ),
    "trade-off against itself": (
        ("track: {}", "tradeoff: [{name: validation/loss, direction: minimize}]"),
        "sweep.yaml:12: tradeoff.0.name: validation/loss is there already; a metric is weighed against others.",
    ),
    "trade-off with what is not measured": (
        ("track: {}", "tradeoff: [{name: validation/acuracy, direction: maximize}]"),
        "sweep.yaml:12: tradeoff.0.name: objective.py:train does not measure 'validation/acuracy'. "
        "Did you mean 'validation/accuracy'?",
    ),
    "misspelt key of a trade-off": (
        ("track: {}", "tradeoff: [{name: validation/accuracy, direction: maximize, att: last}]"),
        "sweep.yaml:12: tradeoff.0.att: no such key. Known: direction, name.",
    ),
    "trade-off without a direction": (
        ("track: {}", "tradeoff: [{name: validation/accuracy}]"),
        "sweep.yaml:12: tradeoff.0.direction: requires minimize or maximize, got None.",
    ),
    "trade-off that is no list": (
        ("track: {}", "tradeoff: size"),
        "sweep.yaml:12: tradeoff: requires a list of one or two metrics such as [{name: model/parameters, "
        "direction: minimize}], got 'size'.",
    ),
    "sampler of one metric for a trade-off": (
        ("track: {}", "tradeoff: [{name: validation/accuracy, direction: maximize}]"), ("  seed: 3", "  sampler: tpe"),
        "sweep.yaml:11: search.sampler: tpe knows one metric, and there is a trade-off. Use one of auto, random, qmc, grid.",
    ),
    "pruner of one metric for a trade-off": (
        ("track: {}", "tradeoff: [{name: validation/accuracy, direction: maximize}]"), ("  seed: 3", "  pruner: median"),
        "sweep.yaml:11: search.pruner: median knows one metric, and there is a trade-off. "
        "Use one of auto, pausing halving, none.",
    ),
    "unknown sampler": (
        ("  seed: 3", "  sampler: tpee"),
        "sweep.yaml:11: search.sampler: requires one of auto, tpe, gp, cma-es, qmc, random, grid, or an import path such as "
        "optuna.samplers:ClassName; got 'tpee'. Did you mean 'tpe'?",
    ),
    "option a sampler does not have": (
        ("  seed: 3", "  sampler: {name: tpe, startup_trials: 3}"),
        "sweep.yaml:11: search.sampler: tpe has no option 'startup_trials'. Did you mean 'n_startup_trials'?",
    ),
    "pruner that lacks an option": (
        ("  seed: 3", "  pruner: percentile"),
        "sweep.yaml:11: search.pruner: percentile: PercentilePruner.__init__() missing 1 required positional argument: "
        "'percentile'",
    ),
    "sampler that cannot be imported": (
        ("  seed: 3", "  sampler: nowhere.samplers:Best"),
        "sweep.yaml:11: search.sampler: cannot import nowhere.samplers: No module named 'nowhere'.",
    ),
    "grid without steps": (
        ("  seed: 3", "  sampler: grid"),
        "sweep.yaml:11: search.sampler: grid requires a step or choices for every searched setting.",
    ),
    "unknown direction": (
        ("direction: minimize", "direction: minimise"),
        "sweep.yaml:2: metric.direction: requires minimize or maximize, got 'minimise'.",
    ),
    "metric the objective does not measure": (
        ("validation/loss", "validation/los"),
        "sweep.yaml:2: metric.name: objective.py:train does not measure 'validation/los'. Did you mean 'validation/loss'?",
    ),
    "trials that are no number": (
        ("trials: 6", "trials: six"), "sweep.yaml:10: search.trials: requires a whole number from 1, got 'six'.",
    ),
    "time limit without a unit we know": (
        ("  seed: 3", "  time_limit: 3 weeks"),
        "sweep.yaml:11: search.time_limit: requires a time such as 90s, 30m, 2h or 1d, got '3 weeks'.",
    ),
    "rungs out of order": (
        ("  seed: 3", "  rungs: [1/3, 1/9, 1.0]"),
        "sweep.yaml:11: search.rungs: requires rungs in increasing order, got ['1/3', '1/9', 1.0].",
    ),
    "rung beyond the trial": (
        ("  seed: 3", "  rungs: [1/3, 1.5]"),
        "sweep.yaml:11: search.rungs.1: requires a number of tokens, or a share of the trial above 0 and up to 1 such as "
        "1/9; got 1.5.",
    ),
    "baseline outside the space": (
        ("baseline: {learning_rate: 1e-4}", "baseline: {learning_rate: 1.0}"),
        "sweep.yaml:8: baseline.learning_rate: 1.0 is outside the space: 1e-05 to 0.1 (log).",
    ),
    "baseline of a fixed setting": (
        ("baseline: {learning_rate: 1e-4}", "baseline: {learning_rate: 1e-4, tokens: 9}"),
        "sweep.yaml:8: baseline.tokens: is not searched; only searched settings vary. Known: learning_rate, model.dropout.",
    ),
    "baseline missing what has no default": (
        ("baseline: {learning_rate: 1e-4}", "baseline: {}"),
        "sweep.yaml:8: baseline: requires a value for learning_rate: trial 0 is what a sensible person would use without a "
        "search.",
    ),
    "condition on what is not searched": (
        ("step: 0.1}", "step: 0.1, when: {optimiser: adamw}}"),
        "sweep.yaml:5: space.model.dropout.when.optimiser: a condition names another searched setting; 'optimiser' is not "
        "searched. Known: learning_rate, model.dropout.",
    ),
    "condition that never holds": (
        ("  model.dropout:", "  optimizer: [adamw, sgd]\n  momentum: {low: 0, high: 1, when: {optimizer: adam}}\n  model.dropout:"),
        "sweep.yaml:6: space.momentum.when.optimizer: optimizer never is 'adam': it is one of adamw, sgd.",
    ),
    "conditions in a circle": (
        ("log: true}", "log: true, when: {model.dropout: 0.1}}"), ("step: 0.1}", "step: 0.1, when: {learning_rate: 0.01}}"),
        "sweep.yaml:3: space: conditions go in a circle: learning_rate, model.dropout.",
    ),
    "equal keys": (
        ("  tokens: 900", "  tokens: 900\n  tokens: 800"), 'sweep.yaml:8: not valid YAML: found duplicate key "tokens" '
        'with value "800" (original value: "900").',
    ),
    "bad indentation": (("  seed: 3", " seed: 3"), "sweep.yaml:11: not valid YAML: expected <block end>, but found '<block mapping start>'."),
    "python object": (
        ("  tokens: 900", "  tokens: !!python/object:os.system x"),
        "sweep.yaml:7: YAML tag tag:yaml.org,2002:python/object:os.system: tags are not allowed here.",
    ),
    "objective that is not there": (
        ("objective.py:train", "objectiv.py:train"), None,
    ),
    "objective without its function": (
        ("objective.py:train", "objective.py:trian"),
        "sweep.yaml:1: objective: objective.py has no function 'trian'. Did you mean 'train'?",
    ),
    "objective that does not yield": (
        ("objective.py:train", "objective.py:loss"),
        "sweep.yaml:1: objective: objective.py:loss is not a generator function: a trial function yields measurements while "
        "it trains.",
    ),
    "full run that is not allowed": (
        ("track: {}", "promote: {tokens: -1}"), "sweep.yaml:12: promote.tokens: should be greater than 0, got -1.",
    ),
    "slots that are no number": (
        ("track: {}", "launch: {slots: many}"),
        "sweep.yaml:12: launch.slots: requires a whole number from 1 or auto, got 'many'.",
    ),
    "infinity": (
        ("  tokens: 900", "  misbehave_above: .inf"), "sweep.yaml:7: requires a finite number, got inf.",
    ),
    "a date where a word is meant": (
        ("  tokens: 900", "  misbehave: 2020-01-01"), "sweep.yaml:7: 2020-01-01 is read as a date. Quote it.",
    ),
    "option of the wrong type": (
        ("  seed: 3", "  sampler: {name: tpe, n_startup_trials: abc}"),
        "sweep.yaml:11: search.sampler: tpe (n_startup_trials=abc): TypeError: '<' not supported between instances of "
        "'int' and 'str'.",
    ),
    "list of trackers that are no names": (
        ("track: {}", "track: [{mlflow: {}}]"),
        "sweep.yaml:12: track: requires a mapping of names to values, got [{'mlflow': {}}].",
    ),
    "tracker we do not have": (
        ("track: {}", "track: {mlfow: {}}"), "sweep.yaml:12: track.mlfow: no such key. Did you mean 'mlflow'?",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_each_kind_of_mistake_is_one_line_with_its_place(kind: str, write_sweep: Write) -> None:
    *changes, expected = BROKEN[kind]
    path = write_sweep(*changes)
    if expected is None:
        expected = f"sweep.yaml:1: objective: no file {path.parent / 'objectiv.py'}; a file's objective is found relative to its sweep."
    assert errors_of(path) == [expected]


def test_all_mistakes_come_at_once_in_the_order_of_their_lines(write_sweep: Write) -> None:
    path = write_sweep(
        ("  learning_rate: {low: 1e-5", "  learning_rate: {low: -1"),
        ("  tokens: 900", "  tokens: many"),
        ("trials: 6", "trials: 0"),
        ("direction: minimize", "direction: down"),
    )
    lines = [error.split(":")[1] for error in errors_of(path)]
    assert lines == ["2", "4", "7", "10"]


@pytest.mark.parametrize(
    ("entries", "wrong"),
    [
        (
            "[{name: validation/acuracy, direction: down}]",
            [
                "tradeoff.0.direction: requires minimize or maximize, got 'down'.",
                "tradeoff.0.name: objective.py:train does not measure 'validation/acuracy'. "
                "Did you mean 'validation/accuracy'?",
            ],
        ),
        (
            "[{name: 3, direction: minimize}, {name: validation/acuracy, direction: maximize}]",
            [
                "tradeoff.0.name: requires the name of a metric the objective measures, got 3.",
                "tradeoff.1.name: objective.py:train does not measure 'validation/acuracy'. "
                "Did you mean 'validation/accuracy'?",
            ],
        ),
        (
            "[{name: validation/accuracy, direction: up}, {name: validation/accuracy, direction: maximize}]",
            [
                "tradeoff.0.direction: requires minimize or maximize, got 'up'.",
                "tradeoff.1.name: validation/accuracy is there already; a metric is weighed against others.",
            ],
        ),
        (
            "[{name: validation/acuracy, direction: minimize}, {name: b, direction: minimize}, {name: c}]",
            [
                "tradeoff: requires a list of one or two metrics such as [{name: model/parameters, direction: minimize}], "
                "got [{'name': 'validation/acuracy', 'direction': 'minimize'}, {'name': 'b', 'direction': 'minimize'}, "
                "{'name': 'c'}].",
                "tradeoff.2.direction: requires minimize or maximize, got None.",
                "tradeoff.0.name: objective.py:train does not measure 'validation/acuracy'. "
                "Did you mean 'validation/accuracy'?",
                "tradeoff.1.name: objective.py:train does not measure 'b'. Known: validation/accuracy, validation/loss.",
                "tradeoff.2.name: objective.py:train does not measure 'c'. Known: validation/accuracy, validation/loss.",
            ],
        ),
    ],
)
def test_no_mistake_of_a_trade_off_hides_another(entries: str, wrong: list[str], write_sweep: Write) -> None:
    path = write_sweep(("track: {}", f"tradeoff: {entries}"), ("  seed: 3", "  sampler: tpe"))
    sampler = "search.sampler: tpe knows one metric, and there is a trade-off. Use one of auto, random, qmc, grid."
    assert errors_of(path) == [f"sweep.yaml:11: {sampler}", *(f"sweep.yaml:12: {one}" for one in wrong)]


def test_a_sampler_of_optunahub_is_loaded_from_its_registry(
    write_sweep: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optunahub.py").write_text(
        "import types, optuna\n"
        "def load_module(package):\n"
        "    if package != 'samplers/auto_sampler': raise LookupError(package)\n"
        "    return types.SimpleNamespace(AutoSampler=optuna.samplers.RandomSampler)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "optunahub", raising=False)
    path = write_sweep(("  seed: 3", "  sampler: optunahub:samplers/auto_sampler:AutoSampler"))
    assert plan(path.read_text(), path).sweep.search.sampler.name.endswith("AutoSampler")
    bad = write_sweep(("  seed: 3", "  sampler: optunahub:samplers/other:Best"))
    (error,) = errors_of(bad)
    assert error.startswith("sweep.yaml:11: search.sampler: optunahub:samplers/other could not be loaded: ")


def test_yaml_reads_numbers_and_words_as_written(write_sweep: Write) -> None:
    path = write_sweep(("low: 1e-5", "low: 1e-4"), ("  tokens: 900", "  tokens: 1_000\n  misbehave: no"))
    checked = plan(path.read_text(), path)
    dimension = checked.space.parameters[0].dimension
    assert isinstance(dimension, FloatRange)
    assert dimension.low == 1e-4
    assert checked.fixed == {"tokens": 1000, "misbehave": "no"}


def test_a_range_takes_its_kind_from_the_setting(write_sweep: Write) -> None:
    path = write_sweep(
        (
            "  model.dropout: {low: 0, high: 0.5, step: 0.1}",
            "  model.dropout: {low: 0, high: 1}\n  model.heads: [1, 2]",
        ),
        ("  tokens: 900", "  misbehave: ''"),
        ("  model.dropout", "  tokens: {low: 10, high: 90, step: 10}\n  model.dropout"),
        ("baseline: {", "baseline: {tokens: 10, model: {heads: 1}, "),
    )
    dimensions = {p.name: p.dimension for p in plan(path.read_text(), path).space.parameters}
    assert dimensions["model.dropout"] == FloatRange(0.0, 1.0)
    assert dimensions["tokens"] == IntRange(10, 90, step=10)
    assert dimensions["model.heads"] == Choices((1, 2))


def test_nested_and_dotted_settings_mean_the_same(write_sweep: Write) -> None:
    dotted = write_sweep(("  tokens: 900", "  model.width: 32\n  model.heads: 2"))
    first = plan(dotted.read_text(), dotted).fixed
    nested = write_sweep(("  tokens: 900", "  model: {width: 32, heads: 2}"))
    assert plan(nested.read_text(), nested).fixed == first == {"model.width": 32, "model.heads": 2}


def test_rungs_are_exact_shares_or_tokens() -> None:
    text = "objective: a:b\nmetric: {name: m, direction: minimize}\nspace: {x: [1]}\nsearch: {rungs: %s}"
    assert parse(text % "[1/9, 0.1, 1]", Path("s.yaml"))[1]  # out of order
    sweep, mistakes = parse(text % "[1/9, 1/3, 1.0]", Path("s.yaml"))
    assert not mistakes
    assert sweep.search.rungs == (Fraction(1, 9), Fraction(1, 3), Fraction(1))
    assert parse(text % "[100, 300]", Path("s.yaml"))[0].search.rungs == (100, 300)


def test_settings_on_the_command_line_replace_those_of_the_file(write_sweep: Write) -> None:
    path = write_sweep()
    checked = plan(
        path.read_text(), path, ["tokens=90", "search.trials=2", "model.width=8", "metric.direction=maximize"]
    )
    assert checked.fixed == {"tokens": 90, "model.width": 8}
    assert checked.sweep.search.trials == 2
    assert checked.sweep.metric.direction is Direction.MAXIMIZE


def test_a_mistake_on_the_command_line_says_which_flag(write_sweep: Write) -> None:
    assert errors_of(write_sweep(), "tokns=90") == [
        "--set tokns: fixed.tokns: no such setting of objective.py. Did you mean 'tokens'?"
    ]
    with pytest.raises(UserError, match="expected key=value"):
        plan("a: 1", Path("s.yaml"), ["tokens"])


def test_a_space_with_few_forbidden_combinations_is_allowed_with_a_warning(write_sweep: Write) -> None:
    path = write_sweep(("  model.dropout: {low: 0, high: 0.5, step: 0.1}", "  model.heads: [1, 3, 4]"))
    (warning,) = plan(path.read_text(), path).warnings
    assert "not divisible by model.heads 3" in warning


def test_an_empty_file_and_a_list_are_refused() -> None:
    for text in ("", "- 1"):
        with pytest.raises(SweepError, match="expected names with values"):
            parse(text, Path("s.yaml"))


def test_a_time_limit_has_a_unit(write_sweep: Write) -> None:
    for text, seconds in (("90s", 90), ("1.5h", 5400), ("2d", 172800), ("30", 30)):
        path = write_sweep(("  seed: 3", f"  time_limit: {text}"))
        limit = plan(path.read_text(), path).sweep.search.time_limit_seconds
        assert limit is not None
        assert math.isclose(limit, seconds)
