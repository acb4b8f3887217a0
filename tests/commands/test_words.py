"""What misspelt names, settings and options get."""

import pytest

from tests.commands.invoking import EXTRACT, refusal, train


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "dmeo"], "There is no recipe called 'dmeo'. Did you mean 'demo'?"),
        (["--recipe", "nowhere.toml"], "cannot be read: No such file or directory"),
        (["--set", "view_cuont=1"], "no setting called 'view_cuont'. Did you mean 'view_count'"),
        (["--set", "view_count=many"], "view_count cannot be 'many'. Give a value of type int"),
        (["--set", "view_count=0"], "view_count is 0; it must be at least 1"),
        (["--set", "views=3"], "views cannot be 3. Give its settings, such as size_px"),
        (["--set", "precision=fp8"], "precision cannot be 'fp8'. Give 'fp32' or 'fp16' or 'bf16' or none"),
        (["--set", "view_count"], "--set 'view_count' has no value"),
        (["--set", 'taps=["projcted"]'], "no tap of demo called 'projcted'. Did you mean 'projected'?"),
        (["--teacher", "dmeo"], "Did you mean 'demo'?"),
        (["--teacher", "openclip:ViT-B-16/opneai"], "Did you mean 'openai'?"),
        (["--teacher", "demo@nowhere"], "No teacher weights can be read at nowhere: No such file"),
        (["--device", "nonsense"], "--device cannot be 'nonsense'. Give cpu, cuda"),
        (["--device", "meta"], "--device cannot be 'meta'"),
        (["--device", "cuda:99"], "--device 'cuda:99' cannot be used"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(images, tmp_path, arguments, message):
    assert message in refusal("extract", images, tmp_path / "store", *EXTRACT, *arguments)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.width=25", "width cannot be 25. Give a multiple of the 2 heads"),
        ("mask.count=64", "64 of 64 patches cannot be masked"),
        ("workers=-1", "workers is -1; it must be at least 0"),
        ("optimizer.lr=-1", "optimizer.lr is -1.0; it must be at least 0"),
        ("optimizer.betas=[2, 3]", "each must be at least 0 and below 1"),
        ("optimizer.clip_norm=0", "must be above 0, or none"),
        ("batch_size=99", "has 10 valid images, fewer than one batch of 99"),
        ("model.image_px=72", "holds views of 64 pixels, the recipe's student takes 72"),
        ("target=post_norm", "no target called 'post_norm'"),
        ("epohcs=3", "Did you mean 'epochs'"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(made, images, tmp_path, setting, message):
    assert message in refusal(*train(made / "store", tmp_path / "run", images, "--set", setting))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('base = "demo"\nblok_images = 3', "no setting called 'blok_images'. Did you mean 'block_images'?"),
        ('base = "dmeo"', "Did you mean 'demo'?"),
        ("base = 3", "no recipe called '3'"),
        ("base = [1]", "no recipe called '[1]'"),
        ("not toml", "is not a TOML file"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_refused(images, tmp_path, content, message):
    path = tmp_path / "mine.toml"
    path.mkdir() if content is None else path.write_text(content)
    assert message in refusal("extract", images, tmp_path / "store", "--recipe", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretran"], "Did you mean 'pretrain'?"),
        (["extrct"], "Did you mean one of: 'export', 'extract'?"),
        (["store", "inof"], "Did you mean 'info'?"),
        (["extract", "a", "b", "--recpe", "demo"], "--recipe"),
        (["extract", "a"], "Missing argument 'STORE'"),
        (["extract", "a", "b", "--views", "x"], "'x' is not a valid integer"),
        (["pretrain", "a", "b", "--resume", "x"], "'x' is not one of 'auto', 'never'"),
        (["probe", "a", "b", "--kind", "lin"], "'lin' is not one of 'knn', 'linear'"),
    ],
)
def test_words_that_no_command_knows_are_refused(arguments, message):
    said = refusal(*arguments)
    assert message in said
    assert said.endswith("--help`.")
