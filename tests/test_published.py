"""Command lines of the published code mean the same here, or are answered with the flag that does it."""

import pytest

from nlproar.errors import UserError
from nlproar.published import DATASETS, in_our_words
from nlproar.run import cli
from nlproar.study import cli as study


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        (["--use-gpu", "True", "--seed", "1"], ["--device", "cuda", "--seed", "1"]),
        (["--use-gpu=False"], ["--device", "cpu"]),
        (["--importance-caching", "use"], []),
        (["--importance-caching", "build", "--recursive"], ["--recursive"]),
        (["--acc-batches", "4"], ["--acc-batches", "4"]),
        (["--k", "10", "--roar-strategy", "quantile"], ["--k", "10", "--roar-strategy", "quantile"]),
    ],
)
def test_a_published_flag_means_the_same(published, ours):
    assert in_our_words(published) == ours


@pytest.mark.parametrize(
    ("published", "says"),
    [
        (["--use-gpu", "maybe"], "--device"),
        (["--importance-caching", "never"], "always cached"),
    ],
)
def test_a_published_flag_without_counterpart_is_answered_with_ours(published, says):
    with pytest.raises(UserError, match=says):
        in_our_words(published)


@pytest.mark.parametrize(("published", "ours"), DATASETS.items())
def test_a_published_name_of_a_data_set_is_understood_by_a_run_and_a_study(published, ours):
    (config,) = cli.parse_any_task("", ["--dataset", published, "--use-gpu", "False"])
    assert config.dataset == ours and config.options.device == "cpu"
    grid, _ = study.parse("", ["--dataset", published, "--acc-batches", "1"])
    assert list(grid.datasets) == [ours]


def test_without_a_measure_a_level_is_masked_by_attention_as_in_the_published_code():
    (config,) = cli.parse("", "sst", ["--k", "10"])
    assert config.importance_measure == "attention"
