import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caev2.pretrain.learning.decode import TargetDecoder
from caev2.store.codecs.catalog import codec_named
from caev2.store.codecs.codec import decode
from tests.store.codecs.made_up import NAMES, NORMALISING, make_rows

TOKENS = 9


def encoded_rows(name, width=32):
    codec, rows = codec_named(name), make_rows(1, width=width)
    tables = codec.fit(make_rows(0, width=width))
    encoded = codec.encode(rows, tables)
    return TargetDecoder(codec.plan(tables), TOKENS), torch.from_numpy(encoded.stored()), codec, encoded, tables


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("name", NORMALISING)
def test_decoded_channels_are_numpys_to_the_bit_before_the_rotation(name, width):
    decoder, _, codec, encoded, tables = encoded_rows(name, width)
    assert (
        decoder.values(torch.from_numpy(encoded.codes)).numpy().tobytes()
        == codec.plan(tables).values(encoded.codes).tobytes()
    )


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize("name", NAMES)
def test_latents_are_numpys_within_a_millionth(name, width):
    decoder, rows, codec, encoded, tables = encoded_rows(name, width)
    expected = decode(codec, encoded, tables).astype(np.float64)
    found = decoder(rows).double().numpy()
    lengths = np.linalg.norm(expected, axis=-1)
    assert (np.linalg.norm(found - expected, axis=-1) <= 1e-6 * lengths).all()


@pytest.mark.parametrize("name", ["int8", "lloyd4"])
def test_autocast_does_not_round_the_latents(name):
    decoder, rows, *_ = encoded_rows(name)
    with torch.autocast("cpu", torch.bfloat16):
        inside = decoder(rows)
    assert inside.dtype == torch.float32
    assert (inside == decoder(rows)).all()


def test_the_tables_move_with_the_module_and_enter_no_checkpoint():
    decoder, *_ = encoded_rows("lloyd4")
    assert not decoder.state_dict()
    assert {buffer.device.type for buffer in decoder.to("meta").buffers()} == {"meta"}


# in a process of its own: the shape checks of the tests cannot be compiled
COMPILE = """
import sys
import torch
from caev2.pretrain.learning.decode import TargetDecoder
from caev2.store.codecs.catalog import codec_named
from tests.store.codecs.made_up import make_rows

for name in sys.argv[2:]:
    codec, rows = codec_named(name), make_rows()
    tables = codec.fit(rows)
    encoded = codec.encode(rows, tables)
    stored = torch.from_numpy(encoded.stored())
    decoder = TargetDecoder(codec.plan(tables), rows.shape[1])
    compiled = torch.compile(decoder, fullgraph=True, backend=sys.argv[1])
    torch.testing.assert_close(compiled(stored), decoder(stored), rtol=1e-5, atol=1e-5)
    print(name)
"""


def compile_and_compare(backend):
    command = [sys.executable, "-c", COMPILE, backend, *NAMES]
    found = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert found.stdout.split() == list(NAMES), found.stderr


@pytest.mark.slow
def test_a_decoder_is_one_graph_without_control_flow_on_data():
    compile_and_compare("eager")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_decoder_gives_the_same_latents():
    compile_and_compare("inductor")


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_decodes_as_the_cpu_does(name):
    decoder, rows, *_ = encoded_rows(name)
    expected = decoder(rows)
    torch.testing.assert_close(decoder.cuda()(rows.cuda()).cpu(), expected, rtol=1e-5, atol=1e-5)
