use super::*;

const MINIMAL: &str = "[[domain]]\nname = \"example.org\"\n";

/// Every mistake of a text as it is shown, with `[[domain]]` appended where the text has none.
fn mistakes(text: &str) -> Vec<String> {
    let text = if text.contains("domain]") { text.to_owned() } else { format!("{text}\n{MINIMAL}") };
    let mistakes = parse(&text, Path::new("/etc/whinchat")).err().unwrap_or_default();
    mistakes.iter().map(Mistake::to_string).collect()
}

/// Expects exactly these mistakes, in order; each is given as the beginning and the end of what is shown.
fn check(text: &str, expected: &[(&str, &str)]) {
    let found = mistakes(text);
    let fits = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, (start, end))| found.starts_with(start) && found.ends_with(end));
    assert!(fits, "{text}\nexpected {expected:#?}\nfound {found:#?}");
}

#[test]
fn good_configurations() {
    check("", &[]);
    check("listen = { c2s = [], c2s_tls = [\"127.0.0.1:5223\"] }", &[]);
    check("[listen]\nc2s_plain = [\"127.0.0.1:5224\", \"[::1]:5224\"]", &[]);
    check("[listen]\nc2s = [\"127.0.0.1:0\"]\nc2s_tls = [\"127.0.0.1:0\"]", &[]);
    check(
        "password_hash = \"scrypt\"\nscrypt_log_n = 0x0c\n[limits]\nidle_ping = \"1d\"\nturn_bytes = \"64 KiB\"",
        &[],
    );
    check(
        "[[domain]]\nname = \"a.example\"\n[[domain]]\nname = \"b.example\"\ncontacts.abuse = [\"xmpp:a@b.example\"]",
        &[],
    );
}

#[test]
fn values() {
    let text = r#"
        data = "data"
        password_hash = "scrypt"
        scrypt_log_n = 12
        log = "debug"
        [listen]
        c2s = ["0.0.0.0:15222"]
        [[domain]]
        name = "EXAMPLE.org"
        certificate = "/etc/tls/fullchain.pem"
        key = "tls/privkey.pem"
        registration = "open"
        contacts = { support = ["https://example.org/help"], admin = ["mailto:a@example.org", "xmpp:a@example.org"] }
        [[domain]]
        name = "example.net"
        [limits]
        memory_max = "32M"
        rates = false
        idle_ping = "10m"
        roster_items_max = 500
        header_bytes_max = 8192
        stanza_bytes_max_before_auth = "16k"
    "#;
    let config = parse(text, Path::new("/etc/whinchat")).expect("no mistake");
    assert_eq!(config.data, Path::new("/etc/whinchat/data"));
    assert_eq!(config.password_scheme, PasswordScheme::Scrypt { log_n: 12 });
    assert_eq!(config.log, LevelFilter::Debug);
    assert_eq!(config.listen.c2s, ["0.0.0.0:15222".parse().expect("an address")]);
    assert_eq!(config.listen.c2s_tls, []);
    assert_eq!(config.listen.c2s_plain, []);
    let [first, second] = &config.domains[..] else { panic!("{:?}", config.domains) };
    assert_eq!(first.name, "example.org");
    let files =
        CertificateFiles { chain: "/etc/tls/fullchain.pem".into(), key: "/etc/whinchat/tls/privkey.pem".into() };
    assert_eq!(first.certificate, Some(files));
    assert!(first.registration_open && !second.registration_open);
    let contacts: Vec<_> = first.contacts.iter().map(|(role, uri)| (role.as_str(), uri.as_str())).collect();
    let admin = [("admin", "mailto:a@example.org"), ("admin", "xmpp:a@example.org")];
    assert_eq!(contacts, [&admin[..], &[("support", "https://example.org/help")]].concat());
    assert_eq!(second.certificate, None);
    assert_eq!(config.limits.memory_max, 32 << 20);
    assert!(!config.limits.rates);
    assert_eq!(config.limits.idle_ping.as_secs(), 600);
    assert_eq!(config.limits.roster_items_max, 500);
    assert_eq!((config.limits.xml.header_bytes_max, config.limits.xml_before_auth.header_bytes_max), (8192, 8192));
    assert_eq!(config.limits.xml_before_auth.stanza_bytes_max, 16 << 10);
    assert_eq!(config.limits.xml.stanza_bytes_max, Limits::default().xml.stanza_bytes_max);

    let plain = parse(MINIMAL, Path::new("")).expect("no mistake");
    assert_eq!(plain.data, Path::new("/var/lib/whinchat"));
    assert_eq!(plain.password_scheme, PasswordScheme::Scram { iterations: 10_000 });
    assert_eq!(plain.listen.c2s, ["[::]:5222".parse().expect("an address")]);
    assert_eq!(plain.listen.c2s_tls, ["[::]:5223".parse().expect("an address")]);
    assert_eq!(plain.listen.c2s_plain, []);
}

#[test]
fn unknown_keys() {
    check("dta = \"x\"", &[("line 1: dta: there is no such key", "; the nearest is data")]);
    check("pasword_hash = \"scram\"", &[("line 1: pasword_hash:", "the nearest is password_hash")]);
    check("memory_max = 1", &[("line 1: memory_max:", "it belongs below a line [limits]")]);
    check("c2s = []", &[("line 1: c2s:", "it belongs below a line [listen]")]);
    check("name = \"x\"", &[("line 1: name:", "it belongs below a line [[domain]]")]);
    check(
        "[limits]\nlog = \"info\"",
        &[("line 2: limits.log:", "at the top of the file, above the first line in brackets")],
    );
    check("[limits]\n\nmemmory_max = 1", &[("line 3: limits.memmory_max:", "the nearest is memory_max")]);
    check("[listen]\nc2s_lts = []", &[("line 2: listen.c2s_lts:", "the nearest is c2s_tls")]);
    check("[limit]\nrates = true", &[("line 1: limit:", "the nearest is limits")]);
    check(
        "[[domains]]\nname = \"a\" # no domain]",
        &[
            ("line 1: domain: no domain is served", "addresses end in"),
            ("line 1: domains: there is no such key", "the nearest is domain"),
        ],
    );
    check(
        "[[domain]]\nname = \"a\"\ncontacts = { postmaster = [] }",
        &[("line 3: domain.contacts.postmaster:", "the nearest is status")],
    );
    check(&format!("{} = 1", "x".repeat(5000)), &[("line 1: xxx", "")]);
}

#[test]
fn wrong_values() {
    check("data = 5", &[("line 1: data: expected text, found a number", "; put it in double quotes")]);
    check("data = \"\"", &[("line 1: data: it names no file", "leave the line out")]);
    check("log = \"loud\"", &[("line 1: log: \"loud\" is not one of its values", "or \"trace\"")]);
    check("password_hash = \"md5\"", &[("line 1: password_hash: \"md5\"", "; write \"scram\" or \"scrypt\"")]);
    check("scrypt_log_n = 30", &[("line 1: scrypt_log_n: 30 is above 20", "; write a value from 12 to 20")]);
    check("scram_iterations = 100", &[("line 1: scram_iterations: 100 is below 4096", "")]);
    check("scram_iterations = \"many\"", &[("line 1: scram_iterations: expected a whole number, found \"many\"", "")]);
    check(
        "limits = 3",
        &[(
            "line 1: limits: expected a section, found a number",
            "write [limits] on a line of its own and its keys below",
        )],
    );
    let range = "; write a value from \"4M\" to \"1024G\"";
    check("[limits]\nmemory_max = \"64X\"", &[("line 2: limits.memory_max: expected a size", range)]);
    check("[limits]\nmemory_max = \"99999999999G\"", &[("line 2: limits.memory_max: expected a size", range)]);
    check(
        "[limits]\nmemory_max = -5",
        &[("line 2: limits.memory_max: expected a size such as 65536, \"64K\" or \"64M\", found -5", range)],
    );
    check(
        "[limits]\nmemory_max = 1_000",
        &[("line 2: limits.memory_max: 1000 is below \"4M\", the least allowed", range)],
    );
    check(
        "[limits]\nlogin_time = 60",
        &[(
            "line 2: limits.login_time: expected a duration such as \"60s\", \"10m\" or \"1h\", found 60",
            "; write a value from \"5s\" to \"1h\"",
        )],
    );
    check(
        "[limits]\nidle_ping = \"60s\"",
        &[("line 2: limits.idle_ping: \"1m\" is below \"5m\"", "from \"5m\" to \"24h\"")],
    );
    check("[limits]\nidle_ping = \"999999999999999999999s\"", &[("line 2: limits.idle_ping: expected a duration", "")]);
    check(
        "[limits]\nrates = \"yes\"",
        &[("line 2: limits.rates: expected true or false, found text", "; write true or false")],
    );
    check("[limits]\nstanza_bytes_max = 5000", &[("line 2: limits.stanza_bytes_max: 5000 is below 10000", "")]);
    check("[limits]\nrequests_max = 1.5", &[("line 2: limits.requests_max: expected a whole number, found 1.5", "")]);
    check(
        "[limits]\noutput_pause = \"8M\"\n",
        &[("line 2: limits.output_pause: output_pause (8388608) is above output_max (2097152)", "")],
    );
    check(
        "[limits]\nstanza_bytes_max = \"4M\"\noutput_max = \"3M\"",
        &[("line 2: limits.stanza_bytes_max: stanza_bytes_max (4", "")],
    );
}

#[test]
fn addresses() {
    let row = |address: &str, start: &str, end: &str| {
        check(&format!("[listen]\nc2s = [\n  \"127.0.0.1:1\",\n  {address}\n]"), &[(start, end)]);
    };
    row("\"5222\"", "line 4: listen.c2s: \"5222\" is no address with a port", "or \"127.0.0.1:5222\" for itself only");
    row("\":5222\"", "line 4:", "or \"127.0.0.1:5222\" for itself only");
    row("\"*:5222\"", "line 4:", "or \"127.0.0.1:5222\" for itself only");
    row("\"192.0.2.7\"", "line 4:", "; add the port: \"192.0.2.7:5222\"");
    row("\"::1\"", "line 4:", "; add the port: \"[::1]:5222\"");
    row("\"[::1]\"", "line 4:", "; add the port: \"[::1]:5222\"");
    row("\"localhost:5222\"", "line 4:", "; names are not looked up here, write \"127.0.0.1:5222\"");
    row("\"127.0.0.1:66000\"", "line 4:", "such as \"[::]:5222\" or \"192.0.2.1:5222\"");
    row("\"127.0.0.1:1\"", "line 4: listen.c2s: 127.0.0.1:1 is listed twice", "write it once");
    row("5222", "line 4: listen.c2s: expected text, found a number", "put it in double quotes");
    check(
        "[listen]\nc2s = \"[::]:5222\"",
        &[("line 2: listen.c2s: expected a list, found text", ": c2s = [\"[::]:5222\"]")],
    );
    check(
        "[listen]\nc2s = [\"[::]:5222\"]\nc2s_tls = [\"[::]:5222\"]",
        &[("line 3: listen.c2s_tls: [::]:5222 is listed twice", "")],
    );
    let nowhere = ("line 1: listen: no client could connect anywhere", "; give c2s or c2s_tls an address");
    check("[listen]\nc2s = []\nc2s_tls = []", &[nowhere]);
    check("[listen]\nc2s = []", &[nowhere]);
    check("[listen]", &[nowhere]);
    check("listen = {}", &[nowhere]);
    check("listen = 5222", &[("line 1: listen: expected a section, found a number", "")]);
    for public in ["0.0.0.0:5224", "[::]:5224", "192.0.2.1:5224", "[::ffff:127.0.0.1]:5224"] {
        let start = format!("line 2: listen.c2s_plain: {public} can be reached from other machines");
        check(&format!("[listen]\nc2s_plain = [\"{public}\"]"), &[(&start, "move it to c2s, where TLS is required")]);
    }
}

#[test]
fn domains() {
    check("# nothing about a domain]", &[("line 1: domain: no domain is served; add a line [[domain]]", "")]);
    check("[[domain]]", &[("line 1: domain.name: it is missing; write the name", "such as \"example.org\"")]);
    check("[[domain]]\nname = \"a b\"", &[("line 2: domain.name: \"a b\" is no domain name: ", "")]);
    check(
        "[[domain]]\nname = \"juliet@example.org\"",
        &[("line 2: domain.name: \"juliet@example.org\" is no domain name: ", "")],
    );
    check(
        "[domain]\nname = \"a\"\nregistration = 1",
        &[
            ("line 1: domain: domains are a list; write [[domain]] with two brackets", ""),
            ("line 3: domain.registration: expected text", ""),
        ],
    );
    check("domain = \"a\" # domain]", &[("line 1: domain: expected a section, found text; write [[domain]]", "")]);
    check(
        "[[domain]]\nname = \"example.org\"\n[[domain]]\nname = \"Example.ORG\"",
        &[("line 3: domain.name: example.org is already served by the [[domain]] of line 1; remove", "")],
    );
    check(
        "[[domain]]\nname = \"a\"\ncertificate = \"x\"",
        &[("line 1: domain.certificate: a certificate without its key", "privkey.pem)")],
    );
    check(
        "[[domain]]\nname = \"a\"\nkey = \"x\"",
        &[("line 1: domain.key: a key without its certificate", "fullchain.pem)")],
    );
    check(
        "[[domain]]\nname = \"a\"\nregistration = \"yes\"",
        &[("line 3: domain.registration:", "\"closed\" or \"open\"")],
    );
    let contacts = |value: &str, start: &str, end: &str| {
        check(&format!("[[domain]]\nname = \"a\"\ncontacts = {value}"), &[(start, end)]);
    };
    contacts("{ admin = [\"me@a\"] }", "line 3: domain.contacts.admin: \"me@a\" is no URI; write \"mailto:me@a\"", "");
    contacts("{ admin = [\"mailto:m e@a\"] }", "line 3: domain.contacts.admin: \"mailto:m e@a\" is no URI", "");
    contacts(
        "{ admin = \"mailto:me@a\" }",
        "line 3: domain.contacts.admin: expected a list",
        "admin = [\"mailto:me@a\"]",
    );
    check(
        "[[domain]]\nname = \"a\"\nadmins = [\"a\", \"me@a\"]",
        &[("line 3: domain.admins: \"a\" is no account", "")],
    );
    for uri in ["turn", "http://a", "turn:", "turn:a:0", "turn:a:b", "turn:a?transport=sctp", "stun:a b"] {
        let text =
            format!("[[domain]]\nname = \"a\"\nservices = [\"{uri}\", \"turns:[2001:db8::1]:443?transport=tcp\"]");
        check(&text, &[("line 3: domain.services: ", "\"stun:stun.example.org\"")]);
    }
    check(
        "[[domain]]\nname = \"a\"\nservices_time = 60",
        &[("line 3: domain.services_time: expected a duration", "from \"1m\" to \"30d\"")],
    );
    contacts("[]", "line 3: domain.contacts: expected a section, found a list", "; write contacts = { … }");
}

#[test]
fn no_toml() {
    check("data = /var/lib", &[("line 1: ", "put text in double quotes: data = \"/var/lib\"")]);
    check(
        "[limits]\nmemory_max = 64M\nrates = maybe",
        &[
            ("line 2: ", "put a value with a unit in double quotes: memory_max = \"64M\""),
            ("line 3: ", "put text in double quotes: rates = \"maybe\""),
        ],
    );
    check("data = \"a\"\ndata = \"b\"", &[("line 2: duplicate key", "remove one of the two")]);
    check("[limits\nrates = 5", &[("line 1: ", "")]);
    // What follows is still looked at.
    check("data =\nlgo = \"info\"", &[("line 1: ", ""), ("line 2: lgo:", "the nearest is log")]);
    for hostile in
        ["\u{0}", "[[[[[[[[", "a = \"", "a = '''\n\n", "=", "\u{feff}x", "[a]\n[a]", "a.b.c = {d = [[[[[[[[[[[[[[[["]
    {
        assert!(!mistakes(hostile).is_empty(), "{hostile:?}");
    }
}

#[test]
fn several_at_once_in_order_of_lines() {
    let text = "log = 1\n[[domain]]\nname = \"a b\"\n[listen]\nc2s = [\"x\", \"y\"]\n[limits]\nfoo = 1\nrates = 1\n";
    let lines: Vec<_> = mistakes(text).iter().filter_map(|shown| shown.split(':').next().map(str::to_owned)).collect();
    assert_eq!(lines, ["line 1", "line 3", "line 5", "line 5", "line 7", "line 8"]);
}

#[test]
fn the_example_is_right_and_so_it_is_with_every_line_switched_on() {
    let example = include_str!("../../../whinchat.example.toml");
    let config = parse(example, Path::new("/etc/whinchat")).expect("the example parses");
    assert_eq!(config.domains.len(), 1);
    // `#key = value` is a key switched off, `# text` is a comment.
    let on: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(on, example);
    let everything = parse(&on, Path::new("/etc/whinchat"))
        .map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>());
    let everything = everything.expect("the example parses with every key switched on");
    assert_eq!(
        format!("{:?}", everything.limits),
        format!("{:?}", Limits::default()),
        "the example shows other defaults"
    );
}

/// The manual has one heading or table row for each key that exists, and for none that does not; and its ranges and defaults
/// are the real ones.
#[test]
fn the_manual_names_every_key() {
    let manual = include_str!("../../../docs/configuration.md");
    let (_, reader) = read(MINIMAL, Path::new(""));
    let sections = ["listen", "domain", "limits"];
    let known: BTreeSet<String> = reader
        .known
        .iter()
        .filter(|(section, key)| !(section.is_empty() && sections.contains(key)))
        .map(|(section, key)| full_name(section, key))
        .collect();
    let documented: BTreeSet<String> = manual
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split('`').next().map(str::to_owned))
        .collect();
    assert_eq!(documented, known);
    let mut limits = Limits::default();
    for key in LIMIT_KEYS {
        let slot = (key.slot)(&mut limits);
        let show = match slot {
            Slot::Bytes(_) | Slot::BytesTwice(..) => show_size,
            Slot::Time(_) => show_duration,
            Slot::Switch(_) => |n| if n == 0 { "false".to_owned() } else { "true".to_owned() },
            _ => |n: u64| n.to_string(),
        };
        let range = match slot {
            Slot::Switch(_) => "true, false".to_owned(),
            _ => format!("{} – {}", show(key.least), show(key.most)),
        };
        let row = format!("| `limits.{}` | {} | {range} |", key.name, show(slot.value()));
        assert!(manual.contains(&row), "the manual should have: {row}");
    }
}
