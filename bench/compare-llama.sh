#!/usr/bin/env bash
# recua and llama.cpp on this machine's processor, alternately, on the same files: tokens a second side by side.
# What each side times is in bench/README.md, 'Against llama.cpp'.
set -euo pipefail

usage() {
    cat <<'END'
Usage: bench/compare-llama.sh LLAMA_CPP_BUILD [OPTIONS]

LLAMA_CPP_BUILD is the folder of a llama.cpp build, with bin/llama-batched-bench and bin/llama-bench.

  --threads N       threads of both sides [default: one a core]
  --models DIR      where the models are, or are written by `recua synth` [default: RECUA_BENCH_MODELS, else models]
  --shape SHAPE     tiny, 1b, 3b or 8b [default: 1b]
  --quant LIST      [default: Q4_K_M,Q8_0,Q6_K]
  --batch LIST      sequences at once [default: 1,4,8,16,32]
  --context N       tokens in each sequence before the timed steps [default: 128]
  --gen N           timed steps of one token a sequence [default: 32]
  --prefill N       tokens of the prompt that is timed, 0 for none [default: 512]
  --repeats N       pairs of runs a cell [default: 5]
  --isa NAME        recua's instruction set (RECUA_CPU_ISA), such as avx2; give a llama.cpp build of the same
  --no-repack       llama.cpp multiplies the file's own layout, without copying the weights into another
  --targets         say for each target whether it was reached; exit code 1 if one was missed
  --out DIR         also write DATE_PROCESSOR_llama.cpp[_ISA].md, .csv (every pair) and .json there

RECUA_BIN names the recua to measure; by default the checkout's release build, which is rebuilt first.
END
}

die() {
    echo "compare-llama: $*" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cores=$(getconf _NPROCESSORS_ONLN)
build='' threads=$cores models=${RECUA_BENCH_MODELS:-$root/models} shape=1b quants=Q4_K_M,Q8_0,Q6_K batches=1,4,8,16,32
context=128 gen=32 prefill=512 repeats=5 isa='' repack=1 targets=0 out=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage && exit 0 ;;
        --no-repack) repack=0 && shift && continue ;;
        --targets) targets=1 && shift && continue ;;
        -*) [ $# -gt 1 ] || die "$1 needs a value" ;;
        *)
            [ -z "$build" ] || die "unexpected argument '$1'"
            build=$1 && shift && continue
            ;;
    esac
    case $1 in
        --threads) threads=$2 ;;
        --models) models=$2 ;;
        --shape) shape=$2 ;;
        --quant) quants=$2 ;;
        --batch) batches=$2 ;;
        --context) context=$2 ;;
        --gen) gen=$2 ;;
        --prefill) prefill=$2 ;;
        --repeats) repeats=$2 ;;
        --isa) isa=$2 ;;
        --out) out=$2 ;;
        *) die "unknown option '$1'; --help lists them" ;;
    esac
    shift 2
done
[ -n "$build" ] || die "give the folder of a llama.cpp build; --help lists the arguments"
for n in "$threads" "$context" "$gen" "$repeats" ${batches//,/ }; do
    [[ $n =~ ^[1-9][0-9]*$ ]] || die "'$n' is not a positive number"
done
[[ $prefill =~ ^[0-9]+$ ]] || die "'$prefill' is not a number"

batched=$build/bin/llama-batched-bench
single=$build/bin/llama-bench
for tool in "$batched" "$single"; do
    [ -x "$tool" ] || die "$tool is not there; build llama.cpp's targets llama-batched-bench and llama-bench"
done
if [ -n "${RECUA_BIN:-}" ]; then
    recua=$RECUA_BIN
else
    (cd "$root" && cargo build --release -p recua-cli >&2)
    recua=$(cd "$root" && cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/recua
fi
[ -x "$recua" ] || die "$recua is not there"
[ -z "$isa" ] || export RECUA_CPU_ISA=$isa

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
note() { echo "$*" >&2; }

# Ticks in which the processors were busy, with this script's runs or anything else; empty if the system does not report them.
busy_ticks() {
    if [ -r /proc/stat ]; then
        awk '$1 == "cpu" { print $2 + $3 + $4 + $7 + $8 + $9; exit }' /proc/stat
    fi
}

# run NAME COMMAND...: the command's output goes to NAME.out, its times to runs.tsv.
run() {
    local name=$1 before after times TIMEFORMAT='%R %U %S'
    shift
    before=$(busy_ticks)
    if ! { time "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null; } 2>"$work/times"; then
        tail -n 20 "$work/$name.err" "$work/$name.out" >&2
        die "failed: $*"
    fi
    after=$(busy_ticks)
    times=$(tail -n 1 "$work/times")
    printf '%s\t%s\t%s\t%s\n' "$name" "${times// /$'\t'}" "$before" "$after" >>"$work/runs.tsv"
}

# The options that both of llama.cpp's tools take, as far as this version knows them.
batched_options=(-t "$threads" -tb "$threads" -ngl 0 -b 2048 -ub 512 -ctk f16 -ctv f16 --output-format jsonl)
single_options=(-t "$threads" -ngl 0 -b 2048 -ub 512 -ctk f16 -ctv f16 -fa 1 -o json)
batched_help=$("$batched" --help 2>&1 || true)
single_help=$("$single" --help 2>&1 || true)
# `-fa` was a switch before it took a value.
if [[ $batched_help == *'[on|off'* ]]; then batched_options+=(-fa on); else batched_options+=(-fa); fi
[[ $batched_help != *--no-kv-unified* ]] || batched_options+=(--no-kv-unified)
# A build with GPU support would use the GPU for prompts even with no layers on it.
[[ $batched_help != *--device* ]] || batched_options+=(--device none)
[[ $single_help != *--device* ]] || single_options+=(-dev none)
if [ $repack = 0 ]; then
    [[ $batched_help == *--no-repack* && $single_help == *--repack* ]] || die "this llama.cpp has no --no-repack"
    batched_options+=(--no-repack)
    single_options+=(--repack 0)
fi

recua_cell() { # NAME MODEL BATCH PROMPT_LENGTHS GEN
    run "$1" "$recua" bench "$2" --device cpu --threads "$threads" --batch "$3" --prompt-len "$4" --gen "$5" --format json
}
llama_decode() { # NAME MODEL BATCH
    local attempt
    for attempt in 1 2 3 4 5 6 7 8 9; do
        run "$1" "$batched" -m "$2" "${batched_options[@]}" -c $(($3 * (context + gen))) -npp "$context" -ntg "$gen" -npl "$3"
        # The tool prints from a thread, and the process may end before that (seen in 0.6.0): then the figure is lost.
        if grep -q '^{' "$work/$1.out"; then return; fi
        note "llama-batched-bench ended without printing a result ($attempt)"
    done
    die "llama-batched-bench prints no result; its messages: $(tail -n 5 "$work/$1.err")"
}

mkdir -p "$models"
for quant in ${quants//,/ }; do
    # The same arguments give the same bytes on every machine, so an existing file is the right one.
    model=$models/synthetic-$shape-$quant.gguf
    [ -f "$model" ] || "$recua" synth --shape "$shape" --quant "$quant" "$model"
done

{
    date -u +%F
    uname -srm
    # The first name: Linux, then macOS.
    sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1 || true
    sysctl -n machdep.cpu.brand_string 2>/dev/null || true
} >"$work/machine"
uptime | sed 's/.*load average[s]*: *//' >"$work/load"
"$recua" --version >"$work/recua"
{ git -C "$root" describe --always --dirty 2>/dev/null || true; } >"$work/commit"
"$batched" --version >"$work/llama" 2>&1 || true
# The instruction sets of the build, which neither tool reports. With GGML_NATIVE the other switches mean nothing.
switches=$(sed -n 's/^\(GGML_[A-Z0-9_]*\):BOOL=\(ON\|1\|TRUE\)$/\1/p' "$build/CMakeCache.txt" 2>/dev/null || true)
if grep -qx GGML_NATIVE <<<"$switches"; then
    echo GGML_NATIVE
else
    grep -E '^GGML_(SSE|AVX|FMA|F16C|BMI|AMX|CPU_ALL)' <<<"$switches" || true
fi >"$work/switches"
if [ "$isa" = avx2 ]; then
    if grep -q AVX512 "$work/switches" || { grep -q NATIVE "$work/switches" && grep -qs avx512f /proc/cpuinfo; }; then
        die "--isa avx2 needs an AVX2 build of llama.cpp, and $build uses AVX-512"
    fi
fi

for quant in ${quants//,/ }; do
    model=$models/synthetic-$shape-$quant.gguf
    # Reads the file, so that it is in the page cache.
    cat "$model" >/dev/null
    for ((repeat = 1; repeat <= repeats; repeat++)); do
        for batch in ${batches//,/ }; do
            note "$quant, pair $repeat of $repeats, batch $batch"
            recua_cell "$quant.decode.$batch.$repeat.recua" "$model" "$batch" "$context" "$gen"
            llama_decode "$quant.decode.$batch.$repeat.llama" "$model" "$batch"
        done
        if [ "$prefill" -gt 0 ]; then
            note "$quant, pair $repeat of $repeats, prompt of $prefill tokens"
            # llama-bench runs a prompt before the one that it times, so recua does too: the second row counts.
            recua_cell "$quant.prefill.1.$repeat.recua" "$model" 1 "$prefill,$prefill" 1
            run "$quant.prefill.1.$repeat.llama" "$single" -m "$model" "${single_options[@]}" -p "$prefill" -n 0 -r 1
        fi
    done
done

arguments=(--work "$work" --shape "$shape" --quants "$quants" --batches "$batches" --threads "$threads" --cores "$cores"
    --context "$context" --gen "$gen" --prefill "$prefill" --repeats "$repeats" --ticks "$(getconf CLK_TCK)"
    --isa "$isa" --repack "$repack" --out "$out")
[ $targets = 0 ] || arguments+=(--targets)
python3 "$root/bench/compare/summary.py" "${arguments[@]}"
