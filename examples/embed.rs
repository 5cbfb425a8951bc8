//! A chat server inside another program: it makes two accounts, sends one a message in the name of the other, sees it delivered
//! (here: kept, since nobody is online) and ends the server. Nothing is reachable from outside this machine.
//!
//! ```text
//! cargo run --example embed [DIRECTORY]
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use whinchat::Server;
use whinchat::config::Listen;
use whinchat::server::CommandError;

/// How long we wait for what should come at once.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args_os().nth(1).map(PathBuf::from);
    let data = given.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("embed-{}", std::process::id())));

    // Port 0: the system chooses one.
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = Listen { c2s: vec![here], c2s_tls: vec![here], ..Listen::default() };
    let (delivered_to, delivered) = mpsc::channel();
    let mut server = Server::builder()
        .data(&data)
        .domain("appliance.example")
        .listen(listen)
        // Runs on the server's thread, so it only passes on.
        .on_delivered(Box::new(move |message| drop(delivered_to.send(message.clone()))))
        .build()?;
    for (kind, address) in server.local_addrs() {
        println!("listening on {address} ({kind:?})");
    }

    let handle = server.handle();
    let work = std::thread::spawn(move || {
        // The host's own work; whatever comes of it, the server is ended.
        let result = (|| -> Result<(), CommandError> {
            for user in ["door@appliance.example", "juliet@appliance.example"] {
                match handle.user_add(user, "correct horse battery staple") {
                    Ok(()) => println!("{user} is added"),
                    Err(error) => println!("{user} is not added: {error}"),
                }
            }
            handle.send_message("door@appliance.example", "juliet@appliance.example", "Somebody rang the bell.")?;
            match delivered.recv_timeout(PATIENCE) {
                Ok(message) => println!(
                    "delivered from {} to {}: {}",
                    message.from,
                    message.to,
                    String::from_utf8_lossy(&message.stanza)
                ),
                Err(_) => println!("nothing was delivered"),
            }
            let counters = handle.status()?;
            let kept = counters.iter().find(|(name, _)| *name == "stored_offline_total");
            println!("messages kept for later: {}", kept.map_or(0, |(_, count)| *count));
            Ok(())
        })();
        handle.stop();
        result
    });

    server.run()?;
    work.join().map_err(|_| "the host's thread panicked")??;
    println!("the server has ended");
    if given.is_none() {
        std::fs::remove_dir_all(&data)?;
    }
    Ok(())
}
