"""What a run is: its recipe, the store it learns from, and the file that says so."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caev2.errors import CheckpointError
from caev2.pretrain.recipes import PretrainRecipe
from caev2.pretrain.student.sizes import ModelSettings
from caev2.recipe import fingerprint, merge, to_mapping
from caev2.store.disk import write_whole
from caev2.store.manifest import TargetSpec
from caev2.store.reader import Store

FILE_NAME = "run.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Everything that decides the weights a run ends with."""

    recipe: dict[str, Any]
    """The result half of the recipe, with sizes and precision resolved."""
    store_fingerprint: str
    """Of the store's spec; empty for a run without a store."""
    store_digest: str
    """Root digest of the store."""
    target: dict[str, Any]
    """What is learnt: teacher, tap, tokens, width."""
    views: dict[str, Any] = field(default_factory=dict)
    """How the store's crops were drawn, orientation included; empty for a run made from a foreign checkpoint."""
    init_from: str | None = None
    """Digest of the weights it starts from; none: fresh ones, which are a function of recipe and seed."""
    online: str | None = None
    """`replay` or `fresh`, where a live teacher made the targets; none: they were stored."""
    source: dict[str, Any] = field(default_factory=dict)
    """Of a run without a store: digest of the images, and all else that decides what the teacher was shown."""

    @property
    def imported(self) -> bool:
        """Whether the weights were trained elsewhere, on no store that is known."""
        return not self.store_fingerprint and self.online is None

    def fingerprint(self) -> str:
        """One word that is equal for runs that end in equal weights (on one kind of device)."""
        return fingerprint(self.mapping())

    def mapping(self) -> dict[str, Any]:
        """Plain JSON values; fields that came later are left out where they say nothing, so older runs stay theirs."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value or name not in _LATER}

    @property
    def model(self) -> ModelSettings:
        """Sizes of the student."""
        return model_settings(self.recipe["model"])

    @property
    def target_spec(self) -> TargetSpec:
        """The target as the store describes it."""
        return TargetSpec(**self.target)


_LATER = ("views", "init_from", "online", "source")


def model_settings(mapping: dict[str, Any]) -> ModelSettings:
    """Sizes from their plain values."""
    start = ModelSettings(width=12, regressor_width=12, regressor_depth=1)
    return merge(start, mapping, where=FILE_NAME)


def identify(
    recipe: PretrainRecipe, store: Store, precision: str, init_from: str | None = None, *, online: str | None = None
) -> RunIdentity:
    """The identity of a run of `recipe` on `store`, from weights of the digest `init_from`."""
    return RunIdentity(
        recipe=settled(recipe, precision),
        store_fingerprint=store.manifest.spec.fingerprint(),
        store_digest=store.manifest.root_digest or "",
        target=store.manifest.spec.targets[recipe.target].mapping(),
        views=to_mapping(store.manifest.spec.views),
        init_from=init_from,
        online=online,
    )


def settled(recipe: PretrainRecipe, precision: str) -> dict[str, Any]:
    """What an identity says of a recipe: its result half, with the precision that it ended up with."""
    return {**to_mapping(recipe, result_only=True), "precision": precision}


def read_identity(run: Path) -> RunIdentity:
    """Read `run.json`.

    Raises:
        CheckpointError: There is no run at this path, or the file is damaged.
    """
    path = run / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
        if content.pop("fingerprint") != fingerprint(content):
            raise ValueError("fingerprint")
        return RunIdentity(**content)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"There is no run at {run}: it has no {FILE_NAME}. Make one with `caev2 pretrain`."
        ) from None
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be read: {problem.strerror}. Bring it back from a copy.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{path} is damaged or was edited: its fingerprint does not hold. Bring it back from a copy, or give "
            "another path for a new run."
        ) from None


def refuse_other_run(run: Path, identity: RunIdentity) -> None:
    """Check that a folder holds no run, or this very one.

    Raises:
        CheckpointError: Another run lies there; the message names the first difference with both values.
    """
    if not (run / FILE_NAME).exists():
        return
    there = read_identity(run)
    if there.imported and not identity.imported:
        raise CheckpointError(
            f"{run} holds imported weights and no training that could go on. Give another path for the new run, and "
            f"start it from them with --init-from {run}."
        )
    refuse_difference(run, there.mapping(), identity.mapping())


def claim_run(run: Path, identity: RunIdentity) -> None:
    """Say in the folder `run` whose it is, or check that it is this very run's.

    Raises:
        CheckpointError: Another run lies there.
    """
    refuse_other_run(run, identity)
    if not (run / FILE_NAME).exists():
        content = {**identity.mapping(), "fingerprint": identity.fingerprint()}
        write_whole(run / FILE_NAME, json.dumps(content, indent=1).encode() + b"\n", scratch=run)


def refuse_difference(run: Path, there: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> None:
    """Check that what lies at a path is what is wanted.

    Raises:
        CheckpointError: It is not; the message names the first difference with both values.
    """
    for key in sorted({*there, *wanted}):
        one, other = there.get(key), wanted.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            refuse_difference(run, one, other, f"{prefix}{key}.")
        elif one != other:
            raise CheckpointError(
                f"{run} is another run: its {prefix}{key} is {one!r}, this command asks for {other!r}. "
                "Give another path for the new run, or the old settings to go on with this one."
            )
