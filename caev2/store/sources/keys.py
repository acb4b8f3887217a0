"""From the names of images to their keys."""

import itertools
import unicodedata
from collections.abc import Sequence

from caev2.errors import SourceError
from caev2.store.sources.at_url import SourcePath


def key_of(name: str) -> str:
    r"""The key of a path: NFC; bytes that are no UTF-8 become `\\xNN`."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def refuse_equal_keys(root: SourcePath, keys: Sequence[str]) -> None:
    """Check that sorted keys differ.

    Raises:
        SourceError: Two are equal.
    """
    for one, other in itertools.pairwise(keys):
        if one == other:
            raise SourceError(
                f"Two files below {root} have the same key {one!r} once Unicode is normalised. Rename one."
            )
