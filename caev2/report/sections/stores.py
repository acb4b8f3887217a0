"""What the stores of the runs hold, and how faithful their codecs are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from caev2.report.drawing.markup import Html, tag
from caev2.report.reading.files import Gap
from caev2.report.reading.runs import RunFolder
from caev2.report.reading.stores import StoreFolder
from caev2.report.sections.section import Section, facts, table
from caev2.store.codecs.quality import Figures, Quality
from caev2.store.disk import say_bytes
from caev2.store.manifest import Manifest


def stores_section(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder]) -> Section:
    """The store of every run; of runs that share one, once.

    Args:
        runs: In the order of the page.
        stores: By the name of the run.
    """
    body: list[Html] = []
    known = set()
    for run in runs:
        store = stores[run.name]
        if store.manifest is None or (digest := store.manifest.root_digest or store.manifest.source_digest) in known:
            continue
        known.add(digest)
        body += [tag("h3", f"Store of {run.name}")] if len(runs) > 1 else []
        body += _show(store.manifest, store.quality)
    return Section(
        id="store",
        title="Store quality",
        about="The targets that the student learned: what was kept of the teacher’s latents, and what a codec lost.",
        body=tuple(body),
        gaps=_gaps(runs, stores),
    )


def _gaps(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder]) -> tuple[Gap, ...]:
    """What is missing; of several runs, each says of which."""
    found = [(run.name, gap) for run in runs for gap in stores[run.name].gaps]
    return tuple(gap if len(runs) == 1 else replace(gap, what=f"{name}: {gap.what}") for name, gap in found)


def _show(manifest: Manifest, quality: Mapping[str, Quality | None]) -> list[Html]:
    views = manifest.spec.views
    failed = f", {len(manifest.failures):,} undecodable" if manifest.failures else ""
    total = sum(one.row_bytes for one in manifest.spec.targets.values()) * manifest.images * manifest.views
    pairs = [
        ("images", f"{manifest.images:,}{failed}"),
        ("views of each", f"{manifest.views}"),
        ("crops", f"{views.size_px} px, {views.scale[0]:g}–{views.scale[1]:g} of the area"),
        ("jitter, flip", f"{'none' if views.jitter is None else f'{views.jitter:g}'}, {views.flip:g}"),
        ("crops kept", manifest.spec.crops or "no"),
        ("state", manifest.state),
        ("layout", manifest.layout),
        ("latents", say_bytes(total)),
    ]
    head = ("target", "teacher", "tap", "codec", "tokens × width", "row")
    rows = [
        (
            name,
            str(one.teacher.get("name", "?")),
            one.tap,
            one.codec,
            f"{one.tokens} × {one.width}",
            say_bytes(one.row_bytes),
        )
        for name, one in manifest.spec.targets.items()
    ]
    return [facts(pairs), table(head, rows, about="Targets of the store", words=4), *_quality(manifest, quality)]


def _quality(manifest: Manifest, quality: Mapping[str, Quality | None]) -> list[Html]:
    lines = []
    for name, found in quality.items():
        kinds = () if found is None else (("class token", found.class_token), ("patches", found.patch_tokens))
        lines += [(name, kind, *_say(figures)) for kind, figures in kinds if figures is not None]
    parts = []
    if lines:
        head = (
            "target",
            "tokens of",
            "measured",
            "relative error",
            "cosine",
            "1st percentile",
            "centred",
            "1st percentile",
        )
        parts.append(table(head, lines, about="How faithful the codec is", words=2))
    exact = [name for name, one in manifest.spec.targets.items() if quality.get(name) is None]
    if exact:
        codecs = ", ".join(sorted({manifest.spec.targets[name].codec for name in exact}))
        parts.append(
            tag(
                "p",
                f"{', '.join(exact)}: nothing to measure; rows are {codecs}, without learned tables.",
                class_="images",
            )
        )
    return parts


def _say(figures: Figures) -> tuple[str, ...]:
    error = "–" if figures.relative_error is None else f"{100 * figures.relative_error:.2f} %"
    cosines = (figures.cosine_mean, figures.cosine_p1, figures.centred_cosine_mean, figures.centred_cosine_p1)
    return (f"{figures.tokens:,}", error, *(f"{one:.4f}" for one in cosines))
