#!/usr/bin/env bash
# Runs the local cluster: "hack/cluster.sh up", "hack/cluster.sh help". See
# docs/local-cluster.md.
exec "$(dirname "${BASH_SOURCE[0]}")/run.sh" cluster "$@"
