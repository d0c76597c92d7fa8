#!/usr/bin/env bash
# Runs a program of the module hack/ in the folder that this is called from. "go -C hack run"
# would run it in hack/, and relative paths among its arguments would mean other files.
#
#   hack/run.sh cluster|demo|apireference [ARGS...]
set -euo pipefail
program=${1:?name a program of hack/}
shift
export OLDPWD
cd "$(dirname "${BASH_SOURCE[0]}")"
exec go run -exec "sh -c 'cd \"\$OLDPWD\" && exec \"\$0\" \"\$@\"'" "./$program" "$@"
