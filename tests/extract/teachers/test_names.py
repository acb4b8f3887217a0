from pathlib import Path

import pytest

from caev2.errors import ConfigError
from caev2.extract.teachers.names import split_name


@pytest.mark.parametrize(
    ("text", "parts", "canonical"),
    [
        ("demo", ("demo", None, None, None), "demo"),
        ("demo@a/b.safetensors", ("demo", None, None, "a/b.safetensors"), "demo"),
        ("openclip:ViT-B-16/openai", ("openclip", "ViT-B-16", "openai", None), "openclip:ViT-B-16"),
        ("openclip:ViT-B-16@/x/y.pt", ("openclip", "ViT-B-16", None, "/x/y.pt"), "openclip:ViT-B-16"),
        ("openclip:A/b@C:d/e@f:g.pt", ("openclip", "A", "b", "C:d/e@f:g.pt"), "openclip:A"),
        ("openclip:A", ("openclip", "A", None, None), "openclip:A"),
        ("timm:vit.tag", ("timm", "vit.tag", None, None), "timm:vit"),
        ("timm:vit@x/y.z", ("timm", "vit", None, "x/y.z"), "timm:vit"),
    ],
)
def test_a_name_falls_into_its_parts(text, parts, canonical):
    name = split_name(text)
    scheme, architecture, tag, path = parts
    assert (name.scheme, name.architecture, name.tag) == (scheme, architecture, tag)
    assert name.path == (Path(path) if path else None)
    assert (name.text, name.canonical) == (text, canonical)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("openclip:", "architecture"),
        ("openclip:A/", "tag"),
        ("demo@", "path"),
        ("openclip:/x", "architecture"),
    ],
)
def test_a_part_that_is_announced_must_follow(text, missing):
    with pytest.raises(ConfigError, match=f"has no {missing} after"):
        split_name(text)
