#!/usr/bin/env bash
# Everything that needs an NVIDIA card, on a machine that has one: the tests of the CUDA device, those of models and of the program on it,
# verify-batch, and compute-sanitizer over the op cases.
set -euo pipefail

usage() {
    cat <<'END'
Usage: tools/cuda-tests.sh [OPTIONS] [FOLDER]
       tools/cuda-tests.sh --pack FOLDER

Runs what is in FOLDER, or builds it first with cargo if there is no FOLDER. A table at the end says how each went; exit code 1 if one
failed or took too long. compute-sanitizer is in CUDA's toolkit; without it its checks are not run, and the table says so. Its racecheck
and synccheck may take longer than their time, which is no failure.

  --pack FOLDER     builds, and puts all that is needed there, compressed, but this script and testdata; needs no card
  --only PATTERN    only checks whose name contains this regular expression
  --list            names of the checks and their time limits in seconds
  --logs DIR        what the checks print [default: cuda-tests below the build folder, or below FOLDER]
END
}

die() {
    echo "cuda-tests: $*" >&2
    exit 2
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
folder='' pack=0 only=. list=0 logs=''
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit ;;
    --pack) pack=1 ;;
    --only) only=${2:?} && shift ;;
    --list) list=1 ;;
    --logs) logs=${2:?} && shift ;;
    -*) die "no option $1; --help has them" ;;
    *) [ -z "$folder" ] || die "more than one folder" && folder=$1 ;;
    esac
    shift
done

# Name, seconds, and command of each check. The files are in the folder.
checks() {
    cat <<'END'
device, unit tests       | 300 | ./recua-cuda-lib
device, op cases         | 400 | ./recua-cuda-it ops::
device, everything else  | 400 | ./recua-cuda-it --skip ops::
models and demo          | 400 | ./recua-it
program                  | 300 | ./recua-cli-it gpu::
verify-batch             | 120 | ./recua verify-batch demo --device cuda
memcheck                 | 580 | compute-sanitizer --tool memcheck --error-exitcode 9 ./recua-cuda-it ops:: --test-threads 1
synccheck                | 580 | compute-sanitizer --tool synccheck --error-exitcode 9 ./recua-cuda-it ops:: --test-threads 1
racecheck                | 580 | compute-sanitizer --tool racecheck --error-exitcode 9 ./recua-cuda-it ops:: --test-threads 1
END
}

if [ "$list" = 1 ]; then
    checks | cut -d '|' -f 1,2
    exit
fi

# Puts the binaries of the tests, and the program, into a folder. With the whole workspace, the facade's tests have all devices.
build() {
    mkdir -p "$1"
    (cd "$root" && cargo test --workspace --no-run --message-format json) >"$1/artifacts.json"
    copy() {
        local name=$1 found
        shift
        found=$(grep '"reason":"compiler-artifact"' "$folder/artifacts.json")
        for pattern in "$@"; do found=$(grep -F "$pattern" <<<"$found" || true); done
        found=$(sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' <<<"$found" | tail -n 1)
        [ -n "$found" ] || die "cargo has built no $name"
        cp "$found" "$folder/$name"
        # A tenth of the size is left.
        if [ $pack = 1 ]; then
            strip "$folder/$name"
            gzip --force "$folder/$name"
        fi
    }
    copy recua-cuda-lib '/crates/recua-cuda#' '"kind":["lib"]' '"test":true}'
    copy recua-cuda-it '/crates/recua-cuda#' '"kind":["test"]'
    copy recua-it '/crates/recua#' '"kind":["test"]'
    copy recua-cli-it '/crates/recua-cli#' '"kind":["test"]'
    copy recua '/crates/recua-cli#' '"kind":["bin"]' '"test":false}'
    rm "$1/artifacts.json"
}

if [ $pack = 1 ]; then
    [ -n "$folder" ] || die "--pack needs a folder"
    build "$folder"
    du -sh "$folder"
    exit
fi
if [ -z "$folder" ]; then
    folder=$target/cuda-tests
    build "$folder"
fi
for packed in "$folder"/*.gz; do
    if [ -e "$packed" ]; then gunzip --force --keep "$packed"; fi
done
[ -x "$folder/recua" ] || die "$folder has no binaries; --pack makes them"
folder=$(cd "$folder" && pwd)
logs=${logs:-$folder/logs}
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)

# Tests of the device fail, rather than skip themselves, where it cannot be opened.
export RECUA_REQUIRE_DEVICES=cpu,cuda
export RECUA_TESTDATA=${RECUA_TESTDATA:-$root/testdata} RECUA_PROGRAM=$folder/recua
[ -d "$RECUA_TESTDATA/golden" ] || die "$RECUA_TESTDATA has no test data"
# The toolkit's programs are often not where the shell looks.
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin

cd "$folder"
table='' failed=0 n=0
while IFS='|' read -r name limit command; do
    read -r name <<<"$name"
    grep -Eq -- "$only" <<<"$name" || continue
    n=$((n + 1))
    read -ra words <<<"$command"
    log=$logs/${name//[ ,]/_}.log seconds='' said=''
    if ! command -v "${words[0]}" >/dev/null; then
        result="not run: no ${words[0]}"
    else
        echo "== $name (at most $((limit)) s)" >&2
        start=$SECONDS code=0
        timeout -k 10 $((limit)) "${words[@]}" >"$log" 2>&1 </dev/null || code=$?
        seconds=$((SECONDS - start))
        said=$(grep -E '^test result:|^Verified:|ERROR SUMMARY|RACECHECK SUMMARY' "$log" | tail -n 2 | sed 's/^=* *//' | paste -sd ' ' || true)
        case $code:$name in
        0:*) result=passed ;;
        124:synccheck | 124:racecheck | 137:synccheck | 137:racecheck) result="not finished" ;;
        124:* | 137:*) result="FAILED: too long" failed=1 ;;
        *) result="FAILED: exit code $code" failed=1 ;;
        esac
    fi
    case $result in FAILED*) tail -n 40 "$log" >&2 ;; esac
    table+="| $name | $result | $seconds | ${said:0:150} |"$'\n'
done < <(checks)
[ $n -gt 0 ] || die "no check has $only in its name; --list has them"

echo "| check | result | seconds | said |"
echo "| --- | --- | ---: | --- |"
printf '%s' "$table"
exit $failed
