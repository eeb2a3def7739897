//! What the host holds beside the engine's buffers: program, vocabulary, graph metadata; and what may grow later.

use crate::requirement::ResolvedContext;
use crate::target::Target;
use spec::{Bytes, Known, Model, Settings};

/// Memory of the program itself.
pub fn runtime(_model: &Model, _target: &Target, _context: &ResolvedContext) -> Known<Bytes> {
    Known::estimated(Bytes::from_mib(60), Bytes::from_mib(30), Bytes::from_mib(120), "measured")
}

/// Most that caches of the server may grow to.
pub fn growth_limit(_model: &Model, settings: &Settings, _context: &ResolvedContext) -> Known<Bytes> {
    Known::exact(Bytes::from_mib(u64::from(settings.cache_ram_mib)), "--cache-ram")
}
