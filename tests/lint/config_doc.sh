#!/bin/sh
# docs/CONFIG.md is what the program's option table says. To make it anew: tidegate config doc > docs/CONFIG.md
# config_doc.sh PROGRAM DOCUMENT
set -eu
made=$(mktemp)
trap 'rm -f "$made"' EXIT
"$1" config doc >"$made"
if ! diff -u "$2" "$made"; then
    echo "docs/CONFIG.md is not what the option table says: run \"$1 config doc > docs/CONFIG.md\"" >&2
    exit 1
fi
# conf/tidegate.yaml is the same table with its defaults and help, and loads.
conf=$(dirname "$2")/../conf/tidegate.yaml
"$1" config default >"$made"
if ! diff -u "$conf" "$made"; then
    echo "conf/tidegate.yaml is not what the option table says: run \"$1 config default > conf/tidegate.yaml\"" >&2
    exit 1
fi
"$1" config check --config "$conf"
