"""Write a CLIP with fixed random weights in OpenAI's format: a stand-in where the real one cannot be fetched.

    python examples/make_random_clip.py ViT-B-16.pt
    caev2 extract IMAGES STORE --teacher openclip:ViT-B-16-quickgelu@ViT-B-16.pt

The file is a TorchScript archive with OpenAI's names and precisions (fp16, with norms and embeddings in
fp32), about 350 MB for ViT-B/16. Its weights are a function of the seed alone, on any machine and with any
version of torch; their scales are those CLIP starts its training from, so that latents have the size of real
ones, but no meaning.
"""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, convert_weights_to_lp
from safetensors.torch import save_file

from caev2.store.draws import Draws

Format = Literal["torchscript", "torch", "safetensors"]


def random_clip(model: Mapping[str, Any], seed: int = 0) -> CLIP:
    """A CLIP of an open_clip configuration, in OpenAI's mixed precision and with the buffers of OpenAI's."""
    clip = CLIP(**model, cast_dtype=torch.float16).eval()
    layers = {"visual": model["vision_cfg"]["layers"], "transformer": model["text_cfg"]["layers"]}
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            deviation = _deviation(name, parameter, layers[name.split(".")[0]] if "resblocks" in name else 1)
            if deviation is not None:
                parameter.copy_(_uniform(parameter.shape, deviation, seed, name))
    convert_weights_to_lp(clip, torch.float16)
    sizes = {"input_resolution": model["vision_cfg"]["image_size"], **model["text_cfg"]}
    for name in ("input_resolution", "context_length", "vocab_size"):
        if hasattr(clip, name):  # open_clip keeps as a number what OpenAI's module has as a buffer
            delattr(clip, name)
        clip.register_buffer(name, torch.tensor(sizes[name]))
    return clip.requires_grad_(False)


def _deviation(name: str, parameter: torch.Tensor, layers: int) -> float | None:
    """Standard deviation as in OpenAI's published initialisation; none for what stays as torch makes it."""
    if name == "visual.class_embedding":
        return parameter.shape[-1] ** -0.5
    if name == "token_embedding.weight":
        return 0.02
    if parameter.ndim < 2:
        return 0.02 if name.endswith("bias") else None  # norms and temperature
    if name.endswith(("proj", "positional_embedding")):  # stored as (input, output), or not a product at all
        return parameter.shape[0 if name.endswith("proj") else 1] ** -0.5
    inputs = parameter[0].numel()
    return inputs**-0.5 * ((2 * layers) ** -0.5 if "out_proj" in name or "c_proj" in name else 1)


def _uniform(shape: torch.Size, deviation: float, seed: int, name: str) -> torch.Tensor:
    """Uniform numbers of a given deviation: distributions of numpy and torch may change, raw words do not."""
    words = Draws("random clip", seed, name).words((shape.numel() + 1) // 2).view(np.uint32)[: shape.numel()]
    unit = words.astype(np.float32) * np.float32(2.0**-32) - np.float32(0.5)
    return torch.from_numpy(unit * np.float32(deviation * 12**0.5)).reshape(shape)


def write_clip(clip: CLIP, path: Path, kind: Format = "torchscript") -> None:
    """Write a CLIP as a TorchScript archive, a state dict, or safetensors in float32, as the hub has it."""
    if kind == "torchscript":
        with warnings.catch_warnings():
            # torch would have us write another format, but OpenAI's file stays what it is
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(clip), str(path))
    elif kind == "torch":
        torch.save(clip.state_dict(), path)
    else:
        buffers = {name for name, _ in clip.named_buffers()}
        weights = {name: tensor.float() for name, tensor in clip.state_dict().items() if name not in buffers}
        save_file(weights, path)


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write a CLIP with fixed random weights.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--architecture", default="ViT-B-16-quickgelu")
    parser.add_argument("--format", default="torchscript", choices=["torchscript", "torch", "safetensors"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    model = open_clip.get_model_config(arguments.architecture)
    if model is None:
        parser.error(f"open_clip has no architecture called {arguments.architecture}")
    write_clip(random_clip(model, arguments.seed), arguments.out, arguments.format)
    size_mb = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {size_mb:.0f} MB, {arguments.architecture}, random weights")


if __name__ == "__main__":
    main()
