#!/usr/bin/env bash
# Type-checks the `cuda` feature, library and example. It compiles no kernel, links nothing and needs no GPU.
#
# Apart from .ci/run, and never part of `--all-features`, because the CubeCL crates that it pulls take 1.3 GB and minutes.
# DOCS_RS=1 keeps the build script of cubecl-cuda from downloading an LLVM bundle; a real build needs that download.
set -euo pipefail
cd "$(dirname "$0")/.."
DOCS_RS=1 cargo check --package ril --features cuda --example ril_qwen
