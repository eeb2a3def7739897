//! How much memory a machine should have for a requirement.

use crate::parts::totals;
use crate::requirement::{DeviceRequirement, Requirement};
use spec::{Bytes, Known};

/// Kept free of the host's memory beside what the model needs: for the system, and so that nothing is reclaimed in haste.
const HOST_MARGIN: f64 = 0.05;
/// Kept free of a device: for the desktop, and for fragmentation of the driver's heap.
const DEVICE_MARGIN: f64 = 0.03;

/// What to have of one memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizing {
    /// Below this the model does not run, or runs from the disk.
    pub minimum: Known<Bytes>,
    /// Enough in every case: the upper end of each estimate, caches at their limits, and a margin. `None` where a part is
    /// not known.
    pub recommended: Option<Bytes>,
}

/// What a machine should have.
#[derive(Clone, Debug, PartialEq)]
pub struct Recommendation {
    /// Host memory, beside what the system itself takes; what devices that share it hold is part of it.
    pub ram: Sizing,
    /// Device memory, parallel to [`Requirement::devices`].
    pub devices: Vec<Sizing>,
    /// What of the host's peak could lie in swap without being touched for every token: the server's caches, and tables of
    /// which a token reads one row.
    pub swap: Known<Bytes>,
}

/// What a machine should have for this requirement.
///
/// The minimum of host memory is what every token touches: anonymous memory at peak and weights used in place, less what
/// could lie in swap. The recommendation adds the file pages that only loading touches.
pub fn recommend(requirement: &Requirement) -> Recommendation {
    Recommendation {
        ram: host(requirement),
        devices: requirement.devices.iter().map(device).collect(),
        swap: requirement.host.growth_limit().plus(&requirement.host.weights_rarely_read),
    }
}

fn host(requirement: &Requirement) -> Sizing {
    let host = &requirement.host;
    let minimum = less(&requirement.resident(), &host.weights_rarely_read);
    let touched = less(&host.mapped_touched, &host.mapped_shared);
    let all = requirement.held().plus(&touched).plus(&host.growth_limit());
    Sizing { minimum, recommended: all.high().map(|&high| high + high.scale(HOST_MARGIN)) }
}

fn device(device: &DeviceRequirement) -> Sizing {
    let total = totals(&device.parts()).peak;
    let recommended = total.high().map(|&high| high + high.scale(DEVICE_MARGIN));
    Sizing { minimum: total, recommended }
}

/// The difference to an exact part of the whole.
fn less(whole: &Known<Bytes>, part: &Known<Bytes>) -> Known<Bytes> {
    match part.get() {
        Some(part) => whole.clone().map(|whole| whole.saturating_sub(part)),
        None => Known::unknown(part.source().clone()),
    }
}
