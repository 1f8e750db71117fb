"""Files are whole or absent, caches mend themselves, locks die with their owner."""

import errno
import fcntl
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nlproar import fingerprints, storage
from nlproar.errors import UserError, refusal
from nlproar.evaluate.roar import Roar
from nlproar.model import checkpoint
from nlproar.run import failure, record
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.study import workers
from tests.conftest import ROOT


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), storage.whole_file(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_a_cache_is_made_once_per_key(tmp_path, caplog):
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(3)}

    for key in ({"x": 1}, {"x": 1}, {"x": 2}):
        assert (storage.cached(tmp_path / "c.npz", key, make)["a"] == np.arange(3)).all()
    assert len(made) == 2 and "made for something else" in caplog.text and "c.npz" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b"not arrays",
        lambda b: b[:200] + bytes([b[200] ^ 255]) + b[201:],
        lambda b: b"\x93NUMPY" + b[6:],
        lambda b: b.replace(b"(100,)", b"(90,) "),  # numpy alone would read fewer numbers
    ],
)
def test_a_damaged_cache_is_named_and_made_again(tmp_path, caplog, damage):
    path = tmp_path / "c.npz"
    make = lambda: {"a": np.arange(100.0)}  # noqa: E731
    storage.cached(path, {}, make)
    path.write_bytes(damage(path.read_bytes()))
    assert (storage.cached(path, {}, make)["a"] == np.arange(100.0)).all()
    assert str(path) in caplog.text
    assert (storage.cached(path, {}, None)["a"] == np.arange(100.0)).all()


def test_arrays_that_were_written_are_read_with_their_key(tmp_path):
    path, arrays = tmp_path / "a.npz", {"weights.a_0": np.arange(3.0), "empty": np.zeros((0, 2)), "one": np.array(7)}
    for key in ({"x": 1}, {"x": [2, None, "b"]}):
        storage.write_arrays(path, key, arrays)
        found, found_key = storage.stored(path)
        assert found_key == key and found.keys() == arrays.keys()
        assert all(np.array_equal(found[name], value) for name, value in arrays.items())


def test_nothing_is_unpickled(tmp_path, caplog):
    path = tmp_path / "c.npz"
    np.savez(path, a=np.array([{"object": 1}], dtype=object), key=storage._as_bytes({}))
    assert storage.cached(path, {}, lambda: {"a": np.zeros(1)})["a"][0] == 0 and "damaged" in caplog.text


@pytest.mark.slow
def test_the_lock_of_a_killed_process_does_not_block_and_a_living_one_is_waited_for(tmp_path, caplog):
    path = tmp_path / "made"
    code = f"""
import sys, time, pathlib
from nlproar import fingerprints, storage
with storage.lock(pathlib.Path({str(path)!r})):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""
    holders = []
    for seconds in ("60", "1"):
        holder = subprocess.Popen([sys.executable, "-c", code, seconds], stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout.readline() == "held\n"
        if seconds == "60":
            holder.kill()
            holder.wait()
        started = time.monotonic()
        with caplog.at_level("INFO"), storage.lock(path):
            waited = time.monotonic() - started
        assert ("waiting for another process" in caplog.text) == (seconds == "1"), waited
        holder.wait()


def leftovers(folder):
    return list(folder.rglob("*.tmp"))


def test_a_planted_link_is_never_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in (".f.tmp", ".f.0123456789ab.tmp", "f"):
        (folder / name).symlink_to(victim)
    with storage.whole_file(folder / "f") as file:
        file.write(b"new")
    assert victim.read_bytes() == b"precious"
    assert (folder / "f").read_bytes() == b"new" and not (folder / "f").is_symlink()
    assert os.listdir(folder) == ["f"]


def test_temporary_names_cannot_be_guessed_and_follow_the_umask(tmp_path):
    names, modes = set(), set()
    for _ in range(3):
        with storage.owner_only(True), storage.whole_file(tmp_path / "f"):
            (temporary,) = leftovers(tmp_path)
            names.add(temporary.name)
            modes.add(stat.S_IMODE(temporary.stat().st_mode))
    assert len(names) == 3 and modes == {0o600}


def test_a_dangling_link_in_place_of_a_file_is_replaced(tmp_path):
    path = tmp_path / "f"
    path.symlink_to(tmp_path / "nowhere")
    storage.write_json(path, {"a": 1})
    assert not path.is_symlink() and not (tmp_path / "nowhere").exists()


KILLED_WRITER = """
import os, pathlib, sys
from nlproar import fingerprints, storage
with storage.whole_file(pathlib.Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_writer_left_goes_with_the_next_write_or_sweep(tmp_path):
    for clean in (lambda: storage.write_json(tmp_path / "f", {}), lambda: storage.sweep(tmp_path)):
        killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path / "f")])
        assert killed.returncode == -signal.SIGKILL and len(leftovers(tmp_path)) == 1
        (tmp_path / ".f.tmp").touch()  # the name of earlier versions
        clean()
        assert not leftovers(tmp_path)


def test_a_file_that_is_being_written_is_no_leftover(tmp_path):
    path = tmp_path / "f"
    with storage.whole_file(path) as first:
        first.write(b"first")
        with storage.whole_file(path) as second:  # no lock is held: the last of the two stays, and it is whole
            second.write(b"second")
        storage.sweep(tmp_path)
        assert len(leftovers(tmp_path)) == 1
    assert path.read_bytes() == b"first" and not leftovers(tmp_path)


def test_a_writer_whose_new_file_was_taken_for_a_leftover_makes_another(tmp_path, monkeypatch):
    real, swept = fcntl.flock, []

    def flock(descriptor, how):
        if not swept:
            swept.append(leftovers(tmp_path)[0].unlink())
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    storage.write_json(tmp_path / "f", {"a": 1})
    assert swept and os.listdir(tmp_path) == ["f"]


# Locks


def refuse_flock(monkeypatch, number):
    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


NO_LOCKS = ("ENOLCK", "EOPNOTSUPP", "ENOSYS", "EINVAL")


@pytest.mark.parametrize("name", [*NO_LOCKS, "ESTALE", "EIO", "EACCES", "EROFS", "EPERM", "EBADF"])
@pytest.mark.parametrize("use", ["lock", "whole_file"])
def test_a_file_system_without_locks_is_one_line_that_names_the_folder(tmp_path, monkeypatch, name, use):
    refuse_flock(monkeypatch, getattr(errno, name))
    with pytest.raises(UserError) as raised, getattr(storage, use)(tmp_path / "f"):
        pass
    message = str(raised.value)
    assert str(tmp_path) in message and os.strerror(getattr(errno, name)) in message and "\n" not in message
    assert "--persistent-dir" in message and ("no locks" in message) == (name in NO_LOCKS)
    assert not leftovers(tmp_path)


def test_a_lock_that_a_signal_interrupts_is_asked_for_again(tmp_path, monkeypatch):
    real, errors = fcntl.flock, [InterruptedError(errno.EINTR, ""), BlockingIOError(errno.EAGAIN, "")]

    def flock(descriptor, how):
        if errors:
            raise errors.pop(0)
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with storage.lock(tmp_path / "f"):
        assert not errors


@pytest.mark.slow
def test_who_waits_says_so_once_and_then_again_now_and_then(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(storage, "_SECONDS_BETWEEN_REMINDERS", 0.3)

    def wait():
        with storage.lock(tmp_path / "f"):
            pass

    with caplog.at_level(logging.INFO), storage.lock(tmp_path / "f"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(1.5)
    waiter.join()
    first, *reminders = [record.getMessage() for record in caplog.records]
    assert first == f"waiting for another process that is making {tmp_path / 'f'}"
    assert 1 <= len(reminders) <= 5 and all(str(tmp_path / "f") in line for line in reminders)


def test_a_lock_file_that_is_removed_while_it_is_waited_for_is_made_again(tmp_path):
    with storage.lock(tmp_path / "f"):
        (tmp_path / ".f.lock").unlink()
        with storage.lock(tmp_path / "f"):
            assert (tmp_path / ".f.lock").exists()


def test_a_lock_file_that_is_a_link_is_refused_by_name(tmp_path):
    (tmp_path / ".f.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"\.f\.lock is a symbolic link"), storage.lock(tmp_path / "f"):
        pass
    assert not (tmp_path / "victim").exists()


# Things of another kind, and what the machine refuses


def other_kinds(path):
    """Ways to put something of another kind in the place of `path`, which does not exist."""

    def link_to_a_folder():
        folder = path.with_name("some folder")
        folder.mkdir()
        path.symlink_to(folder)

    return {
        "a folder": path.mkdir,
        "a named pipe": lambda: os.mkfifo(path),
        "a socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a link to a folder": link_to_a_folder,
    }


def links_to_nowhere(path):
    return {"a dangling link": lambda: path.symlink_to("nowhere"), "a loop": lambda: path.symlink_to(path)}


KINDS = tuple(other_kinds(Path("path")))


@pytest.fixture
def short_path():
    """A file name that is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "f"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named_when_it_is_read(short_path, kind):
    other_kinds(short_path)[kind]()
    for read in (storage.read_bytes, storage.sha256, fingerprints.fingerprint, storage.open_file):
        with pytest.raises(storage.NotAFile, match=str(short_path)):
            read(short_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_named_when_it_is_locked_or_appended_to(short_path, kind):
    other_kinds(short_path)[kind]()
    with pytest.raises(storage.NotAFile, match=str(short_path)):
        storage.open_log(short_path)
    os.rename(short_path, short_path.with_name(".g.lock"))
    with pytest.raises(storage.NotAFile, match=r"\.g\.lock"), storage.lock(short_path.with_name("g")):
        pass


@pytest.mark.parametrize("kind", [*KINDS, "a dangling link", "a loop"])
def test_a_cache_of_another_kind_is_made_again_or_named(short_path, kind, caplog):
    (other_kinds(short_path) | links_to_nowhere(short_path))[kind]()
    if kind == "a folder":  # which may hold anything, and cannot be replaced: said before the work, not after
        with pytest.raises(storage.NotAFile, match="is a folder"):
            storage.cached(short_path, {}, None)
        return
    assert storage.cached(short_path, {}, lambda: {"a": np.arange(3)})["a"].sum() == 3
    assert str(short_path) in caplog.text and short_path.is_file() and not short_path.is_symlink()


def test_a_folder_cannot_be_replaced_and_is_named(tmp_path):
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError) as raised, storage.whole_file(tmp_path / "f"):
        pass
    assert str(refusal(raised.value)).startswith(f"Is a directory: {tmp_path / 'f'};") and not leftovers(tmp_path)


@pytest.mark.parametrize("name", ["results", "results/roar", "checkpoints", "cache", "logs", "logs/failed", "tables"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_named_and_not_taken_for_an_empty_one(tmp_path, name, kind):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if kind == "file":
        path.touch()
    else:
        path.symlink_to("nowhere")
    for use in (Layout(tmp_path).make, Layout(tmp_path).check):
        with pytest.raises(UserError, match=f"{path} is (not a folder|a link to a folder that is not there)"):
            use()


def test_a_folder_that_another_process_makes_while_it_is_looked_for_is_no_file(tmp_path, monkeypatch):
    """It is not there at the first look and there at any later one."""
    layout = Layout(tmp_path)
    look = Path.stat

    def stat(self, **options):
        if self.name != "checkpoints":
            return look(self, **options)
        try:
            return look(self, **options)
        finally:
            os.makedirs(self, exist_ok=True)

    monkeypatch.setattr(Path, "stat", stat)
    layout.check()
    assert (tmp_path / "checkpoints").is_dir()


def test_records_checkpoints_notes_and_logs_of_another_kind_are_named_and_not_waited_for(small_run):
    config = small_run()
    layout = Layout.of(config)
    folder = layout.checkpoint(config)
    readers = {
        layout.record(config): lambda: record.read(layout.record(config), config),
        folder / checkpoint.DESCRIPTION: lambda: checkpoint.sha256(folder),
    }
    for path, read in readers.items():
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
        with pytest.raises(UserError, match=f"{path.name} is a named pipe"):
            read()
    for path, read in {
        layout.failure(config): lambda: failure.of(layout, config),
        layout.log(config): lambda: workers.last_line(layout.log(config)),
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        assert "is a named pipe" in read() or "gone" in read()


@pytest.mark.parametrize("content", [b"", b"\n", b"\x1b[2Jgone", b"\x93NUMPY", b"\xff\xfe", b"one\ntwo"])
def test_a_note_of_a_failure_that_is_no_line_of_text_is_named_instead(small_run, content):
    config = small_run()
    layout = Layout.of(config)
    failure.note(layout, config, UserError("two\nlines of \x1b\udc80"))
    assert failure.of(layout, config) == r"two lines of \x1b\udc80"
    layout.failure(config).write_bytes(content)
    assert failure.of(layout, config).startswith(str(layout.failure(config)))


def test_a_run_whose_disk_is_full_leaves_a_note_that_says_so(small_run, monkeypatch):
    config = small_run()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights")

    monkeypatch.setattr(Roar, "carry_out", full)
    with pytest.raises(OSError):
        run(config)
    assert failure.of(Layout.of(config), config).startswith("No space left on device: weights")


@pytest.fixture
def as_nobody():
    """A folder of an ordinary user who, other than root, needs permissions; the test acts as this user."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_a_cache_that_may_not_be_read_is_named_and_stays(as_nobody):
    path = as_nobody / "c.npz"
    storage.cached(path, {}, lambda: {"a": np.arange(3)})
    path.chmod(0)
    with pytest.raises(PermissionError) as raised:
        storage.cached(path, {}, None)
    assert raised.value.filename == str(path)
    path.chmod(0o600)
    assert storage.cached(path, {}, None)["a"].sum() == 3


def test_what_lies_in_a_folder_that_may_not_be_looked_into_is_unknown_not_gone(as_nobody):
    """Else a model in it would be trained again."""
    path = as_nobody / "closed" / "f"
    path.parent.mkdir()
    assert not storage.is_there(path)
    assert not storage.is_there(path / "g")
    path.parent.chmod(0)
    with pytest.raises(PermissionError) as raised:
        storage.is_there(path)
    assert raised.value.filename == str(path)
    with pytest.raises(PermissionError):
        checkpoint.exists(path.parent)
    assert record.stamp(path) == "unreadable (PermissionError)"
    path.parent.chmod(0o700)


def test_a_lock_file_of_another_user_can_be_locked_and_one_without_permission_is_named(as_nobody):
    path = as_nobody / "f"
    with storage.lock(path):
        pass
    (as_nobody / ".f.lock").chmod(0o444)
    with storage.lock(path), storage.lock_if_free(path) as held:
        assert not held
    (as_nobody / ".f.lock").chmod(0)
    with pytest.raises(PermissionError, match=r"\.f\.lock"), storage.lock(path):
        pass


@pytest.mark.parametrize("name", ["EIO", "ESTALE"])
def test_a_disk_that_fails_while_a_cache_is_read_is_no_damage(tmp_path, monkeypatch, name):
    path, number = tmp_path / "c.npz", getattr(errno, name)
    storage.cached(path, {}, lambda: {"a": np.arange(3)})

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "_arrays_and_key", fail)
    with pytest.raises(OSError) as raised:
        storage.cached(path, {}, None)
    assert str(path) in str(refusal(raised.value)) and os.strerror(number) in str(refusal(raised.value))


def write_and_stumble(path):
    """As Matplotlib does when it cannot write a PDF."""
    with storage.whole_file(path) as file:
        try:
            file.write(b"a" * 100_000)
        except OSError:
            raise AttributeError("'Stream' object has no attribute 'pos'") from None


@pytest.mark.parametrize(
    "write",
    [
        lambda path: storage.write_json(path, {"a": "b" * 100_000}),
        lambda path: storage.write_json(path, {"a": "fits into the buffer"}),
        lambda path: storage.cached(path, {}, lambda: {"a": np.zeros(100_000)}),
        write_and_stumble,
    ],
)
def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch, write):
    with monkeypatch.context() as patch:  # the kernel itself says that there is no space left
        patch.setattr(storage.os, "dup", lambda descriptor: os.open("/dev/full", os.O_WRONLY))
        with pytest.raises(OSError) as raised:
            write(tmp_path / "f")
    assert raised.value.errno == errno.ENOSPC
    assert f"No space left on device: {tmp_path / 'f'}" in str(refusal(raised.value))
    assert not leftovers(tmp_path) and not (tmp_path / "f").exists()


@pytest.mark.parametrize("name", ["EIO", "EDQUOT", "ENOSPC", "ESTALE", "EROFS"])
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_whatever_fails_while_a_file_is_written_the_file_is_named(tmp_path, monkeypatch, name, call):
    number = getattr(errno, name)

    def fail(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, call, fail)
        with pytest.raises(OSError) as raised:
            storage.write_json(tmp_path / "f", {})
    assert f"{os.strerror(number)}: {tmp_path / 'f'}" in str(refusal(raised.value)) and not os.listdir(tmp_path)


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, storage.whole_file(tmp_path / "f"):
        (tmp_path / "source").read_bytes()
    assert raised.value.filename == str(tmp_path / "source")


def test_a_bug_keeps_its_traceback():
    assert refusal(OSError(errno.EBADF, "Bad file descriptor")) is None and refusal(OSError("no number")) is None


# As a user sees it


def last_line_of(command, **kwargs):
    """Of stderr of a script that must end with 2 and without a traceback."""
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, **kwargs)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["8k", "200k"])  # full while the data are encoded, full while weights are saved
def test_on_a_full_disk_a_run_ends_with_one_line_that_names_the_file(few_questions, tmp_path, size):
    (tmp_path / "disk").mkdir()
    run_there = f'mount -t tmpfs -o size={size} tmpfs {tmp_path}/disk && exec "$@"'  # for this process only
    command = [sys.executable, "experiments/babi.py", "--source", "simulated", "--max-epochs", 1]
    command = ["unshare", "-rm", "sh", "-c", run_there, "sh", *command, "--persistent-dir", tmp_path / "disk"]
    line = last_line_of(command, env=few_questions)
    assert line.startswith(f"error: No space left on device: {tmp_path}/disk/") and "--persistent-dir" in line


@pytest.mark.slow
def test_on_a_file_system_without_locks_a_run_ends_with_one_line(few_questions, tmp_path):
    world = Path(few_questions["PYTHONPATH"], "sitecustomize.py").read_text()
    no_locks = """
import errno, fcntl, os
def flock(descriptor, how):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
"""
    (tmp_path / "sitecustomize.py").write_text(world + no_locks)
    command = [sys.executable, "experiments/babi.py", "--source", "simulated", "--persistent-dir", tmp_path / "p"]
    line = last_line_of(command, env={**few_questions, "PYTHONPATH": str(tmp_path)}, timeout=60)
    assert line.startswith(f"error: {tmp_path}/p/results/roar: this file system has no locks")


def test_a_lock_that_is_held_is_not_waited_for_if_only_a_free_one_is_wanted(tmp_path):
    path = tmp_path / "made"
    with storage.lock_if_free(path) as held, storage.lock_if_free(path) as held_twice:
        assert held and not held_twice
    with storage.lock(path), storage.lock_if_free(path) as held:
        assert not held
    with storage.lock_if_free(path) as held:
        assert held
