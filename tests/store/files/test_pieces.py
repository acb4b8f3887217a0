"""Pieces of files, read by threads: the bytes that are there, in the order asked for."""

import os

import numpy as np
import pytest

from caev2.store.files import pieces
from caev2.store.files.pieces import pieces_of, read_pieces
from caev2.store.files.shard import crc32c


@pytest.fixture
def file(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8)
    (tmp_path / "data").write_bytes(data.tobytes())
    descriptor = os.open(tmp_path / "data", os.O_RDONLY)
    yield descriptor, data
    os.close(descriptor)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 64])
def test_pieces_come_in_the_order_asked_for_with_their_checksums(monkeypatch, file, threads, count):
    monkeypatch.setattr(pieces, "_THREADS", threads)
    monkeypatch.setattr(pieces, "_THREADED_BYTES", 0)
    pieces._pool.cache_clear()
    descriptor, data = file
    offsets = np.random.default_rng(1).integers(0, 90_000, count).tolist()
    into = np.zeros((count, 1000), np.uint8)
    found = read_pieces(pieces_of(into), [descriptor] * count, offsets, check=True)
    for place, offset in enumerate(offsets):
        wanted = data[offset : offset + 1000]
        assert np.array_equal(into[place], wanted)
        assert found[place] == crc32c(wanted.tobytes())
    pieces._pool.cache_clear()


def test_a_file_that_ends_within_a_piece_is_an_error(file):
    with pytest.raises(EOFError, match="ends 500 bytes early"):
        read_pieces(pieces_of(np.zeros((1, 1000), np.uint8)), [file[0]], [99_500], check=False)


def test_a_forked_process_reads_with_threads_of_its_own(file):
    descriptor, data = file
    into = np.zeros((4, 20_000), np.uint8)
    read_pieces(pieces_of(into), [descriptor] * 4, [0, 1, 2, 3], check=False)
    child = os.fork()
    if child == 0:
        into[:] = 0
        read_pieces(pieces_of(into), [descriptor] * 4, [0, 1, 2, 3], check=False)
        os._exit(0 if np.array_equal(into[3], data[3:20_003]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
