"""A checksum is of all bytes of a file; that of a large one is calculated once, and anew when the file changes."""

import hashlib
import json
import os
import time

import pytest

from nlproar import fingerprints

CONTENT = b"0123456789" * 10


@pytest.fixture
def hashed(monkeypatch):
    """Files above 64 bytes are large, and this is a new process: the names of the files that it hashes."""
    names = []
    update = fingerprints._update

    def count(state, file, name, size):
        names.append(name)
        update(state, file, name, size)

    monkeypatch.setattr(fingerprints, "LARGE", 64)
    monkeypatch.setattr(fingerprints, "_this_process", {})
    monkeypatch.setattr(fingerprints, "_update", count)
    return names


@pytest.fixture
def another_process(monkeypatch):
    """Forget what this process knows, but for what is in the cache."""
    return lambda: monkeypatch.setattr(fingerprints, "_this_process", {})


@pytest.fixture
def settled(monkeypatch):
    """Nothing was changed within the last two seconds."""
    monkeypatch.setattr(fingerprints, "_now", lambda entry: time.time() + 60)


def large_file(tmp_path):
    path = tmp_path / "large.txt"
    path.write_bytes(CONTENT)
    return path


def test_one_changed_byte_anywhere_changes_the_fingerprint_of_a_file_of_any_size(tmp_path):
    path = tmp_path / "f"
    for size in (1_000_000, fingerprints.LARGE, 40_000_000):
        content = bytearray(size)
        seen = set()
        for position in (0, size // 3, size // 2 + 1, size - 1, None):
            if position is not None:
                content[position] ^= 1
            path.write_bytes(content)
            seen.add(fingerprints.fingerprint(path))
        assert len(seen) == 4  # the last two are of the same content
        path.write_bytes(content + b"\0")
        assert fingerprints.fingerprint(path) not in seen


def test_the_fingerprint_of_a_small_file_is_of_its_size_and_content(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    assert fingerprints.fingerprint(path) == hashlib.sha256(b"3abc").hexdigest()[:12]
    assert fingerprints.sha256(path) == hashlib.sha256(b"abc").hexdigest()


def test_a_large_file_is_hashed_once(tmp_path, hashed, settled, another_process):
    path, cache = large_file(tmp_path), tmp_path / "cache"
    whole = hashlib.sha256(CONTENT).hexdigest()
    for _ in range(2):
        assert fingerprints.sha256(path, cache) == whole
        assert fingerprints.fingerprint(path, cache) == whole[:12]
        another_process()
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    assert fingerprints.sha256(link, cache) == whole
    assert hashed == ["large.txt"]


def test_without_a_cache_folder_a_large_file_is_hashed_once_a_process(tmp_path, hashed, settled, another_process):
    path = large_file(tmp_path)
    assert fingerprints.sha256(path) == fingerprints.sha256(path)
    another_process()
    fingerprints.sha256(path)
    assert len(hashed) == 2 and os.listdir(tmp_path) == ["large.txt"]


def changed_in_place(path):
    """One byte, and the time of the change set back."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(50)
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(path):
    other = path.with_name("other")
    other.write_bytes(CONTENT.replace(b"5", b"6"))
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, path)


def appended(path):
    with open(path, "ab") as file:
        file.write(b"X")


@pytest.mark.parametrize("change", [changed_in_place, replaced, appended])
def test_a_large_file_that_changed_is_hashed_again(tmp_path, hashed, settled, another_process, change):
    path, cache = large_file(tmp_path), tmp_path / "cache"
    first = fingerprints.sha256(path, cache)
    time.sleep(0.02)  # file systems count in steps of some milliseconds
    change(path)
    for _ in range(2):
        assert fingerprints.sha256(path, cache) == hashlib.sha256(path.read_bytes()).hexdigest() != first
        another_process()


def test_of_a_file_that_has_just_changed_nothing_is_kept(tmp_path, hashed):
    path, cache = large_file(tmp_path), tmp_path / "cache"
    for _ in range(2):
        fingerprints.sha256(path, cache)
    assert len(hashed) == 2 and not list(cache.rglob("*.json"))


def test_the_clock_of_the_file_server_counts_too(tmp_path, hashed, monkeypatch):
    """Where the server's clock is 30 s behind, a file that was written just now looks old."""
    monkeypatch.setattr(fingerprints.time, "time", lambda clock=time.time: clock() + 30)
    fingerprints.sha256(large_file(tmp_path), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.json"))


def of_another_file(content):
    return json.dumps({**json.loads(content), "path": "/another"}).encode()


def with_another_checksum(content):
    entry = json.loads(content)
    return json.dumps({**entry, "sha256": entry["sha256"][::-1]}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        of_another_file,
        with_another_checksum,
        lambda content: b"",
        lambda content: content[:50],
        lambda content: b"\xff\x00" * 40,
        lambda content: b"[]",
        lambda content: b"3",
        lambda content: b"[" * 50_000,
    ],
)
def test_a_damaged_entry_is_named_and_made_again(tmp_path, hashed, settled, another_process, caplog, damage):
    path, cache = large_file(tmp_path), tmp_path / "cache"
    fingerprints.sha256(path, cache)
    (entry,) = (cache / "fingerprints").glob("*.json")
    entry.write_bytes(damage(entry.read_bytes()))
    for _ in range(2):
        another_process()
        assert fingerprints.sha256(path, cache) == hashlib.sha256(CONTENT).hexdigest()
    assert len(hashed) == 2 and caplog.text.count(str(entry)) == 1


def test_a_cache_that_cannot_be_used_costs_only_time(tmp_path, hashed, settled, another_process):
    path, cache = large_file(tmp_path), tmp_path / "cache"
    fingerprints.sha256(path, cache)
    (entry,) = (cache / "fingerprints").glob("*.json")
    entry.unlink()
    entry.mkdir()
    for folder in (cache, path / "cache"):  # the second can never be made
        another_process()
        assert fingerprints.sha256(path, folder) == hashlib.sha256(CONTENT).hexdigest()
    assert len(hashed) == 3


def test_an_entry_names_no_more_than_path_and_state(tmp_path, hashed, settled):
    path, cache = large_file(tmp_path), tmp_path / "cache"
    fingerprints.sha256(path, cache)
    (entry,) = (cache / "fingerprints").glob("*.json")
    assert set(json.loads(entry.read_text())) == {"path", "state", "sha256", "check"}
