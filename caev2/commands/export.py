"""`caev2 export`: weights for where caev2 is not."""

from pathlib import Path
from typing import Literal

import click

from caev2.commands.invocation import LOCAL, example, json_option, print_result


@click.command(epilog=example("export runs/base --format timm --out cae_v2_base.safetensors"))
@click.argument("subject", type=LOCAL)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["timm", "safetensors", "huggingface", "onnx"]),
    required=True,
    help="timm: the encoder for timm.create_model. safetensors: all that was trained, under the published names. "
    "huggingface: a folder for the hub, with a model card. onnx: the encoder for onnxruntime.",
)
@click.option("--out", type=LOCAL, required=True, help="A new file; for huggingface a new folder.")
@click.option("--ema", is_flag=True, help="The moving average of the run's weights (ema_decay).")
@click.option("--heads", type=int, default=None, help="Of the encoder, where neither file nor width tells them.")
@click.option("--regressor-heads", type=int, default=None, help="Of the regressor, likewise.")
@json_option
def export(
    subject: Path,
    kind: Literal["timm", "safetensors", "huggingface", "onnx"],
    out: Path,
    ema: bool,
    heads: int | None,
    regressor_heads: int | None,
    as_json: bool,
) -> None:
    """Write the weights of SUBJECT, a run or a file of weights, in a format of others.

    What was written is read again by timm or onnxruntime, and kept only if it computes what SUBJECT computes.
    """
    from caev2.export.run import export as write_export

    result = write_export(subject, out, kind, averaged=ema, heads=heads, regressor_heads=regressor_heads)
    print_result(result, as_json, f"Exported {subject}")
