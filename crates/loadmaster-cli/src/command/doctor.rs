//! `doctor`: looks for what slows models down on a machine.

use super::Shared;
use crate::exit::{Exit, Outcome};
use crate::view::DoctorView;

/// Shows what was found; the exit code tells whether anything costs speed or memory.
pub fn doctor(shared: &Shared) -> Outcome {
    let view = DoctorView::new(&shared.machine()?);
    shared.output.show(&view)?;
    Ok(if view.ails() { Exit::Ailing } else { Exit::Done })
}
