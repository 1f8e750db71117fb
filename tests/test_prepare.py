"""download.py as a user runs it: stopped at any moment it says one line, and leaves nothing half behind."""

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import ROOT, wait_for

SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def start(*flags, env):
    """The script in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "experiments/download.py", *map(str, flags)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env}, text=True, start_new_session=True, **pipes)


def stopped(process, number):
    """Send the signal to all processes of the group, as a terminal does, and return what they print on stderr."""
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return err.splitlines()


@pytest.fixture
def stalled_network():
    """A proxy that sends a part of anything that is asked for, and no more: its address, and what was asked for."""
    asked = []
    end = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"x" * 500_000)
            asked.append(self.path)
            end.wait(60)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        end.set()
        running.shutdown()


@SIGNALS
def test_a_stopped_download_is_one_line_and_leaves_no_part(stalled_network, tmp_path, number, code):
    address, asked = stalled_network
    env = {"http_proxy": address, "HTTP_PROXY": address, "no_proxy": "", "NO_PROXY": ""}
    process = start("babi-1", "--persistent-dir", tmp_path, env=env)
    wait_for(lambda: asked and list(tmp_path.rglob(".*.tmp")), lambda: str(process.poll()))
    lines = stopped(process, number)
    assert process.returncode == code
    assert lines[-1] == "interrupted; run the same command again to continue" and len(lines) == 2, lines
    assert [path.name for path in (tmp_path / "raw" / "babi").iterdir()] == [".tasks_1-20_v1-2.tar.gz.lock"]


@pytest.mark.slow
@SIGNALS
def test_processes_that_tokenize_say_nothing_when_they_are_stopped(tmp_path, number, code):
    """They are stopped while they start, which is when Python would print a traceback."""
    started = tmp_path / "started"
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    open({str(started)!r}, "w").close()
    time.sleep(1)
elif sys.orig_argv[1:2] == ["experiments/download.py"]:
    from nlproar.dataset import encoding
    encoding._WORTH_PROCESSES = 10
""")
    raw = tmp_path / "raw"
    shutil.copytree(ROOT / "tests" / "cases" / "v22_html" / "p" / "raw", raw)
    flags = ("sst", "--persistent-dir", tmp_path, "--num-workers", 2)
    process = start(*flags, env={"PYTHONPATH": str(tmp_path)})
    wait_for(started.exists, lambda: str(process.poll()))
    lines = stopped(process, number)
    assert process.returncode == code
    assert lines[-1:] == ["interrupted; run the same command again to continue"] and len(lines) == 1, lines
