#!/usr/bin/env bash
# Builds a Dockerfile target without a daemon: buildah in a chroot, over a base image made by debootstrap. Run as root.
#
#   k8s/image/build_image.sh TARGET                      serve-cpu, serve-gpu or export
#
#   IMAGE_CACHE         where base root and image store live; default ~/.cache/saccade-images
#   BASE_IMAGE          a base image that buildah can reach; default: a Debian root with Python, made here once
#   DEBIAN_MIRROR       where debootstrap takes packages from; default: its own
#   BUILD_CONTEXT       the tree to build; default: this repository
#
# pip inside the build gets this machine's pip configuration as a secret (it is not in the image): index, certificate
# bundle and local wheel directories included.
set -euo pipefail

target=${1:?usage: k8s/image/build_image.sh serve-cpu|serve-gpu|export}
here=$(cd "$(dirname "$0")" && pwd)
context=${BUILD_CONTEXT:-$(cd "$here/../.." && pwd)}
cache=${IMAGE_CACHE:-$HOME/.cache/saccade-images}
image=saccade:$target
base_tag=saccade-base:bookworm

buildah_here() { buildah --storage-driver vfs --root "$cache/storage" --runroot "$cache/run" "$@"; }

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT

ensure_base_image() {
  buildah_here inspect --type image "$base_tag" > /dev/null 2>&1 && return
  if [ ! -e "$cache/root.complete" ]; then
    rm -rf "$cache/root"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$cache/root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"}
    rm -rf "$cache"/root/var/cache/apt/* "$cache"/root/var/lib/apt/lists/* "$cache"/root/usr/share/{doc,man,info,locale}/*
    touch "$cache/root.complete"
  fi
  local container
  container=$(buildah_here from scratch)
  buildah_here add --quiet "$container" "$cache/root" / > /dev/null
  buildah_here config --cmd python3 --env LANG=C.UTF-8 "$container"
  buildah_here commit --quiet --rm --format docker "$container" "$base_tag" > /dev/null
}

# `pip config list` prints  section.key='value'  for files and  :env:.key='value'  for variables.
pip_settings() { python3 -m pip config list 2> /dev/null | sed -nE "s/^[^=]*\.([a-z-]+)='(.*)'$/\1 = \2/p" | sort -u -t= -k1,1; }

# Files and directories of this machine that the settings name; the pages of a local index point beside it.
pip_paths() { pip_settings | grep -oE '(file://| )/[^ ]+' | sed -E 's,^(file://| ),,; s,/simple/?$,,' | sort -u; }

arguments=(--isolation chroot --format docker --layers=false --target "$target" --tag "$image" --file "$work/Dockerfile")
python3 "$here/stages_of.py" "$target" < "$context/Dockerfile" > "$work/Dockerfile"
{ echo "[global]"; pip_settings; } > "$work/pip.conf"
arguments+=(--secret "id=pip,src=$work/pip.conf")
while read -r path; do
  [ -e "$path" ] && arguments+=(--volume "$path:$path:ro")
done < <(pip_paths)

if [ -z "${BASE_IMAGE:-}" ]; then
  ensure_base_image
  BASE_IMAGE=localhost/$base_tag
fi
arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
arguments+=(--build-arg "VERSION=$(sed -nE 's/^__version__ = "(.*)"$/\1/p' "$context/service/__init__.py")")
arguments+=(--build-arg "REVISION=$(git -C "$context" rev-parse --short HEAD 2> /dev/null || echo unknown)")

buildah_here bud "${arguments[@]}" "$context"
buildah_here rmi --prune > /dev/null # what an older build of the same tag left
buildah_here images --format '{{.Name}}:{{.Tag}}  {{.Size}}' "$image"
