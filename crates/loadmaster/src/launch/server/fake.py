#!/usr/bin/env python3
"""A stand-in for llama-server: as much of it as a launcher sees, and every way to misbehave.

usage: fake.py MODE --port N
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
mode, port = sys.argv[1], int(sys.argv[sys.argv.index("--port") + 1])
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
