"""A configuration means one run, under one name, whichever way it was asked for."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlproar import storage
from nlproar.dataset import PLANTED, TASKS, load_task
from nlproar.errors import UserError
from nlproar.evaluate.roar import Level, Roar
from nlproar.explain import MEASURES, IntegrationPath
from nlproar.flags import flag, flags_of, values_of
from nlproar.model import MODELS
from nlproar.run import cli
from nlproar.run import config as configs
from nlproar.run.config import SCHEMA, Config, Options, known_flags, resolve
from nlproar.run.layout import Layout
from nlproar.seeds import derive

SCRIPTS = {
    "stanford_sentiment.py": "sst",
    "stanford_nli.py": "snli",
    "imdb.py": "imdb",
    "babi.py": ("--task", {"1": "babi-1", "2": "babi-2", "3": "babi-3"}),
    "mimic.py": ("--subset", {"diabetes": "mimic-diabetes", "anemia": "mimic-anemia"}),
}

ANY_TASK = [  # measures of the usual model
    name for name, measure in MEASURES.items() if measure.role != "truth" and name not in MODELS["rnn"].lacks
]


def runs_of_words(words):
    """The configurations that the words of a printed command ask for: of a script, or of `nlproar run`."""
    if words[:2] == ["nlproar", "run"]:
        return cli.parse_any_task("", words[2:])
    return cli.parse("", SCRIPTS[Path(words[1]).name], words[2:])


@st.composite
def runs(draw):
    flags = {
        "seed": draw(st.integers(0, 3)),
        "importance_measure": draw(st.sampled_from(ANY_TASK)),
        "roar_strategy": draw(st.sampled_from(["count", "quantile"])),
        "k": draw(st.sampled_from([0, 1, 10, 20, 100])),
        "recursive": draw(st.booleans()),
        "recursive_step_size": draw(st.sampled_from([None, 1, 2, 10])),
        "riemann_samples": draw(st.sampled_from([None, 5, 30])),
        "max_epochs": draw(st.sampled_from([None, 1, 8])),
        "batch_size": draw(st.sampled_from([None, 7])),
        "vectors": draw(st.sampled_from([None, "random", "fasttext"])),
    }
    step = flags["recursive_step_size"] or (10 if flags["roar_strategy"] == "quantile" else 1)
    flags["k"] -= flags["k"] % step
    return resolve(draw(st.sampled_from(list(TASKS))), **flags)


def test_a_number_is_the_same_run_whatever_its_type():
    usual = resolve("sst", importance_measure="integrated-gradient", k=10, weight_decay=0.0, tolerance=1.0)
    numbers = {"k": np.int64(10), "weight_decay": 0, "tolerance": np.float64(1), "recursive": np.False_}
    other = resolve("sst", importance_measure="integrated-gradient", **numbers)
    assert other.id == usual.id and other == usual


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("k", 10.0, "whole number"), ("k", [10, 20], "whole number"), ("seed", "1", "whole number"),
        ("k", np.array([10, 20]), "whole number"),
        ("seed", True, "whole number"), ("recursive", 1, "True or False"), ("weight_decay", "0.1", "must be a number"),
        ("vectors", 3, "must be a text"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_an_error_of_the_user(name, value, words):
    with pytest.raises(UserError, match=words):
        resolve("sst", **{"importance_measure": "gradient", "k": 10, name: value})


def asked_for(config):
    """The configuration of a printed command."""
    (found,) = runs_of_words(shlex.split(config.command()))
    return found


@given(runs(), runs())
def test_ids_are_injective(one, other):
    assert (one.id == other.id) == (one == other) == (one.identity == other.identity)


@given(runs())
def test_a_printed_command_is_its_run(config):
    assert asked_for(config) == config


@given(runs())
def test_the_runs_before_end_at_k_0_and_share_everything_else(config):
    while (previous := config.rules.previous(config)) is not None:
        assert previous.at_level < config.at_level
        assert (previous.seed, previous.dataset) == (config.seed, config.dataset)
        config = previous
    assert config.at_level in (0, 100) and config.importance_measure is None


def test_a_run_needs_the_one_whose_model_it_explains():
    recursive = resolve("sst", importance_measure="gradient", roar_strategy="quantile", k=30, recursive=True)
    assert recursive.parameters.recursive_step_size == 10
    (below,) = recursive.needs()
    (lowest,) = below.needs()
    assert [below.at_level, lowest.at_level] == [20, 10]
    assert lowest.needs() == [resolve("sst")]
    assert resolve("sst", importance_measure="gradient", k=3).needs() == [resolve("sst")]
    assert resolve("sst", importance_measure="random", k=3).needs() == []
    assert resolve("sst", roar_strategy="quantile", k=100).needs() == []


def test_what_cannot_matter_does_not_enter():
    assert resolve("sst", importance_measure="gradient", recursive=True) == resolve("sst")
    everything = resolve("sst", roar_strategy="quantile", k=100)
    assert resolve("sst", importance_measure="gradient", roar_strategy="quantile", k=100, recursive=True) == everything
    drawn = {"importance_measure": "random", "k": 5}
    assert resolve("sst", **drawn, recursive=True) == resolve("sst", **drawn)
    options = {"device": "cpu", "num_workers": 3, "threads": 2, "persistent_dir": "x", "overwrite": True}
    assert resolve("sst", **options).id == resolve("sst").id


def test_every_other_flag_enters_the_id(tmp_path):
    base = {"importance_measure": "integrated-gradient", "k": 10, "recursive": True}
    vectors = tmp_path / "v.txt"
    vectors.write_text("a 1\n")
    changes = {
        "seed": 1, "importance_measure": "gradient", "roar_strategy": "quantile", "k": 20, "recursive": False,
        "recursive_step_size": 5, "riemann_samples": 9, "max_epochs": 3, "batch_size": 4, "vectors": str(vectors),
        "hidden_size": 4, "learning_rate": 0.1, "weight_decay": 0.1, "target": "predicted", "tolerance": 0.01,
        "transform": "blur", "acc_batches": 2, "integrated_gradient_baseline": "mask",
    }  # fmt: skip
    of_measures = {
        "smoothgrad": {"smoothgrad_samples": 2, "smoothgrad_noise": 0.5},
        "gradient-shap": {"gradient_shap_samples": 2},
        "leave-one-out": {"leave_one_out_of": "logit"},
        "lime": {"perturbations": 2},
        "beam-search": {"beams": 2},
    }
    of_erasure = {"erasure_model": "masked-fine-tuning", "erasure_class": "gold"}
    of_transformer = {"max_length": 9, "warm_up": 0.2, "bf16": True}
    others = {"model_type", "evaluation", "model"}
    of_one_measure = {name for values in of_measures.values() for name in values}
    of_masked_transformer = {"unit": "word"}
    of_pretrained = {"as_is"}  # see tests/test_as_is.py
    known = set(changes) | set(of_erasure) | set(of_transformer) | set(of_masked_transformer) | of_one_measure
    assert known | of_pretrained == known_flags() - set(flags_of(Options)) - others
    ids = {resolve("sst", **{**base, name: value}).id for name, value in changes.items()}
    assert len(ids | {resolve("sst", **base).id}) == len(changes) + 1
    ids = {resolve("sst", model="tiny", **{name: value}).id for name, value in of_transformer.items()}
    assert len(ids | {resolve("sst", model="tiny").id, resolve("sst").id}) == 5
    masked = {"model": "tiny", "importance_measure": "gradient", "k": 10}
    assert resolve("sst", **masked, **of_masked_transformer).id != resolve("sst", **masked).id
    for measure, values in of_measures.items():
        own = {"importance_measure": measure, "k": 10}
        ids = {resolve("sst", **own, **{name: value}).id for name, value in values.items()}
        assert len(ids | {resolve("sst", **own).id}) == len(values) + 1
    base = {"importance_measure": "gradient", "evaluation": "erasure"}
    ids = {resolve("sst", **{**base, name: value}).id for name, value in of_erasure.items()}
    ids |= {resolve("sst", **base).id, resolve("sst", importance_measure="gradient", evaluation="roar", k=1).id}
    ids |= {resolve("sst", evaluation="masked-fine-tuning").id, resolve("sst").id}
    assert len(ids) == 6
    assert resolve("babi-1", "simulated").id != resolve("babi-1").id


def test_vectors_are_known_by_content_not_by_place(tmp_path):
    ids = set()
    for folder, text in (("a", "x 1\n"), ("b", "x 1\n"), ("c", "x 2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.txt").write_text(text)
        config = resolve("sst", vectors=str(tmp_path / folder / "v.txt"))
        assert asked_for(config) == config
        ids.add(config.id)
    assert len(ids) == 2


def test_the_home_folder_is_found_behind_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "v.txt").write_text("x 1\n")
    (config,) = cli.parse("", "sst", ["--vectors=~/v.txt", "--persistent-dir=~/out"])
    assert config.recipe.vectors_file == str(tmp_path / "v.txt") and Layout.of(config).root == tmp_path / "out"
    assert Layout.at("~").root == tmp_path and Layout.at("a/~").root == Path("a/~")
    for variable, folder in (("SCRATCH", tmp_path / "s" / "nlproar"), ("NLPROAR_PERSISTENT_DIR", tmp_path / "s")):
        monkeypatch.setenv(variable, "~/s")
        assert Layout.at(None).root == folder


def test_an_id_reads():
    config = resolve("babi-2", "simulated", importance_measure="gradient", k=3, recursive=True)
    assert config.id.rpartition("-")[0] == "babi-2-simulated_rnn_s-0_k-3_y-count_m-gradient_r-1_st-1"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"k": -1}, "--k -1"),
        ({"k": 15, "recursive": True, "recursive_step_size": 10}, "--k 15 .* --recursive-step-size 10"),
        ({"k": 110, "roar_strategy": "quantile"}, "--k 110 .* quantile"),
        ({"importance_measure": "magic"}, "--importance-measure magic"),
        ({"vectors": "/nowhere.txt"}, "--vectors /nowhere.txt"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"riemann_samples": 0}, "--riemann-samples 0"),
        ({"source": "simulated"}, "no source 'simulated'"),
        ({"threads": 0}, "--threads 0"),
        ({"k": 900_000, "recursive": True, "importance_measure": "gradient"}, "900,000 levels"),
        ({"device": "cpu\nrm"}, "--device"),
        ({"vectors": ""}, "--vectors is empty"),
        ({"vectors": "a\tb"}, "control character"),
        ({"persistent_dir": "a\nb"}, "control character"),
        ({"persistent_dir": "a\u2028b"}, "control character"),
        ({"persistent_dir": "~nobody-of-this-name/x"}, "no user nobody-of-this-name"),
    ],
)
def test_what_cannot_be_is_refused_by_name(flags, words):
    with pytest.raises(UserError, match=words):
        resolve("sst", **flags)


def test_upstreams_measure_name_is_accepted():
    (config,) = cli.parse("", "sst", ["--importance-measure", "times-input-gradient", "--k", "1"])
    assert config.importance_measure == "input-times-gradient"


def test_seeds_differ_by_purpose_and_seed():
    seeds = {derive(seed, purpose) for seed in range(50) for purpose in ("initialisation", "shuffling", "vectors")}
    assert len(seeds) == 150 and all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "initialisation") == derive(0, "initialisation")


def test_flags_default_to_what_config_says():
    parsed = cli.parse("", "sst", [])
    assert parsed == [resolve("sst")] and isinstance(parsed[0], Config)


def test_a_new_flag_with_its_default_renames_no_run(monkeypatch):
    """Adding a flag to a measure, to an evaluation or to a recipe leaves the identity of every run as it was."""
    asked = {"importance_measure": "integrated-gradient", "k": 10, "riemann_samples": 7, "max_epochs": 3}
    before = resolve("sst", **asked)
    assert before.identity["measure"] == {"riemann_samples": 7}

    @dataclass(frozen=True)
    class More(IntegrationPath):
        baseline: str = flag("zero", "where the path begins", choices=("zero", "mask"))

    @dataclass(frozen=True)
    class MoreLevels(Level):
        ties: str = flag("first", "which of equally important tokens is masked", choices=("first", "last"))

    monkeypatch.setitem(MEASURES, "integrated-gradient", MEASURES["integrated-gradient"]._replace(parameters=More))
    monkeypatch.setattr(Roar, "Parameters", MoreLevels)
    after = resolve("sst", **asked)
    assert after.id == before.id and after.identity == before.identity
    for changed in ({"baseline": "mask"}, {"ties": "last"}):
        assert resolve("sst", **asked, **changed).id != before.id


def test_the_defaults_of_this_schema_are_those_it_was_made_with():
    """A default that changes changes what an identity means: then SCHEMA has to be raised, and this table with it; of
    a measure, its version. What is added with a default is added to the table."""
    defaults = {name: values_of(MODELS["rnn"].recipe(load_task(name))) for name in TASKS if name not in PLANTED}
    defaults["level"] = values_of(Level())
    for name, measure in MEASURES.items():
        if measure.role != "measure":
            continue
        parameters = values_of(measure.parameters()) if measure.parameters else {}
        defaults[name] = {**parameters, "version": measure.version}
    assert (SCHEMA, storage.digest(defaults)[:16]) == (2, "352eb6f180c2ae9c")


def test_an_identity_with_a_flag_that_is_not_known_here_is_refused_and_a_bug_keeps_its_traceback(monkeypatch):
    identity = resolve("sst").identity
    with pytest.raises(UserError, match="not known here: of_a_plugin"):
        configs.from_identity({**identity, "parameters": {**identity["parameters"], "of_a_plugin": 1}})

    def bug(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr(configs, "resolve", bug)
    with pytest.raises(TypeError, match="a bug"):
        configs.from_identity(identity)
