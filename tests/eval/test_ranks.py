"""Features by two real processes: those of one, to the bit, however the images are cut; refusals arrive at the first."""

import multiprocessing
import os
import queue
import socket

import pytest
import torch

from caev2.errors import Caev2Error, CheckpointError, ConfigError, FirstRankRefused, SourceError
from caev2.eval.entrants import Entrant
from caev2.eval.features import Reading, Subject, extract_features
from caev2.eval.probes.learner import OfficialSettings
from caev2.eval.probes.protocols import ProbeSettings
from caev2.eval.run import probe
from caev2.pretrain.together.ranks import joined, ranks_of_environment
from caev2.progress import Silent
from caev2.store.images import open_images
from tests.made_up import make_photographs

FORK = multiprocessing.get_context("fork")
READING = {"resize_px": 36, "device": "cpu", "workers": 0}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _work(index: int, count: int, port: int, work, answers) -> None:
    told = {"RANK": index, "WORLD_SIZE": count, "LOCAL_RANK": index, "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    os.environ.update({name: str(value) for name, value in told.items()})
    try:
        with joined(ranks_of_environment(), "cpu") as company:
            answer = work(company)
    except Caev2Error as problem:
        answer = problem
    answers.put((index, answer))


def by_ranks(count: int, work) -> list:
    """What each of so many processes answers, in their order."""
    answers, port = FORK.Queue(), free_port()
    processes = [FORK.Process(target=_work, args=(index, count, port, work, answers)) for index in range(count)]
    for process in processes:
        process.start()
    try:
        found = dict(answers.get(timeout=60) for _ in processes)
    except queue.Empty:
        pytest.fail("a rank gave no answer")
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    return [found[index] for index in range(count)]


def colours(crops: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"mean": crops.float().mean((1, 2)), "corner": crops[:, 0, 0].float()}


SUBJECT = Subject(name="colours", size_px=32, pool=colours, identity="colours")


def as_numpy(features) -> dict:
    return {name: found.numpy() for name, found in features.pooled.items()}


@pytest.mark.parametrize("batch", [3, 5, 64])
def test_the_first_rank_has_the_features_of_one_process_and_the_other_none(tmp_path, batch):
    source = open_images(make_photographs(tmp_path / "images", 20))
    reading = Reading(**READING, batch=batch)
    alone = as_numpy(extract_features(SUBJECT, source, reading, Silent()))
    first, second = by_ranks(2, lambda company: as_numpy(extract_features(SUBJECT, source, reading, Silent(), company)))
    assert first.keys() == alone.keys()
    assert all((first[name] == alone[name]).all() for name in alone)
    assert second == {}


def test_counts_are_those_of_one_process_at_every_rank(tmp_path):
    for split, count in (("train", 26), ("val", 13)):
        make_photographs(tmp_path / "images" / split, count)
    entrant = Entrant(role="student", name="colours", open=lambda _: SUBJECT)
    settings = ProbeSettings(official_linear=OfficialSettings(epochs=2, batch_size=8))

    def ask(**more):
        kinds = ("knn", "linear", "official-linear")
        return probe([entrant], tmp_path / "images", kinds=kinds, settings=settings, **more).mapping()

    alone = ask()
    assert alone["subjects"][0]["accuracy"].keys() == {"knn", "linear", "official linear"}
    assert by_ranks(3, lambda company: ask(company=company)) == [alone] * 3


def test_what_two_ranks_have_kept_one_uses_and_the_other_way_round(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 20))

    def ask(place, company):
        seen = []

        def pool(crops):
            seen.append(len(crops))
            return colours(crops)

        subject = Subject(name="colours", size_px=32, pool=pool, identity="colours")
        reading = Reading(**READING, batch=4, cache=tmp_path / place)
        extract_features(subject, source, reading, Silent(), company)
        return sum(seen)

    assert by_ranks(2, lambda company: ask("kept", company)) == [12, 8]
    assert by_ranks(2, lambda company: ask("kept", company)) == [0, 0]
    assert by_ranks(1, lambda company: ask("kept", company)) == [0]


def test_an_image_that_the_second_rank_cannot_decode_is_told_by_the_first(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 20))
    (source.root / source.paths[5]).write_bytes(b"text")
    reading = Reading(**READING, batch=4)
    first, second = by_ranks(2, lambda company: extract_features(SUBJECT, source, reading, Silent(), company))
    assert isinstance(first, SourceError)
    assert "cannot be decoded" in str(first)
    assert isinstance(second, FirstRankRefused)


def test_features_that_mean_nothing_end_both(tmp_path):
    source = open_images(make_photographs(tmp_path / "images", 20))
    broken = Subject(name="broken", size_px=32, pool=lambda crops: {"same": torch.ones(len(crops), 2)})
    reading = Reading(**READING, batch=4)
    first, second = by_ranks(2, lambda company: extract_features(broken, source, reading, Silent(), company))
    assert isinstance(first, CheckpointError)
    assert isinstance(second, FirstRankRefused)


def test_ranks_that_see_other_weights_are_refused_before_features_are_mixed(tmp_path):
    """As while a run goes on training: one process may find a newer checkpoint than another."""
    for split in ("train", "val"):
        make_photographs(tmp_path / "images" / split, 12)

    def open_latest(device: str) -> Subject:
        return Subject(name="colours", size_px=32, pool=colours, identity=f"checkpoint {os.environ['RANK']}")

    entrant = Entrant(role="student", name="student", open=open_latest)
    first, second = by_ranks(2, lambda company: probe([entrant], tmp_path / "images", kinds=("knn",), company=company))
    assert isinstance(first, ConfigError)
    assert "for student the weights checkpoint 0, number 1 sees checkpoint 1" in str(first)
    assert isinstance(second, FirstRankRefused)
