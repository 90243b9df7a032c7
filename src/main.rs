//! The command-line program; see the library for what it can do.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
