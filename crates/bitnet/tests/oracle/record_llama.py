"""Records what llama.cpp computes for tiny models of its architecture `bitnet` (SiLU, TQ2_0), whose weights are made from a formula.

    python crates/bitnet/tests/oracle/record_llama.py PATH/OF/llama-server > crates/bitnet/tests/oracle/llama.json

The formula is that of record.py and ../models/mod.rs, so that only shapes, tokens and log-probabilities are kept here. The file is
written here as well, for llama-quantize gives no f16 embedding to a model in TQ2_0. Needs nothing but Python and the server.
"""

import json
import math
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

MASK = (1 << 64) - 1
F32, F16, TQ2_0 = 0, 1, 35
U32, FLOAT, BOOL, STRING, ARRAY, INT32 = 4, 6, 7, 8, 9, 5


def noise(seed, name, count):
    """SplitMix64 of the places of a tensor: FNV-1a of its name, and the seed."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) & MASK
    start = key ^ ((seed * 0x9E3779B97F4A7C15) & MASK)
    for i in range(count):
        x = (start + i + 0x9E3779B97F4A7C15) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        yield x ^ (x >> 31)


def unit(number):
    return (number >> 53) / 1024.0 - 1.0


def f16(values):
    return struct.pack(f"<{len(values)}e", *values)


def f32(values):
    return struct.pack(f"<{len(values)}f", *values)


def tq2_0(seed, name, count):
    """Blocks of 256: two bits per code, four codes 32 apart in a byte, then the scale in 16 bits."""
    codes = [number % 3 for number in noise(seed, name, count)]
    (step,) = (number >> 58 for number in noise(seed, name + ".scale", 1))
    scale = struct.pack("<e", 0.25 + step / 128.0)
    data = bytearray()
    for at in range(0, count, 256):
        for half in (at, at + 128):
            data += bytes(sum(codes[half + 32 * l + m] << (2 * l) for l in range(4)) for m in range(32))
        data += scale
    return bytes(data)


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def vocabulary(count):
    """Marks and made-up words: the server tells nothing of a token that is part of a character."""
    words = [f"w{i}" for i in range(count - 3)]
    return ["<unk>", "<s>", "</s>"] + words, [2, 3, 3] + [1] * len(words)


def gguf(case, path):
    seed, e, ff = case["seed"], case["n_embd"], case["n_ff"]
    q, kv = case["n_head"] * case["head_dim"], case["n_head_kv"] * case["head_dim"]
    tensors = []

    def norm(name, width):
        tensors.append((f"{name}.weight", [width], F32, f32([1.0 + 0.25 * unit(x) for x in noise(seed, name, width)])))

    def linear(name, rows, columns):
        tensors.append((f"{name}.weight", [columns, rows], TQ2_0, tq2_0(seed, name, rows * columns)))

    table = [unit(x) / 16 for x in noise(seed, "token_embd", case["n_vocab"] * e)]
    tensors.append(("token_embd.weight", [e, case["n_vocab"]], F16, f16(table)))
    for i in range(case["n_layer"]):
        base = f"blk.{i}."
        for name, width in [("attn_norm", e), ("attn_sub_norm", q), ("ffn_norm", e), ("ffn_sub_norm", ff)]:
            norm(base + name, width)
        for name, rows, columns in [
            ("attn_q", q, e), ("attn_k", kv, e), ("attn_v", kv, e), ("attn_output", e, q),
            ("ffn_gate", ff, e), ("ffn_up", ff, e), ("ffn_down", e, ff),
        ]:
            linear(base + name, rows, columns)
    norm("output_norm", e)

    tokens, kinds = vocabulary(case["n_vocab"])
    numbers = {
        "context_length": 512, "embedding_length": e, "block_count": case["n_layer"], "feed_forward_length": ff,
        "attention.head_count": case["n_head"], "attention.head_count_kv": case["n_head_kv"],
        "attention.key_length": case["head_dim"], "attention.value_length": case["head_dim"],
        "rope.dimension_count": case["head_dim"], "vocab_size": case["n_vocab"],
    }
    floats = {"rope.freq_base": case["rope_base"], "attention.layer_norm_rms_epsilon": 1e-5}
    pairs = [string("general.architecture") + struct.pack("<I", STRING) + string("bitnet")]
    pairs += [string(f"bitnet.{key}") + struct.pack("<II", U32, value) for key, value in numbers.items()]
    pairs += [string(f"bitnet.{key}") + struct.pack("<If", FLOAT, value) for key, value in floats.items()]
    pairs.append(string("tokenizer.ggml.model") + struct.pack("<I", STRING) + string("llama"))
    for key, kind, items in [
        ("tokens", STRING, [string(token) for token in tokens]),
        ("scores", FLOAT, [struct.pack("<f", -float(i)) for i in range(len(tokens))]),
        ("token_type", INT32, [struct.pack("<i", kind) for kind in kinds]),
    ]:
        pairs.append(string(f"tokenizer.ggml.{key}") + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items))
    pairs += [string(f"tokenizer.ggml.{key}") + struct.pack("<II", U32, id) for key, id in [("bos_token_id", 1), ("eos_token_id", 2)]]

    directory, data = b"", bytearray()
    for name, shape, kind, content in tensors:
        directory += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += content + b"\0" * (-len(content) % 32)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs) + directory
    with open(path, "wb") as file:
        file.write(header + b"\0" * (-len(header) % 32) + data)


def ask(port, path, body=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body and json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def log_probabilities(port, tokens, n_vocab):
    """Of every token after these, by the model's own logits."""
    body = {"prompt": tokens, "n_predict": 1, "n_probs": n_vocab, "temperature": 0.0, "cache_prompt": False, "seed": 1}
    (first,) = ask(port, "/completion", body)["completion_probabilities"]
    found = {entry["id"]: entry["logprob"] for entry in first["top_logprobs"]}
    assert len(found) == n_vocab, len(found)
    assert abs(sum(map(math.exp, found.values())) - 1) < 1e-4
    return [float(f"{found[token]:.7g}") for token in range(n_vocab)]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def record(case, server):
    tokens = [number % case["n_vocab"] for number in noise(case["seed"], "tokens", case.pop("n_tokens"))]
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        gguf(case, f"{folder}/m.gguf")
        command = [server, "-m", f"{folder}/m.gguf", "--port", str(port), "-c", "256", "-np", "1", "-t", "1", "-fa", "off",
                   "-ctk", "f32", "-ctv", "f32", "--no-warmup"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            for _ in range(600):
                try:
                    ask(port, "/health")
                    break
                except (urllib.error.URLError, ConnectionError):
                    if running.poll() is not None:
                        sys.exit(running.stderr.read())
                    time.sleep(0.2)
            rows = [log_probabilities(port, tokens[: n + 1], case["n_vocab"]) for n in range(len(tokens))]
        finally:
            running.terminate()
            running.communicate()
    return {**case, "hidden_act": "silu", "tokens": tokens, "log_probabilities": rows}


# Six tokens: later ones come near a tie of roundings, whose sides grow through layers to a tenth and more.
CASES = [
    dict(seed=11, n_vocab=64, n_embd=256, n_ff=512, n_layer=2, n_head=4, n_head_kv=2, head_dim=64, rope_base=10000.0, n_tokens=6),
    dict(seed=12, n_vocab=56, n_embd=256, n_ff=768, n_layer=3, n_head=8, n_head_kv=8, head_dim=32, rope_base=500000.0, n_tokens=6),
]

if __name__ == "__main__":
    server = sys.argv[1]
    said = subprocess.run([server, "--version"], capture_output=True, text=True)
    version = re.search(r"version: (.*)", said.stdout + said.stderr).group(1)
    cases = [record(case, server) for case in CASES]
    json.dump({"engine": f"llama-server {version}", "cases": cases}, sys.stdout, separators=(",", ":"))
    print()
