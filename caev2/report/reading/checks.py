"""Where a number comes from: result, checkpoint, run, store, teacher, each compared with what lies at hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from caev2.errors import CheckpointError
from caev2.eval.entrants import sha256_of_file
from caev2.pretrain.weights.checkpoint import list_checkpoints
from caev2.report.reading.files import without_folders
from caev2.report.reading.results import Result
from caev2.report.reading.runs import RunFolder, checkpoint_fingerprint
from caev2.report.reading.stores import StoreFolder

Mark = Literal["agrees", "differs", "older", "not at hand"]
_BY_ALARM: tuple[Mark, ...] = ("differs", "older", "not at hand", "agrees")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One comparison."""

    mark: Mark
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One box of the chain."""

    kind: str
    title: str
    hashes: tuple[tuple[str, str], ...]
    """Names and values."""
    about: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


def worst(checks: tuple[Check, ...]) -> Mark:
    """The mark that one has to know of."""
    found: list[Mark] = [mark for mark in _BY_ALARM if any(check.mark == mark for check in checks)]
    return found[0] if found else "not at hand"


def compared(words: str, recorded: object, found: object) -> Check:
    """A check of two values that ought to be equal; one that is empty is not at hand."""
    if not recorded or not found:
        return Check(mark="not at hand", words=words)
    return Check(mark="agrees" if recorded == found else "differs", words=words)


def result_links(run: RunFolder) -> tuple[Link, ...]:
    """A box for each file of results."""
    return tuple(_result_link(run, result) for result in run.results)


def _result_link(run: RunFolder, result: Result) -> Link:
    hashes = [("checkpoint", str(result.facts["checkpoint_sha256"]))] if "checkpoint_sha256" in result.facts else []
    if result.kind == "finetune":
        protocol = result.content["subjects"][0]["protocol"].get("finetune", {})
        checks = [
            compared(
                "it is of the fine-tuning in its folder", protocol.get("fingerprint"), result.claim.get("fingerprint")
            )
        ]
        hashes = [("fine-tuning", str(protocol.get("fingerprint", "not recorded")))]
        if result.entries[0].role in ("student", "random start") and not result.facts:
            checks.append(Check(mark="not at hand", words="it does not record which run it started from"))
    else:
        checks = []
    if result.facts:
        checks += _check_facts(run, result)
    return Link(
        kind="result",
        title=result.file,
        hashes=tuple(hashes),
        about=(", ".join(result.evaluations),),
        checks=tuple(checks),
    )


def _check_facts(run: RunFolder, result: Result) -> list[Check]:
    identity, facts = run.identity, result.facts
    checks = [compared("it judges this run", facts.get("fingerprint"), identity and identity.fingerprint())]
    checks.append(compared("its store is the run’s", facts.get("store_digest"), identity and identity.store_digest))
    return [*checks, *_check_checkpoint(run.path, facts.get("step"), facts.get("checkpoint_sha256"))]


def _check_checkpoint(run: Path, step: object, sha256: object) -> list[Check]:
    kept = {one.step: one.path for one in list_checkpoints(run / "checkpoints")}
    latest = max(kept, default=None)
    checks = []
    if isinstance(step, int) and latest is not None and step != latest:
        checks.append(
            Check(mark="older", words=f"it was made at step {step:,}; the latest checkpoint is of step {latest:,}")
        )
    found = kept.get(step) if isinstance(step, int) else None
    if found is None:
        return [*checks, Check(mark="not at hand", words="the checkpoint that it judges is no longer there")]
    return [*checks, compared(f"the checkpoint of step {step:,} has this sha256", sha256, _sha256(found))]


def _sha256(path: Path) -> str | None:
    try:
        return sha256_of_file(path)
    except CheckpointError:
        return None


def chain_of(run: RunFolder, store: StoreFolder) -> tuple[Link, ...]:
    """Checkpoint, run, store and teacher."""
    return (_checkpoint_link(run), _run_link(run), _store_link(run, store), _teacher_link(run, store))


def _checkpoint_link(run: RunFolder) -> Link:
    kept = list_checkpoints(run.path / "checkpoints")
    if not kept:
        check = Check(mark="not at hand", words="no checkpoint lies in the run")
        return Link(kind="checkpoint", title="no checkpoint", hashes=(), checks=(check,))
    latest = kept[-1]
    check = compared(
        "its header names this run", checkpoint_fingerprint(latest.path), run.identity and run.identity.fingerprint()
    )
    others = f"{len(kept)} kept" if len(kept) > 1 else "the only one kept"
    return Link(
        kind="checkpoint",
        title=f"step {latest.step:,}",
        hashes=(("sha256", _sha256(latest.path) or "cannot be read"),),
        about=(others,),
        checks=(check,),
    )


def _run_link(run: RunFolder) -> Link:
    if run.identity is None:
        return Link(
            kind="run",
            title=run.name,
            hashes=(),
            checks=(Check(mark="differs", words="run.json does not hold its fingerprint"),),
        )
    recipe, check = run.identity.recipe, Check(mark="agrees", words="run.json holds its fingerprint")
    length = f"{recipe.get('epochs', '?')} epochs, {recipe.get('batch_size', '?')} images a step"
    about = f"seed {recipe.get('seed', 0)}, {length}"
    return Link(
        kind="run",
        title=run.name,
        hashes=(("fingerprint", run.identity.fingerprint()),),
        about=(about,),
        checks=(check,),
    )


def _store_link(run: RunFolder, store: StoreFolder) -> Link:
    identity, manifest = run.identity, store.manifest
    hashes = (
        []
        if identity is None
        else [("fingerprint", identity.store_fingerprint), ("root digest", identity.store_digest)]
    )
    checks = (
        compared(
            "its spec has this fingerprint",
            identity and identity.store_fingerprint,
            manifest and manifest.spec.fingerprint(),
        ),
        compared(
            "it is sealed under this digest", identity and identity.store_digest, manifest and manifest.root_digest
        ),
    )
    if identity is not None and not identity.store_fingerprint:
        checks = (Check(mark="not at hand", words="the run was not trained on a store"),)
    about = () if manifest is None else (f"{manifest.images:,} images × {manifest.views} views, {manifest.layout}",)
    return Link(
        kind="store",
        title="targets and views",
        hashes=tuple((name, value) for name, value in hashes if value),
        about=about,
        checks=checks,
    )


def _teacher_link(run: RunFolder, store: StoreFolder) -> Link:
    recorded = {} if run.identity is None else run.identity.target.get("teacher", {})
    target = "" if run.identity is None else run.identity.recipe.get("target", "")
    spec = None if store.manifest is None else store.manifest.spec.targets.get(target)
    check = compared("the store names the same weights", recorded.get("sha256"), spec and spec.teacher.get("sha256"))
    tap = "" if run.identity is None else f"taken at {run.identity.target.get('tap', '?')}"
    hashes = (("sha256", str(recorded["sha256"])),) if recorded.get("sha256") else ()
    return Link(
        kind="teacher",
        title=without_folders(str(recorded.get("name", "not recorded"))),
        hashes=hashes,
        about=(tap,),
        checks=(check,),
    )
