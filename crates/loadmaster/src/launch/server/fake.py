#!/usr/bin/env python3
"""A stand-in for llama-server: as much of it as a launcher sees, and every way to misbehave.

usage: FAKE_MODE=MODE fake.py --port N ...
"""
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = """\
0.00.140.469 I llama_model_loader: loaded meta data with 27 key-value pairs and 272 tensors from m.gguf (version GGUF V3 (latest))
0.00.178.064 I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
0.00.188.629 I load_tensors:   CPU_Mapped model buffer size =   136.40 MiB
0.00.189.568 I llama_context: constructing llama_context
0.00.189.788 I llama_context:        CPU  output buffer size =     0.19 MiB
0.00.189.870 I llama_kv_cache:        CPU KV buffer size =    22.50 MiB
0.00.275.303 I sched_reserve:        CPU compute buffer size =    15.64 MiB
0.00.276.306 I cmn  common_init_: warming up the model with an empty run - please wait ... (--no-warmup to disable)
"""
METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 200
llamacpp:prompt_seconds_total 0.5
llamacpp:tokens_predicted_total 50
llamacpp:tokens_predicted_seconds_total 2
llamacpp:n_decode_total 51
"""
HELP = [
    ("-h,    --help, --usage", "print usage and exit", ""),
    ("-t,    --threads N", "threads of generation", "THREADS"),
    ("-tb,   --threads-batch N", "threads of prompts", ""),
    ("-c,    --ctx-size N", "context", "CTX_SIZE"),
    ("-b,    --batch-size N", "batch", "BATCH"),
    ("-ub,   --ubatch-size N", "micro-batch", "UBATCH"),
    ("--swa-full", "full cache of windows", "SWA_FULL"),
    ("-fa,   --flash-attn [on|off|auto]", "flash attention", "FLASH_ATTN"),
    ("-kvo,  --kv-offload, -nkvo, --no-kv-offload", "cache beside its layer", "KV_OFFLOAD"),
    ("--repack, -nr, --no-repack", "repack weights", "REPACK"),
    ("-ctk,  --cache-type-k TYPE", "type of K", "CACHE_TYPE_K"),
    ("-ctv,  --cache-type-v TYPE", "type of V", "CACHE_TYPE_V"),
    ("-lm,   --load-mode MODE", "load mode", "LOAD_MODE"),
    ("-dev,  --device <dev1,dev2,..>", "devices", "DEVICE"),
    ("-ot,   --override-tensor <pattern>=<buffer type>,...", "place tensors", "OVERRIDE_TENSOR"),
    ("-ncmoe, --n-cpu-moe N", "experts on the host", "N_CPU_MOE"),
    ("-ngl,  --gpu-layers, --n-gpu-layers N", "layers on GPUs", "N_GPU_LAYERS"),
    ("-sm,   --split-mode {none,layer,row,tensor}", "split", "SPLIT_MODE"),
    ("-ts,   --tensor-split N0,N1,N2,...", "shares", "TENSOR_SPLIT"),
    ("-mg,   --main-gpu INDEX", "main GPU", "MAIN_GPU"),
    ("-fit,  --fit [on|off]", "change what was not given", "FIT"),
    ("--op-offload, --no-op-offload", "large batches on the GPU", ""),
    ("-m,    --model FNAME", "model", "MODEL"),
    ("-lv,   --verbosity, --log-verbosity N", "verbosity", "LOG_VERBOSITY"),
    ("-ctxcp, --ctx-checkpoints, --swa-checkpoints N", "checkpoints", "CTX_CHECKPOINTS"),
    ("-cram, --cache-ram N", "prompt cache", "CACHE_RAM"),
    ("-kvu,  --kv-unified, -no-kvu, --no-kv-unified", "one cache", "KV_UNIFIED"),
    ("-np,   --parallel N", "slots", "N_PARALLEL"),
    ("--host HOST", "address", "HOST"),
    ("--port PORT", "port", "PORT"),
    ("--metrics", "counters", "ENDPOINT_METRICS"),
]
if "--version" in sys.argv:
    print("version: 0.7.0 (build 11669, commit fake)\nbuilt with Python for Linux x86_64")
    sys.exit(0)
if "--help" in sys.argv:
    for flags, text, variable in HELP:
        print(f"{flags:<40}{text}" if len(flags) < 40 else f"{flags}\n{'':<40}{text}")
        if variable:
            print(f"{'':<40}(env: LLAMA_ARG_{variable})")
    sys.exit(0)
mode, port = os.environ.get("FAKE_MODE", "good"), int(sys.argv[sys.argv.index("--port") + 1])
ready = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        if self.path == "/health":
            if mode == "deaf":
                time.sleep(100)
            self.answer(200 if ready.is_set() else 503, "{}")
        elif self.path == "/metrics" and mode != "plain":
            self.answer(200, METRICS)
        else:
            self.answer(404, "{}")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if mode == "garbage":
            return self.answer(200, "\x00\x01 no JSON")
        if mode == "dies-later":
            os.abort()
        if mode == "full":
            return self.answer(400, json.dumps({"error": {"code": 400, "message": "the request exceeds the context size"}}))
        timings = {"prompt_n": 21, "prompt_ms": 100.0, "predicted_n": 8, "predicted_ms": 64.0}
        events = [{"content": " a"}, {"content": " text"}, {"content": "", "stop": True, "stop_type": "limit", "timings": timings}]
        if self.path == "/v1/chat/completions":
            events = [{"choices": [{"finish_reason": None, "delta": {"content": event["content"]}}]} for event in events[:-1]]
            events.append({"choices": [{"finish_reason": "stop", "delta": {}}], "timings": timings})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events:
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            if mode == "slow":
                time.sleep(100)

    def log_message(self, *args):
        pass


if mode == "dies":
    print("load: loading\nE llama_model_load: error loading model: missing tensor 'output.weight'\ncleaning up", file=sys.stderr)
    sys.exit(1)
if mode == "aborts":
    print("GGML_ASSERT(n > 0) failed", file=sys.stderr, flush=True)
    os.abort()
if mode == "silent":
    time.sleep(100)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in LOG.splitlines():
    print(line, file=sys.stderr, flush=True)
time.sleep(0.2)
ready.set()
if mode == "ends":
    time.sleep(0.5)
    sys.exit(3)
while True:
    time.sleep(1)
