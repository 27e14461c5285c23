#!/usr/bin/env python3
"""Stands between a client and an OpenAI-compatible server and writes down every exchange, one JSON object a line.

    record_exchanges.py --upstream http://127.0.0.1:8080 --port 8090 --out exchanges.jsonl --server "llama.cpp b7000"

Bodies and statuses pass unchanged; of the headers only content type and key are passed on. Keys are not written down. Ctrl-C ends it. Only the standard library is used.
"""
import argparse
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--upstream", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--out", required=True)
parser.add_argument("--server", required=True, help="name and version of the server, for the file")
args = parser.parse_args()
lock = threading.Lock()


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.forward(None)

    def do_POST(self):
        self.forward(self.rfile.read(int(self.headers.get("content-length", 0))))

    def forward(self, body):
        headers = {"content-type": "application/json"}
        if self.headers.get("authorization"):
            headers["authorization"] = self.headers["authorization"]
        request = urllib.request.Request(args.upstream + self.path, data=body, headers=headers, method=self.command)
        try:
            with urllib.request.urlopen(request, timeout=3600) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            status, text = refusal.code, refusal.read()
        line = {
            "server": args.server,
            "method": self.command,
            "path": self.path,
            "request": json.loads(body) if body else None,
            "status": status,
            "response": text.decode(),
        }
        with lock, open(args.out, "a") as out:
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", args.port), Recorder).serve_forever()
