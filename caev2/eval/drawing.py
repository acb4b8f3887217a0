"""How pictures look in this package, and how they are written: PNG files, made without a display."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from caev2.errors import ConfigError
from caev2.store.disk import write_whole, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart by everybody
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#666666"
PURPLE, SKY, AMBER, BLACK = "#cc79a7", "#56b4e9", "#e69f00", "#333333"
_DPI = 150


def require_matplotlib() -> None:
    """Refuse to begin what could not be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise ConfigError('Pictures need matplotlib. Run: pip install "caev2[plots]"') from None


def new_figure(width_inches: float | int, height_inches: float | int) -> "Figure":
    """A figure of its own: no global state, no window."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=_DPI, layout="constrained")


def undress(axes: "Axes", along: str = "y") -> None:
    """Leave the lines that help to read values, those across `along`, and no frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=along, color="#dddddd", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def save(figure: "Figure", path: Path) -> Path:
    """Write the picture, whole or not at all; the same picture is the same bytes.

    Raises:
        OutputError: It cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": None})  # which names matplotlib's version
    with writing(path.parent):
        write_whole(path, drawn.getvalue(), scratch=path.parent)
    return path
