#!/usr/bin/env bash
# Plays every road in, through an update and out of a cluster on the local cluster, with
# packets all the while. See "Every road" in docs/operations.md.
#
#   hack/roads.sh
#
#   QUICK=1          the roads that matter most, in about four minutes
#   ROADS=drain,evict   only roads whose names have one of these words
#   MOAT_RESULTS     where the results and a log of each road are kept (default dist/roads)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0

if [[ $EUID -ne 0 ]]; then
  echo "roads: the local cluster needs root: use sudo" >&2
  exit 1
fi

MOAT_ROADS=$(readlink -m "${MOAT_RESULTS:-dist/roads}")
export MOAT_ROADS
mkdir -p "$MOAT_ROADS"
rm -f "$MOAT_ROADS"/{*.log,junit.xml}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '==> playing roads on the local cluster%s; it stays up (make demo-down removes it)\n' "${QUICK:+ (QUICK=$QUICK)}"
(cd test && go test -c -o "$work/roads.test" ./roads)
(cd test/roads && "$work/roads.test" -test.timeout=60m)
