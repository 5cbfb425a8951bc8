# Sourced by compare.sh: how each server is configured and started, in $dir, on loopback, with no rate limits and with
# registration open. The rivals get the features that whinchat has, not all that their packages switch on.

port_of() { # name → its first port; the next one is direct TLS
    case $1 in
        whinchat) echo 15210 ;; prosody) echo 15220 ;; ejabberd) echo 15230 ;;
        redis) echo 15240 ;; relay) echo 15250 ;; relay-tls) echo 15260 ;; relay-fan) echo 15270 ;;
    esac
}

make_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>"$dir/openssl.log"
    chmod 644 "$dir/key.pem"
}

configure_whinchat() { # archive: true or false; name of the data directory
    local port=$(port_of whinchat) data=${2:-data}
    mkdir -p "$dir/whinchat"
    cat >"$dir/whinchat/whinchat.toml" <<TOML
data = "$dir/whinchat/$data"
log = "warn"
scram_iterations = 4096

[listen]
c2s = []
c2s_tls = ["127.0.0.1:$((port + 1))"]
c2s_plain = ["127.0.0.1:$port"]

[[domain]]
name = "localhost"
certificate = "$dir/cert.pem"
key = "$dir/key.pem"
registration = "open"
archive = $1

[limits]
rates = false
memory_max = "1G"
connections_max = 50000
connections_per_address_max = 50000
registrations_per_hour = 1000000
TOML
}

configure_prosody() {
    local port=$(port_of prosody) archive=
    [ "$1" = false ] || archive='"mam",'
    mkdir -p "$dir/prosody/data"
    cat >"$dir/prosody/prosody.cfg.lua" <<LUA
run_as_root = true
pidfile = "$dir/prosody/prosody.pid"
data_path = "$dir/prosody/data"
log = { warn = "$dir/prosody/prosody.log" }
modules_enabled = {
    "roster", "saslauth", "tls", "disco", "ping", "register", "private", "vcard_legacy", "pep", "time", "version", "lastactivity", $archive
}
modules_disabled = { "s2s" }
interfaces = { "127.0.0.1" }
c2s_ports = { $port }
c2s_direct_tls_ports = { $((port + 1)) }
c2s_require_encryption = false
allow_registration = true
authentication = "internal_hashed"
default_iteration_count = 4096
ssl = { certificate = "$dir/cert.pem", key = "$dir/key.pem" }
c2s_direct_tls_ssl = { certificate = "$dir/cert.pem", key = "$dir/key.pem" }
default_archive_policy = true
archive_expires_after = "never"
VirtualHost "localhost"
Component "conference.localhost" "muc"
LUA
}

configure_ejabberd() {
    local port=$(port_of ejabberd) archive=
    [ "$1" = false ] || archive='mod_mam: {default: always, db_type: mnesia}'
    mkdir -p "$dir/ejabberd/spool"
    cat >"$dir/ejabberd/ejabberd.yml" <<YAML
loglevel: error
hosts: [localhost]
certfiles: ["$dir/both.pem"]
auth_password_format: scram
disable_sasl_mechanisms: ["digest-md5", "X-OAUTH2"]
registration_timeout: infinity
listen:
  - {port: $port, ip: "127.0.0.1", module: ejabberd_c2s, access: all, starttls: true, backlog: 1024}
  - {port: $((port + 1)), ip: "127.0.0.1", module: ejabberd_c2s, access: all, tls: true, backlog: 1024}
shaper_rules: {max_user_offline_messages: 5000, max_user_sessions: 1000}
modules:
  mod_disco: {}
  mod_last: {}
  mod_muc: {host: conference.localhost}
  mod_offline: {access_max_user_messages: max_user_offline_messages}
  mod_ping: {}
  mod_private: {}
  mod_register: {ip_access: all, access: all}
  mod_roster: {}
  mod_time: {}
  mod_vcard: {search: false}
  mod_version: {}
  $archive
YAML
    cat "$dir/cert.pem" "$dir/key.pem" >"$dir/both.pem"
}

configure_redis() { :; }
configure_relay() { :; }
configure_relay-tls() { :; }
configure_relay-fan() { :; }

# name → starts it; prints its "pid" and "start_ms"
start_server() {
    local name=$1 port=$(port_of "$1") protocol=xmpp
    local -a command
    case $name in
        whinchat) command=("$binaries/whinchat" --config "$dir/whinchat/whinchat.toml" run) ;;
        prosody) command=(prosody -F --config "$dir/prosody/prosody.cfg.lua") ;;
        ejabberd)
            # No node name, so neither a port mapper nor a listener for other nodes is started.
            export EJABBERD_CONFIG_PATH=$dir/ejabberd/ejabberd.yml EJABBERD_LOG_PATH=$dir/ejabberd/ejabberd.log
            export ERL_LIBS=/usr/lib/x86_64-linux-gnu ERL_MAX_PORTS=65536 ERL_CRASH_DUMP=$dir/ejabberd/crash ERL_CRASH_DUMP_BYTES=0
            command=(erl +K true +P 250000 -noinput -mnesia dir "\"$dir/ejabberd/spool\"" -s ejabberd) ;;
        redis) protocol=redis command=(redis-server --bind 127.0.0.1 --port "$port" --save "" --appendonly no --dir "$dir") ;;
        relay) protocol=raw command=("$binaries/examples/relay" --listen "127.0.0.1:$port") ;;
        relay-tls) protocol=raw command=("$binaries/examples/relay" --listen "127.0.0.1:$port" --tls) ;;
        relay-fan) protocol=raw command=("$binaries/examples/relay" --listen "127.0.0.1:$port" --fan-out) ;;
    esac
    "$load" start --address "127.0.0.1:$port" --protocol $protocol --log "$dir/$name.log" -- "${command[@]}"
}

stop_server() { # pid of a server that start_server started
    kill "$1" 2>/dev/null || return 0
    wait_for_end "$1" || kill -9 "$1" 2>/dev/null || true
}

wait_for_end() { # pid
    for _ in $(seq 200); do
        kill -0 "$1" 2>/dev/null || return 0
        read -rt 0.05 < <(:) || sleep 0.05
    done
    return 1
}

is_there() {
    case $1 in
        whinchat) [ -x "$binaries/whinchat" ] ;;
        prosody) command -v prosody >/dev/null ;;
        ejabberd) [ -n "$(compgen -G '/usr/lib/x86_64-linux-gnu/ejabberd-*/ebin/ejabberd.app')" ] ;;
        redis) command -v redis-server >/dev/null ;;
        relay*) [ -x "$binaries/examples/relay" ] ;;
    esac
}

# Bytes on disk: our binary, a rival's package with its runtime.
size_of() {
    case $1 in
        whinchat) stat -c %s "$binaries/whinchat" ;;
        prosody) installed prosody 'lua*' 'liblua*' ;;
        ejabberd) installed ejabberd 'erlang-*' ;;
        redis) installed redis-server redis-tools ;;
    esac
}

installed() { # package patterns…
    dpkg-query -W -f='${db:Status-Abbrev} ${Installed-Size}\n' "$@" 2>/dev/null | awk '/^ii/ { kib += $2 } END { if (kib) print kib * 1024 }'
}
