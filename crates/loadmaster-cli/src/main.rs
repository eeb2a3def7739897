//! The binary `loadmaster`: arguments in, views out. The only crate of the workspace that prints.
//!
//! * [`args`]: what can be typed; [`flags`], [`pins`] and [`rewrite`] bring llama-server's spellings into it
//! * [`command`]: one file per command, each a function from its arguments to an [`exit::Outcome`]
//! * [`view`]: what a command shows, as data; [`render`]: that data as text; [`output`]: where it goes
#![forbid(unsafe_code)]

mod args;
mod command;
mod devices;
mod exit;
mod flags;
mod output;
mod pins;
mod progress;
mod render;
mod rewrite;
mod view;

use args::Cli;
use clap::FromArgMatches;
use exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = args::command();
    let arguments = rewrite::rewrite(std::env::args_os(), &command);
    let parsed = command.try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let exit = match parsed {
        Ok(cli) => match command::execute(cli) {
            Ok(exit) => exit,
            Err(failure) => {
                output::report(&failure);
                failure.exit
            }
        },
        // Help and version are results, too: clap knows which stream each belongs to. A reader that has gone away is
        // no reason to fail.
        Err(error) => {
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
    };
    ExitCode::from(exit.code())
}
