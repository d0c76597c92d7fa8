#!/usr/bin/env bash
# Breaks what Moat depends on, one thing after the other, and counts every packet
# meanwhile. See docs/chaos.md.
#
#   hack/chaos.sh
#
#   QUICK=1               fewer of each fault, four minutes in all
#   SEED=N                the random moments of an earlier run
#   FAULTS=kill,damage    these kinds alone
#   APISERVERAWAY=30s     how long the API server is away (default 5m)
#   MOAT_RESULTS          where the results and the agents' logs are kept (default dist/chaos)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CGO_ENABLED=0
source hack/setup.sh

if [[ $userns_forbidden -eq 1 ]]; then
  say "not root, and user namespaces are forbidden: there is no way to make nodes"
  exit 1
fi

MOAT_RESULTS=$(readlink -m "${MOAT_RESULTS:-dist/chaos}")
export MOAT_RESULTS
mkdir -p "$MOAT_RESULTS"
rm -rf "$MOAT_RESULTS"/{chaos.json,junit.xml,_artifacts}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "building two versions of moat, and the test"
export MOAT_BINARY=$work/moat MOAT_UPGRADE=$work/moat-upgrade TMPDIR=$work
go build -o "$MOAT_BINARY" ./cmd/moat
go build -ldflags '-X main.version=upgrade' -o "$MOAT_UPGRADE" ./cmd/moat
(cd test && go test -c -o "$work/chaos.test" ./chaos)

say "making faults on two nodes, one with each backend${QUICK:+ (QUICK=$QUICK)}; Ctrl-C ends it cleanly"
# The test ends itself before the timeout, which would leave etcd behind.
(cd test/chaos && "${in_userns[@]}" "$work/chaos.test" -test.timeout=30m -test.artifacts -test.outputdir="$MOAT_RESULTS")

if [[ ${QUICK:-} != 1 && -z ${FAULTS:-} ]]; then
  say "cutting an agent off from the API server, and waiting until its status doubts (four minutes)"
  (cd test && go test -c -o "$work/status.test" ./status)
  (cd test/status && MOAT_LONG=1 "${in_userns[@]}" "$work/status.test" -test.v -test.timeout=10m -test.run='^TestACutOffAgentVouchesForNothing$')
fi
