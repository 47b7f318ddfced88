"""Starts the processes of `make run` and `make demo`, watches them, and ends them by their ids."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv" / "bin"
GATE = ROOT / "bin" / "refrakt-gate"
API = ROOT / "examples" / "api"
ENVOY_CONFIG = ROOT / "envoy" / "envoy.yaml"

START_TIMEOUT = 60


class Failed(Exception):
    """Something did not go as it must; the text is for the user."""


class Stopped(Exception):
    """The user has ended it."""


class Process:
    def __init__(self, name: str, log: Path, args: list, env: dict, cwd: Path):
        self.name, self.log = name, log
        with log.open("w") as out:
            # Apart from the terminal: Ctrl-C reaches only us, and we end the processes in order.
            self.popen = subprocess.Popen(
                [str(a) for a in args], env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> None:
        if self.popen.poll() is not None:
            return
        self.popen.terminate()
        try:
            self.popen.wait(15)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Stack:
    """The processes that run together: when one ends by itself, waiting for anything fails."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="gate"))
        self.processes: list[Process] = []
        self._stopped = threading.Event()

    def __enter__(self):
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, lambda *_: self._stopped.set())
        return self

    def __exit__(self, *_):
        # What serves others ends after what uses it.
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name: str, args: list, env: dict, cwd: Path = ROOT) -> Process:
        process = Process(name, self.dir / f"{name}.log", args, env, cwd)
        self.processes.append(process)
        return process

    def stop(self, process: Process) -> None:
        process.stop()
        self.processes.remove(process)

    def check(self) -> None:
        if self._stopped.is_set():
            raise Stopped
        for p in self.processes:
            if p.popen.poll() is not None:
                last = "\n".join("    " + line for line in p.text().splitlines()[-20:])
                raise Failed(f"{p.name} ended by itself (exit code {p.popen.returncode}). Its last lines:\n{last}")

    def wait(self, what: str, condition, timeout: float = START_TIMEOUT):
        """Waits for condition() to be true and returns what it gave."""
        deadline = time.monotonic() + timeout
        while True:
            self.check()
            if result := condition():
                return result
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not within {timeout} s")
            self._stopped.wait(0.05)

    def wait_log(self, process: Process, pattern: str) -> str:
        match = self.wait(f"{process.name} to start", lambda: re.search(pattern, process.text()))
        return match.group(1)

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait("time", lambda: time.monotonic() >= end, seconds + 10)

    def forever(self) -> None:
        self.wait("the end", lambda: False, float("inf"))

    # The programs. A port of 0 is the kernel's choice; each returns the address to use.

    def api(self, env: dict, port: int = 0) -> str:
        p = self.start("api", [VENV / "uvicorn", "app:app", "--port", port], {**env, "PYTHONUNBUFFERED": "1"}, API)
        return self.wait_log(p, r"Uvicorn running on http://(\S+)")

    def worker(self, env: dict) -> Process:
        p = self.start("worker", [VENV / "saq", "worker.settings", "--verbose"], {**env, "PYTHONUNBUFFERED": "1"}, API)
        self.wait_log(p, "(Worker starting)")
        return p

    def gate(self, env: dict, grpc_port: int = 0, telemetry_port: int = 0) -> tuple[str, str]:
        """Returns the gRPC and the telemetry address."""
        addresses = {"GRPC_ADDR": f"127.0.0.1:{grpc_port}", "TELEMETRY_ADDR": f"127.0.0.1:{telemetry_port}"}
        p = self.start("gate", [GATE, "serve"], {**env, **addresses, "LOG_FORMAT": "json"})
        return (
            self.wait_log(p, r'"msg":"serving".*"grpc":"([^"]+)"'),
            self.wait_log(p, r'"msg":"telemetry listening".*"addr":"([^"]+)"'),
        )

    def envoy(self, config: Path, env: dict) -> str:
        """Returns the listener's address."""
        admin_file = self.dir / "envoy.admin"
        self.start("envoy", [
            VENV / "envoy", "-c", config, "--admin-address-path", admin_file, "--disable-hot-restart",
            "--log-level", "warn", "--file-flush-interval-msec", "200",
        ], env)  # fmt: skip
        admin = self.wait("envoy's admin address", lambda: admin_file.exists() and admin_file.read_text())
        self.wait("envoy to serve", lambda: request(admin, "GET", "/ready")[0] == 200)
        _, _, body = request(admin, "GET", "/listeners?format=json")
        address = json.loads(body)["listener_statuses"][0]["local_address"]["socket_address"]
        return f"{address['address']}:{address['port_value']}".replace("0.0.0.0", "127.0.0.1")


def request(address: str, method: str, path: str, headers: dict | None = None) -> tuple[int, dict, str]:
    """Status, headers (names in lower case) and body; status 0 when nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode()
    except OSError:
        return 0, {}, ""
    finally:
        connection.close()


def envoy_config(target: Path, api: str, gate: str) -> Path:
    """A copy of envoy.yaml on ports of the kernel's choice, in front of these addresses."""
    text = ENVOY_CONFIG.read_text()
    for old, new in {
        "0.0.0.0, port_value: 8080": "127.0.0.1, port_value: 0",
        "127.0.0.1, port_value: 9901": "127.0.0.1, port_value: 0",
        "127.0.0.1, port_value: 8000": api.replace(":", ", port_value: "),
        "127.0.0.1, port_value: 9001": gate.replace(":", ", port_value: "),
    }.items():
        if text.count(old) != 1:
            raise Failed(f"{ENVOY_CONFIG}: {old!r} is in it {text.count(old)} times, want once")
        text = text.replace(old, new)
    target.write_text(text)
    return target


def require_free(ports: dict[int, str]) -> None:
    """Fails with a list of the ports that others use."""
    taken = []
    for port, use in ports.items():
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("0.0.0.0", port))
            except OSError as e:
                taken.append(f"port {port} ({use}): {e.strerror}")
    if taken:
        raise Failed("these ports are needed and not to be had; end what uses them:\n  " + "\n  ".join(taken))


def main(story) -> None:
    """Runs story(stack); the exit code is 0 when it returns or the user ends it, else 1."""
    try:
        with Stack() as stack:
            story(stack)
    except Stopped:
        print("\nstopped", flush=True)
    except Failed as e:
        sys.exit(f"\nFAILED: {e}")


def clean_env() -> dict:
    """An environment in which no setting of the user's shell changes the outcome."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
