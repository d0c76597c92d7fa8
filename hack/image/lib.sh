# Shared by the image scripts: how they speak, wait and fail. Sourced by
# build.sh, which sets cache.
# shellcheck shell=bash disable=SC2154

say() { printf '[image %3ds] %s\n' "$SECONDS" "$*"; }

die() {
  printf 'image: %s\n' "$*" >&2
  exit 1
}

# step MESSAGE COMMAND... runs the command with its output in a log, says every
# ten seconds that it still runs, and shows the log's end if it fails.
step() {
  local message=$1 log=$cache/log/image.log pid status=0 spoke=$SECONDS
  shift
  say "$message"
  "$@" >"$log" 2>&1 &
  pid=$!
  while sleep 0.2 && kill -0 "$pid" 2>/dev/null; do
    if ((SECONDS - spoke >= 10)); then
      spoke=$SECONDS
      say "  still $message: $(tail -n 1 "$log" | cut -c 1-100)"
    fi
  done
  wait "$pid" || status=$?
  if ((status)); then
    tail -n 40 "$log" >&2
    die "$message failed with exit code $status; the whole log: $log"
  fi
}

# ensure_tool NAME installs a Debian package of that name where the tool is missing.
ensure_tool() {
  if command -v "$1" >/dev/null; then return; fi
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    die "$1 is missing: install it, or start a docker engine"
  fi
  step "installing $1 (Debian package)" \
    sh -c "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $1"
}
