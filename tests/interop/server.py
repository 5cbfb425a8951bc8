"""Starts, restarts and stops the whinchat binary for the interop tests, on free ports of the loopback interface."""

import pathlib
import signal
import socket
import subprocess
import time

DOMAIN = "capulet.test"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server with its data in `folder`. `stop` asks it to end; `kill` pulls the plug."""

    def __init__(self, binary, folder, extra=""):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.starttls, self.tls, self.plain = free_port(), free_port(), free_port()
        self.config = self.folder / "whinchat.toml"
        self.config.write_text(
            f'data = "{self.folder}/data"\n'
            f'[listen]\nc2s = ["127.0.0.1:{self.starttls}"]\nc2s_tls = ["127.0.0.1:{self.tls}"]\n'
            f'c2s_plain = ["127.0.0.1:{self.plain}"]\n'
            f'[[domain]]\nname = "{DOMAIN}"\nregistration = "open"\n{extra}'
        )
        self.process = None
        self.start()

    def start(self):
        log = open(self.folder / "server.log", "ab")
        self.process = subprocess.Popen([self.binary, "run", "--config", str(self.config)], stderr=log, stdout=log)
        deadline = time.monotonic() + 20
        addresses = [("127.0.0.1", port) for port in (self.starttls, self.tls, self.plain)]
        for address in (*addresses, str(self.folder / "data" / "admin.sock")):
            while True:
                try:
                    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
                    with socket.socket(family) as probe:
                        probe.connect(address)
                    break
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("the server did not start:\n" + self.log())
                    time.sleep(0.02)

    def stop(self):
        """Returns how long it took, in seconds; it must end by itself with status 0 within five."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout=10)
        if status != 0:
            raise SystemExit(f"the server ended with status {status}:\n" + self.log())
        return time.monotonic() - started

    def kill(self):
        self.process.kill()
        self.process.wait()

    def certificate(self):
        """The self-made certificate, which the clients trust and verify against."""
        return self.folder / "data" / "certificates" / f"{DOMAIN}.pem"

    def log(self):
        return (self.folder / "server.log").read_text()

    def cli(self, *words, text=None):
        """Runs a command of the binary beside the running server; returns what it printed."""
        done = subprocess.run(
            [self.binary, *words, "--config", str(self.config)], input=text, capture_output=True, text=True, timeout=30
        )
        if done.returncode != 0:
            raise SystemExit(f"whinchat {words} failed: {done.stdout}{done.stderr}")
        return done.stdout
