"""Scratch folders that writers share, and sizes in words."""

import threading

import pytest

from caev2.store.disk import Scratch, say_bytes, try_writing


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_030_000_000_000, "1.0 TB"), (2 * 10**15, "2000.0 TB")],
)
def test_sizes_are_said_in_powers_of_ten(count, said):
    assert say_bytes(count) == said


def test_writers_that_come_and_go_at_one_moment_never_disturb_each_other(tmp_path):
    problems = []

    def come_and_go(number: int) -> None:
        try:
            for turn in range(60):
                scratch = Scratch(tmp_path / "store" / ".tmp")
                file = scratch.folder / "file"
                file.write_bytes(bytes([number]))
                scratch.is_alone()
                assert file.read_bytes() == bytes([number])
                scratch.close()
                if turn % 3 == 0:
                    try_writing(tmp_path / "store", tmp_path / "store" / ".tmp")
        except OSError as problem:
            problems.append(problem)

    writers = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert problems == []
    assert not (tmp_path / "store" / ".tmp").exists()


def test_a_file_where_the_scratch_folder_should_be_is_an_error(tmp_path):
    (tmp_path / ".tmp").write_text("mine")
    with pytest.raises(FileExistsError):
        Scratch(tmp_path / ".tmp")
    assert (tmp_path / ".tmp").read_text() == "mine"
