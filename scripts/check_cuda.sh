#!/usr/bin/env bash
# Type-checks the `cuda` feature. Apart from CI: it pulls the CubeCL crates (1.3 GB, minutes), and linking needs a CUDA
# toolkit. DOCS_RS keeps cubecl-cuda's build script from downloading LLVM.
set -euo pipefail
cd "$(dirname "$0")/.."
DOCS_RS=1 cargo check --package ril --features cuda --example ril_qwen
