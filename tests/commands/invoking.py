"""Running commands in this process, on a small data set, and damaging what they wrote."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from caev2.cli import main

EXTRACT = ("--recipe", "demo", "--set", "block_images=4", "--quiet", "--device", "cpu")
TINY = ("batch_size=4", "epochs=2", "model.depth=1", "model.width=24", "model.heads=2", "model.regressor_width=24")
PRETRAIN = ("--recipe", "demo", "--quiet", "--device", "cpu", *(part for text in TINY for part in ("--set", text)))


def caev2(*arguments: object) -> Result:
    """Run a command in this process; a traceback is a failure of the test that met it."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="caev2")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(*arguments: object) -> str:
    """The one paragraph that a refused command says."""
    result = caev2(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("caev2: ")
    return lines[0]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_images(folder: Path) -> Path:
    """A data set of two classes: ten training and four validation images."""
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4)):
        for number in range(count):
            place = folder / split / f"class-{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            coarse = random.integers(0, 255, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((80, 70), Image.Resampling.BICUBIC).save(place / f"{number}.png")
    return folder


def train(store: Path, run: Path, images: Path, *more: object) -> tuple[object, ...]:
    return "pretrain", store, run, "--images", images, *PRETRAIN, *more


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


SHARD = "targets/projected/codes/c/0/0/0/0"


def flip_bits_of_every_row(path: Path) -> None:
    path.write_bytes(bytes(byte ^ (place % 100 == 0) for place, byte in enumerate(path.read_bytes())))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:7])


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
