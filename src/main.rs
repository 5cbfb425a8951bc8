//! The `whinchat` program: a server to run, and the commands to look after it.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
