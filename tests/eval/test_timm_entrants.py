"""timm's models as subjects: the features that timm computes, whatever kind of network, and clear refusals."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.functional import normalize

from caev2.errors import ConfigError, TeacherError
from caev2.eval.features import Reading, extract_features
from caev2.eval.run import probe
from caev2.eval.timm_entrants import TimmEntry
from caev2.progress import Silent
from caev2.store.images import open_images
from tests.made_up import make_photographs

VIT, NETWORK = "test_vit", "test_resnet"
CROPS = torch.randint(0, 255, (3, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of two small models that nobody trained, with their classifiers; and the models."""
    folder, models = tmp_path_factory.mktemp("weights"), {}
    for number, name in enumerate((VIT, NETWORK)):
        torch.manual_seed(number)
        sized = {"img_size": 96} if name == VIT else {}
        models[name] = timm.create_model(name, pretrained=False, **sized).eval()
        save_file(
            {key: value.contiguous() for key, value in models[name].state_dict().items()},
            folder / f"{name}.safetensors",
        )
    return folder, models


def as_timm_sees(crops: torch.Tensor, name: str) -> torch.Tensor:
    facts = timm.get_pretrained_cfg(name)
    return normalize(crops.permute(0, 3, 1, 2).float() / 255, list(facts.mean), list(facts.std))


def subject_of(weights, name: str, size_px: int = 96):
    return TimmEntry.parse(f"timm:{name}@{weights[0] / name}.safetensors", size_px).pretrained().open("cpu")


def test_a_transformer_gives_its_class_token_the_mean_of_its_patches_and_its_blocks(weights):
    subject, model = subject_of(weights, VIT), weights[1][VIT]
    with torch.inference_mode():
        pooled, tokens = subject.pool(CROPS), model.forward_features(as_timm_sees(CROPS, VIT))
        own, _ = subject.trunk.pool_and_keep(CROPS)
    torch.testing.assert_close(pooled["class"], tokens[:, 0])
    torch.testing.assert_close(pooled["mean"], tokens[:, model.num_prefix_tokens :].mean(1))
    assert own.keys() == pooled.keys()
    assert subject.trunk.depth == len(model.blocks)
    assert subject.size_px == 96
    assert f"class of block {len(model.blocks) - 1}" in pooled


def test_another_network_gives_what_it_pools_for_its_classifier(weights):
    subject, model = subject_of(weights, NETWORK), weights[1][NETWORK]
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(as_timm_sees(CROPS, NETWORK)), pre_logits=True)
        torch.testing.assert_close(subject.pool(CROPS)["pooled"], wanted)
    assert subject.trunk is None


def test_pixels_are_normalised_as_the_model_expects_it(weights):
    facts = timm.get_pretrained_cfg(VIT)
    assert (facts.mean, facts.std) != (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)  # or nothing would be tested here
    subject = subject_of(weights, VIT)
    with torch.inference_mode():
        wrong = normalize(CROPS.permute(0, 3, 1, 2).float() / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        assert not torch.allclose(
            subject.pool(CROPS)["class"], weights[1][VIT].forward_features(wrong)[:, 0], atol=1e-3
        )


@pytest.mark.parametrize("name", [VIT, NETWORK])
def test_a_random_start_follows_its_seed_and_is_not_the_model(weights, name):
    entry = TimmEntry.parse(f"timm:{name}@{weights[0] / name}.safetensors", 96)
    one, again, other = (entry.random_start(seed).open("cpu") for seed in (0, 0, 1))
    assert one.identity == again.identity != other.identity
    assert one.identity != entry.pretrained().open("cpu").identity
    with torch.inference_mode():
        features = [next(iter(each.pool(CROPS).values())) for each in (one, again, other)]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_the_global_generator_is_left_alone(weights):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in (VIT, NETWORK):
        TimmEntry.parse(f"timm:{name}@{weights[0] / name}.safetensors", 96).random_start(0).open("cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_name_alone_means_the_published_weights():
    for name in (VIT, NETWORK):
        entry = TimmEntry.parse(f"timm:{name}")
        assert entry.name.architecture == f"{name}.{timm.get_pretrained_cfg(name).tag}"
        assert entry.pretrained().name == f"timm:{entry.name.architecture}"
    assert TimmEntry.parse("timm:vit_small_patch14_dinov2").name.architecture == "vit_small_patch14_dinov2.lvd142m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timm:vit_smal_patch14_dinov2", r"timm has no model called 'vit_smal_patch14_dinov2'\. Did you mean 'vit_small_patch14"),
        ("timm:qqqqqq", r"no model called 'qqqqqq'\. timm.list_models\(\) tells all of them"),
        ("timm:test_vit.nobody", r"timm knows no weights called 'nobody' for test_vit"),
        ("timm:test_vit/tag", r"names no model\. Write timm:MODEL"),
    ],
)  # fmt: skip
def test_names_that_timm_does_not_know_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        TimmEntry.parse(text)


def test_a_model_without_published_weights_wants_a_file():
    bare = next(name for name in timm.list_models("vit_*") if not timm.list_models(f"{name}.*", pretrained=True))
    with pytest.raises(ConfigError, match=f"timm has no weights for {bare}. Give a file of them: timm:{bare}@FILE"):
        TimmEntry.parse(f"timm:{bare}")


@pytest.mark.parametrize(("name", "other"), [(VIT, NETWORK), (NETWORK, VIT)])
def test_a_file_of_another_model_is_refused(weights, name, other):
    entry = TimmEntry.parse(f"timm:{name}@{weights[0] / other}.safetensors", 96)
    with pytest.raises(TeacherError, match=f"is no timm:{name}: for .* the architecture has"):
        entry.pretrained().open("cpu")


def test_files_that_are_missing_or_sizes_that_do_not_fit_are_refused(weights, tmp_path):
    with pytest.raises(TeacherError, match="No teacher weights can be read"):
        TimmEntry.parse(f"timm:{VIT}@{tmp_path / 'gone'}").pretrained().open("cpu")
    with pytest.raises(ConfigError, match="patches of 16 pixels, so its image size cannot be 90"):
        subject_of(weights, VIT, 90)


@pytest.mark.parametrize("name", [VIT, NETWORK])
def test_both_kinds_are_probed(weights, name, tmp_path):
    for split, count in (("train", 12), ("val", 6)):
        make_photographs(tmp_path / "images" / split, count)
    entry = TimmEntry.parse(f"timm:{name}@{weights[0] / name}.safetensors", 96)
    result = probe([entry.pretrained(), entry.random_start(0)], tmp_path / "images", kinds=("knn", "linear"))
    assert [one.role for one in result.subjects] == ["random start", "model"]
    assert all(set(one.accuracy) == {"knn", "linear"} for one in result.subjects)
    assert result.subjects[1].protocol["knn"]["pooling"] == ("class" if name == VIT else "pooled")
    assert result.subjects[1].sha256 != result.subjects[0].sha256


def test_a_network_without_tokens_says_so_where_tokens_are_asked_for(weights, tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 4))
    reading = Reading(resize_px=110, device="cpu", workers=0, with_tokens=True)
    with pytest.raises(ConfigError, match="there are no tokens to look at"):
        extract_features(subject_of(weights, NETWORK), source, reading, Silent())
    found = extract_features(subject_of(weights, VIT), source, reading, Silent())
    assert found.tokens.shape[:2] == (4, 37)


def test_equal_weights_that_see_other_pixels_have_another_identity():
    """Random starts of one seed are equal, and tags of one model may normalise pixels in different ways."""
    small = ("timm:vit_small_patch16_224.augreg_in21k", "timm:vit_small_patch16_224.dino")
    other = ("timm:tf_efficientnet_b0.aa_in1k", "timm:tf_efficientnet_b0.ap_in1k")
    for pair in (small, other):
        one, another = (TimmEntry.parse(name, 64).random_start(0).open("cpu") for name in pair)
        assert one.sha256 == another.sha256
        assert one.identity != another.identity
