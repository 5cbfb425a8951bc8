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
    END {
        print "| median (least–most) | whinchat | relay | redis | ejabberd | prosody | ÷ relay | better rival ÷ whinchat |"
        print "|---|---|---|---|---|---|---|---|"
        print_row("CPU per chat message, plain, 16 in flight", "chat16", "µs", "relay")
        print_row("CPU per chat message, plain, 1 in flight", "chat1", "µs", "relay")
        print_row("CPU per chat message, TLS, 16 in flight", "tls16", "µs", "relay")
        print_row("the same as the first, archive on (only whinchat syncs)", "archive16", "µs", "none")
        print_row("of that, written towards the disk per message", "archive16-written", "KB", "none")
        print_row("memory of each idle session above " sessions ", plain", "idle", "KB", "relay")
        print_row("memory of each idle session above " sessions ", TLS", "idle-tls", "KB", "relay")
        print_row("the server with " sessions " idle sessions, plain (PSS)", "idle-before", "MB", "relay")
        print_row("the server with " sessions " idle sessions, TLS (PSS)", "idle-tls-before", "MB", "relay")
        print_row("resident memory of the idle server (PSS)", "pss", "MB", "relay")
        print_row("binary (rivals: packages with their runtime)", "size", "MB", "relay")
        print_row("start to stream features", "start", "ms", "relay")
        print_row("CPU per SCRAM login, with connecting, binding and closing", "login", "µs", "relay")
        print_row("CPU per presence delivered, 100 contacts", "presence", "µs", "relay")
        print_row("CPU per delivery in a room of 100", "room", "µs", "relay")
        print_row("CPU per stored offline message, 16 at a time", "offline", "µs", "relay")
        alone = median("whinchat", "alone16"); among = median("whinchat", "crowd16")
        if (among != "")
            printf "\nA chat message with %d idle sessions: %s µs, alone before and after: %s µs, ratio %s.\n", crowd,
                cell("whinchat", "crowd16", "µs"), cell("whinchat", "alone16", "µs"), ratio(among, alone)
    }' "$results"
