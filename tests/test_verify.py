"""`nlproar verify` makes a run again from the raw files on, and finds a record whose numbers are not its own."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nlproar import prepare
from nlproar.run import verify
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests import made_models
from tests.conftest import ROOT
from tests.made_records import forge, made


@pytest.mark.slow
def test_a_record_is_verified_and_one_with_another_number_is_not(tmp_path, capsys):
    flags = {"persistent_dir": str(tmp_path), "device": "cpu", "max_epochs": 1, "train_missing": True, "threads": 1}
    config = resolve("planted-keyword", "small", importance_measure="gradient", roar_strategy="count", k=1, **flags)
    run(config)
    words = [config.id, "--persistent-dir", str(tmp_path), "--device", "cpu"]
    before = sorted(tmp_path.rglob("*"))
    verify.main("", words)
    said = capsys.readouterr().out
    assert f"verified: {config.id}" in said and "test accuracy" in said
    assert sorted(tmp_path.rglob("*")) == before

    path = Layout.of(config).record(config)
    content = json.loads(path.read_text())
    content["metrics"]["test"]["accuracy"] = 0.123
    forge(path.parent, content)
    with pytest.raises(SystemExit) as ended:
        verify.main("", words)
    assert ended.value.code == 1 and "differs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_started_from_a_file_is_verified_with_this_file_under_any_name_and_with_no_other(tmp_path, capsys):
    (tmp_path / "words.txt").write_text("quped 0.1 0.2 0.3\nquilo -0.4 0.5 0.6\n")
    flags = {"persistent_dir": str(tmp_path / "dir"), "device": "cpu", "max_epochs": 1, "threads": 1}
    config = resolve("planted-keyword", "small", vectors=str(tmp_path / "words.txt"), **flags)
    run(config)
    moved = tmp_path / "moved.txt"
    (tmp_path / "words.txt").rename(moved)
    words = [config.id, "--persistent-dir", str(tmp_path / "dir"), "--device", "cpu"]
    verify.main("", [*words, "--vectors", str(moved)])
    assert f"verified: {config.id}" in capsys.readouterr().out

    moved.write_text("quped 0.1 0.2 0.4\n")
    for more, said in (
        ([], "say where that is: --vectors"),
        (["--vectors", str(moved)], "this is not words.txt@"),
        (["--vectors", str(tmp_path / "gone")], "this is not a file"),
    ):
        with pytest.raises(SystemExit) as ended:
            verify.main("", [*words, *more])
        assert ended.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_a_pretrained_model_is_verified_with_its_folder(tmp_path, capsys):
    folder = made_models.bert(tmp_path / "model")
    flags = {"persistent_dir": str(tmp_path / "dir"), "device": "cpu", "max_epochs": 1, "threads": 1}
    config = resolve("planted-keyword", "small", model=str(folder), **flags)
    run(config)
    folder.rename(tmp_path / "elsewhere")
    words = [config.id, "--persistent-dir", str(tmp_path / "dir"), "--device", "cpu"]
    verify.main("", [*words, "--model", str(tmp_path / "elsewhere")])
    assert f"verified: {config.id}" in capsys.readouterr().out


def test_a_file_is_refused_for_a_run_that_started_from_none(tmp_path, capsys):
    made(resolve("sst", vectors="random", persistent_dir=str(tmp_path)), 0.5)
    with pytest.raises(SystemExit) as ended:
        verify.main("", ["sst", "--persistent-dir", str(tmp_path), "--vectors", "words.txt"])
    assert ended.value.code == 2 and "did not start from such a file" in capsys.readouterr().err


def test_a_name_that_is_of_no_record_or_of_several_is_an_error_of_the_user(tmp_path, capsys):
    for k in (1, 2):
        made(resolve("sst", importance_measure="gradient", k=k, vectors="random", persistent_dir=str(tmp_path)), 0.5)
    for name, words in (("nothing", "no record"), ("gradient", "2 records have 'gradient' in their name")):
        with pytest.raises(SystemExit) as ended:
            verify.main("", [name, "--persistent-dir", str(tmp_path)])
        assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["metrics", "diagnostics", "masked"])
def test_every_result_of_a_record_is_compared(tmp_path, kind):
    config = resolve("sst", importance_measure="gradient", k=1, vectors="random", persistent_dir=str(tmp_path))
    one = made(config, 0.5, diagnostics={"outside": {"10": 0.1, "20": 0.2}})
    assert set(verify.compare(one, one).values()) == {0.0}
    (name, values), *_ = ({"masked": one.masked} if kind == "masked" else getattr(one, kind)).items()
    key = next(iter(values))
    changed = {key: values[key] + 0.25} if kind == "masked" else {name: {**values, key: values[key] + 0.25}}
    other = replace(one, **{kind: {**getattr(one, kind), **changed}})
    found = verify.compare(one, other)
    assert {name for name, difference in found.items() if difference} == {f"{name} {key}"}
    assert f"{name} {key}" in verify.table(one, other)


@pytest.mark.parametrize("tolerance", ["nan", "-1", "inf"])
def test_a_tolerance_that_would_verify_anything_is_refused(tmp_path, capsys, tolerance):
    with pytest.raises(SystemExit) as ended:
        verify.main("", ["name", "--tolerance", tolerance, "--persistent-dir", str(tmp_path)])
    assert ended.value.code == 2 and "--tolerance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (verify, ("name", "--threads=0")), (verify, ("name", "--threads=-5")), (verify, ("name", "--num-workers=-1")),
        (prepare, ("sst", "--num-workers=-1")),
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused(tmp_path, capsys, command, words):
    with pytest.raises(SystemExit) as ended:
        command.main("", [*words, "--persistent-dir", str(tmp_path)])
    assert ended.value.code == 2 and "must be from" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_command_leaves_no_folder_and_libraries_are_imported_before_it_is_there(tmp_path):
    config = resolve("planted-keyword", "small", persistent_dir=str(tmp_path / "persistent"), vectors="random")
    made(config, 0.8)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = (
        "import importlib, signal, sys\n"
        "from nlproar.run import verify\n"
        "def stopped(config):\n"
        "    print('nlproar.run.context' in sys.modules, flush=True)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "importlib.import_module('nlproar.run.run').run = stopped\n"
        f"verify.main('', [{config.id!r}, '--persistent-dir', {str(tmp_path / 'persistent')!r}])\n"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 143 and done.stdout == "True\n", done.stderr
    assert list(temporary.iterdir()) == []
