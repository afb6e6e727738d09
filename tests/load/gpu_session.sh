#!/usr/bin/env bash
# A short session on a GPU: tests, ResNet-50 and the digits detector by themselves and served, torch beside them.
#
#     bash tests/load/gpu_session.sh OUTDIR [SECONDS]        # 330 seconds by default
#
# It needs a Python with the project's packages on its path (PYTHON, else .venv/bin/python, else python3) and, to measure
# anything, an NVIDIA GPU. Each part has a time limit and a log of its own below OUTDIR; a part that fails or runs out of
# time stops no other, and time that a part leaves goes to the later ones. The report is OUTDIR/report-gpu.md. A table
# is printed last. COMMIT names the commit where the folder is no git repository; WORK keeps what is made on the way, 150 MB
# of ONNX files and a repository, in another folder than OUTDIR/work.
set -u -o pipefail

[ $# -ge 1 ] || { echo "usage: bash tests/load/gpu_session.sh OUTDIR [SECONDS]" >&2; exit 2; }
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
mkdir -p "${WORK:-$out/work}" && work=$(cd "${WORK:-$out/work}" && pwd) || exit 2
total=${2:-330}
case $total in '' | *[!0-9]*) echo "SECONDS is a whole number, not '$total'" >&2; exit 2 ;; esac
cd "$(dirname "$0")/../.." || exit 2
if [ -z "${PYTHON:-}" ]; then PYTHON=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3); fi
commit=${COMMIT:-$(git describe --always --dirty 2>/dev/null || echo unknown)}
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
bench=("$PYTHON" -m tests.load.gpu_bench --onnx "$work/onnx" --work "$work" --report "$out/report-gpu.json"
  --commit "$commit" --variant fp16 --retry-failed)
start=$SECONDS
to_come=330                                     # the sum of the parts' seconds below
: > "$out/parts.tsv"

part() { # NAME SECONDS WHAT COMMAND...: within its share of the time that is left
  local name=$1 share=$2 what=$3 left limit begin code words
  shift 3
  left=$((total - (SECONDS - start)))
  limit=$((left * share / to_come)); to_come=$((to_come - share))
  if [ "$limit" -lt 1 ]; then
    printf '%s\t0\t0\tnot begun: no time was left\t%s\n' "$name" "$what" >> "$out/parts.tsv"
    return
  fi
  echo "== $name: $what, at most $limit s" >&2
  begin=$SECONDS
  # INT first, so that a program can still say what it has; killed some seconds later.
  LIMIT_S=$limit timeout --signal=INT --kill-after=5 "$limit" "$@" < /dev/null > "$out/$name.raw" 2>&1
  code=$?
  grep -av cudnn_frontend "$out/$name.raw" > "$out/$name.log"  # thousands of lines of its search for plans
  rm -f "$out/$name.raw"
  case $code in
    0) words="ran to its end" ;;
    124 | 137) words="out of time" ;;
    *) words="exit code $code" ;;
  esac
  printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$((SECONDS - begin))" "$limit" "$words" "$what" >> "$out/parts.tsv"
}

within() { # COMMAND...: gpu_bench ends by itself a little before its limit, so that its report is whole
  exec "$@" --budget-s $((LIMIT_S * 3 / 4))
}
export -f within
budgeted=(bash -c 'within "$@"' within)

part tests 95 "tests/gpu" "$PYTHON" -m pytest -m gpu tests/gpu -q -p no:randomly -p no:cacheprovider \
  -o filterwarnings=default --leak-seconds 10
part prepare 25 "ONNX files of ResNet-50 and of the digits detector" "$PYTHON" -m tests.load.gpu_bench \
  --prepare "$work/onnx" --network resnet50-224 --network digits-detector --variant fp32 --variant fp16
part bare 35 "ResNet-50 fp16 in ONNX Runtime and TensorRT, with CUDA graphs and without" "${budgeted[@]}" "${bench[@]}" \
  --only bare,graphs --network resnet50-224 --runtime onnxruntime --runtime tensorrt --case-s 1
part decoding 20 "JPEG decoding by itself: all cores, and the engines of the GPU" "${budgeted[@]}" "${bench[@]}" \
  --only limits --network resnet50-224 --case-s 1
part served 50 "ResNet-50 served, 4 to 128 connections" "${budgeted[@]}" "${bench[@]}" \
  --only served --network resnet50-224 --connections 4,8,16,32,64,128 --case-s 1.5
part reference 45 "ResNet-50 in torch, eager and compiled" "${budgeted[@]}" "${bench[@]}" \
  --only reference --network resnet50-224 --case-s 1
part detector 25 "digits detector served: first request and tenth" "${budgeted[@]}" "${bench[@]}" \
  --only served --network digits-detector --connections 8 --case-s 1
part threads 35 "ResNet-50 served again, JPEGs decoded by the image threads only" "${budgeted[@]}" "${bench[@]}" \
  --only served --network resnet50-224 --connections 16,64,128 --jpeg-decoder cpu --case-s 1.5

"$PYTHON" -m tests.load.gpu_session_table "$out" || { cat "$out/parts.tsv"; tail -n 3 "$out"/*.log; }
