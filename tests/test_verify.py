"""`nlproar verify` makes a run again from the raw files on, and finds a record whose numbers are not its own."""

import json

import pytest

from nlproar.run import verify
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.run.run import run
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


def test_a_name_that_is_of_no_record_or_of_several_is_an_error_of_the_user(tmp_path, capsys):
    for k in (1, 2):
        made(resolve("sst", importance_measure="gradient", k=k, vectors="random", persistent_dir=str(tmp_path)), 0.5)
    for name, words in (("nothing", "no record"), ("gradient", "2 records have 'gradient' in their name")):
        with pytest.raises(SystemExit) as ended:
            verify.main("", [name, "--persistent-dir", str(tmp_path)])
        assert ended.value.code == 2 and words in capsys.readouterr().err
