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
