//! Commands that only look: `check`, `status`, `features`.

use std::fmt::Write as _;

use whinchat::admin::client::{AskError, ask};
use whinchat::config::DomainConfig;
use whinchat::core::Command;
use whinchat::handlers::HANDLERS;
use whinchat::server::check_certificate;

use super::{CONFIG_PATH, Failure, Loaded, print};

/// Tells what a configuration does, if it is right. Certificates are read; the rest of the machine is not looked at.
pub fn check(loaded: Loaded) -> Result<(), Failure> {
    let Loaded { config, file } = loaded;
    let mut text = match file {
        Some(file) => format!("{} is right.\n", file.display()),
        None => format!("There is no {CONFIG_PATH}; without a configuration the server is a try-out.\n"),
    };
    let mut problems = Vec::new();
    for domain in &config.domains {
        match certificate_text(domain) {
            Ok(certificate) => {
                let registration = if domain.registration_open { "open" } else { "closed" };
                // Writing to a string does not fail, here and below.
                let _ = writeln!(text, "  domain  {}: {certificate}, registration {registration}", domain.name);
            }
            Err(problem) => problems.push(format!("{}: {problem}", domain.name)),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems.join("\n")));
    }
    let listen = &config.listen;
    let kinds = [("STARTTLS", &listen.c2s), ("TLS", &listen.c2s_tls), ("without TLS", &listen.c2s_plain)];
    for (kind, address) in kinds.iter().flat_map(|(kind, list)| list.iter().map(move |address| (kind, address))) {
        let _ = writeln!(text, "  listen  {address} ({kind})");
    }
    let _ = writeln!(text, "  data    {}", config.data.display());
    print(&text);
    Ok(())
}

fn certificate_text(domain: &DomainConfig) -> Result<String, String> {
    let Some(files) = &domain.certificate else { return Ok("self-made certificate".to_owned()) };
    match check_certificate(files) {
        Ok(not_after) => Ok(format!("certificate valid until {not_after}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Prints the counters of a running server.
pub fn status(loaded: &Loaded) -> Result<(), Failure> {
    let data = loaded.config.data.display();
    let lines = ask(&loaded.config.data, &Command::Status).map_err(|error| match error {
        AskError::NotRunning => Failure::runtime(format_args!("no server is running with the data directory {data}")),
        AskError::Failed(_) => Failure::runtime(format_args!("{error}; run as root, or as the owner of {data}")),
        AskError::Refused(_) => Failure::runtime(error),
    })?;
    let counters: Vec<_> = lines.iter().filter_map(|line| line.split_once(' ')).collect();
    print(&table(&counters));
    if counters.contains(&("store_failing", "1")) {
        print(
            "\nThe disk does not take what is written, so it is refused; the log says why. See that it has room and is in order.\n",
        );
    }
    if counters.iter().any(|(name, value)| *name == "store_rows_damaged" && *value != "0") {
        print(
            "\nSome of what is stored was damaged on the disk; the log says more. Keep a copy of it and restore a backup.\n",
        );
    }
    Ok(())
}

/// Names to the left, values to the right.
fn table(rows: &[(&str, &str)]) -> String {
    let names = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let values = rows.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:names$}  {value:>values$}\n")).collect()
}

/// What the server speaks below its handlers.
const FOUNDATIONS: [(&str, &str); 4] = [
    ("stream", "RFC 6120 sections 4, 8 and 10"),
    ("tls", "RFC 6120 section 5, RFC 7590, XEP-0368 1.1"),
    ("auth", "RFC 6120 section 6, RFC 4616, RFC 5802, RFC 7677, RFC 5929, RFC 9266"),
    ("jid", "RFC 7622"),
];

/// Prints what the server speaks: the name of the source file, and the documents with the versions implemented.
pub fn features() {
    let handlers = HANDLERS.iter().map(|handler| (handler.name, handler.spec));
    let rows: Vec<_> = FOUNDATIONS.into_iter().chain(handlers).collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    print(&rows.iter().map(|(name, spec)| format!("{name:width$}  {spec}\n")).collect::<String>());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let check = |rows: &[(&str, &str)], expected: &str| assert_eq!(table(rows), expected);
        check(&[], "");
        check(&[("sessions", "3"), ("connections", "1024")], "sessions        3\nconnections  1024\n");
    }
}
