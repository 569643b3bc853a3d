"""A probe: a few steps of the configurations that tell most about what a sweep will cost.

Which settings are costly is found by measuring: the baseline first, then one setting at a time at its ends, all
real numbers at once (they seldom cost anything), the costliest ends together, and some random draws. Knows a
plan and a launcher; nothing of what is trained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from hpo.corners import Values, configuration, ends
from hpo.errors import HpoError
from hpo.launch import Begun, Finished, Job, Launcher, Report
from hpo.launch.devices import Layout, cores, gpus, layout
from hpo.launch.processes import Processes
from hpo.pace import Look, Trace, is_enough, pace, stages
from hpo.plan import Plan
from hpo.schema import Invalid
from hpo.space import FloatRange
from hpo.trials import Ending, Outcome, Rung
from hpo.wording import duration, number

REALS = 4  #: real numbers measured one at a time at an end where all of them together cost something, at most
DRAWS = 3  #: random configurations
WHOLE_SECONDS = 60.0  #: a baseline that needs no longer is trained in full
SILENT_SECONDS = 600.0  #: without a measurement, after which a configuration is given up
_NOTABLE = 0.2  # a cost of a fifth more; less is the machine's own doing
_SHARES = tuple(Fraction(1, part) for part in (300, 100, 50, 25, 10, 5))


@dataclass
class Probed:
    """One configuration and what was seen of it.

    Attributes:
        what: what is special about it, in words.
        changed: the setting that alone is not the baseline's; "" where it is not one alone.
        seconds: what a whole trial of it takes; None where it cannot be said.
        rate: progress a second while it trains.
        memory: GiB at most, where the objective measures that.
        trouble: how it went wrong, or None.
    """

    what: str
    values: Values
    changed: str = ""
    seconds: float | None = None
    rate: float | None = None
    memory: float | None = None
    trouble: Outcome | None = None


@dataclass
class Findings:
    """All that a probe found.

    Attributes:
        probed: the baseline first.
        stages: of the baseline, seconds at each of its measurements as shares of the whole.
        incomparable: how many of the first of them lie in its warm-up, where no trial is stopped.
        crowding: how many times longer a trial takes when every slot that shares its device is busy.
        drift: how many times longer the baseline took at the end of the probe than at its beginning.
        overhead: seconds a trial holds its slot beyond its own time.
        whole: whether the baseline was trained in full.
        left_out: ends that were not measured, in words.
    """

    probed: list[Probed] = field(default_factory=list)
    stages: tuple[float, ...] = (1.0,)
    incomparable: int = 0
    crowding: float = 1.0
    drift: float = 1.0
    overhead: float = 0.0
    whole: bool = False
    left_out: list[str] = field(default_factory=list)

    @property
    def baseline(self) -> Probed:
        return self.probed[0]


class Probe:
    """Runs configurations in one slot, each for as long as it takes to know its pace.

    Args:
        plan: the checked sweep.
        launcher: with free slots; jobs run in slot 0, and in `shared` at last.
        folder: an empty one; what is in it afterwards is of no use.
        shared: slots on the same device as slot 0, itself among them.
        clock: monotonic seconds.
    """

    def __init__(
        self, plan: Plan, launcher: Launcher, folder: Path, shared: Sequence[int], clock: Callable[[], float]
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._folder = folder
        self._shared = tuple(shared)
        self._clock = clock
        self._jobs = 0
        self._length: int | None = None
        self._patience = 1.0
        self._training = self._validating = 1.0  # the baseline in full against its beginning
        self.findings = Findings()

    def run(self) -> Iterator[Probed]:
        """Measure one configuration after the other, each yielded as soon as it is known.

        Raises:
            HpoError: nothing can be said, because the baseline does not measure.
        """
        plan, findings = self._plan, self.findings
        yield self._baseline()
        chosen, findings.left_out = ends(plan)
        for name, value in chosen:
            yield from self._measure(f"{name} {value}", {name: value}, name)
        yield from self._reals()
        for what, values in self._together():
            yield from self._measure(what, values)
        generator = random.Random(plan.sweep.search.seed)
        for draw in range(DRAWS):
            yield from self._measure(f"random {draw + 1}", self._draw(generator), exact=True)
        self._again()

    # -- which ------------------------------------------------------------------------------------------

    def _reals(self) -> Iterator[Probed]:
        """All real numbers at their high ends, and at their low ones; one by one only if that costs something."""
        reals = [p for p in self._plan.space.parameters if isinstance(p.dimension, FloatRange)]
        for which, word in ((1, "high"), (0, "low")):
            values = {p.name: p.dimension.ends()[which] for p in reals}
            if len(reals) > 1:
                found = list(self._measure(f"all real numbers {word}", values))
                yield from found
                seconds, base = found[0].seconds if found else None, self.findings.baseline.seconds
                if seconds is None or base is None or abs(math.log(seconds / base)) < _NOTABLE:
                    continue
            for name, value in list(values.items())[:REALS]:
                yield from self._measure(f"{name} {number(value)}", {name: value}, name)

    def _together(self) -> list[tuple[str, Values]]:
        """The end of each setting that took longest, together; and those that took most memory, if others."""
        found: list[tuple[str, Values]] = []
        for word, measured in (("slowest", _seconds), ("largest", _memory)):
            most = {}
            least = measured(self.findings.baseline)
            alone = [probed for probed in self.findings.probed if probed.changed and probed.trouble is None]
            for probed in sorted(alone, key=measured):
                if measured(probed) > least:
                    most[probed.changed] = probed.values[probed.changed]
            if len(most) > 1 and most not in [earlier for _, earlier in found]:
                found.append((f"the {word} together", most))
        return found

    def _draw(self, generator: random.Random) -> Values:
        values: Values = {}
        for _ in range(100):
            values = self._plan.space.draw(generator)
            if self._refusal(values) is None:
                break
        return values

    def _refusal(self, values: Values) -> str | None:
        try:
            self._plan.objective.config(self._plan.settings(values))
        except Invalid as error:
            return str(error)
        return None

    # -- measuring --------------------------------------------------------------------------------------

    def _measure(self, what: str, given: Values, changed: str = "", exact: bool = False) -> Iterator[Probed]:
        """Measure a configuration, unless the same has been measured."""
        values = given if exact else configuration(self._plan, given)
        if any(dict(probed.values) == dict(values) for probed in self.findings.probed):
            return
        probed = Probed(what, values, changed)
        self.findings.probed.append(probed)
        if (refusal := self._refusal(values)) is not None:
            probed.trouble = Outcome(Ending.FAILED, refusal)
        else:
            self._judge(probed, self._traces(values, (0,))[0])
        yield probed

    def _judge(self, probed: Probed, trace: Trace) -> None:
        probed.memory = trace.memory
        if trace.outcome is not None and trace.outcome.ending is not Ending.COMPLETE:
            probed.trouble = trace.outcome
        if (found := pace(trace)) is None:
            probed.trouble = probed.trouble or Outcome(Ending.HUNG, f"no measurement in {duration(SILENT_SECONDS)}")
            return
        probed.rate = found.rate
        if trace.outcome is not None and trace.outcome.ending is Ending.COMPLETE:
            length = trace.looks[-1].progress
        else:
            length = trace.length or self._length or trace.looks[-1].progress
        points = stages(self._plan.rungs, length) if trace.length else [length]
        training, validating = length / found.rate, len(points) * found.validation
        probed.seconds = found.start + self._training * training + self._validating * validating

    def _baseline(self) -> Probed:
        """The baseline, in full where that does not take long: the others are then known by their beginnings."""
        plan, findings = self._plan, self.findings
        probed = Probed("baseline", plan.baseline)
        findings.probed.append(probed)
        trace = self._traces(plan.baseline, (0,), whole=True)[0]
        complete = trace.outcome is not None and trace.outcome.ending is Ending.COMPLETE
        if not trace.looks or (trace.outcome is not None and not complete):
            reason = (
                "it measured nothing" if trace.outcome is None else f"{trace.outcome.ending}: {trace.outcome.reason}"
            )
            raise HpoError(f"the baseline cannot be probed, so nothing can be forecast: {reason}")
        if not complete and trace.length is None:
            raise HpoError(
                f"{plan.objective.name} does not say how long a trial is, and the baseline took longer than "
                f"{WHOLE_SECONDS:.0f} s, so nothing can be forecast. Add a function length(config) beside it."
            )
        self._length = trace.looks[-1].progress if complete else trace.length
        assert self._length is not None
        findings.whole, findings.overhead = complete, trace.overhead
        self._judge(probed, _beginning(trace, self._length))
        probed.memory = trace.memory
        if complete:
            self._calibrate(trace, probed)
        else:
            self._stages_forecast(trace, probed)
        return probed

    def _calibrate(self, trace: Trace, probed: Probed) -> None:
        """Learn from the whole baseline what its beginning did not tell."""
        assert self._length is not None
        begun, points = pace(_beginning(trace, self._length)), set(stages(self._plan.rungs, self._length))
        assert begun is not None
        extra = 0.0
        shares = list[float]()
        spent = list[float]()
        for look in trace.looks:
            took = look.metrics.get("validation/seconds", begun.validation)
            if trace.length is not None and look.progress not in points:
                extra += took
            else:
                spent.append(took)
                shares.append(look.seconds - extra)
                self.findings.incomparable += look.progress <= trace.warmup
        probed.seconds = trace.seconds - extra
        self.findings.stages = (*(share / probed.seconds for share in shares[:-1]), 1.0)
        if begun.validation > 0:
            self._validating = sum(spent) / (len(spent) * begun.validation)
        training = probed.seconds - begun.start - sum(spent) * (begun.validation > 0)
        self._training = max(0.2, min(5.0, training * begun.rate / self._length))

    def _stages_forecast(self, trace: Trace, probed: Probed) -> None:
        found, length = pace(trace), self._length
        if found is not None and length is not None and probed.seconds:
            points = stages(self._plan.rungs, length)
            shares = [found.seconds(point, count) / probed.seconds for count, point in enumerate(points, 1)]
            self.findings.stages = (*shares[:-1], 1.0)
            self.findings.incomparable = sum(point <= trace.warmup for point in points)

    def _again(self) -> None:
        """The baseline once more, then in every slot of its device at once: is the machine as fast, and when full?"""
        findings, before = self.findings, self.findings.baseline
        self._patience = 2.0  # all of the forecast is multiplied by what is found here
        alone = self._rate((0,))
        if before.rate and alone:
            findings.drift = before.rate / alone
            before_and_after = math.sqrt(before.rate * alone)
            if len(self._shared) > 1 and (crowded := self._rate(self._shared)):
                findings.crowding = max(1.0, before_and_after / crowded)

    def _rate(self, slots: Sequence[int]) -> float | None:
        """How fast the baseline begins in each of these slots, busy all at once."""
        traces = self._traces(self.findings.baseline.values, slots)
        found = [made.rate for trace in traces if (made := pace(trace)) is not None]
        return sum(found) / len(found) if len(found) == len(slots) else None

    # -- running ----------------------------------------------------------------------------------------

    def _traces(self, values: Values, slots: Sequence[int], whole: bool = False) -> list[Trace]:
        """Run a configuration in each of these slots at once until each has shown enough."""
        open_: dict[int, Trace] = {}
        began = self._clock()
        for slot in slots:
            number = self._jobs = self._jobs + 1
            directory, log = self._folder / str(number), self._folder / f"{number}.log"
            seed = self._plan.sweep.search.seed
            job = Job(number, self._plan.settings(values), seed, self._rungs(whole), directory, log)
            self._launcher.start(job, slot)
            open_[number] = Trace()
        traces = list(open_.values())
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
            self._watch(open_, began, whole)
        return traces

    def _watch(self, open_: dict[int, Trace], began: float, whole: bool) -> None:
        traces = list(open_.values())
        while open_:
            for happened in self._launcher.wait(1.0):
                if happened.number not in open_:
                    continue
                trace = open_[happened.number]
                match happened:
                    case Begun(_, length):
                        trace.length = length
                    case Finished(number, outcome, seconds):
                        trace.outcome, trace.seconds = outcome, seconds
                        trace.overhead = max(0.0, self._clock() - began - seconds)
                        del open_[number]
                    case Report(number, measurement, seconds, length, warmup):
                        trace.length, trace.warmup = length, warmup
                        trace.looks.append(Look(measurement.progress, seconds, measurement.metrics))
                        if self._all_seen(traces, began, whole):
                            return
                        self._launcher.answer(number, go_on=True)
            if self._clock() - began > SILENT_SECONDS and any(not trace.looks for trace in traces):
                return

    def _all_seen(self, traces: Sequence[Trace], began: float, whole: bool) -> bool:
        for trace in traces:
            length = trace.length or self._length
            if trace.outcome is None and not is_enough(trace, length, self._clock() - began, self._patience):
                return False
        if not whole:
            return True
        # Goes on to its end, if that is not far.
        trace = traces[0]
        if trace.length is None:
            return self._clock() - began > WHOLE_SECONDS
        found = pace(trace)
        return found is None or found.seconds(trace.length, len(self._plan.rungs)) > WHOLE_SECONDS

    def _rungs(self, whole: bool) -> tuple[Rung, ...]:
        if not self._plan.objective.has("length"):
            return tuple(self._plan.rungs)
        # Rungs in tokens and shares cannot be told apart by size; each is resolved by the trial's own length.
        return tuple(sorted({*_SHARES, *(self._plan.rungs if whole else ())}, key=lambda rung: (rung > 1, rung)))

    def _end(self) -> None:
        """End what still runs: a trial told to stop would write a checkpoint that nobody wants."""
        self._launcher.kill()
        while len(self._launcher.free) < self._launcher.slots:
            for _ in self._launcher.wait(1.0):
                pass


def _seconds(probed: Probed) -> float:
    return probed.seconds or 0.0


def _memory(probed: Probed) -> float:
    return probed.memory or 0.0


def _beginning(trace: Trace, length: int) -> Trace:
    """The part of a trace that another configuration's probe would have seen."""
    tenth = length // 10
    looks = [look for look in trace.looks if look.progress <= tenth]
    if len(looks) < 2 or trace.length is None:
        return trace
    return Trace(looks, trace.length)


@contextlib.contextmanager
def probing(plan: Plan, slots: int | None) -> Iterator[tuple[Probe, Layout]]:
    """A probe on this machine, its data prepared, and how the sweep would lie on it. Nothing is left afterwards.

    Raises:
        HpoError: the objective cannot be imported, or its data is refused.
    """
    launch = plan.sweep.launch if slots is None else dataclasses.replace(plan.sweep.launch, slots=slots)
    shape = layout(launch, gpus(), cores())
    with tempfile.TemporaryDirectory(prefix="hpo-probe-") as name:
        folder = Path(name)
        launcher = Processes(
            plan.objective.name,
            plan.sweep.path.parent,
            slots=shape.slots,
            threads=shape.threads,
            gpus=shape.gpus,
            log=folder / "server.log",
            where=Path.cwd(),
            memory_bytes=None if launch.memory_gib is None else int(launch.memory_gib * 2**30),
        )
        with contextlib.closing(launcher):
            launcher.ready()
            if plan.objective.has("prepare"):
                launcher.call("prepare", plan.settings(plan.baseline), folder / "prepare.log")
            shared = range(0, shape.slots, max(1, len(shape.gpus)))
            yield Probe(plan, launcher, folder, shared, time.monotonic), shape
