"""The grammar of teachers' names.

openclip:ARCHITECTURE/TAG         weights that open_clip knows, from the hub or its cache
openclip:ARCHITECTURE@PATH        weights in a file: OpenAI's own archive, a state dict, safetensors
openclip:ARCHITECTURE/TAG@PATH    the same, with the tag's pixel statistics and published sha256
timm:MODEL.TAG                    weights that timm knows, from the hub or its cache
timm:MODEL@PATH                   weights in a file: a state dict, safetensors
timm:MODEL.TAG@PATH               the same, with the tag's pixel statistics
demo                              the small teacher that comes with the package
demo@PATH                         another one of its kind
"""

from dataclasses import dataclass
from pathlib import Path

from caev2.errors import ConfigError

DEFAULT_TEACHER = "openclip:ViT-B-16-quickgelu/openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherName:
    """The parts of a teacher's name."""

    text: str
    """As it was given."""
    scheme: str
    architecture: str | None
    tag: str | None
    path: Path | None

    @property
    def canonical(self) -> str:
        """The name without the place its weights came from: which weights they are, the identity says."""
        if self.architecture is None:
            return self.scheme
        # timm writes the tag behind a dot, and has no dot in the name of a model
        model = self.architecture.partition(".")[0] if self.scheme == "timm" else self.architecture
        return f"{self.scheme}:{model}"


def split_name(text: str) -> TeacherName:
    """Take a name apart; whether the parts exist is for its scheme to say.

    Raises:
        ConfigError: A part that is announced is empty.
    """
    rest, at, path = text.partition("@")
    scheme, colon, rest = rest.partition(":")
    architecture, slash, tag = rest.partition("/")
    for sign, part, what in ((colon, architecture, "architecture"), (slash, tag, "tag"), (at, path, "path")):
        if sign and not part:
            raise ConfigError(
                f"The teacher {text!r} has no {what} after {sign!r}. Write one such as {DEFAULT_TEACHER}."
            )
    return TeacherName(
        text=text,
        scheme=scheme,
        architecture=architecture or None,
        tag=tag or None,
        path=Path(path).expanduser() if path else None,
    )
