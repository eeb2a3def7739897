//! `completions` and `man`: what other programs want to know of the command line, out of its definitions.

use super::Shared;
use crate::args::{self, CompletionsArgs, ManArgs};
use crate::exit::{Exit, Failure, Outcome};

/// Prints a completion script.
pub fn completions(shared: &Shared, args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "loadmaster", &mut script);
    shared.output.data(&String::from_utf8_lossy(&script))
}

/// Prints the manual page of the program or of one command.
pub fn man(shared: &Shared, args: &ManArgs) -> Outcome {
    let mut root = args::command();
    // What every command inherits is filled in only by a build.
    root.build();
    let page = match &args.command {
        None => clap_mangen::Man::new(root),
        Some(name) => match root.find_subcommand(name) {
            // Pages of commands are named as git's are: loadmaster-plan(1).
            Some(command) => clap_mangen::Man::new(command.clone()).title(format!("loadmaster-{name}")),
            None => return Err(Failure::new(Exit::Usage, format!("no command {name:?}"))),
        },
    };
    let mut text = Vec::new();
    page.render(&mut text).map_err(|error| Failure::output("the manual page", &error))?;
    shared.output.data(&String::from_utf8_lossy(&text))
}
