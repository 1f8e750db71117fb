"""Command lines of the published code mean the same here, or are answered with the flag that does it."""

import runpy
import sys

import pytest

from nlproar.errors import UserError
from nlproar.published import DATASETS, in_our_words
from nlproar.run import cli
from nlproar.study import cli as study
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        (["--use-gpu", "True", "--seed", "1"], ["--device", "cuda", "--seed", "1"]),
        (["--use-gpu=False"], ["--device", "cpu"]),
        (["--use-gpu"], ["--device", "cuda"]),
        (["--use-gpu", "--seed", "1"], ["--device", "cuda", "--seed", "1"]),
        (["--use-gpu="], ["--device", "cpu"]),
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


# Command lines of the published batch scripts and README: the words, and the run that they are here.
SAME = {
    "stanford_sentiment.py --seed 0 --use-gpu True --persistent-dir out": {"dataset": "sst", "seed": 0, "k": 0},
    "stanford_sentiment.py --recursive --importance-measure gradient --k 20 --roar-strategy quantile"
    " --recursive-step-size 10 --seed 1 --num-workers 4 --use-gpu True --persistent-dir out": {
        "dataset": "sst",
        "seed": 1,
        "k": 20,
        "importance_measure": "gradient",
        "recursive": True,
        "recursive_step_size": 10,
        "roar_strategy": "quantile",
    },
    "stanford_nli.py --k 3 --roar-strategy count --importance-measure attention --seed 2 --use-gpu False": {
        "dataset": "snli",
        "k": 3,
        "importance_measure": "attention",
        "recursive": False,
    },
    "imdb.py --k 10 --importance-measure times-input-gradient --importance-caching build --roar-strategy quantile": {
        "dataset": "imdb",
        "importance_measure": "input-times-gradient",
    },
    "mimic.py --subset anemia --k 10 --recursive --importance-measure random --importance-caching use": {
        "dataset": "mimic-anemia",
        "importance_measure": "random",
        "recursive": False,
    },
    "mimic.py --subset diabetes --k 100 --roar-strategy quantile --importance-measure integrated-gradient": {
        "dataset": "mimic-diabetes",
        "importance_measure": None,
    },
    "babi.py --task 3 --k 1 --importance-measure mutual-information --max-epochs 2 --batch-size 8 --acc-batches 1": {
        "dataset": "babi-3",
        "max_epochs": 2,
        "batch_size": 8,
    },
    "babi.py --task 1 --k 1 --importance-measure integrated-gradient --riemann-samples 50 --model-type rnn": {
        "dataset": "babi-1",
        "riemann_samples": 50,
    },
}
SAME["imdb.py --acc-batches 4 --batch-size 8"] = {"acc_batches": 4, "batch_size": 8}
ANSWERED = {
    "stanford_sentiment.py --importance-caching no --k 10": "always cached",
    "stanford_sentiment.py --use-gpu 3": "--device",
}


def parsed(monkeypatch, command):
    """What a script in experiments/ makes of a command line, without carrying it out."""
    found = []
    monkeypatch.setattr(cli, "carry_out", found.extend)
    script, *words = command.split()
    path = ROOT / "experiments" / script
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    runpy.run_path(str(path), run_name="__main__")
    return found


@pytest.mark.parametrize("command", SAME)
def test_a_published_command_pasted_as_it_is_makes_the_same_run(command, monkeypatch):
    (config,) = parsed(monkeypatch, command)
    for name, value in SAME[command].items():
        assert config.values[name] == value, name


@pytest.mark.parametrize("command", ANSWERED)
def test_a_published_command_that_is_not_possible_ends_in_one_line_that_names_the_flag(command, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        parsed(monkeypatch, command)
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and ANSWERED[command] in said and len(said.splitlines()) == 1
