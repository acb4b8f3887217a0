"""Loss and cosines over the steps, judgements on the way, and how fast the steps came."""

from collections.abc import Sequence
from typing import Any

from caev2.report.drawing.frame import figure
from caev2.report.drawing.lines import Line, line_chart
from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.runs import RunFolder
from caev2.report.sections.section import Section, charts, gaps_of

_LARGEST = 1e300  # what lies beyond, infinity too, and what is no number, is not drawn
_KINDS = (("class", "green"), ("visible", "blue"), ("masked", "orange"))


def curves_section(runs: Sequence[RunFolder]) -> Section:
    """The curves of every run that has a log."""
    body = []
    for run in runs:
        drawn = _charts_of(run)
        if drawn:
            body += [tag("h3", run.name) if len(runs) > 1 else None, charts(drawn)]
    return Section(
        id="curves",
        title="Curves",
        about="What steps said when they were made. The loss was minimised; a cosine of 1 is the teacher’s latent.",
        body=tuple(one for one in body if one is not None),
        gaps=gaps_of(runs, "curves"),
    )


def _charts_of(run: RunFolder) -> list[Html]:
    drawn = []
    if (loss := _line(run.steps, "loss", "", "grey")) is not None:
        drawn.append(figure(line_chart([loss], title="Loss", from_zero=True), "Loss", _say_loss(run)))
    cosines = [_line(run.steps, f"cosine_{kind}", kind, colour) for kind, colour in _KINDS]
    if known := [line for line in cosines if line is not None]:
        chart = line_chart(known, title="Cosine to the teacher's latents", ceiling=1.0)
        drawn.append(figure(chart, "Cosine to the teacher’s latents", "by kind of token"))
    if (judged := _line(run.records, "knn_percent", "", "blue")) is not None:
        chart = line_chart([judged], title="Nearest neighbours while training", unit=" %", digits=1)
        drawn.append(figure(chart, "Nearest neighbours", "accuracy while training"))
    if (speed := _line(run.steps, "images_per_s", "", "sky")) is not None:
        chart = line_chart([speed], title="Images a second", digits=0, from_zero=True)
        drawn.append(figure(chart, "Images a second", "of the machine that trained"))
    if (wait := _line(run.steps, "data_wait_percent", "", "purple")) is not None:
        chart = line_chart([wait], title="Waiting for data", unit=" %", digits=0, from_zero=True)
        drawn.append(figure(chart, "Waiting for data", "share of the time of a step"))
    return drawn


def _line(records: Sequence[dict[str, Any]], key: str, name: str, colour: str) -> Line | None:
    points = tuple((float(record["step"]), _number(record[key])) for record in records if key in record)
    return Line(name=name, colour=colour, points=points) if any(y is not None for _, y in points) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < _LARGEST else None


def _say_loss(run: RunFolder) -> str:
    skipped = sum(record.get("applied") is False for record in run.steps)
    settings = {} if run.identity is None else run.identity.recipe.get("loss", {})
    what = {"cosine": "1 − cosine, mean over tokens"}.get(settings.get("distance", "cosine"), settings.get("distance"))
    return f"{what}; {skipped} told steps were skipped" if skipped else str(what)
