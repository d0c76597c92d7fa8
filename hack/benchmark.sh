#!/usr/bin/env bash
# Sourced after hack/setup.sh by what runs a benchmark, in the root of the repository.

# run_benchmark TEST TIMEOUT FOLDER FILE VARIABLE runs one test of test/bench, which
# finds the built moat in MOAT_BINARY and writes its figures to the file that the
# variable names: FILE in MOAT_RESULTS, or in FOLDER where that is not set.
run_benchmark() {
  if [[ $userns_forbidden -eq 1 ]]; then
    say "not root, and user namespaces are forbidden: there is no way to make nodes"
    exit 1
  fi

  local results
  results=$(readlink -m "${MOAT_RESULTS:-$3}")
  mkdir -p "$results"
  rm -rf "${results:?}/$4" "$results/_artifacts"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT

  say "building moat and the benchmark"
  export MOAT_BINARY=$work/moat "$5=$results/$4"
  go build -o "$MOAT_BINARY" ./cmd/moat
  (cd test && go test -c -o "$work" ./bench)

  say "measuring; the figures go to $results/$4"
  cd test/bench
  "${in_userns[@]}" "$work/bench.test" -test.run="^$1\$" -test.timeout="$2" -test.artifacts -test.outputdir="$results"
}
