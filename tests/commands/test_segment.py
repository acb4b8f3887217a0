"""`caev2 segment`: masks of the built-in scenes by a linear head and by UperNet, in one table."""

import json
import shutil

import pytest

from caev2.demo.masked_scenes import write_masked_scenes
from tests.commands.invoking import caev2, refusal

QUICK = ("--quiet", "--device", "cpu", "--epochs", "2", "--batch-size", "4", "--lr", "0.05")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    write_masked_scenes(folder, "train", 12, 0)
    return write_masked_scenes(folder, "val", 6, 0)


def test_a_run_is_judged_beside_its_start_and_its_teacher(run, scenes):
    result = caev2("segment", run, scenes, *QUICK, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["name"] for one in found["subjects"]] == ["random start", "student", "teacher demo"]
    assert found == json.loads((run / "segmentation.json").read_text())
    assert (found["train_images"], found["val_images"], found["classes"], found["ignore"]) == (12, 6, 12, 255)
    for one in found["subjects"]:
        assert 0 <= one["score"]["mean_iou"]["value"] < 1
        assert len(one["score"]["iou"]) == 12
    assert found["subjects"][2]["score"]["mean_iou"]["value"] > 0  # after six steps others may have no pixel right
    assert found["run"]["step"] == 4
    again = caev2("segment", run, scenes, *QUICK)
    assert "mIoU (95 % interval)" in again.stdout
    assert len(list((run / "results").iterdir())) == 1
    assert len(list((run / "features").iterdir())) == 6


def test_upernet_reads_four_blocks_and_nought_may_be_ignored(scenes):
    result = caev2(
        "segment",
        "--random-init",
        "demo",
        scenes,
        *QUICK,
        "--head",
        "upernet",
        "--channels",
        "6",
        "--ignore",
        "0",
        "--json",
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["subjects"][0]["blocks"] == [1, 2, 3, 4]
    assert found["classes"] == 11  # ground is ignored
    assert found["run"] is None


def test_what_cannot_be_segmented_is_refused(run, scenes, images, tmp_path):
    assert "Segmentation needs images/training" in refusal("segment", run, images, *QUICK)
    assert "Name what to judge" in refusal("segment", scenes, *QUICK)
    assert "more than the 1.0 kB allowed" in refusal("segment", run, scenes, *QUICK, "--token-gb", "1e-6")
    broken = shutil.copytree(scenes, tmp_path / "broken")
    (broken / "annotations" / "validation" / "000003.png").unlink()
    assert "validation image '000003' has no mask" in refusal("segment", run, broken, *QUICK)
    for kind in ("images", "annotations"):
        for path in sorted((broken / kind / "training").iterdir())[1:]:
            path.unlink()
    (broken / "images" / "validation" / "000003.png").unlink()
    assert "cannot be trained on 1 image" in refusal("segment", run, broken, *QUICK)
    assert not (run / "segmentation.json").exists()
