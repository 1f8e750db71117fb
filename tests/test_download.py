"""Downloads side by side do not touch each other; what is not whole or not the file never gets its name."""

import hashlib
import http.server
import subprocess
import sys
import threading

import pytest

from nlproar.dataset.download import download
from nlproar.dataset.sources import Source
from nlproar.errors import UserError
from tests.conftest import wait_for

SIZE = 300_000
FILES = {name: name.encode() * (SIZE // 5) for name in ("a.vec", "b.vec")}
PAGES = {
    "page.vec": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "empty.vec": b"",
    "error.vec": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
}

COMMAND = """
import logging, sys
from pathlib import Path
from nlproar.dataset.download import download
from nlproar.dataset.sources import Source
logging.basicConfig(level="INFO", format="%(message)s")
print(download(Source("vectors", (sys.argv[1],), sys.argv[2] or None), Path(sys.argv[3])))
"""


class Server:
    """A web server on this machine that stops in the middle of a file until `go_on` is set."""

    def __init__(self):
        self.requests = []
        self.go_on = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                server.requests.append(name)
                if name == "missing.vec":
                    self.send_error(404)
                    return
                content = FILES.get(name.removeprefix("cut-"), PAGES.get(name))
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                if name.startswith("cut-"):
                    return
                if name in FILES:
                    self.wfile.flush()
                    assert server.go_on.wait(60)
                self.wfile.write(content[len(content) // 2 :])

            def log_message(self, *args):
                pass

        self.running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.running.daemon_threads = True
        threading.Thread(target=self.running.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, name):
        return f"http://127.0.0.1:{self.running.server_port}/{name}"

    def source(self, *names, sha256=None):
        return Source("vectors", tuple(self.url(name) for name in names), sha256)


@pytest.fixture
def server():
    found = Server()
    yield found
    found.go_on.set()
    found.running.shutdown()


def start(server, name, folder):
    """A process that downloads the file `name` into `folder`."""
    sha256 = hashlib.sha256(FILES[name]).hexdigest() if name == "a.vec" else ""
    command = [sys.executable, "-c", COMMAND, server.url(name), sha256, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def visible(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.slow
def test_processes_that_download_into_one_folder_do_not_disturb_each_other(server, tmp_path):
    """Two want the same file, and one wants another one: two requests, and both files are whole."""
    names = ("a.vec", "a.vec", "b.vec")
    processes = [start(server, name, tmp_path) for name in names]
    wait_for(lambda: len(server.requests) == 2)
    assert not visible(tmp_path)  # nothing has its name before it is whole
    server.go_on.set()
    for process, name in zip(processes, names, strict=True):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, str(tmp_path / name)), err
    assert sorted(server.requests) == ["a.vec", "b.vec"] and visible(tmp_path) == FILES
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


@pytest.mark.slow
def test_what_a_killed_download_left_is_removed_by_the_next_one_only(server, tmp_path):
    killed = start(server, "a.vec", tmp_path)
    wait_for(lambda: "a.vec" in server.requests and list(tmp_path.glob(".a.vec.*.tmp")))
    killed.kill()
    killed.communicate()
    (left,) = tmp_path.glob(".a.vec.*.tmp")
    other = start(server, "b.vec", tmp_path)
    wait_for(lambda: "b.vec" in server.requests)
    again = start(server, "a.vec", tmp_path)
    wait_for(lambda: server.requests.count("a.vec") == 2)
    assert not left.exists() and list(tmp_path.glob(".b.vec.*.tmp"))
    server.go_on.set()
    for process in (other, again):
        assert process.wait(60) == 0, process.stderr.read()
    assert visible(tmp_path) == FILES


def test_what_is_not_the_file_is_never_put_in_place(server, tmp_path):
    """A login page, an empty answer, an error in XML, a connection that breaks off, a status, no server."""
    server.go_on.set()
    dead = "http://127.0.0.1:9/wiki.simple.vec"
    wanted = server.source("page.vec", "empty.vec", "error.vec", "cut-a.vec", "missing.vec")
    wanted = Source(wanted.folder, (*wanted.urls, dead), None)
    with pytest.raises(UserError) as error:
        download(wanted, tmp_path)
    for reason in ("an HTML page", "empty", "an XML document", "Error", "HTTP status 404", "ConnectionError"):
        assert reason in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [".page.vec.lock"]


def test_a_mirror_is_asked_for_a_file_with_a_wrong_checksum(server, tmp_path):
    server.go_on.set()
    wanted = server.source("b.vec", "a.vec", sha256=hashlib.sha256(FILES["a.vec"]).hexdigest())
    assert download(wanted, tmp_path).read_bytes() == FILES["a.vec"]
    assert server.requests == ["b.vec", "a.vec"]


@pytest.mark.parametrize(("make", "words"), [("folder", "a folder"), ("link", "a link to nowhere")])
def test_nothing_is_fetched_where_something_else_has_the_name(server, tmp_path, make, words):
    target = tmp_path / "a.vec"
    target.mkdir() if make == "folder" else target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"{target} is {words}"):
        download(server.source("a.vec"), tmp_path)
    assert server.requests == []


def test_a_file_that_others_may_read_can_be_read_by_them(server, tmp_path):
    server.go_on.set()
    path = download(server.source("a.vec"), tmp_path)
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
