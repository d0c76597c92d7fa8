#!/usr/bin/env bash
# Copies the CRDs, the roles and the alerts into the chart. config/ is their only source;
# `make generate` runs this after controller-gen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=charts/moat/files
rm -rf "$target/crds" "$target/rbac" "$target/prometheus"
mkdir -p "$target/crds" "$target/rbac" "$target/prometheus"
cp config/crd/bases/*.yaml "$target/crds/"
cp config/rbac/{operator,agent,leader_election,view,edit,admin}_role.yaml "$target/rbac/"
cp config/prometheus/rules.yaml "$target/prometheus/"
