#!/usr/bin/env python3
"""Makes entries of corpora from tests/scripts: what clients send there, for the targets core, framing, stanza and sasl.

usage: seeds.py FOLDER      one folder in it for each target; minimise with `-merge=1` before anything goes into corpus/
"""
import base64
import re
import sys
from pathlib import Path

scripts = Path(__file__).resolve().parent.parent / "tests/scripts"
out = Path(sys.argv[1])
OWNERS = {"juliet": [0, 1], "romeo": [2], "mercutio": [3]}


def expand(text):
    """What `{…}` stands for in a script."""
    def one(match):
        kind, value = match.group(1), match.group(2)
        if kind == "base64":
            return base64.b64encode(value.replace("\\0", "\0").encode()).decode()
        if kind == "hex":
            return bytes.fromhex(value).decode("latin-1")
        return min(int(kind), 3000) // max(len(value), 1) * value if kind.isdigit() else match.group(0)
    text = re.sub(r"\{(base64|hex):([^}]*)\}", one, text)
    return re.sub(r"\{(\d+)\*([^}]*)\}", lambda m: m.group(2) * min(int(m.group(1)), 2000 // max(len(m.group(2)), 1)), text)


def lines(script):
    whole = []
    for line in script.read_text().splitlines():
        if line[:1].isspace() and whole:
            whole[-1] += "\n" + line.strip()
        elif line and not line.startswith("#"):
            whole.append(line)
    return whole


def keep(target, name, data):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def place(jid, used):
    local = jid.split("@")[0]
    for index in OWNERS.get(local, [1, 3]):
        if index not in used.values():
            return index
    return OWNERS.get(local, [3])[-1]


for script in sorted(scripts.glob("*.xmpp")):
    used, pieces, stanzas, section = {}, [], [], 0

    def flush(done=False):
        if pieces:
            for bits in ((0b00011111, 0b00111111) if done else (0b00010111,)):
                keep("core", f"{script.stem}-{section}-{bits:02x}", bytes([bits]) + b"".join(pieces)[:6000])

    for line in lines(script):
        if line.startswith("=="):
            flush()
            if len(b"".join(pieces)) > 3000:
                pieces.clear()
            section += 1
        elif match := re.match(r"(?:client|login) (?:(\w+) = )?(\S+)", line):
            used[match.group(1) or ""] = place(match.group(2), used)
        elif match := re.match(r"connect ?(\w*)", line):
            used[match.group(1)] = 4
            pieces.append(b"\x04\xf7")
        elif match := re.match(r"C ?(\w*): (.*)", line, re.S):
            text = expand(match.group(2))
            text = re.sub(r"previd='\$\w+'", "previd='%sm%'", text)
            text = re.sub(r"\$\w+", "%id%", text)
            data = text.encode("utf-8", "surrogatepass") if "{hex" not in line else text.encode("latin-1", "replace")
            data = bytes(byte for byte in data if byte < 0xF5)
            pieces.append(data + bytes([0xF8 + used.get(match.group(1), 4)]))
            if data.startswith(b"<") and not data.startswith((b"<stream", b"<?xml", b"</")):
                stanzas.append(data)
        elif line.startswith("T:"):
            pieces.append(b"\xff" if "s" not in line or len(line) > 8 else b"\xfe")
        elif match := re.match(r"close ?(\w*)", line):
            pieces.append(bytes([used.get(match.group(1), 4) + 15, 0xF7]))
        elif match := re.match(r"(?:un)?stall ?(\w*)", line):
            pieces.append(bytes([used.get(match.group(1), 4), 0xF6]))
        elif line.startswith("fail store"):
            pieces.append(b"\x00\xfd")
        elif line.startswith("command"):
            pieces.append(b"\x06\xf5")
    flush(done=True)
    for number, stanza in enumerate(stanzas):
        keep("framing", f"{script.stem}-{number}", b"\x20" + stanza[:2000])
        keep("stanza", f"{script.stem}-{number}", bytes([number % 4]) + stanza[:2000])
        if b"xmpp-sasl" in stanza and (content := re.search(rb">([^<]+)</(?:auth|response)", stanza)):
            try:
                keep("sasl", f"{script.stem}-{number}", b"\x0f" + bytes([number % 5]) + base64.b64decode(content.group(1)))
            except ValueError:
                pass

for mechanism in range(1, 5):
    keep("sasl", f"client-{mechanism}", bytes([0x8f, mechanism, 2 if mechanism > 2 else 0, 0, 0, 1, 2, 2, 1, 0]))
    keep("sasl", f"plain-{mechanism}", bytes([0x0f, mechanism]) + b"n,,n=juliet,r=rOprNGfwEbeRWgbNEkqO\xffc=biws,r=rOprNGfwEbeRWgbNEkqOfyko,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")
keep("sasl", "plain", b"\x0f\x00\0juliet\0secret")
