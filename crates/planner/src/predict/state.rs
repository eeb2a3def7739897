//! How the host's weights lie in memory.

use super::range::Range;
use footprint::Requirement;
use spec::{Bytes, Known};

/// How the host's weights lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HostState {
    /// Share of the mapped weights that does not fit into memory.
    pub(crate) missing: f64,
    /// Share of the host's weights that lies in rearranged copies: the GPU never computes over those.
    pub(crate) repacked: f64,
    pub(crate) flash_attention: bool,
}

impl HostState {
    /// With this much host memory for the program; as if there were enough where that is not known.
    pub(crate) fn of(memory: Option<Bytes>, requirement: &Requirement) -> Self {
        let host = &requirement.host;
        let bytes = |known: &Known<Bytes>| known.get().unwrap_or(Bytes::ZERO).as_f64();
        let mapped = bytes(&host.weights_mapped);
        let copies = bytes(&host.weights_repacked);
        let all = mapped.max(bytes(&host.weights_anonymous)).max(copies).max(1.0);
        // Pages that a device has mapped as well are held there.
        let alone = mapped - bytes(&host.mapped_shared);
        let missing = match memory {
            Some(memory) if mapped > 0.0 => {
                let room = memory.saturating_sub(requirement.held().get().unwrap_or(Bytes::ZERO)).as_f64();
                ((alone - room) / mapped).clamp(0.0, 1.0)
            }
            _ => 0.0,
        };
        Self { missing, repacked: (copies / all).min(1.0), flash_attention: requirement.context.flash_attn }
    }

    /// Share of the mapped weights read from disk for each pass: at least what does not fit, at most everything.
    pub(crate) fn read_from_disk(&self) -> Range {
        if self.missing > 0.0 { Range::new(self.missing, (1.0 + self.missing) / 2.0, 1.0) } else { Range::ZERO }
    }
}
