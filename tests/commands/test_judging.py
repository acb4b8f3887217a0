"""What a run is worth while it is trained, and what its averaged weights are."""

import json

from caev2.pretrain.telling.log import read_log
from tests.commands.invoking import caev2, refusal, train


def test_nearest_neighbours_are_asked_while_training(made, images, tmp_path):
    run = tmp_path / "run"
    done = caev2(*train(made / "store", run, images, "--knn", images, "--set", "knn_epochs=1"))
    assert done.exit_code == 0, done.output
    found = [record["knn_percent"] for record in read_log(run) if "knn_percent" in record]
    assert len(found) == 2
    assert all(0 <= percent <= 100 for percent in found)
    probed = caev2("probe", run, images, "--kind", "knn", "--only", "--json", "--quiet", "--device", "cpu")
    accuracy = json.loads(probed.stdout)["subjects"][0]["accuracy"]["knn"]["value"]
    assert found[-1] == round(100 * accuracy, 2)


def test_labels_that_are_not_there_are_refused_before_training(made, images, tmp_path):
    said = refusal(*train(made / "store", tmp_path / "run", images, "--knn", tmp_path))
    assert "There is no image in" in said
    assert not (tmp_path / "run").exists()


def test_averaged_weights_are_judged_beside_the_others(made, images, tmp_path):
    run = tmp_path / "run"
    assert caev2(*train(made / "store", run, images, "--set", "ema_decay=0.5")).exit_code == 0
    done = caev2("probe", run, images, "--kind", "knn", "--only", "--ema", "--json", "--quiet", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert [one["name"] for one in json.loads(done.stdout)["subjects"]] == ["student", "student, weights averaged"]


def test_an_average_that_was_not_kept_is_refused(made, images):
    said = refusal("probe", made / "run", images, "--kind", "knn", "--only", "--ema", "--quiet", "--device", "cpu")
    assert "holds no moving average" in said
    assert "ema_decay" in said
