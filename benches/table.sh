# Sourced by compare.sh: the results as markdown.

machine() {
    local cpu
    cpu=$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo)
    echo "$(date +%F), $(getconf _NPROCESSORS_ONLN) × $cpu, Linux $(uname -r); $rounds rounds; $([ $pin = yes ] && echo "server and load on one CPU" ||
        echo "server and load where the system puts them")."
    echo "Commit $(git -C "$root" rev-parse --short HEAD), $(rustc --version | cut -d' ' -f1,2)$(versions)."
}

versions() {
    local package
    for package in prosody ejabberd redis-server; do
        dpkg-query -W -f=', ${Package} ${Version}' $package 2>/dev/null || true
    done
}

machine
echo
awk -v sessions=$sessions -v crowd=$crowd '
    { key = $1 SUBSEP $2; values[key] = values[key] " " $3 }
    function sorted(key, list,    n, i, j, swap) {
        n = split(values[key], list, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && list[j] + 0 < list[j - 1] + 0; j--) { swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap }
        return n
    }
    function median(server, row,    list, n) {
        n = sorted(server SUBSEP row, list)
        if (n == 0) return ""
        return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
    }
    function shape(value, unit) {
        if (unit == "KB") return sprintf("%.1f", value / 1000)
        if (unit == "MB") return sprintf("%.2f", value / 1e6)
        return value < 10 ? sprintf("%.2f", value) : value < 100 ? sprintf("%.1f", value) : sprintf("%.0f", value)
    }
    function cell(server, row, unit,    list, n) {
        n = sorted(server SUBSEP row, list)
        if (n == 0) return "–"
        if (n == 1) return shape(list[1], unit)
        return shape(median(server, row), unit) " (" shape(list[1], unit) "–" shape(list[n], unit) ")"
    }
    function ratio(value, base) { return value == "" || base == "" || base == 0 ? "–" : sprintf("%.2f", value / base) }
    function best(row,    prosody, ejabberd) {
        prosody = median("prosody", row); ejabberd = median("ejabberd", row)
        return prosody == "" || ejabberd != "" && ejabberd < prosody ? ejabberd : prosody
    }
    function print_row(title, row, unit, relay,    ours) {
        ours = median("whinchat", row)
        printf "| %s, %s | %s | %s | %s | %s | %s | %s | %s |\n", title, unit, cell("whinchat", row, unit),
            cell(relay, row, unit), cell("redis", row, unit), cell("ejabberd", row, unit), cell("prosody", row, unit),
            ratio(ours, median(relay, row)), ratio(best(row), ours)
    }
    # What the design asks for: a bound, and what it is held against.
    function verdict(title, must, value, text, bound) {
        printf "| %s | %s | %s | %s |\n", title, must, text, value == "" ? "not measured" : value <= bound ? "reached" : "NOT REACHED"
    }
    function against(title, row, base, times,    ours, theirs) {
        ours = median("whinchat", row); theirs = median(base, row)
        if (ours == "" || theirs == "") verdict(title, "≤ " times " × " base, "", "–", 0)
        else verdict(title, "≤ " times " × " base, ours / theirs, ratio(ours, theirs) " × " base, times)
    }
    function within(title, row, unit, bound, scale,    ours) {
        ours = median("whinchat", row)
        verdict(title, "≤ " bound " " unit, ours == "" ? "" : ours / scale, cell("whinchat", row, unit) " " unit, bound)
    }
    function verdicts(    alone, among, none) {
        print "\n| the design asks for | must | measured | |\n|---|---|---|---|"
        against("CPU per chat message, plain, 16 in flight", "chat16", "relay", 3)
        against("the same", "chat16", "redis", 1)
        against("the same, 1 in flight", "chat1", "relay", 1.5)
        against("the same over TLS, 16 in flight", "tls16", "relay", 2)
        within("the same as the first, archive on, synced", "archive16", "µs", 25, 1)
        within("memory of each idle session, plain", "idle", "KB", 2, 1000)
        within("memory of each idle session, TLS", "idle-tls", "KB", 6, 1000)
        within("resident memory of the idle server (PSS)", "pss", "MB", 6, 1e6)
        within("the same with a large file", "pss-large", "MB", 6, 1e6)
        within("stripped release binary", "size", "MB", 6, 1e6)
        within("start to stream features", "start", "ms", 20, 1)
        within("the same with a large file, after a stop", "start-large", "ms", 20, 1)
        within("the same after kill -9", "start-killed", "ms", 20, 1)
        alone = median("whinchat", "alone16"); among = median("whinchat", "crowd16"); none = among == "" || alone == ""
        verdict("a chat message with " crowd " idle sessions", "≤ 1.1 × alone", none ? "" : among / alone, ratio(among, alone) " × alone", 1.1)
        within("CPU per SCRAM login, connecting, binding and closing counted too", "login", "µs", 200, 1)
        within("CPU per delivery in a room of 100, 1 in flight", "room", "µs", 1, 1)
        within("CPU per delivery in a room of 100, 16 in flight", "room16", "µs", 1, 1)
        print "| acknowledged stanzas lost by kill -9 or a power cut | 0 of 1000 | see PERFORMANCE.md: `WHINCHAT_KILLS=1000 cargo test --test crash`, `WHINCHAT_CUTS=5000 cargo test --lib store::crash` | by reference |"
    }
    END {
        print "| median (least–most) | whinchat | relay | redis | ejabberd | prosody | ÷ relay | better rival ÷ whinchat |"
        print "|---|---|---|---|---|---|---|---|"
        print_row("CPU per chat message, plain, 16 in flight", "chat16", "µs", "relay")
        print_row("CPU per chat message, plain, 1 in flight", "chat1", "µs", "relay")
        print_row("CPU per chat message, TLS, 16 in flight", "tls16", "µs", "relay")
        print_row("the same as the first, archive on (only whinchat syncs)", "archive16", "µs", "none")
        print_row("the same, carbons on too", "modern16", "µs", "none")
        print_row("of the archive, written towards the disk per message", "archive16-written", "KB", "none")
        print_row("memory of each idle session above " sessions ", plain", "idle", "KB", "relay")
        print_row("memory of each idle session above " sessions ", TLS", "idle-tls", "KB", "relay")
        print_row("the same with carbons and resumption on, plain", "idle-modern", "KB", "none")
        print_row("the server with " sessions " idle sessions, plain (PSS)", "idle-before", "MB", "relay")
        print_row("the server with " sessions " idle sessions, TLS (PSS)", "idle-tls-before", "MB", "relay")
        print_row("resident memory of the idle server (PSS)", "pss", "MB", "relay")
        print_row("the same with a file of " shape(median("whinchat", "large"), "MB") " MB", "pss-large", "MB", "none")
        print_row("binary (rivals: packages with their runtime)", "size", "MB", "relay")
        print_row("start to stream features", "start", "ms", "relay")
        print_row("the same with a file of " shape(median("whinchat", "large"), "MB") " MB, after a stop", "start-large", "ms", "none")
        print_row("after kill -9, when it is checked whole", "start-killed", "ms", "none")
        print_row("CPU per SCRAM login, with connecting, binding and closing", "login", "µs", "relay")
        print_row("CPU per presence delivered, 100 contacts", "presence", "µs", "relay")
        print_row("CPU per delivery in a room of 100, 1 in flight", "room", "µs", "relay")
        print_row("CPU per delivery in a room of 100, 16 in flight", "room16", "µs", "relay")
        print_row("CPU per stored offline message, 16 at a time", "offline", "µs", "relay")
        alone = median("whinchat", "alone16"); among = median("whinchat", "crowd16")
        if (among != "")
            printf "\nA chat message with %d idle sessions: %s µs, alone before and after: %s µs, ratio %s.\n", crowd,
                cell("whinchat", "crowd16", "µs"), cell("whinchat", "alone16", "µs"), ratio(among, alone)
        verdicts()
    }' "$results"
