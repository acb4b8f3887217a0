"""How far all runs together are: a bar, a line for each that ends, and those that failed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from caev2.ablate.finding import Judging, final_scores
from caev2.ablate.grids import LOGGED
from caev2.ablate.one_run import Work
from caev2.ablate.outcome import Score
from caev2.ablate.plan import State
from caev2.progress import Progress


@dataclass(slots=True)
class Teller:
    """Tells how far all runs together are, and remembers those that failed."""

    progress: Progress
    states: Mapping[str, State]
    works: int
    judging: Judging
    ended: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """By fingerprint."""

    def begin(self) -> None:
        """One bar for all, in steps of training."""
        done, total = (sum(getattr(one, name) for one in self.states.values()) for name in ("steps", "total"))
        there = len(self.states) - self.works
        if there:
            self.progress.say(f"ablate: {there} of {len(self.states)} runs are there already")
        if self.works:
            self.progress.start("ablate", total, done)

    def trained(self, work: Work, steps: int) -> None:
        """Steps of any run."""
        del work
        self.progress.advance(steps, runs_left=self.works - self.ended)

    def finished(self, work: Work) -> None:
        """A line with the run's numbers."""
        scores = final_scores(work.folder, self.judging, work.planned.kinds, work.planned.steps)
        if not scores:
            self.failed(work, "it came to its end, and its result is not there. Run the same command again.")
            return
        self._end(work)
        self.progress.say(f"{self._place()} {work.planned.names[0]}: {say_scores(scores)}")

    def failed(self, work: Work, why: str) -> None:
        """A line with the reason."""
        self._end(work)
        self.failures[work.planned.fingerprint] = why
        self.progress.say(f"{self._place()} {work.planned.names[0]} failed: {why}")

    def warn(self, message: str) -> None:
        """Pass it on."""
        self.progress.warn(message)

    def end(self) -> None:
        """Close the bar."""
        self.progress.finish()

    @property
    def done(self) -> int:
        """How many runs came to their end, with numbers."""
        return self.ended - len(self.failures)

    def _end(self, work: Work) -> None:
        del work
        self.ended += 1
        self.progress.advance(0, runs_left=self.works - self.ended)

    def _place(self) -> str:
        return f"[{self.ended}/{self.works}]"


def say_scores(scores: Mapping[str, Score]) -> str:
    """What the probes say of a run, in percent: `knn 63.2 (61.9-64.5), 5-shot 40.1`."""
    return ", ".join(f"{name} {_say(score)}" for name, score in scores.items() if name not in LOGGED)


def _say(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"
