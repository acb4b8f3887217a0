"""Features that were kept: used only for the same question, computed again where damaged, never half written."""

from pathlib import Path

import pytest
import torch

from caev2.errors import ConfigError, SourceError
from caev2.eval import features
from caev2.eval.features import Reading, Subject, extract_features
from caev2.eval.subjects import pixel_subject, student_subject
from caev2.pretrain.student.model import build
from caev2.progress import Silent
from caev2.store.images import open_images
from tests.made_up import PRETRAIN, make_photographs


class Counting:
    """Colours, and how many images were asked for."""

    def __init__(self, stop_after: int | None = None):
        self.images, self._stop_after = 0, stop_after

    def __call__(self, crops):
        if self._stop_after is not None and self.images >= self._stop_after:
            raise KeyboardInterrupt
        self.images += len(crops)
        return {"mean": crops.float().mean((1, 2)), "corner": crops[:, 0, 0].float()}


class Warnings(Silent):
    def __init__(self):
        self.said, self.begun = [], []

    def start(self, what, total, done=0):
        self.begun.append((total, done))

    def warn(self, message):
        self.said.append(message)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "PART_IMAGES", 8)
    return open_images(make_photographs(tmp_path / "images", 20))


@pytest.fixture
def ask(tmp_path, source):
    """Features by the cache, and how many images were computed for that."""

    def extract(*, stop_after=None, identity="one", progress=None, images=source, size_px=32, **more):
        pool = Counting(stop_after)
        subject = Subject(name="colours", size_px=size_px, pool=pool, identity=identity)
        reading = Reading(
            **{"resize_px": 36, "device": "cpu", "batch": 4, "workers": 0, "cache": tmp_path / "kept", **more}
        )
        return extract_features(subject, images, reading, progress or Silent()), pool.images

    return extract


def same(one, other) -> bool:
    return all(torch.equal(one.pooled[name], other.pooled[name]) for name in one.pooled) and torch.equal(
        one.labels, other.labels
    )


def test_the_same_question_is_answered_from_what_was_kept(ask):
    (first, computed), progress = ask(), Warnings()
    again, more = ask(progress=progress)
    assert (computed, more) == (20, 0)
    assert same(first, again)
    assert progress.begun == [(20, 20)]
    assert ask(cache=None)[1] == 20


def test_another_question_is_not(ask, source):
    ask()
    for other in (
        {"identity": "another"}, {"resize_px": 40}, {"size_px": 30}, {"orientation": "ignore"},
        {"images": source.take(range(19))},
    ):  # fmt: skip
        assert ask(**other)[1] == len(other.get("images", source)), other
    assert ask()[1] == 0


def test_an_image_that_was_written_to_is_another_question(ask, source):
    ask()
    path = source.root / source.paths[3]
    path.write_bytes((source.root / source.paths[5]).read_bytes())
    found, computed = ask()
    assert computed == 20
    assert torch.equal(found.pooled["mean"][3], found.pooled["mean"][5])


def test_an_interrupted_extraction_goes_on(ask):
    whole, _ = ask(cache=None)
    with pytest.raises(KeyboardInterrupt):
        ask(stop_after=12)
    progress = Warnings()
    found, computed = ask(progress=progress)
    assert computed == 12  # 8 of 20 lay in a part that was finished
    assert progress.begun == [(20, 8)]
    assert same(found, whole)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "other"])
def test_a_damaged_part_is_computed_again_and_repaired(ask, tmp_path, damage):
    whole, _ = ask()
    parts = sorted((tmp_path / "kept").rglob("*.safetensors"))
    assert len(parts) == 3
    data = bytearray(parts[1].read_bytes())
    data[-3] ^= 1
    content = {"flip": data, "cut": data[:-9], "empty": b"", "other": parts[2].read_bytes()}
    parts[1].unlink() if damage == "gone" else parts[1].write_bytes(content[damage])
    found, computed = ask()
    assert computed == 8
    assert same(found, whole)
    assert ask()[1] == 0


def test_who_has_no_identity_is_not_kept(ask, tmp_path):
    ask(identity=None)
    assert pixel_subject(8).identity is None
    assert not (tmp_path / "kept").exists()


def test_a_cache_that_cannot_be_written_costs_a_warning_only(ask, tmp_path):
    (tmp_path / "kept").write_text("no folder")
    progress = Warnings()
    found, computed = ask(progress=progress)
    assert computed == 20
    assert len(progress.said) == 1
    assert "not kept for another time: Cannot write" in progress.said[0]
    assert same(found, ask(cache=None)[0])


def test_an_image_that_vanished_is_named(ask, source):
    (source.root / source.paths[2]).unlink()
    with pytest.raises(SourceError, match=Path(source.paths[2]).name):
        ask()


def test_tokens_are_kept_in_half_precision_and_too_many_are_refused(tmp_path, source):
    subject = student_subject(build(PRETRAIN.model, 0).eval(), "student", "student")
    reading = {"resize_px": 36, "device": "cpu", "workers": 0, "cache": tmp_path / "kept", "with_tokens": True}
    one, other = (extract_features(subject, source, Reading(**reading), Silent()) for _ in range(2))
    assert one.tokens.dtype == torch.float16
    assert torch.equal(one.tokens, other.tokens)
    torch.testing.assert_close(one.tokens[:, 0].float(), one.pooled["class"], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(one.tokens[:, 1:].float().mean(1), one.pooled["mean"], atol=2e-3, rtol=2e-3)
    said = r"tokens of 20 images of student take .* more than the 100 bytes allowed.*--token-gb 1"
    with pytest.raises(ConfigError, match=said):
        extract_features(subject, source, Reading(**{**reading, "cache": None}, token_limit_bytes=100), Silent())
    with pytest.raises(ConfigError, match="no tokens to look at"):
        extract_features(pixel_subject(8), source, Reading(**reading), Silent())
