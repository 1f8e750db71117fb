"""Files are whole or absent, caches mend themselves, locks die with their owner."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from nlproar import storage


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


def test_the_lock_of_a_killed_process_does_not_block_and_a_living_one_is_waited_for(tmp_path, caplog):
    path = tmp_path / "made"
    code = f"""
import sys, time, pathlib
from nlproar import storage
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


def test_a_fingerprint_sees_every_part_of_a_small_file_and_the_size_of_a_large_one(tmp_path):
    path = tmp_path / "f"
    prints = set()
    for position in (0, 3_000_000, 5_999_999):
        data = bytearray(6_000_000)
        data[position] = 1
        path.write_bytes(data)
        prints.add(storage.fingerprint(path))
    with open(path, "wb") as file:
        file.truncate(100 << 20)
    prints.add(storage.fingerprint(path))
    with open(path, "ab") as file:
        file.write(b"\0")
    prints.add(storage.fingerprint(path))
    assert len(prints) == 5
