#!/bin/bash
# Debian packages that ./dev and .ci/run need: what, and why. Stand-alone, so that ./dev can run it as a
# whole through sudo.
#
#   tools/packages.sh list GROUP...      every package of the groups with its reason
#   tools/packages.sh missing GROUP...   names of those that are not installed, one a line
#   tools/packages.sh install GROUP...   installs the missing ones (root)
#
# No service is started: Debian starts a broker as soon as its package is unpacked, and that broker
# would take the ports that Tidegate is about to use. While apt runs, /usr/sbin/policy-rc.d says no; one
# that was there before is put back, also after a failure or Ctrl-C.
set -euo pipefail

# group package reason. Names that exist in Debian 12 and 13 alike.
packages() {
    cat <<'LIST'
demo  gcc                    the C compiler
demo  libc6-dev              headers of the C library
demo  cmake                  configures the build
demo  ninja-build            runs the build
demo  pkg-config             finds the libraries
demo  libwebsockets-dev      WebSocket door: handshake and frames
demo  libwebsockets-evlib-ev its event loop plug-in
demo  libev-dev              the event loop
demo  libmicrohttpd-dev      HTTP API door
demo  libyaml-dev            configuration file
demo  libjansson-dev         JSON outside the hot path
demo  libssl-dev             OpenSSL
demo  libmosquitto-dev       bridges to other MQTT brokers, and one more independent client
demo  libcurl4-openssl-dev   fetches the keys of token issuers (JWKS)
demo  libhiredis-dev         the directory in Redis
demo  librdkafka-dev         the log on Kafka
demo  curl                   publishes by HTTP in the demo
demo  mosquitto-clients      mosquitto_pub and mosquitto_sub: independent MQTT clients
demo  python3                runs the proof
demo  python3-websockets     an independent WebSocket client
nodes default-jre-headless   runs the Kafka brokers (tools/kafka)
nodes maven                  fetches their jars, once
nodes redis-server           the directory of several nodes (its service is left off)
test  libcriterion-dev       unit tests
test  python3-pytest         end-to-end tests
test  python3-pytest-xdist   two of them at a time
test  python3-paho-mqtt      a second independent MQTT client
test  python3-jwt            makes tokens that are not of our own making
test  python3-cryptography   their RSA and ECDSA keys
test  python3-jsonschema     an independent judge of openapi.json
test  python3-selenium       drives the browser
test  mosquitto              a broker for the bridges to go to, and to compare with (its service is left off)
test  default-jre-headless   runs the Kafka brokers (tools/kafka)
test  maven                  fetches their jars, once
test  python3-kafka          an independent Kafka client
test  redis-server           the directory in Redis (its service is left off)
test  redis-sentinel         its failover (likewise)
test  iproute2               networks of their own for the nodes of a cluster
test  nftables               cuts between them (its service is left off)
test  nodejs                 runs mqtt.js
test  node-mqtt              mqtt.js
test  node-buffer            what mqtt.js wants of a browser
test  node-process           what mqtt.js wants of a browser
test  node-url               the same
test  esbuild                makes one script of mqtt.js for the browser
test  golang-go              compiles the Go client
test  golang-github-eclipse-paho.mqtt.golang-dev  its library
test  chromium               a real browser for the demo page
test  chromium-driver        its driver
test  fonts-dejavu-core      text in screenshots
test  systemd                systemd-analyze: judges the unit
test  prometheus             promtool: judges /metrics and the alert rules (its service is left off)
ci    git                    a copy of the tree for the planted faults
ci    ccache                 rebuilds of the planted faults
ci    clang                  the second compiler, and the fuzzers
ci    libclang-rt-dev        sanitizer and fuzzer runtime
ci    clang-format           layout check
ci    clang-tidy             static checks
ci    e2fsprogs              file system of the disk whose power is cut
ci    mount                  mount, umount, losetup
ci    util-linux             unshare
LIST
}

SERVICES="mosquitto nftables prometheus redis-server redis-sentinel"
POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=$POLICY.tidegate-saved

die() { echo "packages: $1" >&2; exit "${2:-1}"; }

list() {
    local group
    for group in "$@"; do packages | awk -v g="$group" '$1 == g { sub(/^[^ ]+ +/, ""); print }'; done
}

missing() {
    command -v dpkg-query >/dev/null || die "this needs Debian (or a child of it) with dpkg and apt;
  elsewhere install what this prints, then build with cmake:  tools/packages.sh list $*" 69
    local name
    list "$@" | while read -r name _; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

policy_restore() {
    if [ -e "$POLICY_SAVED" ]; then
        mv -f "$POLICY_SAVED" "$POLICY"
    elif grep -qs 'tidegate: temporary' "$POLICY"; then
        rm -f "$POLICY"
    fi
}

policy_forbid_starts() {
    policy_restore # what a run that was killed has left
    trap policy_restore EXIT
    trap 'exit 130' INT TERM HUP
    [ ! -e "$POLICY" ] || mv "$POLICY" "$POLICY_SAVED"
    printf '#!/bin/sh\n# tidegate: temporary, while its packages are installed\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
}

# apt's own output goes to a log; a line a package and the log's end on failure go to the terminal.
apt() {
    local log=$1; shift
    apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" </dev/null 2>&1 |
        tee -a "$log" | awk '/^Get:/ { n++ }
            /^Get:/ && $0 ~ / amd64 | arm64 | all / && n % 10 == 0 { print "  ... " n " files fetched"; fflush() }
            /^Setting up/ { sub(/:$/, "", $3); print "  set up " $3; fflush() }'
    return "${PIPESTATUS[0]}"
}

install() {
    local names log service
    names=$(missing "$@")
    [ -n "$names" ] || return 0
    [ "$(id -u)" = 0 ] || die "must be root to install; run:
  sudo tools/packages.sh install $*" 77
    log=$(mktemp /tmp/tidegate-apt.XXXXXX)
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    echo "Installing these Debian packages (log: $log; no service is started):"
    list "$@" | while read -r name why; do
        ! grep -qxF "$name" <<<"$names" || printf '  %-24s %s\n' "$name" "$why"
    done
    policy_forbid_starts
    # Only a service that comes with this very installation is left disabled; yours stays as it is.
    local fresh=""
    for service in $SERVICES; do ! grep -qxF "$service" <<<"$names" || fresh+=" $service"; done
    echo "apt-get update ..."
    apt "$log" update || { tail -n 15 "$log" >&2; die "apt-get update failed; see $log, mend /etc/apt/sources.list*, and try again" 69; }
    # shellcheck disable=SC2086 # a list of names
    apt "$log" install -y --no-install-recommends $names ||
        { tail -n 25 "$log" >&2; die "apt-get install failed; see $log" 69; }
    for service in $fresh; do
        # systemd's links and the older ones; both helpers come with every Debian.
        deb-systemd-helper disable "$service.service" >/dev/null 2>&1 || true
        update-rc.d "$service" disable >/dev/null 2>&1 || true
    done
    echo "Packages installed."
}

[ $# -ge 2 ] || die "usage: tools/packages.sh list|missing|install GROUP...  (groups: demo nodes test ci bench)" 2
case $1 in
    list | missing | install) "$@" ;;
    *) die "unknown command '$1'" 2 ;;
esac
