import huggingface_hub
import pytest

from caev2.errors import TeacherError
from caev2.extract.teachers.catalog import load_teacher
from caev2.extract.teachers.download import published_sha256
from caev2.extract.teachers.hashes import Digest
from caev2.extract.teachers.hub import Publication, fetch_weights, hub_files
from caev2.extract.teachers.names import split_name
from caev2.extract.teachers.published import published

COMMIT = "0123456789abcdef0123456789abcdef01234567"
URL = "https://example.org/clip/models/" + "5" * 64 + "/ViT-B-16.pt"


@pytest.fixture
def offline(monkeypatch):
    """Hugging Face's own offline mode, as HF_HUB_OFFLINE=1 sets it when the client is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def fill_cache(cache, repository, file, content=b"weights"):
    """A file in the hub's cache, in the layout that its client documents."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    path = folder / "snapshots" / COMMIT / file
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("offline")
def test_without_network_and_cache_one_message_says_what_to_fetch_and_how_to_name_it(tmp_path, capfd):
    with pytest.raises(TeacherError) as refusal:
        load_teacher("openclip:ViT-B-16-quickgelu/openai", cache=tmp_path)
    message = str(refusal.value)
    for part in (
        "openclip:ViT-B-16-quickgelu/openai",
        "offline mode",
        "open_clip_model.safetensors or open_clip_pytorch_model.bin from the repository "
        "timm/vit_base_patch16_clip_224.openai",
        "wget -O ViT-B-16.pt ",
        "sha256 5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
        "--teacher openclip:ViT-B-16-quickgelu/openai@/path/ViT-B-16.pt",
    ):
        assert part in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_what_is_in_the_cache_is_used_offline(file, tmp_path):
    cached = fill_cache(tmp_path, "timm/vit_base_patch16_clip_224.openai", file)
    assert fetch_weights(published(split_name("openclip:ViT-B-16-quickgelu/openai")), cache=tmp_path) == cached


@pytest.mark.usefixtures("offline")
def test_a_cached_teacher_is_the_one_from_its_file(small_files, small_architecture, tmp_path, monkeypatch):
    repository = "someone/small-clip"
    fill_cache(tmp_path, repository, "open_clip_model.safetensors", small_files.safetensors.read_bytes())
    tags = {"own": {"hf_hub": f"{repository}/", "mean": (0.5,) * 3, "std": (0.25,) * 3, "quick_gelu": True}}
    monkeypatch.setitem(open_clip_pretrained(), small_architecture, tags)
    cached = load_teacher(f"openclip:{small_architecture}/own", cache=tmp_path).description
    named = load_teacher(f"openclip:{small_architecture}/own@{small_files.torchscript}").description
    assert cached == named
    assert (cached.mean, cached.std) == ((0.5,) * 3, (0.25,) * 3)


def open_clip_pretrained():
    """open_clip's table of published weights; there is no public way to add to it."""
    from open_clip import pretrained

    return pretrained._PRETRAINED


@pytest.mark.parametrize(
    ("entry", "repository", "files"),
    [
        ("timm/clip/", "timm/clip", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")),
        ("org/clip/a.bin", "org/clip", ("a.safetensors", "a.bin")),
        ("org/clip/a.pt", "org/clip", ("a.pt",)),
    ],
)
def test_safetensors_come_before_pickles(entry, repository, files):
    assert hub_files(entry) == (repository, files)


def test_an_address_tells_the_sha256_of_the_file_it_leads_to():
    assert published_sha256(URL) == Digest("sha256", "5" * 64)
    assert published_sha256("https://example.org/releases/v1/clip.pt") is None
    assert published_sha256("") is None


def test_weights_that_only_have_an_address_are_named_with_it(tmp_path):
    publication = Publication(name="openclip:A/t", url="http://127.0.0.1:9/clip.pt")  # the discard port
    with pytest.raises(TeacherError, match=r"refused.*`wget -O clip.pt http://127.0.0.1:9/clip.pt`; then name"):
        fetch_weights(publication, cache=tmp_path)
