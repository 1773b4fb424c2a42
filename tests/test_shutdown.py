"""SIGTERM reaches code that runs for long inside a request, and the server, whichever thread it comes to."""

import subprocess
import sys

from tests.conftest import PATIENCE_S, ROOT

SERVER = """
import signal, threading, time
from knative_jobs.runtime import shutdown

def take_the_signal():
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(600)

shutdown.watch()
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
threading.Thread(target=take_the_signal, daemon=True).start()
stopped.wait()
print(shutdown.stopping.is_set())
"""


def test_a_server_that_waits_is_woken_by_a_signal_that_another_thread_got() -> None:
    """As when a thread is just starting a process: with the signal mask it had, it gets what came meanwhile."""
    command = [sys.executable, "-c", SERVER]
    env = {"PYTHONPATH": str(ROOT / "functions")}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")
