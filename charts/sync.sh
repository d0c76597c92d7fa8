#!/usr/bin/env bash
# Copies the CRDs, the roles and the admission policies into the chart. config/ is
# their only source; `make generate` runs this after controller-gen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=charts/moat/files
rm -rf "$target"/{crds,rbac,admission}
mkdir -p "$target"/{crds,rbac,admission}
cp config/crd/bases/*.yaml "$target/crds/"
cp config/rbac/{operator,agent,leader_election}_role.yaml "$target/rbac/"
cp config/admission/{agent_reports,operator_policies}.yaml "$target/admission/"
