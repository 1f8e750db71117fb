"""Models of the Hugging Face hub: brought once, whole or not at all, and without pickles. The hub is made here."""

import signal
import subprocess
import sys
from fnmatch import fnmatch
from types import SimpleNamespace
from unittest.mock import create_autospec

import huggingface_hub
import pytest

from nlproar.dataset import pretrained
from nlproar.errors import UserError
from nlproar.run.layout import Layout
from tests.conftest import ROOT

NAME = "group/model"
WANTED = {"config.json": '{"model_type": "bert"}', "model.safetensors": "weights", "tokenizer.json": "{}"}

# A hub that ends the process when it has given the first file.
ENDING = """
import os, pathlib, signal

def snapshot_download(name, *, local_dir, **_):
    pathlib.Path(local_dir).mkdir()
    pathlib.Path(local_dir, "config.json").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def hub(monkeypatch):
    """A hub of one model: its `files`, the `error` that it raises after them, and the names that were `asked` for."""
    hub = SimpleNamespace(files={**WANTED, "pytorch_model.bin": "a pickle"}, error=None, asked=[])

    def give(name, *, local_dir, allow_patterns, **_):
        hub.asked.append(name)
        local_dir.mkdir()
        for file, content in hub.files.items():
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                (local_dir / file).write_text(content)
        if hub.error is not None:
            raise hub.error

    given = create_autospec(huggingface_hub.snapshot_download, side_effect=give)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", given)
    return hub


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "persistent")


def models(layout):
    """The models that are in place, each with its files."""
    folders = [path for path in (layout.raw / "models").iterdir() if not path.name.startswith(".")]
    return {folder.name: {file.name: file.read_text() for file in folder.iterdir()} for folder in folders}


def test_a_model_is_downloaded_once_and_without_its_pickle(hub, layout):
    found, folder = pretrained.locate(NAME, layout)
    assert found.identity.startswith(f"{NAME}@") and models(layout) == {folder.name: WANTED}
    assert pretrained.locate(NAME, layout) == (found, folder)
    pretrained.fetch(NAME, layout)
    assert hub.asked == [NAME]


def test_a_model_that_was_there_before_is_downloaded_again_where_it_is_asked_for_only(hub, layout):
    found, folder = pretrained.locate(NAME, layout)
    folder.rename(layout.root / "elsewhere")
    assert pretrained.locate(NAME, layout) == (found, None) and hub.asked == [NAME]
    pretrained.fetch(NAME, layout)
    assert pretrained.locate(NAME, layout) == (found, folder) and hub.asked == [NAME, NAME]


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_one_is_whole(hub, layout):
    hub.error = ConnectionError("reset by peer")
    hub.files = {"config.json": WANTED["config.json"]}
    with pytest.raises(UserError, match=r"the Hugging Face hub gives no such model \(ConnectionError\); put config"):
        pretrained.locate(NAME, layout)
    assert {path.suffix for path in layout.root.rglob("*") if path.is_file()} <= {".lock"}
    hub.error = None
    hub.files = WANTED
    pretrained.locate(NAME, layout)
    assert list(models(layout).values()) == [WANTED]


def test_what_the_hub_has_without_a_configuration_is_refused_and_leaves_nothing(hub, layout):
    del hub.files["config.json"]
    with pytest.raises(UserError, match=r"the hub has no config\.json of it; put config"):
        pretrained.locate(NAME, layout)
    assert {path.suffix for path in layout.root.rglob("*") if path.is_file()} <= {".lock"}


def test_a_folder_with_a_part_of_a_model_is_refused_and_stays_as_it_is(hub, layout):
    folder = layout.raw / "models" / "group--model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("mine")
    with pytest.raises(UserError, match=f"{folder} is incomplete; remove it, or put"):
        pretrained.locate(NAME, layout)
    assert models(layout) == {"group--model": {"model.safetensors": "mine"}} and hub.asked == []


def test_a_download_that_is_killed_leaves_no_model_and_the_next_one_is_whole(hub, layout, tmp_path):
    (tmp_path / "huggingface_hub.py").write_text(ENDING)
    code = "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
    code += "from nlproar.dataset import pretrained\nfrom nlproar.run.layout import Layout\n"
    code += "pretrained.locate(sys.argv[2], Layout(Path(sys.argv[3])))"
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path), NAME, str(layout.root)], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL and models(layout) == {}
    pretrained.locate(NAME, layout)
    assert list(models(layout).values()) == [WANTED]
