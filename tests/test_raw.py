"""What the user placed is used, else a verified download; nothing half or foreign stays behind."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from dataclasses import replace

import pytest

from nlproar.dataset import raw
from nlproar.dataset.sources import Source
from nlproar.errors import UserError

MEMBERS = ("inner/a.txt", "inner/b.txt")
TEXTS = {"inner/a.txt": "eins\n", "inner/b.txt": "zwei\n"}


def read(files):
    """Every member, as contents and as lines."""
    for name, text in TEXTS.items():
        assert [line for _, line in files.lines(name)] in ([text.rstrip("\n")], ["drei"])
    return dict(files.contents("inner/*.txt"))


def archive(path, texts=TEXTS, prefix=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, text in texts.items():
                file.writestr(prefix + name, text)
    else:
        mode = {"gz": "w:gz", "xz": "w:xz", "bz2": "w:bz2"}.get(path.name.rpartition(".")[2], "w")
        with tarfile.open(path, mode) as file:
            for name, text in texts.items():
                info = tarfile.TarInfo(prefix + name)
                info.size = len(text)
                file.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def server(tmp_path):
    """A web server with one archive: its address, its archive, and the requests it saw."""
    file = archive(tmp_path / "www" / "data.zip")
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=file.parent)

        def log_message(self, *args):
            requests.append(args)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", file, requests
        running.shutdown()


def source(*urls, sha256=None):
    return Source("toy", urls or ("http://127.0.0.1:9/data.zip",), sha256, 1)


@pytest.mark.parametrize("name", ["data.zip", "data.tar", "data.tar.gz", "data.tgz", "data.tar.xz", "data.tar.bz2"])
@pytest.mark.parametrize("prefix", ["", "./", "packed/"])
def test_an_archive_of_any_compression_is_read(tmp_path, name, prefix):
    archive(tmp_path / "toy" / name, prefix=prefix)
    assert read(raw.open_raw(source(), tmp_path, MEMBERS)) == TEXTS


def test_unpacked_files_are_used_and_changes_change_the_fingerprint(tmp_path):
    for name, text in TEXTS.items():
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).write_text(text)
    first = raw.open_raw(source(), tmp_path, MEMBERS)
    assert read(first) == TEXTS
    (tmp_path / "toy" / MEMBERS[0]).write_text("drei\n")
    assert first.fingerprint != raw.open_raw(source(), tmp_path, MEMBERS).fingerprint


def test_another_checksum_is_used_with_a_warning_that_names_both(tmp_path, caplog):
    file = archive(tmp_path / "toy" / "data.zip")
    raw.open_raw(source(sha256="0" * 64), tmp_path, MEMBERS)
    assert "0" * 64 in caplog.text and hashlib.sha256(file.read_bytes()).hexdigest() in caplog.text


def test_no_member_can_leave_the_folder_since_nothing_is_extracted(tmp_path):
    archive(tmp_path / "toy" / "data.tar", {**TEXTS, "../../escaped.txt": "x", "/tmp/nlproar-escaped": "x"})
    before = sorted(tmp_path.rglob("*"))
    assert read(raw.open_raw(source(), tmp_path, MEMBERS)) == TEXTS
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"<!DOCTYPE html>" + b[:9], lambda b: b""])
def test_a_damaged_archive_is_named(tmp_path, name, damage):
    file = archive(tmp_path / "toy" / name)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="not a whole archive") as error:
        read(raw.open_raw(source(), tmp_path, MEMBERS))
    assert str(file) in str(error.value)


@pytest.mark.parametrize("name", ["data.tar", "data.tar.gz", "data.tar.xz"])
def test_an_archive_cut_between_members_is_noticed(tmp_path, name):
    texts = {f"inner/{i}.txt": "x" * 1000 for i in range(40)}
    file = archive(tmp_path / "toy" / name, texts)
    whole = file.read_bytes()
    for size in range(len(whole) // 2 // 512 * 512, len(whole) - 12_000 if name == "data.tar" else len(whole), 512):
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a whole archive"):
            list(raw.open_raw(source(), tmp_path, ("inner/*.txt",)).contents("inner/*.txt"))


def test_a_member_that_stands_twice_is_refused(tmp_path):
    archive(tmp_path / "toy" / "data.zip", {**TEXTS, "old/inner/a.txt": "x"})
    files = raw.open_raw(source(), tmp_path, MEMBERS)
    with pytest.raises(UserError, match="has inner/a"):
        list(files.contents(*MEMBERS))
    with pytest.raises(UserError, match="has inner/a"):
        list(files.lines(MEMBERS[0]))


def test_a_missing_member_is_named(tmp_path):
    archive(tmp_path / "toy" / "data.zip", {"inner/a.txt": "x"})
    files = raw.open_raw(source(), tmp_path, MEMBERS)
    with pytest.raises(UserError, match="has no inner/b"):
        list(files.contents(*MEMBERS))
    with pytest.raises(UserError, match="has no inner/b"):
        list(files.lines("inner/b.txt"))


def test_a_download_is_verified_and_whole(tmp_path, server):
    url, file, requests = server
    wanted = source(f"{url}/data.zip", sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    assert read(raw.open_raw(wanted, tmp_path / "raw", MEMBERS)) == TEXTS
    assert [p.name for p in (tmp_path / "raw" / "toy").iterdir() if not p.name.startswith(".")] == ["data.zip"]
    raw.open_raw(wanted, tmp_path / "raw", MEMBERS)
    assert len(requests) == 1


def test_a_mirror_is_asked_when_the_first_address_fails(tmp_path, server):
    url, _, _ = server
    wanted = source("http://127.0.0.1:9/data.zip", f"{url}/missing.zip", f"{url}/data.zip")
    assert read(raw.open_raw(wanted, tmp_path / "raw", MEMBERS)) == TEXTS


def test_a_download_with_a_wrong_checksum_leaves_nothing(tmp_path, server):
    url, _, _ = server
    with pytest.raises(UserError, match="wrong checksum"):
        raw.open_raw(source(f"{url}/data.zip", sha256="0" * 64), tmp_path / "raw", MEMBERS)
    assert not [p for p in (tmp_path / "raw").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_without_network_the_message_says_what_to_put_where(tmp_path):
    wanted = source(sha256="a" * 64)
    with pytest.raises(UserError) as error:
        raw.open_raw(wanted, tmp_path, MEMBERS)
    for part in (wanted.urls[0], "a" * 64, str(tmp_path / "toy" / "data.zip")):
        assert part in str(error.value)


def test_an_archive_packed_anew_is_found(tmp_path):
    wanted = replace(source(), urls=("http://127.0.0.1:9/data.tar.gz",))
    archive(tmp_path / "toy" / "data.tar.xz")
    assert read(raw.open_raw(wanted, tmp_path, MEMBERS)) == TEXTS
