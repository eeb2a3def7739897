"""Records what others' packers make of the same small ternary matrices.

    git clone https://github.com/microsoft/BitNet            (16da220)
    pip install gguf==0.19.0 numpy                            (and a C++ compiler)
    python crates/kernels/tests/oracle/record.py BitNet > crates/kernels/tests/oracle/packers.json

I2_S comes from `quantize_i2_s` of `src/ggml-bitnet-mad.cpp`, compiled twice: as for x86 (blocks of 128) and as for ARM (blocks of 64).
TL1 and TL2 come from `utils/convert-hf-to-gguf-bitnet.py`, with tiles of our own. TQ1_0 and TQ2_0 come from gguf-py.
"""

import ast
import ctypes
import json
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np

SCALE = 0.375


def weights(rows, columns):
    """Weights of -1, 0 and 1: the upper bits of a linear congruential generator, modulo three."""
    state, codes = rows * 65536 + columns, []
    for _ in range(rows * columns):
        state = (state * 1103515245 + 12345) % 2**31
        codes.append((state >> 16) % 3)
    return (np.array(codes, dtype=np.float32) - 1).reshape(rows, columns)


def quantize_i2_s(repository, flags):
    """The function of that name out of its file, which as a whole needs a tree of ggml around it."""
    source = open(f"{repository}/src/ggml-bitnet-mad.cpp").read()
    start = source.index("size_t quantize_i2_s(")
    body = source[start : source.index("\n}\n", start) + 3]
    text = (
        "#include <cmath>\n#include <cstdint>\n#include <cstdlib>\n#include <cstring>\n#include <cassert>\n"
        "enum { GGML_TYPE_I2_S };\nstatic size_t ggml_row_size(int, int64_t n) { return n; }\n"
        'extern "C" ' + body
    )
    with tempfile.TemporaryDirectory() as folder:
        open(f"{folder}/a.cpp", "w").write(text)
        subprocess.run(["c++", "-O1", "-shared", "-fPIC", *flags, f"{folder}/a.cpp", "-o", f"{folder}/a.so"], check=True)
        return ctypes.CDLL(f"{folder}/a.so").quantize_i2_s


def i2_s(function, matrix):
    rows, columns = matrix.shape
    source = np.ascontiguousarray(matrix * np.float32(SCALE))
    out = np.zeros(rows * columns // 4 + 32, dtype=np.uint8)
    pointer = lambda array: array.ctypes.data_as(ctypes.c_void_p)  # noqa: E731
    function.restype = ctypes.c_size_t
    function(pointer(source), pointer(out), ctypes.c_int64(rows), ctypes.c_int64(columns), None)
    return out.tobytes()


def table_packers(repository):
    """The functions of the converter, without running it."""
    tree = ast.parse(open(f"{repository}/utils/convert-hf-to-gguf-bitnet.py").read())
    wanted = ["process_tl1", "preprocess_weights_tl1", "preprocess_two_weights_tl2", "preprocess_three_weights_tl2", "preprocess_weights_tl2"]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names = {"np": np, "Tuple": tuple}
    exec(compile(ast.Module(functions, []), "converter", "exec"), names)
    return names


def table(function, matrix, bm, bk, bmm):
    rows, columns = matrix.shape
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/include")
        open(f"{folder}/include/kernel_config.ini", "w").write(f"[a]\nm = {rows}\nk = {columns}\nbm = {bm}\nbk = {bk}\nbmm = {bmm}\n")
        os.chdir(folder)
        try:
            return function(matrix).astype(np.uint8).tobytes()
        finally:
            os.chdir(here)


def tq(ty, matrix):
    return gguf.quants.quantize(matrix * np.float32(SCALE), ty).tobytes()


def main(repository):
    cases = []

    def add(ty, rows, columns, data, **more):
        cases.append({"type": ty, "rows": rows, "columns": columns, **more, "bytes": data.hex()})

    # A block in each form of the file stands for all: weights of several rows share one where rows are no whole blocks.
    by_128 = quantize_i2_s(repository, ["-D__AVX__", "-DACT_PARALLEL", "-DQK_I2_S=128"])
    by_64 = quantize_i2_s(repository, ["-D__ARM_NEON", "-DQK_I2_S=64"])
    for rows, columns in [(4, 128), (4, 192), (3, 256)]:
        add("i2_s", rows, columns, i2_s(by_128, weights(rows, columns)), block=128)
        add("i2_s", rows, columns, i2_s(by_64, weights(rows, columns)), block=64)
    packers = table_packers(repository)
    for rows, columns, bm, bk, bmm in [(64, 64, 32, 32, 32), (128, 32, 64, 16, 64), (64, 96, 64, 32, 32)]:
        data = table(packers["preprocess_weights_tl1"], weights(rows, columns), bm, bk, bmm)
        add("tl1", rows, columns, data, bm=bm, bk=bk, bmm=bmm)
    for rows, columns, bm, bk in [(32, 352, 32, 96), (64, 288, 32, 96), (64, 320, 64, 72)]:
        data = table(packers["preprocess_weights_tl2"], weights(rows, columns), bm, bk, 32)
        add("tl2", rows, columns, data, bm=bm, bk=bk, bmm=32)
    for ty in [gguf.GGMLQuantizationType.TQ1_0, gguf.GGMLQuantizationType.TQ2_0]:
        add(ty.name.lower(), 2, 512, tq(ty, weights(2, 512)))
    json.dump({"scale": SCALE, "cases": cases}, sys.stdout, indent=1)
    print()


main(sys.argv[1])
