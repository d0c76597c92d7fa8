#!/usr/bin/env bash
# Copies the CRDs and the roles into the chart. config/ is their only source;
# `make generate` runs this after controller-gen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=charts/moat/files
rm -rf "$target/crds" "$target/rbac"
mkdir -p "$target/crds" "$target/rbac"
cp config/crd/bases/*.yaml "$target/crds/"
cp config/rbac/{operator,agent,leader_election}_role.yaml "$target/rbac/"
