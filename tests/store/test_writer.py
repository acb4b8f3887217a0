"""Several writers, lost units and stores of another kind: a store stays what it was begun as."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from caev2.errors import StoreMismatch
from caev2.store.layout import SCRATCH
from caev2.store.manifest import TargetSpec, read_manifest
from caev2.store.reader import Store
from caev2.store.verify import verify_store
from caev2.store.writer import StoreWriter
from tests.store.made_up import TEACHER, TOKENS, WIDTH, manifest_of, write_store, write_unit


def other_teacher() -> dict[str, TargetSpec]:
    teacher = {**TEACHER, "sha256": "1" * 64}
    return {"projected": TargetSpec(teacher=teacher, tap="projected", tokens=TOKENS, width=WIDTH)}


def files_of(store: Path) -> dict[str, bytes]:
    """All but what writers that were never closed have in hand."""
    paths = [path for path in store.rglob("*") if path.is_file() and SCRATCH not in path.parts]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}


def test_of_two_specs_that_begin_at_one_moment_one_is_refused(tmp_path, images):
    for attempt in range(30):
        barrier, outcomes = threading.Barrier(2), []

        def begin(manifest, path=tmp_path / str(attempt), barrier=barrier, outcomes=outcomes):
            barrier.wait()
            try:
                writer = StoreWriter(path, manifest, images.listing())
            except StoreMismatch:
                outcomes.append("refused")
            else:
                outcomes.append(writer.manifest.spec.fingerprint())
                writer.close()

        wanted = [manifest_of(images), manifest_of(images, targets=other_teacher())]
        threads = [threading.Thread(target=begin, args=(manifest,)) for manifest in wanted]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count("refused") == 1
        outcomes.remove("refused")
        assert outcomes == [read_manifest(tmp_path / str(attempt)).spec.fingerprint()]


def test_a_unit_of_another_spec_does_not_count(tmp_path, images, latents):
    write_store(tmp_path / "one", images, latents)
    other = StoreWriter(tmp_path / "other", manifest_of(images, targets=other_teacher()), images.listing())
    write_unit(other, 0, images, latents)
    assert 0 not in other.pending()
    shutil.copy(tmp_path / "one/units/000000.json", tmp_path / "other/units/000000.json")
    assert 0 in other.pending()
    problems = verify_store(Store(tmp_path / "other", allow_unsealed=True)).problems
    assert any("units/000000.json" in problem for problem in problems)
    other.close()


def test_a_lost_unit_that_comes_back_different_is_refused_every_time_until_it_comes_back_equal(
    store_path, images, latents
):
    before, changed = files_of(store_path), latents + np.float16(1)
    (store_path / "units/000001.json").unlink()
    for _ in range(2):
        with pytest.raises(StoreMismatch, match="was sealed with root digest"):
            write_store(store_path, images, changed)
        assert read_manifest(store_path).state == "building"
    write_store(store_path, images, latents)
    assert files_of(store_path) == before


def test_the_root_digest_is_that_of_what_the_index_says(store_path, images, latents):
    manifest, index = read_manifest(store_path), store_path / "index.parquet"
    parquet.write_table(parquet.read_table(index), index, compression="none")
    assert any("index.parquet" in problem for problem in verify_store(Store(store_path)).problems)
    index.unlink()
    write_store(store_path, images, latents)
    assert read_manifest(store_path) == manifest
    assert verify_store(Store(store_path)).problems == ()


def test_a_unit_that_another_writer_has_finished_is_not_written_again(tmp_path, images, latents):
    one, two = (StoreWriter(tmp_path / "store", manifest_of(images), images.listing()) for _ in range(2))
    write_unit(one, 0, images, latents)
    record = (tmp_path / "store/units/000000.json").stat()
    assert two.is_done(0)
    write_unit(two, 0, images, latents)
    after = (tmp_path / "store/units/000000.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (record.st_ino, record.st_mtime_ns)
    one.close()
    two.close()


def test_a_manifest_says_which_blocks_are_made_anew(store_path, images):
    sealed = read_manifest(store_path)
    (store_path / "units/000002.json").unlink()
    writer = StoreWriter(store_path, manifest_of(images), images.listing())
    there = read_manifest(store_path)
    assert (there.state, there.sealed_as, there.lost_blocks) == ("building", sealed.root_digest, (2,))
    writer.close()
