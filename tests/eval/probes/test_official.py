"""The official linear probe: it learns what is there, goes on where it was interrupted, and tells what it took."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from caev2.errors import CheckpointError, ConfigError, SourceError
from caev2.eval.entrants import Entrant
from caev2.eval.features import Subject
from caev2.eval.probes.learner import Learner, OfficialSettings, published_batch
from caev2.eval.probes.protocols import ProbeSettings
from caev2.eval.run import probe
from caev2.progress import Silent

QUICK = OfficialSettings(epochs=4, batch_size=8, base_lr=64.0)


class Told(Silent):
    """What was said, and an interruption after so many images."""

    def __init__(self, images: int | None = None):
        self.said, self.begun, self._left = [], [], images

    def start(self, what, total, done=0):
        self.begun.append((what, total, done))

    def advance(self, items, **figures):
        if self._left is not None and "official" in self.begun[-1][0]:
            self._left -= items
            if self._left < 0:
                raise KeyboardInterrupt

    def say(self, message):
        self.said.append(message)

    def warn(self, message):
        self.said.append(message)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Reddish and bluish noise, 44 train and 20 val images."""
    folder, random = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for split, count in (("train", 44), ("val", 20)):
        for number in range(count):
            pixels = random.integers(0, 200, (20, 20, 3), dtype=np.uint8)
            pixels[..., 2 * (number % 2)] += 25
            place = folder / split / ("red", "blue")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def mean_colour(crops):
    return {"mean": crops.float().mean((1, 2)) / 255}


def entrant(pool=mean_colour) -> Entrant:
    subject = Subject(name="colours", size_px=16, pool=pool, identity="colours")
    return Entrant(role="student", name="colours", open=lambda _: subject)


def ask(colours, settings=QUICK, **more):
    chosen = ProbeSettings(official_linear=settings)
    (judged,) = probe([entrant()], colours, kinds=["official-linear"], settings=chosen, **more).subjects
    return judged


def test_what_can_be_seen_is_learned():
    random, labels = torch.Generator().manual_seed(0), torch.arange(64) % 2
    features = torch.randn(64, 3, generator=random)
    features[torch.arange(64), labels] += 6
    settings = OfficialSettings(epochs=60, batch_size=8, base_lr=320.0)
    learner = Learner(features[40:], labels[40:], 2, settings, 40, 0, "cpu")
    for epoch in range(60):
        for step, members in enumerate(torch.randperm(40, generator=random).split(8)):
            learner.step(features[members], labels[members], epoch + step / 5)
        learner.end_epoch()
    by_epoch = learner.facts()["accuracy_by_epoch"]
    assert by_epoch[0] < 0.8
    assert by_epoch[-1] == 1.0


def test_how_it_was_trained_is_told(colours):
    told = Told()
    protocol = ask(colours, progress=told).protocol["official linear"]
    assert (protocol["protocol"], protocol["pooling"]) == ("official", "mean")
    assert (protocol["epochs"], protocol["batch_size"], protocol["steps"]) == (4, 8, 20)
    assert protocol["lr"] == pytest.approx(2.0)
    assert protocol["published_batch_size"] == 16_384
    said = "4 epochs of 5 steps, batches of 8 out of 44 images, learning rate 2; published are batches of 16,384"
    assert said in told.said[0]
    assert told.begun[-1] == ("official linear probe of colours", 160, 0)


def test_the_last_epoch_is_reported_and_the_highest_is_said_to_be_chosen(colours):
    protocol = (judged := ask(colours)).protocol["official linear"]
    by_epoch = protocol["accuracy_by_epoch"]
    assert len(by_epoch) == 4
    assert judged.accuracy["official linear"].value == by_epoch[-1]
    highest = protocol["highest"]
    assert highest["accuracy"] == max(by_epoch)
    assert by_epoch[highest["epoch"] - 1] == max(by_epoch)
    assert "chosen on the reported split" in highest["note"]


def test_the_same_question_has_the_same_answer_and_another_seed_another(colours):
    torch.manual_seed(3)
    first, again, other = ask(colours), ask(colours), ask(colours, seed=1)
    assert first == again
    assert other.protocol["official linear"]["final_loss"] != first.protocol["official linear"]["final_loss"]


def test_an_interrupted_training_goes_on_from_its_last_epoch(colours, tmp_path):
    whole = ask(colours)
    with pytest.raises(KeyboardInterrupt):
        ask(colours, cache=tmp_path, progress=Told(images=40 * 2 + 10))
    told = Told()
    assert ask(colours, cache=tmp_path, progress=told) == whole
    assert told.begun[-1] == ("official linear probe of colours", 160, 80)
    assert ask(colours, cache=tmp_path, progress=(again := Told())) == whole
    assert again.begun[-1][2] == 160


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "cut"])
def test_a_damaged_epoch_is_trained_again(colours, tmp_path, content):
    whole = ask(colours, cache=tmp_path)
    (file,) = tmp_path.glob("official-linear-*.safetensors")
    file.write_bytes(file.read_bytes()[:-3] if content is None else content)
    assert ask(colours, cache=tmp_path, progress=(told := Told())) == whole
    assert told.begun[-1][2] == 0


def test_a_place_that_cannot_be_written_costs_a_warning(colours, tmp_path):
    (tmp_path / "kept").write_text("no folder")
    told = Told()
    assert ask(colours, cache=tmp_path / "kept", progress=told) == ask(colours)
    assert sum("are not kept: Cannot write" in message for message in told.said) == 1


def test_other_epochs_are_another_question(colours, tmp_path):
    ask(colours, cache=tmp_path)
    ask(colours, OfficialSettings(epochs=2, batch_size=8), cache=tmp_path)
    assert len(list(tmp_path.glob("official-linear-*.safetensors"))) == 2


def test_images_are_augmented_in_training_and_never_in_the_test(colours):
    seen = []

    def pool(crops):
        seen.append(crops.clone())
        return mean_colour(crops)

    chosen = ProbeSettings(official_linear=OfficialSettings(epochs=2, batch_size=44))
    probe([entrant(pool)], colours, kinds=["official-linear"], settings=chosen)
    train, _, first, second = seen
    assert [len(each) for each in seen] == [44, 20, 44, 44]
    pictures = [{picture.numpy().tobytes() for picture in each} for each in (train, first, second)]
    assert not pictures[0] & pictures[1]
    assert not pictures[1] & pictures[2]


@pytest.mark.parametrize(
    ("images", "width", "batch"),
    [(1_281_167, 192, 16_384), (1_281_167, 384, 8_192), (1_281_167, 768, 8_192), (50_000, 768, 512), (5_401, 192, 64),
     (1_000, 192, 16), (10, 192, 10)],
    ids=str,
)  # fmt: skip
def test_batches_are_the_published_ones_where_there_are_images_enough(images, width, batch):
    assert OfficialSettings().batch_of(images, width) == batch
    assert OfficialSettings(batch_size=7).batch_of(images, width) == 7
    assert published_batch(width) in (8_192, 16_384)


def test_published_learning_rates_follow_from_the_batches():
    for width, lr in ((192, 6.4), (384, 3.2), (768, 3.2)):
        learner = Learner(
            torch.zeros(2, width), torch.zeros(2, dtype=torch.long), 2, OfficialSettings(), 1_281_167, 0, "cpu"
        )
        assert learner.lr == pytest.approx(lr)


def test_a_head_is_judged_by_running_statistics():
    random = torch.Generator().manual_seed(0)
    test, labels = torch.randn(6, 4, generator=random), torch.tensor([0, 1, 0, 1, 0, 1])
    learner = Learner(test, labels, 2, QUICK, 40, 0, "cpu")
    for step in range(4):
        features = torch.randn(8, 4, generator=random) + 2
        learner.step(features, torch.arange(8) % 2, step / 4)
    learner.end_epoch()
    norm = next(module for module in learner.head if isinstance(module, nn.BatchNorm1d))
    before = norm.running_mean.clone()
    one_by_one = [int(learner.head(image[None]).argmax()) for image in test]
    assert learner.predict().tolist() == one_by_one
    assert torch.equal(norm.running_mean, before)


def test_what_cannot_be_trained_is_refused_before_an_image_is_read(colours, tmp_path):
    def never(crops):
        raise AssertionError("an image was read")

    too_large = ProbeSettings(official_linear=OfficialSettings(batch_size=45))
    with pytest.raises(ConfigError, match=r"cannot have 45 of 44 train images\. Give --batch-size 44 or less"):
        probe([entrant(never)], colours, kinds=["official-linear"], settings=too_large)
    for wrong in ({"epochs": 0}, {"batch_size": 1}, {"batch_size": 0}, {"base_lr": 0.0}):
        with pytest.raises(ConfigError, match="at least 1 epoch"):
            OfficialSettings(**wrong)
    with pytest.raises(SourceError, match="There is no image"):
        probe([entrant(never)], tmp_path, kinds=["official-linear"])


@pytest.mark.parametrize("broken", ["features", "rate"])
def test_a_head_that_is_not_finite_is_refused_and_no_chance_level_reported(broken):
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(16, 4, generator=generator), torch.arange(16) % 2
    learner = Learner(features, labels, 2, OfficialSettings(epochs=1, batch_size=16), 16, 0, "cpu")
    if broken == "features":
        features = features.clone()
        features[3, 1] = float("inf")
    else:
        learner.lr = float("inf")
    learner.step(features, labels, 0.5)
    with pytest.raises(CheckpointError, match="not finite after epoch 1"):
        learner.end_epoch()
