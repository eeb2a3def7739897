"""What the proofs of plans share: models, programs, machines' conditions, rows, and marks in PLANS.md."""
import json
import os
import random
import re
import struct
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
OUT = ROOT / "target/show"
LOADMASTER = TARGET / "release/loadmaster"
WRITE = TARGET / "release/examples/write"
DOCUMENT = ROOT / "PLANS.md"
MIB = 1 << 20


def say(*words):
    print(*words, flush=True)


def engine(program):
    """A program of llama.cpp: where LOADMASTER_TEST_ENGINE_DIR says, or where scripts/get-engine puts it."""
    folders = [os.environ.get("LOADMASTER_TEST_ENGINE_DIR", ""), *map(str, sorted(ROOT.glob(".toolchain/llama.cpp-*/usr/bin")))]
    for folder in folders:
        if folder and os.access(Path(folder) / program, os.X_OK):
            return Path(folder) / program
    raise SystemExit(f"plans: no {program}: scripts/get-engine gets one")


def model(name, fill="zero"):
    """The file of a model of exact shape, written once. Zeros are holes in the file; random weights take time and disk."""
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / (re.sub(r"[ /=]", "-", f"{name} {fill}") + ".gguf")
    if not path.exists():
        shape, file_type, *figures = name.split()
        new = path.with_suffix(".new")
        words = ["zero"] if fill == "zero" else []
        subprocess.run([WRITE, shape, file_type, new, *words, *figures], check=True, stdout=subprocess.DEVNULL)
        new.rename(path)
    return path


def largest_layer(path):
    """Bytes of the weights of the largest layer: the unit in which layers are placed."""
    layers = {}
    for name, size in tensors(path):
        found = re.match(r"blk\.(\d+)\.", name)
        if found:
            layers[int(found[1])] = layers.get(int(found[1]), 0) + size
    return max(layers.values(), default=0)


def tensors(path):
    """Names and sizes of the tensors of a GGUF file, sizes by the distance to the next."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        def number(form):
            return struct.unpack("<" + form, file.read(struct.calcsize(form)))[0]

        def text():
            return file.read(number("Q")).decode(errors="replace")

        def skip(kind):
            if kind == 8:
                file.seek(number("Q"), 1)
            elif kind == 9:
                inner, count = number("I"), number("Q")
                if inner in (8, 9):
                    for _ in range(count):
                        skip(inner)
                else:
                    file.seek(count * WIDTHS[inner], 1)
            else:
                file.seek(WIDTHS[kind], 1)

        file.seek(8)
        n_tensors, n_keys = number("Q"), number("Q")
        for _ in range(n_keys):
            text()
            skip(number("I"))
        found = []
        for _ in range(n_tensors):
            name = text()
            file.seek(number("I") * 8 + 4, 1)
            found.append((number("Q"), name))
        data = (file.tell() + 31) // 32 * 32
    found.sort()
    ends = [offset for offset, _ in found[1:]] + [size - data]
    return [(name, end - offset) for (offset, name), end in zip(found, ends)]


WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Draw(random.Random):
    """Choices that are the same each time."""

    def percent(self, chance):
        return self.random() * 100 < chance


def commit():
    """What was run: the last commit of the sources, with a plus where the tree differs from it. Rows of another one are not continued."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    sources = ["crates", "scripts/plans", "Cargo.lock", ":!crates/planner/tests"]
    return git("log", "-1", "--format=%h", "--", *sources) + ("+" if git("status", "--porcelain", "-uno", "--", *sources) else "")


def conditions():
    """The machine in one line: processor, memory, load. A busy machine says so."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    cpu = re.search(r"model name\s*:\s*(.*)", info)
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(encoding="utf-8"))[1]) >> 20
    return {"cpu": cpu[1] if cpu else "unknown", "cpus": os.cpu_count(), "memory_gib": memory + 1, "load": os.getloadavg()[0]}


def rows(path):
    """Kept rows of what ran last."""
    return newest(path, lambda row: None)


def newest(path, same):
    """Kept rows, of each kind of row (what `same` says) those of the commit at which it ran last."""
    kept = [json.loads(line) for line in open(path, encoding="utf-8")] if path.exists() else []
    last = {same(row): row["commit"] for row in kept}
    return [row for row in kept if row["commit"] == last[same(row)]]


def between_marks(name, text):
    """Replaces what stands between two marks of PLANS.md."""
    document = DOCUMENT.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    if begin not in document or end not in document:
        raise SystemExit(f"plans: PLANS.md has no marks {name}")
    before, rest = document.split(begin, 1)
    DOCUMENT.write_text(before + begin + text.strip("\n") + "\n" + end + rest.split(end, 1)[1], encoding="utf-8")
