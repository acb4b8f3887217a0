"""What the stores of the runs hold, and how faithful their codecs are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from caev2.ablate.stored import StoredTarget
from caev2.report.drawing.markup import Child, Html, joined, tag
from caev2.report.reading.chain import Check
from caev2.report.reading.files import Gap
from caev2.report.reading.grid_runs import check_digest
from caev2.report.reading.runs import RunFolder
from caev2.report.reading.stores import StoreFolder
from caev2.report.reading.studies import Grid
from caev2.report.reproducing.grids import grid_command
from caev2.report.sections.provenance import say_mark
from caev2.report.sections.section import Section, facts, table
from caev2.store.codecs.quality import Figures, Quality
from caev2.store.disk import say_bytes
from caev2.store.manifest import Manifest


def stores_section(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder], grids: Sequence[Grid] = ()) -> Section:
    """The store of every run, of runs that share one, once; and what grids recorded of theirs.

    Args:
        runs: In the order of the page.
        stores: By the name of the run.
        grids: In the order of the page.
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
    targets = dict.fromkeys(one for grid in grids if grid.outcome is not None for one in grid.outcome.targets)
    if targets:
        body += [tag("h3", "Stores of the grids")] if runs else []
        body += _recorded(list(targets), grids)
    return Section(
        id="store",
        title="Store quality",
        about="The targets that the student learned: what was kept of the teacher’s latents, and what a codec lost.",
        body=tuple(body),
        gaps=(*_gaps(runs, stores), *_unrecorded(grids)),
    )


def _gaps(runs: Sequence[RunFolder], stores: Mapping[str, StoreFolder]) -> tuple[Gap, ...]:
    """What is missing; of several runs, each says of which."""
    found = [(run.name, gap) for run in runs for gap in stores[run.name].gaps]
    return tuple(gap if len(runs) == 1 else replace(gap, what=f"{name}: {gap.what}") for name, gap in found)


def _unrecorded(grids: Sequence[Grid]) -> tuple[Gap, ...]:
    """Grids of an older version, which did not record it."""
    return tuple(
        Gap(
            what=f"Nothing was recorded of the stores of {grid.called(grid.name)}. The same command records it, "
            "and does no run again.",
            command=grid_command(grid.outcome).line,
        )
        for grid in grids
        if grid.outcome is not None and not grid.outcome.targets
    )


def _recorded(targets: Sequence[StoredTarget], grids: Sequence[Grid]) -> list[Html]:
    """A line for each target that grids learned from, and what its words mean."""
    head = ("store", "target", "codec", "row", "error, class", "error, patches", "centred cosine", "digest")
    largest = {
        name: max(one.row_bytes for one in targets if one.target == name) for name in {t.target for t in targets}
    }
    rows = [_recorded_row(one, largest[one.target], check_digest(one, grids)) for one in targets]
    about = (
        "As the grids recorded it; shares of a row are of the target’s largest. Errors are ‖x − x̂‖² / ‖x − mean‖², "
        "centred cosines those of the patches’ x − mean and x̂ − mean, on images that did not calibrate the codec; a "
        "codec that learns nothing from images was not measured. The digest is the store’s root digest, compared with "
        "those in the run.json of the runs that learned from it."
    )
    return [table(head, rows, about="Targets of the grids’ stores", words=3), tag("p", about, class_="note")]


def _recorded_row(one: StoredTarget, largest: int, check: Check) -> tuple[Child, ...]:
    class_token, patches = (None, None) if one.quality is None else (one.quality.class_token, one.quality.patch_tokens)
    cosine = "–"
    if patches is not None:
        low = tag("small", f"1st percentile {patches.centred_cosine_p1:.4f}")
        cosine = joined([f"{patches.centred_cosine_mean:.4f}", low], " ")
    return (
        joined([one.store, tag("small", f"{one.images:,} images × {one.views}")], " "),
        one.target,
        one.codec,
        joined([say_bytes(one.row_bytes), tag("small", f"{100 * one.row_bytes / largest:.3g} %")], " "),
        _say_error(class_token),
        _say_error(patches),
        cosine,
        joined([tag("code", one.digest[:16]), say_mark(check)], " "),
    )


def _say_error(figures: Figures | None) -> str:
    error = None if figures is None else figures.relative_error
    return "–" if error is None else f"{100 * error:.3g} %"


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
    cosines = (figures.cosine_mean, figures.cosine_p1, figures.centred_cosine_mean, figures.centred_cosine_p1)
    return (f"{figures.tokens:,}", _say_error(figures), *(f"{one:.4f}" for one in cosines))
