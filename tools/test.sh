#!/bin/bash
# The tests of ./dev test, all suites even when one has failed; the builds are there already.
# Last line: N passed, N failed, N skipped.
set -uo pipefail

results=build/results
rm -rf "$results"
mkdir -p "$results"
results=$PWD/$results
broken=0

suite() {
    local title=$1
    shift
    printf '\n== %s\n' "$title"
    "$@" || broken=1
}

ctest_in() { # PRESET RESULT [ctest's selection]
    local preset=$1 result=$2
    shift 2
    ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "$(nproc)" \
        --output-junit "$results/$result.xml" "$@"
}

suite "unit, crash, lint" ctest_in dev ctest --exclude-regex '^race\.'
# Under ThreadSanitizer: without it a race shows only by luck.
suite "race (ThreadSanitizer)" ctest_in tsan race --tests-regex '^race\.'
suite "end to end" env TIDEGATE_PRESET=dev /usr/bin/python3 -m pytest -q -n 4 -p no:cacheprovider \
    tests/e2e tests/conformance "--junitxml=$results/e2e.xml"

/usr/bin/python3 tools/count_tests.py "$results"/{ctest,race,e2e}.xml && [ "$broken" = 0 ]
