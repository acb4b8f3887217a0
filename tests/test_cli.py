"""The command line as its users meet it: what bad input gets, what good input prints."""

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from caev2.cli import main
from caev2.extract.catalog import load_teacher, parse_name
from caev2.extract.known import TEACHERS
from caev2.extract.names import DEFAULT_TEACHER
from caev2.pretrain.checkpoint import latest_checkpoint
from caev2.pretrain.identity import read_identity
from caev2.store.manifest import read_manifest
from tests.pretrain.canary import hostile_files

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


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with `images`, a sealed `store` and a finished `run`; not to be written to."""
    folder = tmp_path_factory.mktemp("made")
    make_images(folder / "images")
    assert caev2("extract", folder / "images", folder / "store", *EXTRACT).exit_code == 0
    done = caev2("pretrain", folder / "store", folder / "run", "--images", folder / "images", *PRETRAIN)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def images(made) -> Path:
    return made / "images"


@pytest.fixture
def store(made, tmp_path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(made / "store", tmp_path / "store")


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made / "run", tmp_path / "run")


def train(store: Path, run: Path, images: Path, *more: object) -> tuple[object, ...]:
    return "pretrain", store, run, "--images", images, *PRETRAIN, *more


# images


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "There is no image in"),
        (lambda path: None, "the path does not exist. Give a folder of images"),
        (lambda path: path.write_text("x"), "is a file. Give the folder that the images lie in"),
    ],
    ids=["empty", "missing", "file"],
)
def test_images_that_are_not_there_are_refused_by_every_command(made, tmp_path, make, message):
    images = tmp_path / "images"
    make(images)
    for command in (
        ("extract", images, tmp_path / "store", *EXTRACT),
        train(made / "store", tmp_path / "run", images),
        ("store", "verify", made / "store", "--images", images),
    ):
        assert message in refusal(*command)
    assert "there is no" in refusal("probe", made / "run", images, "--device", "cpu")
    assert {path.name for path in tmp_path.iterdir()} <= {"images"}


def test_files_that_are_no_images_keep_their_row_and_their_reason(tmp_path):
    images = make_images(tmp_path / "images") / "train"
    (images / "class-0" / "text.png").write_text("no image")
    Image.new("RGB", (200, 200)).save(images / "class-1" / "short.jpg")
    whole = (images / "class-1" / "short.jpg").read_bytes()
    (images / "class-1" / "short.jpg").write_bytes(whole[: len(whole) // 2])
    assert "1 of 12 images cannot be used, more than the allowed share of 0.05" in refusal(
        "extract", images, tmp_path / "store", *EXTRACT
    )
    done = caev2("extract", images, tmp_path / "store", *EXTRACT, "--set", "max_failed=0.5", "--json")
    reasons = dict(json.loads(done.stdout)["failures"])
    assert reasons.keys() == {"class-0/text.png", "class-1/short.jpg"}
    assert reasons["class-0/text.png"] == "no known image format"
    assert reasons["class-1/short.jpg"].startswith("damaged")
    assert dict(read_manifest(tmp_path / "store").failures) == reasons
    assert (
        "undecodable    2 (class-0/text.png: no known image format" in caev2("store", "info", tmp_path / "store").stdout
    )


def test_odd_images_are_extracted_and_trained_on(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.arange(6300, dtype=np.uint16).reshape(70, 90) * 10).save(images / "deep.png")
    colours.convert("CMYK").save(images / "cmyk.jpg")
    colours.quantize(16).save(images / "palette.png")
    colours.convert("RGBA").save(images / "alpha.png")
    colours.save(images / "turned.jpg", exif=turned)
    Image.new("RGB", (1, 1), (9, 9, 9)).save(images / "dot.png")
    done = caev2("extract", images, tmp_path / "store", *EXTRACT, "--json")
    assert json.loads(done.stdout)["failures"] == []
    assert caev2(*train(tmp_path / "store", tmp_path / "run", images)).exit_code == 0
    assert caev2("store", "verify", tmp_path / "store", "--images", images).exit_code == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_changed_since_extraction_is_named(made, tmp_path, workers):
    images = shutil.copytree(made / "images", tmp_path / "images")
    shutil.copy(images / "train/class-0/2.png", images / "train/class-0/0.png")
    said = refusal(*train(made / "store", tmp_path / "run", images, "--set", f"workers={workers}"))
    assert "class-0/0.png" in said
    assert "is not the file that the teacher saw" in said
    assert "Traceback" not in said


def test_an_undecodable_image_of_an_evaluation_is_named(made, tmp_path):
    images = shutil.copytree(made / "images", tmp_path / "images")
    (images / "val/class-0/0.png").write_bytes(b"no image")
    said = refusal("probe", "--pixels", "8", images, "--kind", "knn", "--device", "cpu", "--quiet")
    assert "val/class-0/0.png cannot be decoded: no known image format" in said


# places to write to


@pytest.mark.parametrize("below", ["file/store", "file"])
def test_an_output_that_cannot_be_written_is_refused_and_left_alone(made, images, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    for command in (
        ("extract", images, tmp_path / below, *EXTRACT),
        train(made / "store", tmp_path / below, images),
    ):
        assert str(tmp_path / "file") in refusal(*command)
    assert files_of(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that refuses everyone, /proc, is Linux's")
def test_a_file_system_that_takes_nothing_is_refused(made, images):
    assert "are free" in refusal("extract", images, "/proc/store", *EXTRACT)
    assert "Cannot write /proc/run" in refusal(*train(made / "store", "/proc/run", images))


@contextlib.contextmanager
def small_files():
    """No file may grow beyond 20 kB: what a full disk does, in the one way that needs no privileges.

    Around a few lines only: pytest writes its own output between tests, perhaps into a longer file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_leaves_nothing_half_written(made, images, tmp_path):
    with small_files():
        assert "Cannot write" in refusal("extract", images, tmp_path / "store", *EXTRACT)
        assert "Cannot write" in refusal(*train(made / "store", tmp_path / "run", images))
    assert not list((tmp_path / "store").rglob("c/*"))
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert caev2("extract", images, tmp_path / "store", *EXTRACT).exit_code == 0
    assert files_of(tmp_path / "store") == files_of(made / "store")
    assert caev2(*train(made / "store", tmp_path / "run", images)).exit_code == 0
    assert (tmp_path / "run/log.jsonl").read_bytes().count(b"\n") == (made / "run/log.jsonl").read_bytes().count(b"\n")


# stores


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "views.seed=1"], "its views.seed is 0, this command asks for 1"),
        (["--views", "3"], "its views is 2, this command asks for 3"),
    ],
)
def test_a_store_of_another_spec_is_refused_and_left_alone(images, store, change, message):
    before = files_of(store)
    assert message in refusal("extract", images, store, *EXTRACT, *change)
    assert files_of(store) == before


def test_a_store_of_another_teacher_is_refused_and_left_alone(images, store, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    from caev2.extract import shipped

    with safe_open(shipped._WEIGHTS, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    first = next(iter(tensors))
    tensors[first] = tensors[first] + 1
    save_file(tensors, tmp_path / "other.safetensors", metadata)
    before = files_of(store)
    said = refusal("extract", images, store, *EXTRACT, "--teacher", f"demo@{tmp_path / 'other.safetensors'}")
    assert "targets.projected.teacher.sha256 is '61383107" in said
    assert files_of(store) == before


def test_an_unsealed_store_is_not_trained_on(store, images, tmp_path):
    manifest = dataclasses.replace(read_manifest(store), state="building", root_digest=None)
    (store / "manifest.json").write_bytes(manifest.to_bytes())
    said = refusal(*train(store, tmp_path / "run", images))
    assert "is not sealed: its extraction did not finish. Run the same `caev2 extract` again" in said
    assert not (tmp_path / "run").exists()
    assert "state          building" in caev2("store", "info", store).stdout


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def flip_bits_of_every_row(path: Path) -> None:
    path.write_bytes(bytes(byte ^ (place % 100 == 0) for place, byte in enumerate(path.read_bytes())))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:7])


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SHARD = "targets/projected/codes/c/0/0/0/0"


@pytest.mark.parametrize("damage", [flip_bits_of_every_row, cut, Path.unlink], ids=["bits", "cut", "gone"])
def test_a_damaged_shard_is_named_by_training_and_verify_and_repaired_as_advised(made, store, images, tmp_path, damage):
    damage(store / SHARD)
    said = refusal(*train(store, tmp_path / "run", images))
    assert SHARD in said
    assert "delete the unit's record and extract again" in said
    verified = caev2("store", "verify", store, "--quiet")
    assert verified.exit_code == 2
    assert SHARD in verified.stderr
    (store / "units" / "000000.json").unlink()
    assert caev2("extract", images, store, *EXTRACT).exit_code == 0
    assert files_of(store) == files_of(made / "store")


def test_lost_units_of_a_sealed_store_are_not_replaced_by_those_of_other_images(made, store, tmp_path):
    images = shutil.copytree(made / "images", tmp_path / "images")
    shutil.copy(images / "train/class-0/2.png", images / "train/class-0/0.png")
    (store / "units" / "000000.json").unlink()
    said = refusal("extract", images, store, *EXTRACT)
    assert "images or teacher are not what they were" in said
    assert caev2("store", "verify", store, "--quiet").exit_code == 2


@pytest.mark.parametrize("damage", [flip_a_bit, cut, make_folder], ids=["bit", "cut", "folder"])
def test_a_damaged_manifest_is_refused_by_every_command(store, images, tmp_path, damage):
    damage(store / "manifest.json")
    for command in (
        ("store", "info", store),
        ("store", "verify", store),
        train(store, tmp_path / "run", images),
        ("extract", images, store, *EXTRACT),
    ):
        said = refusal(*command)
        assert "manifest.json" in said
        assert "xtract" in said or "another place" in said


@pytest.mark.parametrize("name", ["units/000000.json", "index.parquet"])
@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink, make_folder], ids=["bit", "gone", "folder"])
def test_other_damage_is_named_by_verify(store, name, damage):
    damage(store / name)
    verified = caev2("store", "verify", store, "--json", "--quiet")
    assert verified.exit_code == 2
    assert any(name in problem for problem in json.loads(verified.stdout)["problems"])


# recipes, options, commands


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "dmeo"], "There is no recipe called 'dmeo'. Did you mean 'demo'?"),
        (["--recipe", "nowhere.toml"], "cannot be read: No such file or directory"),
        (["--set", "view_cuont=1"], "no setting called 'view_cuont'. Did you mean 'view_count'"),
        (["--set", "view_count=many"], "view_count cannot be 'many'. Give a value of type int"),
        (["--set", "view_count=0"], "view_count is 0; it must be at least 1"),
        (["--set", "views=3"], "views cannot be 3. Give its settings, such as size_px"),
        (["--set", "precision=fp8"], "precision cannot be 'fp8'. Give 'fp32' or 'fp16' or 'bf16' or none"),
        (["--set", "view_count"], "--set 'view_count' has no value"),
        (["--set", 'taps=["projcted"]'], "no tap of demo called 'projcted'. Did you mean 'projected'?"),
        (["--set", "views.size_px=65"], "takes crops of 64 pixels, the recipe makes 65"),
        (["--teacher", "dmeo"], "Did you mean 'demo'?"),
        (["--teacher", "openclip:ViT-B-16/opneai"], "Did you mean 'openai'?"),
        (["--teacher", "demo@nowhere"], "No teacher weights can be read at nowhere: No such file"),
        (["--device", "nonsense"], "--device cannot be 'nonsense'. Give cpu, cuda"),
        (["--device", "meta"], "--device cannot be 'meta'"),
        (["--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(images, tmp_path, arguments, message):
    assert message in refusal("extract", images, tmp_path / "store", *EXTRACT, *arguments)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.width=25", "width cannot be 25. Give a multiple of the 2 heads"),
        ("mask.count=64", "64 of 64 patches cannot be masked"),
        ("workers=-1", "workers is -1; it must be at least 0"),
        ("optimizer.lr=-1", "optimizer.lr is -1.0; it must be at least 0"),
        ("optimizer.betas=[2, 3]", "each must be at least 0 and below 1"),
        ("optimizer.clip_norm=0", "must be above 0, or none"),
        ("batch_size=99", "has 10 valid images, fewer than one batch of 99"),
        ("model.image_px=72", "holds views of 64 pixels, the recipe's student takes 72"),
        ("target=post_norm", "no target called 'post_norm'"),
        ("epohcs=3", "Did you mean 'epochs'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(made, images, tmp_path, setting, message):
    assert message in refusal(*train(made / "store", tmp_path / "run", images, "--set", setting))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('base = "demo"\nblok_images = 3', "no setting called 'blok_images'. Did you mean 'block_images'?"),
        ('base = "dmeo"', "Did you mean 'demo'?"),
        ("base = 3", "no recipe called '3'"),
        ("base = [1]", "no recipe called '[1]'"),
        ("not toml", "is not a TOML file"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_refused(images, tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.mkdir() if content is None else path.write_text(content)
    assert message in refusal("extract", images, tmp_path / "store", "--recipe", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extrct"], "Did you mean 'extract'?"),
        (["store", "inof"], "Did you mean 'info'?"),
        (["extract", "a", "b", "--recpe", "demo"], "--recipe"),
        (["extract", "a"], "Missing argument 'STORE'"),
        (["extract", "a", "b", "--views", "x"], "'x' is not a valid integer"),
        (["pretrain", "a", "b", "--resume", "x"], "'x' is not one of 'auto', 'never'"),
        (["probe", "a", "b", "--kind", "lin"], "'lin' is not one of 'knn', 'linear'"),
    ],
)
def test_words_that_no_command_knows_exit_with_2(arguments, message):
    result = caev2(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


# runs and checkpoints


def test_training_without_images_is_refused(made, tmp_path):
    said = refusal("pretrain", made / "store", tmp_path / "run", *PRETRAIN)
    assert "Give --images, the folder it was extracted from" in said
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_size_is_refused_and_left_alone(made, images, run):
    before = files_of(run)
    said = refusal(*train(made / "store", run, images, "--set", "model.depth=2"))
    assert "its recipe.model.depth is 1, this command asks for 2" in said
    assert "already has a checkpoint at step 4" in refusal(*train(made / "store", run, images, "--resume", "never"))
    assert files_of(run) == before


def test_a_checkpoint_of_another_size_is_refused(made, images, run, tmp_path):
    other = tmp_path / "other"
    assert caev2(*train(made / "store", other, images, "--set", "model.depth=2")).exit_code == 0
    ours = latest_checkpoint(run / "checkpoints").path
    shutil.copy(latest_checkpoint(other / "checkpoints").path, ours)
    assert "is of a student of other sizes" in refusal("probe", run, images, "--device", "cpu")
    said = refusal(*train(made / "store", run, images))
    assert f"this run has {read_identity(run).fingerprint()}" in said


@pytest.mark.parametrize("kind", ["pickle of protocol 0", "pickle of protocol 4", "zip archive"])
def test_a_pickle_in_place_of_a_checkpoint_is_refused_and_not_run(made, images, run, tmp_path, kind):
    canary = tmp_path / "canary"
    content = hostile_files(canary)[kind]
    latest_checkpoint(run / "checkpoints").path.write_bytes(content)
    assert "is damaged or no checkpoint" in refusal(*train(made / "store", run, images))
    assert "is damaged or no checkpoint" in refusal("probe", run, images, "--device", "cpu")
    (tmp_path / "foreign.pth").write_bytes(content)
    assert "Nothing was run" in refusal("import", tmp_path / "foreign.pth", tmp_path / "imported")
    assert not canary.exists()
    assert not (tmp_path / "imported").exists()
    with contextlib.suppress(RuntimeError):
        torch.load(tmp_path / "foreign.pth", weights_only=False)
    assert canary.exists(), "the canary is dead: it does not show what careless reading would have done"


@pytest.mark.parametrize("damage", [flip_a_bit, cut])
def test_a_damaged_checkpoint_names_the_sound_one_before_it(made, images, run, damage):
    damage(latest_checkpoint(run / "checkpoints").path)
    said = refusal(*train(made / "store", run, images))
    assert "step-000000002.safetensors before it is sound" in said


def test_a_damaged_log_names_its_line(made, images, run):
    lines = (run / "log.jsonl").read_bytes()
    (run / "log.jsonl").write_bytes(b"[]\n" + lines)
    assert "line 1 of" in refusal(*train(made / "store", run, images))
    (run / "log.jsonl").write_bytes(lines + b'{"step": 9')
    assert caev2(*train(made / "store", run, images)).exit_code == 0


def test_what_is_no_run_is_not_probed(made, images, tmp_path):
    for path in (images, tmp_path / "missing", made / "run" / "run.json"):
        assert "it has no run.json. Make one with `caev2 pretrain`" in refusal("probe", path, images)
    assert "Name one thing to probe and the images, not 0" in refusal("probe", images)
    assert "not 2" in refusal("probe", made / "run", images, "--pixels", "8")
    assert "cannot be 0 pixels" in refusal("probe", "--pixels", "0", images)
    assert "There is no recipe called 'nope'" in refusal("probe", "--random-init", "nope", images)


def test_import_refuses_what_is_no_checkpoint(run, tmp_path):
    (tmp_path / "text.pth").write_text("words")
    assert "There is no file at" in refusal("import", tmp_path / "missing", tmp_path / "new")
    said = refusal("import", tmp_path / "text.pth", tmp_path / "new")
    assert "it is neither safetensors nor what torch.save writes" in said
    assert "is a run already" in refusal("import", tmp_path / "text.pth", run)
    assert not (tmp_path / "new").exists()


# what good input prints


def test_json_is_exactly_one_object(made, images, run, tmp_path):
    outputs = {
        "extract": caev2("extract", images, made / "store", *EXTRACT, "--json"),
        "plan": caev2("extract", images, tmp_path / "new", *EXTRACT, "--json", "--dry-run"),
        "info": caev2("store", "info", made / "store", "--json"),
        "verify": caev2("store", "verify", made / "store", "--json"),
        "pretrain": caev2(*train(made / "store", run, images, "--json")),
        "pretrain plan": caev2(*train(made / "store", tmp_path / "r", images, "--json", "--dry-run")),
        "probe": caev2("probe", run, images, "--kind", "knn", "--json", "--device", "cpu"),
        "recipes": caev2("recipes", "--json"),
        "teachers": caev2("teachers", "--json"),
    }
    found = {}
    for name, result in outputs.items():
        assert result.exit_code == 0, (name, result.output)
        assert result.stdout.count("\n") == 1, name
        found[name] = json.loads(result.stdout)
    assert found["extract"]["rows_computed"] == 0
    assert found["plan"]["rows"] == 20
    assert found["info"]["images"] == 10
    assert found["verify"]["problems"] == []
    assert found["pretrain"]["steps"] == 4
    assert found["pretrain plan"]["resume_step"] == 0
    assert found["probe"]["val_images"] == 4
    assert found["recipes"]["base-300e"]["model"]["depth"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # a plan writes nothing


def test_teachers_lists_what_is_true(made):
    demo = load_teacher("demo").description
    listed = {teacher.name: teacher for teacher in TEACHERS}
    assert (listed["demo"].crop_px, listed["demo"].tokens) == (demo.image_px, demo.tokens)
    assert set(listed["demo"].taps) == set(demo.widths)
    default = listed[DEFAULT_TEACHER]
    assert default.tokens == 1 + (default.crop_px // 16) ** 2
    said = caev2("teachers").stdout
    for teacher in TEACHERS:
        parse_name(teacher.name)
        parse_name(teacher.local_file)
        assert teacher.name in said
        assert teacher.local_file in said


def commands(group: click.Group = main, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [before]
    for name, command in group.commands.items():
        found += commands(command, (*before, name)) if isinstance(command, click.Group) else [(*before, name)]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_one_example_that_parses(command):
    result = caev2(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.count("Example:") == 1
    words = result.stdout.rpartition("Example:\n")[2].split()
    assert words[: 1 + len(command)] == ["caev2", *command] or not command
    with main.make_context("caev2", words[1:]) as context:
        name, sub, rest = main.resolve_command(context, words[1:])
        while isinstance(sub, click.Group):
            name, sub, rest = sub.resolve_command(context, rest)
        sub.make_context(name or "", rest, parent=context)


def python(script: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_store_info_and_lists_leave_torch_alone(made):
    script = """
import sys
from caev2.cli import main
for words in (["store", "info", sys.argv[1]], ["teachers"], ["--help"]):
    main(words, standalone_mode=False)
assert "torch" not in sys.modules
"""
    done = python(script, made / "store")
    assert done.returncode == 0, done.stderr
    assert "state          sealed" in done.stdout


def test_ctrl_c_during_extraction_exits_130_and_the_same_command_goes_on(made, tmp_path):
    caev2_command = Path(sys.executable).with_name("caev2")
    images = tmp_path / "images"
    for number in range(4000):
        images.mkdir(exist_ok=True)
        os.link(made / "images/train/class-0/0.png", images / f"{number:04}.png")
    process = subprocess.Popen(
        [caev2_command, "extract", images, tmp_path / "store", *EXTRACT[:-3], "--device", "cpu"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job inherits it ignored
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list((tmp_path / "store").glob("units/*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "caev2: interrupted. What was finished is kept; the same command goes on."
    assert out == ""
    assert not list((tmp_path / "store").rglob(".tmp/*"))
    assert "is not sealed" in refusal(*train(tmp_path / "store", tmp_path / "run", images))
