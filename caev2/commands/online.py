"""`caev2 pretrain --online`: what its options mean."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from caev2.commands.invocation import IMAGES, STORE
from caev2.store.sources.at_url import ImagesUrl

if TYPE_CHECKING:
    from caev2.extract.recipes import ExtractRecipe
    from caev2.online.fresh import Fresh
    from caev2.online.replay import Replay
    from caev2.pretrain.recipes import PretrainRecipe
    from caev2.store.pixels.decode import Orientation

OnlineKind = Literal["replay", "fresh"]
_TEACHER, _VIEWS, _LEAVE_OUT = "--teacher", "--views", "--leave-out"


def online_options(command: Callable) -> Callable:
    """The options of training with a live teacher."""
    options = (
        click.option(
            "--online",
            type=click.Choice(["replay", "fresh"]),
            default=None,
            help="Compare with a live teacher: on the views of STORE, or, given IMAGES in its place, on new ones.",
        ),
        click.option(_TEACHER, default=None, metavar="NAME", help="With --online: the teacher, or where to find it."),
        click.option(
            _VIEWS,
            default=None,
            metavar="RECIPE",
            help="With --online fresh: the extraction recipe whose views and teacher to use. Default: of --recipe's "
            "name, or base-300e.",
        ),
        click.option(
            _LEAVE_OUT,
            type=click.Path(path_type=Path),
            default=None,
            metavar="FILE",
            help="With --online fresh: keys of images that are not used, one a line.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """What was asked of a live teacher."""

    kind: OnlineKind | None
    """None: there is to be none."""
    teacher: str | None
    views: str | None
    leave_out: Path | None

    def refuse_strays(self, ctx: click.Context, images: "Path | ImagesUrl | None", dry_run: bool) -> None:
        """Refuse options that say nothing beside the others."""
        fresh = self.kind == "fresh"
        strays = {
            _TEACHER: self.teacher is not None and self.kind is None and "goes with --online replay or fresh",
            _VIEWS: self.views is not None and not fresh and "goes with --online fresh",
            _LEAVE_OUT: self.leave_out is not None and not fresh and "goes with --online fresh",
            "--images": images is not None and fresh and "stands in the place of STORE with --online fresh",
            "--dry-run": dry_run and self.kind is not None and "tells what training from a store takes, not --online",
        }
        for name, reason in strays.items():
            if reason:
                raise click.UsageError(f"{name} {reason}. Leave it away.", ctx)

    def lesson(
        self, place: str, recipe_name: str, recipe: "PretrainRecipe", images: "Path | ImagesUrl | None"
    ) -> "tuple[Replay | Fresh, Orientation]":
        """Who makes the lesson of each rank, and the EXIF rule of its views."""
        from caev2.store.reader import Store

        if self.kind == "replay":
            from caev2.online.replay import Replay

            store = Store(STORE.convert(place, None, None))
            orientation = store.manifest.spec.views.orientation
            return Replay(store=store, recipe=recipe, images=images, teacher=self.teacher), orientation
        from caev2.online.fresh import Fresh
        from caev2.online.fresh_crops import read_left_out

        where = IMAGES.convert(place, None, None)
        _refuse_store(where)
        views = self._views(recipe_name)
        left_out = () if self.leave_out is None else read_left_out(self.leave_out)
        return Fresh(images=where, recipe=recipe, views=views, left_out=left_out), views.views.orientation

    def _views(self, recipe_name: str) -> "ExtractRecipe":
        from caev2.extract.recipes import RECIPES
        from caev2.recipe import load

        views = load(self.views or (recipe_name if recipe_name in RECIPES else "base-300e"), RECIPES)
        return views if self.teacher is None else dataclasses.replace(views, teacher=self.teacher)


def _refuse_store(place: Path | ImagesUrl) -> None:
    from caev2.errors import ConfigError
    from caev2.store.manifest import FILE_NAME

    if isinstance(place, Path) and (place / FILE_NAME).is_file():
        raise ConfigError(
            f"{place} is a store, and --online fresh takes images. Give those that it was extracted from; or use the "
            "store's views, with --online replay."
        )
