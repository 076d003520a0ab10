#!/usr/bin/env bash
# The full benchmark matrix: batch 1, 2, 4, 8, 16 x prompt 1, 16, 128, 512 x Q4_K_M, Q5_K_M, Q6_K, Q8_0, and the verdict
# on the targets. Usage: bench/matrix.sh [SHAPE] [arguments of `recua bench`]; SHAPE is tiny, 1b (default), 3b or 8b.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

shape=1b
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    shape=$1
    shift
fi
folder=${RECUA_BENCH_MODELS:-models}

cargo build --release -p recua-cli
recua=${CARGO_TARGET_DIR:-target}/release/recua

mkdir -p "$folder"
models=()
for quant in Q4_K_M Q5_K_M Q6_K Q8_0; do
    model=$folder/synthetic-$shape-$quant.gguf
    # The same arguments give the same bytes on every machine, so an existing file is the right one.
    [ -f "$model" ] || "$recua" synth --shape "$shape" --quant "$quant" "$model"
    models+=("$model")
done
exec "$recua" bench "${models[@]}" --targets "$@"
