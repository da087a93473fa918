#!/bin/bash
# A node under a small supervisor, the proof that it keeps its promise, and the lines to try by hand.
#   tools/demo.sh PROGRAM [--once]       called by ./dev demo, from the top folder
set -euo pipefail

program=$1 once=${2:-}
data=${TIDEGATE_DATA__DIR:-tidegate-data}
log=build/demo.log
ready_s=30
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

say() { printf '%s\n' "$*"; }

# Starts the node again whenever a signal ends it. It gives up on an exit code (the node has said why: 69 a
# port is taken, 78 configuration ...) and on five deaths in a row within two seconds of their start.
supervise() {
    local node="" code started deaths=0
    trap 'kill -TERM $node 2>/dev/null || true; code=0; wait $node || code=$?; exit $code' TERM
    while :; do
        started=$SECONDS
        "$program" serve --set "data.dir=$data" >>"$log" 2>&1 &
        node=$!
        code=0
        # bash itself would also print "Killed".
        { wait "$node"; } 2>/dev/null || code=$?
        [ "$code" -gt 128 ] || exit "$code"
        [ $((SECONDS - started)) -le 2 ] && deaths=$((deaths + 1)) || deaths=0
        [ "$deaths" -lt 5 ] || exit 70
        say "  [supervisor] the node (pid $node) died of signal $((code - 128)); starting it again"
    done
}

stop() {
    trap '' INT TERM
    [ -n "${supervisor:-}" ] || return 0
    kill -TERM "$supervisor" 2>/dev/null || true
    # The node ends by itself; if it hangs, the pid file still names it.
    for _ in $(seq 100); do
        kill -0 "$supervisor" 2>/dev/null || return 0
        sleep 0.1
    done
    say "the node did not end within 10 s; killing it"
    kill -KILL "$(cat "$data/pid")" 2>/dev/null || true
}

# The supervisor has ended by itself: pass on what the node said and its exit code.
give_up() {
    local code=0
    wait "$supervisor" || code=$?
    supervisor=""
    # It was asked to stop: by Ctrl-C, which every process of the terminal gets (the trap may be a moment behind), or by
    # a SIGTERM of somebody else.
    [ "$code" != 0 ] || { sleep 0.3; say "The node was stopped."; exit 130; }
    # What it says to a person begins so; without such a line the end of its log must do.
    grep '^tidegate: ' "$log" >&2 || tail -n 20 "$log" >&2
    [ "$code" != 69 ] || cat >&2 <<TEXT
Way out: stop that process, or choose other ports and another folder and start again, for example
  TIDEGATE_MQTT__PORT=1884 TIDEGATE_HTTP__PORT=8090 TIDEGATE_API__PORT=8091 TIDEGATE_DATA__DIR=data2 ./dev demo
TEXT
    say "The node has ended by itself (exit code $code; log: $log)." >&2
    exit "$code"
}

port() { sed -n "s/^$1=//p" "$data/ports" 2>/dev/null; }

wait_ready() {
    local deadline=$((SECONDS + ready_s))
    while [ "$SECONDS" -lt "$deadline" ]; do
        kill -0 "$supervisor" 2>/dev/null || give_up
        [ -z "$(port api)" ] ||
            ! curl -fsS -m 2 -o /dev/null "http://127.0.0.1:$(port api)/readyz" 2>/dev/null || return 0
        sleep 0.05
    done
    tail -n 20 "$log" >&2
    say "the node was not ready within $ready_s s (log: $log)" >&2
    exit 1
}

: >"$log"
trap 'code=$?; stop; exit $code' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# A ports file of an earlier run must not be taken for this one's, unless its node still runs: then this one
# will say so itself.
kill -0 "$(cat "$data/pid" 2>/dev/null)" 2>/dev/null || rm -f "$data/ports"
supervise &
supervisor=$!
wait_ready
/usr/bin/python3 tools/demo_proof.py "$data" || { say "The proof failed; the node's log: $log" >&2; exit 1; }
[ "$once" != --once ] || exit 0

http=$(port http) api=$(port api) mqtt=$(port mqtt) p=""
[ "$mqtt" = 1883 ] || p=" -p $mqtt"
cat <<TEXT

The node stays up. Open the demo page:

    http://127.0.0.1:$http/demo/

and try, in another terminal:

    mosquitto_sub$p -v -t 'home/#'
    curl -d '{"c":21.5}' http://127.0.0.1:$api/v1/publish/home/kitchen
    mosquitto_pub$p -q 1 -t home/kitchen -m '{"c":22}'
    kill -9 "\$(cat $data/pid)"        # it is started again, the page resumes

Ctrl-C ends it. Log: $log
TEXT
wait "$supervisor" || true
give_up
