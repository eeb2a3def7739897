//! `detect`: shows the machine, or records it.

use super::{Shared, failure};
use crate::args::DetectArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view::DetectView;
use loadmaster::machine::MachineSource;
use loadmaster::{probe, store};

/// Shows the machine; with `--capture` also writes a recording of it.
pub fn detect(shared: &Shared, args: &DetectArgs) -> Outcome {
    if let Some(path) = &args.capture {
        if shared.machine != MachineSource::Live {
            return Err(Failure::new(
                Exit::Usage,
                "--capture records this machine as it is: it cannot be used with --machine, --ram, --gpu-memory or --threads",
            ));
        }
        let recording = probe::capture(&probe::Live::new()).to_text();
        store::write_atomically(path, recording.as_bytes()).map_err(|error| failure(&error.into()))?;
        shared.output.say(format_args!("recorded this machine in {}: use it with --machine", path.display()));
        return Ok(Exit::Done);
    }
    shared.output.show(&DetectView::from(shared.machine()?))
}
