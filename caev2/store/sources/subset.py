"""Parts of a source: of some classes, a share of the images, a number of them. Which ones is a function of their keys.

Images are ranked by blake2b over the seed and the key, and the first ones are taken. So it does not matter in which
order a source lists them or what lies beside them, a smaller part is within a larger one, and the same choice from the
same images is the same part, today and when an interrupted extraction goes on.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace

from caev2.errors import ConfigError, SourceError
from caev2.recipe import choose
from caev2.store.draws import stream_key
from caev2.store.sources.labels import NO_LABEL
from caev2.store.sources.source import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Which images are taken; without any setting, all."""

    classes: tuple[str, ...] | None = None
    """Names of classes; the part has these alone. None: all."""
    share: float | None = None
    """Of the images of those classes, between 0 and 1. None: all."""
    limit: int | None = None
    """At most so many. None: all."""
    seed: int = 0
    """Another one takes other images."""

    def __post_init__(self):
        """Check the ranges.

        Raises:
            ConfigError: A number is out of range, or no class is named.
        """
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigError(f"A sample of {self.share:g} cannot be taken: give a share above 0, up to 1.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"A limit of {self.limit} leaves no image: give at least 1.")
        if self.classes == ():
            raise ConfigError("No class is named. Give at least one, or leave the choice of classes out.")

    def of(self, source: ImageSource) -> ImageSource:
        """The images of a source that are taken; of a share, at least one.

        Raises:
            ConfigError: There is no such class.
        """
        if self.classes is not None:
            source = _of_classes(source, self.classes)
        count = len(source) if self.share is None else max(1, round(self.share * len(source)))
        count = count if self.limit is None else min(count, self.limit)
        if count == len(source):
            return source
        return source.take(heapq.nsmallest(count, range(len(source)), key=lambda image: self._rank(source.keys[image])))

    def _rank(self, key: str) -> int:
        return stream_key("subset", self.seed, key)


def _of_classes(source: ImageSource, names: Sequence[str]) -> ImageSource:
    if not source.classes:
        raise SourceError(f"{source.root} has no classes to choose from. Leave out the choice of classes.")
    known = {name: name for name in source.classes}
    wanted = {choose(name, known, "class") for name in names}
    chosen = [image for image, label in enumerate(source.labels) if label >= 0 and source.classes[label] in wanted]
    if not chosen:
        raise SourceError(f"No image of {source.root} has a class of {', '.join(sorted(wanted))}. Name others.")
    return _relabel(source.take(chosen), tuple(name for name in source.classes if name in wanted))


def choose_listed(source: ImageSource, keys: Sequence[str], classes: tuple[str, ...]) -> ImageSource:
    """The images of a store in the source that it may be a part of.

    Args:
        source: Perhaps more images.
        keys: Of the store; those the source does not have are left out.
        classes: Of the store.
    """
    wanted = set(keys)
    some = source.take([image for image, key in enumerate(source.keys) if key in wanted])
    return _relabel(some, classes) if set(classes) < set(source.classes) else some


def _relabel(source: ImageSource, classes: tuple[str, ...]) -> ImageSource:
    """The same images with fewer classes."""
    place = {name: label for label, name in enumerate(classes)}
    labels = tuple(NO_LABEL if label < 0 else place.get(source.classes[label], NO_LABEL) for label in source.labels)
    return replace(source, labels=labels, classes=classes)
