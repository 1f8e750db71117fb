"""Results that were packed and unpacked elsewhere give the same report, and what is confidential stays at home."""

import shutil
import stat
import subprocess
import tarfile

import pytest

from nlproar.errors import UserError
from nlproar.report import frame
from nlproar.run import pack, record
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests import made_records
from tests.conftest import ROOT


def unpacked(path, folder):
    with tarfile.open(path) as archive:
        filtered = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and later
        archive.extractall(folder, **filtered)
    return Layout(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz", "all.tar.xz"])
def test_the_report_reads_the_same_records_masks_and_importance_elsewhere(small_run, tmp_path, name):
    config = small_run(importance_measure="gradient", k=1, train_missing=True)
    run(config)
    home = Layout.of(config)
    there = unpacked_of(home, tmp_path, name)
    assert [path.name for path in there.records()] == [path.name for path in home.records()]
    for path in there.records():
        assert record.load(path) == record.load(home.results / "roar" / path.name)
    for folder in ("encoded", "masks", "importance"):
        packed = {path.name: path.read_bytes() for path in (there.cache / folder).iterdir()}
        kept = {path.name: path.read_bytes() for path in (home.cache / folder).iterdir() if path.name[0] != "."}
        assert packed == kept and packed
    assert not (there.root / "checkpoints").exists() and not list(there.root.rglob(".*"))
    assert len(frame.load([there]).studies) == 1


def unpacked_of(home, tmp_path, name):
    out = tmp_path / name
    number = pack.pack(home, out)
    there = unpacked(out, tmp_path / "elsewhere")
    assert number == sum(path.is_file() for path in there.root.rglob("*"))
    return there


def test_of_a_confidential_task_only_records_are_packed_for_their_owner(tmp_path):
    home = Layout(tmp_path / "home")
    made_records.study(home.root, "mimic-anemia", seeds=[0], measures=["gradient"])
    (home.cache / "encoded").mkdir(parents=True)
    (home.cache / "encoded" / "texts.npz").write_bytes(b"secret")
    out = tmp_path / "all.tar"
    for caches, expected in ((None, False), (True, True)):
        pack.pack(home, out, caches)
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        with tarfile.open(out) as archive:
            assert ("cache/encoded/texts.npz" in archive.getnames()) == expected


def names_in(path):
    with tarfile.open(path) as archive:
        return archive.getnames()


@pytest.mark.parametrize(
    "name",
    [
        "results/importance_measure/mimic-anemia_rnn.csv.gz",
        "cache/encoded/mimic-anemia_official-1.npz",
        "cache/encoded/films_official-1.npz",  # of a plug-in that is not loaded here: nobody knows
    ],
)
def test_texts_of_a_confidential_or_unknown_task_without_a_record_stay_at_home(tmp_path, name):
    home = Layout(tmp_path / "home")
    made_records.study(home.root, "sst", seeds=[0], measures=["gradient"])
    secret = home.root / name
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(b"secret")
    out = tmp_path / "all.tar"
    pack.pack(home, out)
    assert name not in names_in(out) and stat.S_IMODE(out.stat().st_mode) == 0o600
    public = secret.rename(secret.with_name(secret.name.replace("mimic-anemia", "sst").replace("films", "sst")))
    pack.pack(home, out)
    assert str(public.relative_to(home.root)) in names_in(out)


def test_a_file_that_goes_while_it_is_packed_is_left_out(tmp_path, monkeypatch):
    home = Layout(tmp_path / "home")
    made_records.study(home.root, "sst", seeds=[0], measures=["gradient"])
    listed = list(pack._files(home, True))
    listed[0].unlink()
    monkeypatch.setattr(pack, "_files", lambda layout, with_caches: listed)
    assert pack.pack(home, tmp_path / "all.tar") == len(listed) - 1


def test_a_file_that_is_replaced_while_it_is_packed_is_whole(tmp_path, monkeypatch):
    home = Layout(tmp_path / "home")
    made_records.study(home.root, "sst", seeds=[0], measures=["gradient"])
    before = home.records()[0].read_bytes()
    after = b"\n" + before

    def replaced_now(member):
        path = home.root / member.name
        (tmp_path / "new").write_bytes(after)
        (tmp_path / "new").replace(path)
        return member

    monkeypatch.setattr(pack, "_anonymous", replaced_now)
    pack.pack(home, tmp_path / "all.tar")
    (packed, *_) = unpacked(tmp_path / "all.tar", tmp_path / "away").records()
    assert packed.read_bytes() in (before, after)


def test_the_archive_is_written_into_the_home_folder(monkeypatch, tmp_path):
    made_records.study(tmp_path / "home", "sst", seeds=[0], measures=["gradient"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pack.main("", ["--out=~/all.tar", "--persistent-dir", "home"])
    assert (tmp_path / "all.tar").is_file() and not (tmp_path / "~").exists()


def test_no_record_and_another_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="no record"):
        pack.pack(Layout(tmp_path), tmp_path / "all.tar")
    with pytest.raises(UserError, match=r"\.tar\.gz"):
        pack.pack(Layout(tmp_path), tmp_path / "all.zip")


def test_the_job_that_makes_the_report_is_submitted_with_its_flags_from_the_folder_of_the_user(tmp_path):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\necho "$PWD: $*"\n')
    sbatch.chmod(0o755)
    script = str(ROOT / "batch_jobs" / "report.sh")
    line = [shutil.which("bash"), script, "--persistent-dir", "a folder"]
    environment = {"SBATCH": str(sbatch), "PATH": "/usr/bin:/bin", "NLPROAR_ACCOUNT": "me"}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == f"{tmp_path}: --account=me {script} --persistent-dir a folder"
