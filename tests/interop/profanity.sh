#!/usr/bin/env bash
# profanity in a terminal multiplexer: three accounts, every command typed by hand as a person would.
# Usage: profanity.sh BINARY FOLDER
set -euo pipefail
binary=$1 folder=$2
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$folder" && mkdir -p "$folder/romeo" "$folder/juliet" "$folder/nurse"
folder=$(cd "$folder" && pwd)

port=$(python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import server; print(server.free_port())' "$here")
cat > "$folder/whinchat.toml" <<CONFIG
data = "$folder/data"
log = "debug"
[listen]
c2s_tls = []
c2s = ["127.0.0.1:$port"]
[[domain]]
name = "localhost"
registration = "open"
CONFIG
"$binary" run --config "$folder/whinchat.toml" 2> "$folder/server.log" &
server=$!
tmux="tmux -L whinchat-$$ -f /dev/null"
finish() {
    status=$?
    if [ $status -ne 0 ]; then
        for who in romeo phone juliet nurse; do echo "--- $who"; $tmux capture-pane -p -S -200 -t $who || true; done
        cat "$folder/server.log"
    fi
    $tmux kill-server 2>/dev/null || true
    kill $server 2>/dev/null || true
    wait $server 2>/dev/null || true
}
trap finish EXIT

for _ in $(seq 200); do
    if python3 -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; then break; fi
    sleep 0.05
done

# Waits until the screen of $1 shows $2; a person would see it within seconds.
sees() {
    for _ in $(seq 300); do
        if $tmux capture-pane -p -S -200 -t "$1" | grep -qF -- "$2"; then echo "ok  $1 sees: $2"; return; fi
        sleep 0.1
    done
    echo "FAILED: $1 does not see: $2"
    exit 1
}
types() { $tmux send-keys -t "$1" -l -- "$2"; $tmux send-keys -t "$1" Enter; }

starts() {
    local home=$folder/$1
    mkdir -p "$home/config/profanity" "$home/share"
    $tmux new-session -d -s "$1" -x 160 -y 50 \
        "env HOME=$home XDG_CONFIG_HOME=$home/config XDG_DATA_HOME=$home/share LC_ALL=C.UTF-8 profanity"
    sees "$1" "Type '/help' to show complete help."
}
quits() {
    types "$1" "/quit"
    for _ in $(seq 300); do
        $tmux has-session -t "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    echo "FAILED: $1 does not quit"
    exit 1
}
# $1 is the screen's name; $2 whose account, if it has another name.
connects() {
    types "$1" "/connect ${2-$1}@localhost server 127.0.0.1 port $port tls trust"
    sees "$1" "password"
    types "$1" "sweet-sorrow"
    sees "$1" "logged in successfully"
}

for who in romeo juliet nurse; do
    # A session that has registered is of no further use to profanity 0.13: it would go on without logging in.
    starts $who
    types $who "/register $who localhost port $port tls trust"
    sees $who "password"
    types $who "sweet-sorrow"
    sees $who "Confirm password"
    types $who "sweet-sorrow"
    sees $who "Registration successful"
    quits $who
    starts $who
    connects $who
done

types romeo "/roster add juliet@localhost Juliet"
sees romeo "Roster item added: juliet@localhost"
types romeo "/sub request juliet@localhost"
sees juliet "Received authorization request from romeo@localhost"
types juliet "/sub allow romeo@localhost"
sees juliet "Accepted subscription for romeo@localhost"
types juliet "/sub request romeo@localhost"
sees romeo "Received authorization request from juliet@localhost"
types romeo "/sub allow juliet@localhost"
sees romeo "Accepted subscription for juliet@localhost"
sees juliet "Subscription received from romeo@localhost"

types romeo "/msg juliet@localhost but soft, what light"
sees juliet "romeo@localhost"
types juliet "/msg romeo@localhost ay me"
sees romeo "ay me"
types juliet "/win romeo@localhost"
sees juliet "but soft, what light"

types juliet "/disconnect"
sees juliet "juliet@localhost logged out successfully"
types romeo "/msg juliet@localhost it is the east"
types romeo "/win 1"
types romeo "/ping"
sees romeo "Ping response from server"
types juliet "/clear"
connects juliet
sees juliet "<< chat message: romeo@localhost"
types juliet "/win romeo@localhost"
sees juliet "it is the east"

# A second device of romeo's gets copies of what the first says and hears.
types romeo "/carbons on"
starts phone
types phone "/carbons on"
connects phone romeo
# It says so when it knows what the server can do, before which it sends no ping.
sees phone "OMEMO: cannot publish crypto materials before they are generated"
types phone "/ping"
sees phone "Ping response from server"
types phone "/msg juliet@localhost it is my lady"
sees juliet "it is my lady"
types romeo "/win 2"
sees romeo "it is my lady"
types romeo "/msg juliet@localhost arise, fair sun"
sees phone "arise, fair sun"
types juliet "/msg romeo@localhost good night, good night"
for who in romeo phone; do
    sees $who "good night, good night"
done
quits phone

# Keys are published and fetched, and what is said under them is read.
for who in romeo juliet; do
    types $who "/win 1"
    types $who "/omemo trustmode blind"
    types $who "/omemo gen"
    sees $who "OMEMO crytographic materials generated"
done
for who in juliet romeo; do
    types $who "/clear"
    types $who "/ping"
    sees $who "Ping response from server"
done
types romeo "/omemo start juliet@localhost"
sees romeo "[OMEMO]"
for _ in 1 2; do
    types romeo "/win 1"
    types romeo "/clear"
    types romeo "/ping"
    sees romeo "Ping response from server"
    types romeo "/win 2"
done
types romeo "under love's heavy burden"
types juliet "/win 2"
sees juliet "under love's heavy burden"

types romeo "/omemo end"
types romeo "/win 1"

# A bookmark is kept while nobody is there.
types nurse "/bookmark add garden@conference.localhost"
sees nurse "Bookmark added for garden@conference.localhost"
types nurse "/disconnect"
sees nurse "nurse@localhost logged out successfully"
types nurse "/clear"
connects nurse
types nurse "/bookmark list"
sees nurse "garden@conference.localhost"

# A room, locked until its form is submitted. Then two others come: one is invited, one was made a member.
types juliet "/join hall@conference.localhost"
sees juliet "Room locked, requires configuration"
types juliet "/room config"
sees juliet "Form title: Configuration of hall@conference.localhost"
types juliet "/field2 \"The hall\""
sees juliet "[field2] Name: The hall"
types juliet "/form submit"
sees juliet "Room configuration successful"
types juliet "/win hall@conference.localhost"
types juliet "/invite send romeo@localhost come in"
sees romeo "Chat room invite received"
types romeo "/join hall@conference.localhost"
sees romeo "You have joined the room as romeo, role: participant, affiliation: member"
types nurse "/join hall@conference.localhost"
sees nurse "registration-required"
types juliet "/affiliation set member nurse@localhost"
sees nurse "Chat room invite received"
types nurse "/join hall@conference.localhost"
sees nurse "You have joined the room as nurse, role: participant, affiliation: member"
types romeo "a rose by any other name"
types nurse "anon, anon"
for who in romeo juliet nurse; do
    sees $who "romeo: a rose by any other name"
    sees $who "nurse: anon, anon"
done
types juliet "/subject set love"
sees nurse "love"
types juliet "/kick romeo enough"
sees romeo "Kicked from hall@conference.localhost by juliet, reason: enough"
types juliet "/room destroy"
sees nurse "destroyed"
echo "profanity: 3 clients registered, two subscribed both ways, chatted, and one got its offline message; a second device got copies; keys were exchanged; one made a room, all talked in it"
