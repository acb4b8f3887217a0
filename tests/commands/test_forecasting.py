"""What `caev2 pretrain --dry-run` says."""

import json

import pytest

from tests.commands.invoking import caev2, train


def test_a_dry_run_says_what_it_takes_and_what_of_that_was_measured(made, images, tmp_path):
    said = caev2(*train(made / "store", tmp_path / "run", images, "--dry-run"))
    assert said.exit_code == 0, said.output
    lines = {line[2:].partition("  ")[0]: line for line in said.stdout.splitlines()[1:]}
    assert "4: 2 epochs of 2 batches of 4" in lines["steps"]
    assert "GMAC an image: encoder" in lines["forward pass"]
    assert "GFLOP an image" in lines["step"]
    assert "for 4 images at once in fp32" in lines["memory"]
    assert "at most" in lines["checkpoints"]
    assert "images/s, measured on" in lines["speed"]
    assert "without reading and cropping" in lines["speed"]
    assert "for 4 steps on one such device" in lines["time"]
    assert list(tmp_path.iterdir()) == []


def test_the_same_as_numbers_with_their_units(made, images, run):
    said = caev2(*train(made / "store", run, images, "--dry-run", "--json"))
    found = json.loads(said.stdout)
    assert (found["steps"], found["resume_step"], found["hours"]) == (4, 4, 0.0)
    assert found["measured_images"] == found["measured_steps"] * found["measured_batch_size"]
    assert found["images_per_s_slowest"] <= found["images_per_s"] <= found["images_per_s_quickest"]
    parts = ("encoder", "projection", "regressor", "head")
    gmac = sum(found[f"gmac_per_image_{part}"] for part in parts)
    assert gmac * 6e9 == pytest.approx(found["flops_per_image_and_step"])
    assert found["memory_bytes_estimated"] > found["memory_bytes_of_model"]
    assert found["peak_flops"] is None
