//! `detect`: shows the machine, or records it.

use super::{Shared, driver_child, failure};
use crate::args::DetectArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view::DetectView;
use loadmaster::machine::{self, MachineSource};
use loadmaster::probe::{self, Depth};
use loadmaster::store;

/// Shows the machine; with `--capture` also writes a recording of it.
pub fn detect(shared: &Shared, args: &DetectArgs) -> Outcome {
    let depth = if args.full { Depth::Full } else { Depth::default() };
    if let Some(path) = &args.capture {
        if shared.machine != MachineSource::Live {
            return Err(Failure::new(
                Exit::Usage,
                "--capture records this machine as it is: it cannot be used with --machine, --ram, --gpu-memory or --threads",
            ));
        }
        let recording = probe::capture_to(&machine::live(depth, &driver_child()), depth).to_text();
        store::write_atomically(path, recording.as_bytes()).map_err(|error| failure(&error.into()))?;
        shared.output.say(format_args!("recorded this machine in {}: use it with --machine", path.display()));
        return Ok(Exit::Done);
    }
    shared.output.show(&DetectView::from(shared.machine_to(depth)?))
}

/// The hidden command that asks the libraries of drivers: what crashes there ends no other process.
pub fn answer_for_drivers() -> Outcome {
    match probe::live::serve(std::io::stdin().lock(), std::io::stdout()) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(Exit::Engine, format!("cannot answer for drivers: {error}"))),
    }
}
