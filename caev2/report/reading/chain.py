"""Where a number comes from: result, checkpoint, run, store, teacher, each compared with what lies at hand."""

from collections.abc import Set
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
    facts = result.facts
    hashes = [("checkpoint", facts["checkpoint_sha256"])] if facts else []
    checks: list[Check] = []
    if result.kind == "finetune":
        named = result.content["subjects"][0].get("protocol", {}).get("finetune", {}).get("fingerprint")
        hashes = [("fine-tuning", str(named or "not recorded"))]
        checks = _check_tuning(result, named)
    if facts:
        checks += _check_facts(run, result)
    return Link(
        kind="result",
        title=result.file,
        hashes=tuple(hashes),
        about=(", ".join(result.evaluations),),
        checks=tuple(checks),
    )


def _check_tuning(result: Result, named: object) -> list[Check]:
    if result.claim is None:
        checks = [Check(mark="differs", words="the finetune.json beside it does not hold its fingerprint")]
    else:
        checks = [compared("it is of the fine-tuning in its folder", named, result.claim.get("fingerprint"))]
    if result.entries[0].role in ("student", "random start") and not result.facts:
        checks.append(Check(mark="not at hand", words="it does not record which run it started from"))
    return checks


def _check_facts(run: RunFolder, result: Result) -> list[Check]:
    identity, facts = run.identity, result.facts
    checks = [compared("it judges this run", facts.get("fingerprint"), identity and identity.fingerprint())]
    checks.append(compared("its store is the run’s", facts.get("store_digest"), identity and identity.store_digest))
    return [*checks, *_check_checkpoint(run, facts["step"], facts["checkpoint_sha256"])]


def _check_checkpoint(run: RunFolder, step: int, sha256: str) -> list[Check]:
    kept = {one.step: one.path for one in list_checkpoints(run.path / "checkpoints")}
    latest = max(kept, default=None)
    checks = []
    if latest is not None and step != latest:
        checks.append(
            Check(mark="older", words=f"it was made at step {step:,}; the latest checkpoint is of step {latest:,}")
        )
    if step not in kept:
        return [*checks, Check(mark="not at hand", words="the checkpoint that it judges is no longer there")]
    return [*checks, _check_bytes(kept[step], f"the checkpoint of step {step:,} has this sha256", {sha256})]


def _check_bytes(path: Path, words: str, recorded: Set[str]) -> Check:
    found = _sha256(path)
    if found is None:
        return Check(mark="differs", words="the checkpoint cannot be read")
    return Check(mark="agrees" if found in recorded else "differs", words=words)


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
    others = f"{len(kept)} kept" if len(kept) > 1 else "the only one kept"
    return Link(
        kind="checkpoint",
        title=f"step {latest.step:,}",
        hashes=(("sha256", _sha256(latest.path) or "cannot be read"),),
        about=(others,),
        checks=_check_latest(run, latest.path, latest.step),
    )


def _check_latest(run: RunFolder, path: Path, step: int) -> tuple[Check, ...]:
    """The header of the latest checkpoint, and all of it if a result recorded its sha256."""
    named = checkpoint_fingerprint(path)
    recorded = {one.facts["checkpoint_sha256"] for one in run.results if one.facts and one.facts["step"] == step}
    only = "" if recorded else "; no result records its sha256, so there is nothing to compare that with"
    if named is None:
        header = Check(mark="differs", words="it is damaged: its header cannot be read, or names no run")
    else:
        header = compared(f"its header names this run{only}", named, run.identity and run.identity.fingerprint())
    return (header, _check_bytes(path, "a result records this sha256", recorded)) if recorded else (header,)


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
    identity, manifest = run.identity, store.given
    hashes = (
        []
        if identity is None
        else [("fingerprint", identity.store_fingerprint), ("root digest", identity.store_digest)]
    )
    spec, digest = (None, None) if manifest is None else (manifest.spec.fingerprint(), manifest.root_digest)
    checks = (
        compared("its spec has this fingerprint", identity and identity.store_fingerprint, spec),
        compared(
            "manifest and run record the same root digest (`caev2 store verify STORE` reads the rows)",
            identity and identity.store_digest,
            digest,
        ),
    )
    if identity is not None and not identity.store_fingerprint:
        checks = (Check(mark="not at hand", words="the run was not trained on a store"),)
    own = store.manifest
    about = () if own is None else (f"{own.images:,} images × {own.views} views, {own.layout}",)
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
    spec = None if store.given is None else store.given.spec.targets.get(target)
    check = compared(
        "run and store record the same sha256 (no weights were read)",
        recorded.get("sha256"),
        spec and spec.teacher.get("sha256"),
    )
    tap = "" if run.identity is None else f"taken at {run.identity.target.get('tap', '?')}"
    hashes = (("sha256", str(recorded["sha256"])),) if recorded.get("sha256") else ()
    return Link(
        kind="teacher",
        title=without_folders(str(recorded.get("name", "not recorded"))),
        hashes=hashes,
        about=(tap,),
        checks=(check,),
    )
