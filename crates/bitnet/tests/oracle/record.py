"""Records what transformers' BitNetForCausalLM computes for tiny models whose weights are made from a formula.

    pip install torch transformers==5.23.0 accelerate safetensors numpy
    python crates/bitnet/tests/oracle/record.py > crates/bitnet/tests/oracle/transformers.json

The same formula is in ../models/mod.rs, so that only shapes, tokens and logits are kept here. Weights are packed as Hugging Face
packs them (four quarters of the rows in one byte) and loaded by transformers itself.
"""

import json
import struct
import sys
import tempfile

import numpy as np
import torch

torch._dynamo.config.disable = True

import transformers  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from transformers import BitNetForCausalLM  # noqa: E402

MASK = (1 << 64) - 1


def splitmix(x):
    """SplitMix64 of an array of 64-bit numbers."""
    with np.errstate(over="ignore"):
        x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def noise(seed, name, count):
    """`count` 64-bit numbers of a tensor: FNV-1a of its name, the seed, and the place."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = ((key ^ byte) * 0x100000001B3) & MASK
    start = np.uint64((key ^ (seed * 0x9E3779B97F4A7C15)) & MASK)
    with np.errstate(over="ignore"):
        return splitmix(start + np.arange(count, dtype=np.uint64))


def unit(numbers):
    """From -1 to 1, in steps of 2^-10: exact in 16 bits."""
    return ((numbers >> np.uint64(53)).astype(np.float64) / 1024.0 - 1.0).astype(np.float32)


def codes(seed, name, rows, columns):
    return (noise(seed, name, rows * columns) % np.uint64(3)).astype(np.uint8).reshape(rows, columns)


def scale(seed, name):
    """A weight scale from 0.25 to 0.75 that bf16 holds."""
    step = int(noise(seed, name + ".scale", 1)[0] >> np.uint64(58))
    return np.float32(0.25 + step / 128.0)


def norm(seed, name, width):
    return (np.float32(1.0) + np.float32(0.25) * unit(noise(seed, name, width))).astype(np.float32)


def pack(codes):
    """Row r of the packed matrix holds rows r, r + n/4, ... from the lowest bits up."""
    n = codes.shape[0] // 4
    return sum(codes[i * n : (i + 1) * n] << (2 * i) for i in range(4)).astype(np.uint8)


def bf16(value):
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    assert bits & 0xFFFF == 0, value
    return value


# Rounding to 8 bits has ties. Another order of the same float sums moves a value by some parts in 10^7, and one that lies nearer to a
# tie than that goes to the other integer, whoever computes it. Seeds whose activations come that near are passed over.
NEAREST = 5e-7


class TieWatch:
    """The smallest distance to a tie of what linear layers quantise, by the size of the value."""

    def __init__(self, model):
        self.nearest = 1.0
        for module in model.modules():
            if type(module).__name__ in ("AutoBitLinear", "BitLinear"):
                module.register_forward_pre_hook(self.look)

    def look(self, module, inputs):
        (x,) = inputs
        scaled = x.double() * 127 / x.double().abs().amax(-1, keepdim=True).clamp(min=1e-5)
        distance = ((scaled - scaled.floor() - 0.5).abs() / (scaled.abs() + 1)).min().item()
        self.nearest = min(self.nearest, distance)


def record(case):
    """The first seed from the case's own on whose activations are away from ties."""
    while True:
        recorded = attempt(case)
        if recorded:
            return recorded
        case = {**case, "seed": case["seed"] + 10}


def attempt(case):
    seed, e, ff, heads, kv, d = case["seed"], case["n_embd"], case["n_ff"], case["n_head"], case["n_head_kv"], case["head_dim"]
    # A sixteenth, so that logits are of the size of one, as a trained head gives them.
    tensors = {"model.embed_tokens.weight": (unit(noise(seed, "token_embd", case["n_vocab"] * e)) / np.float32(16)).reshape(-1, e)}
    tensors["model.norm.weight"] = norm(seed, "output_norm", e)
    for i in range(case["n_layer"]):
        base = f"model.layers.{i}."
        for theirs, ours, width in [
            ("input_layernorm", "attn_norm", e),
            ("post_attention_layernorm", "ffn_norm", e),
            ("self_attn.attn_sub_norm", "attn_sub_norm", heads * d),
            ("mlp.ffn_sub_norm", "ffn_sub_norm", ff),
        ]:
            tensors[f"{base}{theirs}.weight"] = norm(seed, f"blk.{i}.{ours}", width)
        for theirs, ours, rows, columns in [
            ("self_attn.q_proj", "attn_q", heads * d, e),
            ("self_attn.k_proj", "attn_k", kv * d, e),
            ("self_attn.v_proj", "attn_v", kv * d, e),
            ("self_attn.o_proj", "attn_output", e, heads * d),
            ("mlp.gate_proj", "ffn_gate", ff, e),
            ("mlp.up_proj", "ffn_up", ff, e),
            ("mlp.down_proj", "ffn_down", e, ff),
        ]:
            name = f"blk.{i}.{ours}"
            tensors[f"{base}{theirs}.weight"] = pack(codes(seed, name, rows, columns))
            s = bf16(scale(seed, name))
            # `bitlinear` divides by its scale: an inverse that 32 bits hold.
            tensors[f"{base}{theirs}.weight_scale"] = np.array([s if case["linear_class"] == "autobitlinear" else 1.0 / s], dtype=np.float32)
    config = {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "hidden_act": case["hidden_act"],
        "hidden_size": e,
        "intermediate_size": ff,
        "num_hidden_layers": case["n_layer"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": d,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": case["rope_base"],
        "tie_word_embeddings": True,
        "vocab_size": case["n_vocab"],
        "bos_token_id": 0,
        "eos_token_id": None,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        "quantization_config": {"quant_method": "bitnet", "linear_class": case["linear_class"], "quantization_mode": "offline"},
    }
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/config.json", "w") as file:
            json.dump(config, file)
        save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model = BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    watch = TieWatch(model)
    tokens = [int(t) for t in noise(seed, "tokens", case["n_tokens"]) % np.uint64(case["n_vocab"])]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].numpy()
        greedy = list(tokens)
        for _ in range(case["n_greedy"]):
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    print("nearest tie", watch.nearest, file=sys.stderr)
    if watch.nearest < NEAREST:
        return None
    print(case, "logits from", logits.min(), "to", logits.max(), file=sys.stderr)
    return {
        **case,
        "tokens": tokens,
        "greedy": greedy[len(tokens) :],
        "logits": [[float(f"{x:.9g}") for x in row] for row in logits.tolist()],
    }


CASES = [
    dict(seed=1, n_vocab=48, n_embd=128, n_ff=256, n_layer=2, n_head=4, n_head_kv=2, head_dim=32, rope_base=500000.0),
    dict(seed=2, n_vocab=40, n_embd=256, n_ff=512, n_layer=2, n_head=4, n_head_kv=1, head_dim=64, rope_base=10000.0),
    # Rows that are no whole blocks of 128, and SiLU as in the models of 2024.
    dict(seed=3, n_vocab=40, n_embd=192, n_ff=320, n_layer=2, n_head=3, n_head_kv=3, head_dim=64, rope_base=10000.0, hidden_act="silu"),
    dict(seed=4, n_vocab=48, n_embd=128, n_ff=256, n_layer=2, n_head=4, n_head_kv=2, head_dim=32, rope_base=500000.0, linear_class="bitlinear"),
]

if __name__ == "__main__":
    defaults = dict(hidden_act="relu2", linear_class="autobitlinear", n_tokens=10, n_greedy=8)
    cases = [record({**defaults, **case}) for case in CASES]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    json.dump({"versions": versions, "cases": cases}, sys.stdout, separators=(",", ":"))
    print()
