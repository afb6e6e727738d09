#!/usr/bin/env bash
# Runs an image made by build_image.sh the way Kubernetes would: uid 10001, process 1, read-only root, /dev/shm of 64 MiB.
# Shows its answers and fails when one is not as promised. Run as root.
#
#   k8s/image/check_image.sh TARGET [REPOSITORY]         serve-cpu or serve-gpu; without a repository: an empty one
#
#   IMAGE_CACHE         as for build_image.sh
#   SACCADE_*           settings, passed on; all but repository and port
set -euo pipefail

target=${1:?usage: k8s/image/check_image.sh TARGET [REPOSITORY]}
cache=${IMAGE_CACHE:-$HOME/.cache/saccade-images}
work=$(mktemp -d)
mkdir "$work/empty"
repository=$(realpath "${2:-$work/empty}")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
launcher_pid=

buildah_here() { buildah --storage-driver vfs --root "$cache/storage" --runroot "$cache/run" "$@"; }

container=$(buildah_here from --pull-never "localhost/saccade:$target")
root=$(buildah_here mount "$container")
finish() {
  [ -n "$launcher_pid" ] && kill -KILL "$launcher_pid" 2> /dev/null
  buildah_here rm "$container" > /dev/null
  rm -rf "$work"
}
trap finish EXIT
mkdir -p "$root/repository"

mapfile -t image_environment < <(buildah_here inspect --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$container" | sed '/^$/d')
mapfile -t given_settings < <(env | grep '^SACCADE_' || true)

# In a mount and process namespace of its own; the entry point becomes process 1.
# shellcheck disable=SC2016  # expanded by the inner shell
enter='
set -euo pipefail
root=$1 repository=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/dev/shm"
mount --bind "$repository" "$root/repository"
mount -o remount,bind,ro "$root/repository"
cd /
exec chroot --userspec=10001:10001 "$root" env -i "$@"
'
launch=(
  unshare --mount --pid --fork --kill-child bash -c "$enter" enter "$root" "$repository"
  "${image_environment[@]}" "${given_settings[@]}" SACCADE_REPOSITORY=/repository SACCADE_PORT="$port"
)

status_of() { curl --silent --output "$work/body" --write-out '%{http_code}' "http://127.0.0.1:$port$1"; }
show() { echo "--- $1"; }
fail() { echo "check_image: $1" >&2; exit 1; }

show "saccade --version"
"${launch[@]}" saccade --version

show "who it is, what it must not have"
"${launch[@]}" python3 -c '
import importlib.util, os, pathlib
print("uid", os.getuid(), "pid", os.getpid())
present = [name for name in ("torch", "torchvision", "pip") if importlib.util.find_spec(name)]
assert not present, f"in the image: {present}"
for path in ("/", "/tmp", "/opt/saccade", "/repository"):
    assert not os.access(path, os.W_OK), f"{path} is writable"
print("no torch, no pip; nothing writable but /dev/shm")
'

show "saccade doctor"
"${launch[@]}" saccade doctor || [ "$repository" = "$work/empty" ] || fail "doctor found a fault"

show "saccade serve"
"${launch[@]}" saccade serve > "$work/log" 2>&1 &
launcher_pid=$!
for _ in $(seq 200); do
  [ "$(status_of /health/live || true)" = 200 ] && break
  sleep 0.1
done
[ "$(status_of /health/live)" = 200 ] || { cat "$work/log"; fail "/health/live does not answer"; }
if [ "$repository" != "$work/empty" ]; then
  for _ in $(seq 600); do
    [ "$(status_of /health/ready)" = 200 ] && break
    sleep 0.1
  done
fi
for path in /health/live /health/startup /health/ready /v1/models; do
  status=$(status_of "$path")
  echo "$path $status $(head -c 240 "$work/body")"
done
status=$(status_of /metrics)
echo "/metrics $status $(grep -c '^saccade_' "$work/body" || true) samples"
[ "$status" = 200 ] || fail "/metrics answered $status"

image=$(find "$repository/.samples" -name '*.jpg' 2> /dev/null | sort | head -1 || true)
if [ -n "$image" ]; then
  for model in $(cd "$repository" && printf '%s\n' */ | tr -d /); do
    code=$(curl --silent --output "$work/body" --write-out '%{http_code}' --data-binary "@$image" --header 'Content-Type: image/jpeg' \
      "http://127.0.0.1:$port/v1/models/$model/predict")
    echo "predict $model $code $(head -c 240 "$work/body")"
    [ "$code" = 200 ] || fail "$model answered $code"
  done
fi

# The launcher forked process 1 of the namespace: the supervisor.
first_pid=$(pgrep --parent "$launcher_pid")
show "memory: proportional set size of each process, kB"
for pid in $first_pid $(pgrep --parent "$first_pid"); do
  echo "$(sed -n 's/^Pss: *//p' "/proc/$pid/smaps_rollup") $(tr '\0' ' ' < "/proc/$pid/cmdline" | cut -c1-90)"
done

show "SIGTERM to process 1"
started=$(date +%s%N)
kill -TERM "$first_pid"
code=0
wait "$launcher_pid" || code=$?
launcher_pid=
echo "exit code $code after $((($(date +%s%N) - started) / 1000000)) ms"
tail -3 "$work/log"
[ "$code" = 0 ] || fail "SIGTERM ended it with $code"
echo "check_image: all as promised"
