"""What the user placed is used, else a verified download; nothing half or foreign stays behind."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from dataclasses import replace

import pytest

from nlproar.dataset import raw, text_file
from nlproar.dataset.sources import Source
from nlproar.errors import UserError

MEMBERS = ("inner/a.txt", "inner/b.txt")
TEXTS = {"inner/a.txt": "eins\n", "inner/b.txt": "zwei\n"}


def read(files):
    """Every member, as contents and as lines."""
    for name, text in TEXTS.items():
        assert [line for _, line in files.lines(name)] == [text.rstrip("\n")]
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


def test_a_file_that_is_moved_to_another_folder_changes_the_fingerprint(tmp_path):
    """In IMDB, the folder is the label."""
    unpack(tmp_path / "toy", {"neg/1.txt": "bad", "neg/2.txt": "good", "pos/3.txt": "fine"})

    def fingerprint():
        return raw.open_raw(source(), tmp_path, ("neg/*.txt", "pos/*.txt")).fingerprint

    before = fingerprint()
    (tmp_path / "toy" / "neg" / "2.txt").rename(tmp_path / "toy" / "pos" / "2.txt")
    assert fingerprint() != before


def test_another_checksum_is_used_with_a_warning_that_names_both(tmp_path, caplog):
    file = archive(tmp_path / "toy" / "data.zip")
    raw.open_raw(source(sha256="0" * 64), tmp_path, MEMBERS)
    assert "0" * 64 in caplog.text and hashlib.sha256(file.read_bytes()).hexdigest() in caplog.text


@pytest.mark.parametrize("name", ["data.zip", "data.tar"])
def test_no_member_can_leave_the_folder_since_nothing_is_extracted(tmp_path, monkeypatch, name):
    place = tmp_path / "a" / "b"
    elsewhere = {"../../escaped.txt": "x", str(tmp_path / "absolute.txt"): "x"}
    archive(place / "toy" / name, {**TEXTS, **elsewhere})
    monkeypatch.chdir(place)
    before = sorted(tmp_path.rglob("*"))
    assert read(raw.open_raw(source(), place, MEMBERS)) == TEXTS
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[: len(b) // 2],
        lambda b: b"<!DOCTYPE html>" + b[:9],
        lambda b: b"",
        lambda b: b[:40] + b[45:],  # of a zip archive, the first member then starts before the file
    ],
)
def test_a_damaged_archive_is_named(tmp_path, name, damage):
    file = archive(tmp_path / "toy" / name)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="not a whole archive") as error:
        read(raw.open_raw(source(), tmp_path, MEMBERS))
    assert str(file) in str(error.value)


def test_a_zip_archive_whose_names_are_damaged_is_named(tmp_path):
    file = archive(tmp_path / "toy" / "data.zip", {"inner/ä.txt": "x", **TEXTS})
    file.write_bytes(file.read_bytes().replace("inner/ä".encode(), b"inner/\xff\xff", 1))
    with pytest.raises(UserError, match="not a whole archive") as error:
        dict(raw.open_raw(source(), tmp_path, MEMBERS).contents("inner/*.txt"))
    assert str(file) in str(error.value)


def test_a_member_without_a_name_is_none(tmp_path):
    file = archive(tmp_path / "toy" / "data.zip")
    file.write_bytes(file.read_bytes().replace(b"inner/b", b"\0nner/b"))  # zipfile ends a name at a NUL
    files = raw.open_raw(source(), tmp_path, MEMBERS)
    with pytest.raises(UserError, match=r"data\.zip has no inner/b\.txt"):
        list(files.lines("inner/b.txt"))
    with pytest.raises(UserError, match=r"data\.zip has no inner/b\.txt"):
        dict(files.contents(*MEMBERS))


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


def unpack(folder, texts=TEXTS):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "inner/b.txt").unlink(),
        lambda folder: (folder / "inner/b.txt").write_text("zw"),
        lambda folder: [path.unlink() for path in (folder / "inner").iterdir()],
    ],
    ids=["missing", "cut", "empty"],
)
@pytest.mark.parametrize("patterns", [MEMBERS, ("inner/*.txt",)], ids=["names", "pattern"])
def test_an_archive_is_read_where_the_folder_beside_it_is_incomplete(tmp_path, caplog, name, damage, patterns):
    file = archive(tmp_path / "toy" / name)
    unpack(tmp_path / "toy")
    damage(tmp_path / "toy")
    files = raw.open_raw(source(), tmp_path, patterns, tmp_path / "cache")
    assert files.place == str(file) and read(files) == TEXTS
    assert "incomplete" in caplog.text or not list((tmp_path / "toy" / "inner").iterdir())


def test_a_folder_that_has_all_of_the_archive_is_read_and_the_archive_is_compared_once(tmp_path, caplog):
    caplog.set_level("INFO")
    archive(tmp_path / "toy" / "data.tar.gz")
    unpack(tmp_path / "toy")
    for _ in range(2):
        files = raw.open_raw(source(), tmp_path, MEMBERS, tmp_path / "cache")
        assert files.place == str(tmp_path / "toy")
    assert caplog.text.count("comparing") == 1 and caplog.text.count("are read, not data.tar.gz") == 2


def test_a_folder_is_read_where_the_archive_beside_it_is_damaged(tmp_path, caplog):
    file = archive(tmp_path / "toy" / "data.tar.gz")
    file.write_bytes(file.read_bytes()[:-30])
    unpack(tmp_path / "toy")
    files = raw.open_raw(source(), tmp_path, MEMBERS, tmp_path / "cache")
    assert files.place == str(tmp_path / "toy") and "not a whole archive" in caplog.text


@pytest.mark.parametrize("clutter", ["inner/._a.txt", "__MACOSX/inner/._a.txt", "inner/.DS_Store.txt"])
@pytest.mark.parametrize("name", ["data.zip", "data.tar", None])
def test_companions_of_file_managers_are_no_data(tmp_path, clutter, name):
    texts = {clutter: "\0\5\x16\7", "__MACOSX/inner/a.txt": "x", "inner/Thumbs.db": "x", **TEXTS}
    if name:
        archive(tmp_path / "toy" / name, texts)
    else:
        unpack(tmp_path / "toy", texts)
    files = raw.open_raw(source(), tmp_path, ("inner/*.*",))
    assert dict(files.contents("inner/*.*")) == TEXTS


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


NEARLY_RIGHT = {
    "one file missing": (lambda raw: unpack(raw / "toy", {"inner/a.txt": "x"}), "inner/b.txt is missing"),
    "a folder too deep": (
        lambda raw: unpack(raw / "toy/data", TEXTS),
        "nearby .*toy/data/inner/a.txt, toy/data/inner/b",
    ),
    "a folder too high": (
        lambda raw: unpack(raw / "toy", {"a.txt": "x", "b.txt": "y"}),
        "nearby .*toy/a.txt, toy/b.txt",
    ),
    "beside the folder": (lambda raw: unpack(raw / "Toy", TEXTS), "nearby .*Toy/inner/a.txt, Toy/inner/b.txt"),
    "a copy": (lambda raw: archive(raw / "toy" / "data (1).zip"), r"nearby .*toy/data \(1\).zip"),
    "in the folder above": (lambda raw: archive(raw / "data.zip"), "nearby .*: data.zip"),
    "a part of a download": (lambda raw: unpack(raw / "toy", {"data.zip.part": "x"}), "nearby .*toy/data.zip.part"),
    "another archive": (lambda raw: unpack(raw / "toy", {"texts.7z": "x"}), "nearby .*toy/texts.7z"),
    "another suffix": (lambda raw: unpack(raw / "toy", {"inner/a.csv": "x"}), "nearby .*toy/inner/a.csv"),
    "compressed one by one": (lambda raw: unpack(raw / "toy", {"inner/A.txt.gz": "x"}), "nearby .*toy/inner/A.txt.gz"),
    "a sibling": (lambda raw: unpack(raw / "toy", {"other/a.txt": "x"}), "nearby .*toy/other/a.txt"),
    "other files of the folder": (
        lambda raw: unpack(raw / "toy", {"inner/c.txt": "x"}),
        "inner/a.txt, inner/b.txt are",
    ),
    "a link to nowhere": (
        lambda raw: link(raw / "toy/inner/b.txt", "/nowhere"),
        "b.txt is a link to /nowhere, which is not",
    ),
    "a folder that is one": (
        lambda raw: link(raw / "toy/inner", "/nowhere"),
        "inner is a link to /nowhere, which is not",
    ),
    "the place is one": (lambda raw: link(raw / "toy", "/nowhere"), "toy is a link to /nowhere, which is not"),
    "the archive is one": (lambda raw: link(raw / "toy/data.zip", "/nowhere"), "data.zip is a link to /nowhere"),
    "a folder for a file": (lambda raw: (raw / "toy/inner/a.txt").mkdir(parents=True), "a.txt is a folder, not a file"),
    "a file for a folder": (lambda raw: unpack(raw / "toy", {"inner": "x"}), "inner is a file, not a folder"),
}


@pytest.mark.parametrize("case", NEARLY_RIGHT)
def test_what_is_nearly_right_is_named_and_nothing_is_downloaded(tmp_path, monkeypatch, case):
    monkeypatch.setattr(raw, "download", lambda *_: pytest.fail("it was downloaded"))
    make, message = NEARLY_RIGHT[case]
    make(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        raw.open_raw(source(), tmp_path, MEMBERS)
    assert str(tmp_path / "toy") in str(error.value) and "data.zip" in str(error.value)


def test_what_has_nothing_to_do_with_the_data_does_not_hinder_a_download(tmp_path, server):
    url, _, _ = server
    unpack(tmp_path / "raw" / "toy", {"README": "x", ".DS_Store": "x", "notes/c.md": "x"})
    unpack(tmp_path / "raw" / "other", {"train.txt": "x", "a.txt": "x"})
    assert read(raw.open_raw(source(f"{url}/data.zip"), tmp_path / "raw", MEMBERS)) == TEXTS


def test_a_download_that_fails_says_what_else_there_is(tmp_path):
    unpack(tmp_path / "toy", {"README": "x", "stanfordTreebank/sentences": "x"})
    with pytest.raises(UserError, match="toy holds nothing of this data set, only README, stanfordTreebank; could not"):
        raw.open_raw(source(), tmp_path, MEMBERS)


def test_an_archive_without_a_file_says_what_it_has_instead(tmp_path):
    archive(tmp_path / "toy" / "data.zip", {"inner/a.txt": "x", "else/b.txt": "y", "inner/b.csv": "z"})
    files = raw.open_raw(source(), tmp_path, MEMBERS)
    with pytest.raises(UserError, match=r"has no inner/b.txt \(it has else/b.txt\)"):
        list(files.lines("inner/b.txt"))


def test_an_encrypted_archive_and_an_archive_of_links_are_named_in_plain_words(tmp_path):
    file = archive(tmp_path / "toy" / "data.zip")
    content = bytearray(file.read_bytes())
    for start in (b"PK\3\4", b"PK\1\2"):
        position = content.index(start) + (6 if start == b"PK\3\4" else 8)
        content[position] |= 1  # the flag of an encrypted member
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"data.zip is encrypted; unpack it with its password$"):
        read(raw.open_raw(source(), tmp_path, MEMBERS))
    file.unlink()
    with tarfile.open(tmp_path / "toy" / "data.tar", "w") as content:
        info = tarfile.TarInfo("inner/a.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "../elsewhere"
        content.addfile(info)
    with pytest.raises(UserError, match=r"inner/a.txt is a link, not a file"):
        list(raw.open_raw(source(), tmp_path, MEMBERS).lines("inner/a.txt"))


MARK = b"\xef\xbb\xbf"
WRONG_TEXT = {
    "UTF-16": ("eins\n".encode("utf-16"), "this is UTF-16"),
    "big-endian": (b"\xfe\xff" + "eins\n".encode("utf-16-be"), "this is UTF-16"),
    "UTF-16 without a mark": ("eins\n".encode("utf-16-le"), "line 1: a NUL byte"),
    "Latin-1": ("eins\nfünf\n".encode("latin-1"), "line 2: not UTF-8"),
    "cut within a letter": ("eins\nzwei\nfü".encode()[:-1], "line 3: not UTF-8"),
    "a web page": (b" <!DOCTYPE HTML>\n<html>", "this is an HTML page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "an archive": (b"PK\3\4\0\0", "an archive, not text"),
    "zeros": (b"eins\nzwei\n" + bytes(10), "line 3: a NUL byte"),
}


def as_read(content, as_lines):
    """The text of one file with this content, through one of the two ways of reading."""
    files = raw.RawFiles("place", "", lambda patterns: iter([("a.txt", io.BytesIO(content))]))
    return (
        [line for _, line in files.lines("a.txt")]
        if as_lines
        else dict(files.contents("a.txt"))["a.txt"].split("\n")[:-1]
    )


@pytest.mark.parametrize("as_lines", [True, False], ids=["lines", "contents"])
@pytest.mark.parametrize("marks", [0, 1, 2])
def test_a_byte_order_mark_is_no_part_of_the_text(as_lines, marks):
    assert as_read(marks * MARK + "ein\ufeffs\nzwei\n".encode(), as_lines) == ["ein\ufeffs", "zwei"]
    assert as_read(marks * MARK, as_lines) == []


@pytest.mark.parametrize("as_lines", [True, False], ids=["lines", "contents"])
@pytest.mark.parametrize("case", WRONG_TEXT)
def test_what_is_no_utf8_text_is_named(as_lines, case):
    content, message = WRONG_TEXT[case]
    with pytest.raises(UserError, match=f"a.txt.*{message}"):
        as_read(content, as_lines)


def test_the_line_that_is_not_utf8_is_counted_over_blocks():
    for number in (1, 2_000, 30_000):
        content = b"a line of text\n" * (number - 1) + b"caf\xe9\n" + b"and more\n" * 20_000
        with pytest.raises(UserError, match=f"line {number}: not UTF-8"):
            as_read(content, as_lines=True)


def test_a_link_that_was_copied_as_text_is_named():
    with pytest.raises(UserError, match="a link that was copied"):
        as_read(b"../elsewhere/a.txt", as_lines=True)


class Endless(io.RawIOBase):
    """A file of one line that never ends, after a first line."""

    def __init__(self):
        self.given = 0

    def read(self, size=-1):
        self.given += size
        return b"first\n" + b"x" * (size - 6) if self.given == size else b"x" * size


def test_a_line_without_end_is_refused_before_it_fills_the_memory():
    file = Endless()
    files = raw.RawFiles("place", "", lambda patterns: iter([("a.txt", file)]))
    with pytest.raises(UserError, match="line 2: more than 8 MiB without an end of line"):
        list(files.lines("a.txt"))
    assert file.given < 2 * text_file.LONGEST_LINE
    with pytest.raises(UserError, match="more than 8 MiB, which no published file has"):
        dict(files.contents("a.txt"))
    assert file.given < 4 * text_file.LONGEST_LINE
