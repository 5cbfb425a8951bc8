#!/usr/bin/env bash
# Whinchat beside what else there is on this machine, under the same loads in the same run.
#
#   benches/compare.sh [--quick] [--no-build] [--rounds N] [--rivals N] [--spread] [SERVER…]
#
# Installs nothing: takes whinchat, a bare relay, and those of prosody, ejabberd and redis that it finds; only loopback, only
# processes that it has started. Servers run one at a time, in turn, in each round. Server and load share one CPU, so that
# neither waking another CPU nor the scheduler's choice is measured; --spread leaves them where the system puts them.
# Prints markdown: medians over the rounds, with (least–most), ratios, and which bounds of the design are kept. Prosody and
# ejabberd take part in the first of the rounds, or in as many as --rivals says. Raw numbers stay in the directory that it names.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
binaries=${CARGO_TARGET_DIR:-$root/target}/release
rounds=3 rivals=1 seconds=2 sessions=1000 crowd=10000 logins=300 stored=150000 build=yes pin=yes quick=no
wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=yes rounds=1 seconds=1 sessions=200 crowd=1000 logins=100 stored=20000 ;;
        --no-build) build=no ;;
        --rounds) rounds=$2 && shift ;;
        --rivals) rivals=$2 && shift ;;
        --spread) pin=no ;;
        -*) sed -n '2,11p' "$0" && exit 2 ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(relay relay-tls relay-fan redis whinchat ejabberd prosody)

[ $build = no ] || (cd "$root" && cargo build --release --bin whinchat --examples)
load=$binaries/examples/load
dir=$(mktemp -d "${TMPDIR:-/tmp}/whinchat-compare.XXXXXX")
chmod 755 "$dir"
results=$dir/results
: >"$results"
running=()
. "$root/benches/servers.sh"

clean_up() {
    for pid in "${running[@]}"; do stop_server "$pid"; done
}
trap clean_up EXIT

[ $pin = no ] || taskset -pc 0 $$ >"$dir/taskset.log"
ulimit -n "$(ulimit -Hn)"
[ "$(ulimit -n)" -gt $((crowd + 200)) ] || crowd=$(($(ulimit -n) - 200))

say() { echo "$(date +%T) $*" >&2; }

# server row value → the results
note() { echo "$1 $2 $3" >>"$results"; }

# server row metric load-arguments… → runs a load and notes one of its numbers
measure() {
    local server=$1 row=$2 metric=$3 out
    shift 3
    if ! out=$("$load" "$@" 2>>"$dir/errors"); then
        say "$server: $row failed: $(tail -1 "$dir/errors")"
        return 0
    fi
    { echo "# $server $row" && echo "$out"; } >>"$dir/raw"
    note "$server" "$row" "$(awk -v name="$metric" '$1 == name { print $2 }' <<<"$out")"
}

# The last value of a metric.
last() { awk -v name="$1" '$1 == name { value = $2 } END { print value }' "$dir/raw"; }

# starts a server, notes how long that took; sets pid, plain and tls (arguments of the load)
start() {
    local server=$1 out port
    port=$(port_of "$server")
    out=$(start_server "$server")
    pid=$(awk '$1 == "pid" { print $2 }' <<<"$out")
    running+=("$pid")
    start_ms=$(awk '$1 == "start_ms" { print $2 }' <<<"$out")
    plain=(--address "127.0.0.1:$port" --pid "$pid")
    tls=(--address "127.0.0.1:$((port + 1))" --pid "$pid" --mode tls)
    note "$server" start "$start_ms"
}

stop() {
    stop_server "$pid"
    running=()
}

pss() { awk '/^Pss:/ { print $2 * 1024 }' "/proc/$1/smaps_rollup"; }

chat() { # server row window arguments…
    local server=$1 row=$2 window=$3
    shift 3
    measure "$server" "$row" cpu_us_per_message chat "$@" --window "$window" --seconds $seconds
}

# What a session costs once the server's caches have filled, and what the whole server holds by then.
idle() { # server row arguments…
    local server=$1 row=$2
    shift 2
    measure "$server" "$row" private_dirty_bytes_per_session idle "$@" --base $sessions --sessions $sessions
    note "$server" "$row-before" "$(($(last pss_kib_before) * 1024))"
}

round_relay() {
    start relay
    chat relay chat16 16 "${plain[@]}" --protocol raw
    chat relay chat1 1 "${plain[@]}" --protocol raw
    stop
}

round_relay-tls() {
    start relay-tls
    chat relay tls16 16 "${plain[@]}" --protocol raw --mode tls
    stop
}

round_relay-fan() {
    start relay-fan
    measure relay room cpu_us_per_delivery room "${plain[@]}" --protocol raw --receivers 99 --seconds $seconds
    measure relay room16 cpu_us_per_delivery room "${plain[@]}" --protocol raw --receivers 99 --window 16 --seconds $seconds
    stop
}

round_redis() {
    start redis
    note redis pss "$(pss "$pid")"
    chat redis chat16 16 "${plain[@]}" --protocol redis
    chat redis chat1 1 "${plain[@]}" --protocol redis
    stop
}

round_xmpp() { # server
    local server=$1
    start "$server"
    # The processes that a server starts after it answers are part of starting, not of idling.
    sleep 1
    note "$server" pss "$(pss "$pid")"
    idle "$server" idle "${plain[@]}"
    stop
    # A fresh process: what the sessions before have left would be used again.
    start "$server"
    idle "$server" idle-tls "${tls[@]}"
    stop
    start "$server"
    chat "$server" chat16 16 "${plain[@]}"
    chat "$server" chat1 1 "${plain[@]}"
    chat "$server" tls16 16 "${tls[@]}"
    measure "$server" login cpu_us_per_login login "${plain[@]}" --accounts 20 --count $logins
    measure "$server" presence cpu_us_per_delivery presence "${plain[@]}" --receivers 100 --window 1 --seconds $seconds
    measure "$server" offline cpu_us_per_stored_message offline "${plain[@]}" --count 400 --window 16
    measure "$server" room cpu_us_per_delivery room "${plain[@]}" --receivers 99 --seconds $seconds
    measure "$server" room16 cpu_us_per_delivery room "${plain[@]}" --receivers 99 --window 16 --seconds $seconds
    stop
    configure_"$server" true
    start "$server"
    # What is still being stored when the last message has been delivered belongs to it.
    chat "$server" archive16 16 "${plain[@]}" --settle 2
    note "$server" archive16-written "$(last written_bytes_per_message)"
    [ "$server" != whinchat ] || chat whinchat modern16 16 "${plain[@]}" --carbons --settle 2
    stop
    configure_"$server" false
}

# Only whinchat: what a large store does to the start, after a stop in order and after a kill, and to the memory.
round_large() {
    configure_whinchat true large
    start whinchat
    note whinchat start-large "$start_ms"
    sleep 1
    note whinchat pss-large "$(pss "$pid")"
    kill -9 "$pid"
    wait_for_end "$pid" || true
    start whinchat
    note whinchat start-killed "$start_ms"
    stop
    configure_whinchat false
}

# Only whinchat: sessions with all that clients switch on.
round_modern() {
    start whinchat
    measure whinchat idle-modern private_dirty_bytes_per_session idle "${plain[@]}" --base $sessions --sessions $sessions \
        --carbons --resumable
    stop
}

# Only whinchat: what a crowd does to its own figure. A ratio of two near figures wants several of each, before and after.
round_crowd() {
    start whinchat
    chat whinchat alone16 16 "${plain[@]}"
    chat whinchat alone16 16 "${plain[@]}"
    coproc CROWD { exec "$load" idle "${plain[@]}" --base 0 --sessions $crowd --hold --settle 2; }
    local line crowd_pid=$CROWD_PID input=${CROWD[1]}
    while read -r line <&"${CROWD[0]}"; do
        echo "$line" >>"$dir/raw"
        [ "$line" != ready ] || break
    done
    if [ "${line:-}" = ready ]; then
        for _ in 1 2 3 4; do chat whinchat crowd16 16 "${plain[@]}"; done
        exec {input}>&-
        wait "$crowd_pid" || true
        chat whinchat alone16 16 "${plain[@]}"
        chat whinchat alone16 16 "${plain[@]}"
    else
        say "whinchat: the crowd of $crowd did not come"
    fi
    stop
}

prepare() { # server
    local server=$1 accounts=$((2 * sessions))
    configure_"$server" false
    case $server in
        whinchat) accounts=$((crowd > accounts ? crowd : accounts)) ;;
        prosody | ejabberd) ;;
        *) return 0 ;;
    esac
    say "$server: $accounts accounts"
    start "$server"
    "$load" register "${plain[@]}" --accounts "$accounts" --jobs 4 >"$dir/$server.register"
    stop
    [ "$server" != whinchat ] || prepare_large
}

prepare_large() {
    say "whinchat: $stored stored messages"
    configure_whinchat true large
    start whinchat
    "$load" register "${plain[@]}" --accounts 100 --jobs 4 >>"$dir/raw"
    "$load" chat "${plain[@]}" --pairs 50 --window 64 --warm-up 0 --seconds 120 --count "$stored" >>"$dir/raw"
    stop
    note whinchat large "$(stat -c %s "$dir/whinchat/large/whinchat.redb")"
    configure_whinchat false
}

make_certificate
servers=()
for server in "${wanted[@]}"; do
    if is_there "$server"; then servers+=("$server"); else say "$server: not here"; fi
done
for server in "${servers[@]}"; do prepare "$server"; done
for round in $(seq "$rounds"); do
    for server in "${servers[@]}"; do
        case $server in
            prosody | ejabberd) [ "$round" -le "$rivals" ] || continue ;;
        esac
        say "round $round of $rounds: $server"
        case $server in
            relay* | redis) round_"$server" ;;
            *) round_xmpp "$server" ;;
        esac
        if [ "$server" = whinchat ]; then
            round_modern
            round_large
            round_crowd
        fi
    done
done
for server in "${servers[@]}"; do note "$server" size "$(size_of "$server")"; done
. "$root/benches/table.sh"
say "raw numbers: $dir/raw, $results; $((SECONDS / 60)) minutes"
