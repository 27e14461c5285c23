"""What the workers of scripts/bench.py beside other engines have in common: arguments, and an answer for each line."""

import argparse
import json
import sys
import time


def parser(works):
    """The arguments that scripts/bench.py gives to every worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", choices=works, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=48)
    return parser


def peak_mib():
    """Since this program began; `ru_maxrss` would count the one that started it."""
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def serve(run, prepare=lambda: ()):
    """Once to warm up, then once for each line on stdin: `run` is timed and gives the number to compare, `prepare` makes
    its arguments beforehand."""
    run(*prepare())
    print("ready", flush=True)
    for _ in sys.stdin:
        prepared = prepare()
        start = time.perf_counter()
        check = run(*prepared)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "check": float(check), "peak_mib": peak_mib()}), flush=True)
