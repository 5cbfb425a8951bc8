#!/usr/bin/env python3
"""What the real server costs, counted and not timed, against benches/baseline.toml; a step of the gate (.ci/run).

    benches/ratchet.py target/release/whinchat target/debug/examples/load [--print]

Bytes of the program, bytes of an idle session (plain, TLS), system calls (strace) and instructions (callgrind) for a routed chat
message with 16 in flight. Says loudly what it cannot count here. Fails when something is more than 5 % above its baseline.
"""
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 60
# Enough that pages and doubled tables say what a session costs.
BASE, SESSIONS = 300, 1700


class Server:
    """A server of our own in a directory, run by some words (strace, valgrind) in front."""

    def __init__(self, binary, directory, words=(), archive=False, limits=""):
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            self.plain, self.tls = one.getsockname()[1], two.getsockname()[1]
        config = os.path.join(directory, "whinchat.toml")
        with open(config, "w") as file:
            file.write(f"""
data = "{directory}/data"
log = "warn"
scram_iterations = 4096
[listen]
c2s_tls = ["127.0.0.1:{self.tls}"]
c2s_plain = ["127.0.0.1:{self.plain}"]
[[domain]]
name = "localhost"
registration = "open"
archive = {str(archive).lower()}
[limits]
rates = false
memory_max = "1G"
connections_max = 50000
registrations_per_hour = 1000000
connections_per_address_max = 50000
{limits}
""")
        self.process = subprocess.Popen([*words, binary, "--config", config, "run"])
        # The shell's words may have made the server their child.
        self.pid = self.process.pid
        until = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.plain)).close()
                break
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    raise SystemExit("the server does not start")
                time.sleep(0.05)
        if words and words[0] == "strace":
            children = f"/proc/{self.pid}/task/{self.pid}/children"
            self.pid = int(open(children).read().split()[0])

    def load(self, load, command, *options, port=None):
        address = f"127.0.0.1:{port or self.plain}"
        words = [load, command, "--address", address, "--pid", str(self.pid), *map(str, options)]
        text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return dict(line.split() for line in text.splitlines() if len(line.split()) == 2)

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        self.process.wait(PATIENCE)


def idle(binary, load, directory, mode):
    """Private bytes of each session beyond the first."""
    server = Server(binary, directory)
    port = server.tls if mode == "tls" else server.plain
    out = server.load(load, "idle", "--base", BASE, "--sessions", SESSIONS, "--mode", mode, port=port)
    server.stop()
    return float(out["private_dirty_bytes_per_session"])


def per_message(binary, load, directory, words, count_of):
    """Of two runs of different length, what the longer one counted more for each message that it had more."""
    counted = []
    for messages in (1600, 8000):
        server = Server(binary, directory, words)
        out = server.load(load, "chat", "--window", 16, "--warm-up", 0, "--count", messages, "--seconds", PATIENCE)
        server.stop()
        counted.append((count_of(), int(out["count"])))
    (few, short), (many, long) = counted
    return (many - few) / (long - short)


def calls(path):
    """Sum of the column `calls` of strace -c."""
    rows = (line.split() for line in open(path) if re.match(r"\s*\d+\.\d+ ", line))
    return sum(int(row[3]) for row in rows if row[-1] != "total")


def instructions(path):
    return int(re.search(r"^(?:summary|totals): (\d+)", open(path).read(), re.M).group(1))


def measure(binary, load):
    yield "binary_bytes", os.path.getsize(binary)
    with tempfile.TemporaryDirectory(prefix="whinchat-ratchet.") as directory:
        server = Server(binary, directory)
        server.load(load, "register", "--accounts", BASE + SESSIONS, "--jobs", 8)
        server.stop()
        for mode in ("plain", "tls"):
            # What else the machine does may fall between one run's two looks at the memory.
            runs = (idle(binary, load, directory, mode) for _ in range(3))
            yield f"idle_session_bytes_{mode}", statistics.median(runs)
        tools = {
            "syscalls_per_message": ("strace", ["-f", "-c", "-o"], calls),
            "instructions_per_message": ("valgrind", ["-q", "--tool=callgrind", "--callgrind-out-file="], instructions),
        }
        for name, (tool, options, count_of) in tools.items():
            if not shutil.which(tool):
                yield name, None
                continue
            path = os.path.join(directory, tool)
            words = [tool, *options[:-1], options[-1] + path] if options[-1].endswith("=") else [tool, *options, path]
            yield name, per_message(binary, load, directory, words, lambda: count_of(path))


def main():
    binary, load = (os.path.abspath(path) for path in sys.argv[1:3])
    with open(os.path.join(HERE, "baseline.toml"), "rb") as file:
        baseline = tomllib.load(file)
    rustc = " ".join(subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[:2])
    made_by = baseline["rustc"]["value"]
    if rustc != made_by:
        print(f"!!! the baseline was made by {made_by}, this is {rustc}: size and instructions are told, not compared")
    worse = False
    compiled = ("binary_bytes", "instructions_per_message")
    for name, value in measure(binary, load):
        if value is None:
            print(f"!!! {name}: NOT COUNTED, its tool is not installed here (strace, valgrind)")
            continue
        entry = baseline.get(name, {}).get("value")
        if rustc != made_by and name in compiled:
            verdict = "not compared"
        elif entry is None or value > entry * 1.05:
            verdict, worse = "WORSE: say in benches/baseline.toml what it is the price of", True
        else:
            verdict = "better: lower the baseline" if value < entry * 0.95 else "as it was"
        print(f"{name} {value:.2f}, baseline {entry}: {verdict}", flush=True)
    return worse and "--print" not in sys.argv


if __name__ == "__main__":
    sys.exit(main())
