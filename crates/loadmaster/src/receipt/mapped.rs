//! What an engine means when it reports a mapped buffer.
//!
//! Up to v0.6 llama.cpp reports the whole range of the file from the first to the last tensor that it uses in place
//! (`llama-model-loader.cpp:1449`, v0.6.0-dev, crate llama-cpp-sys-2 0.1.161), tensors between that live elsewhere
//! included. 0.7 reports each run of tensors on its own.

use crate::advise::Advice;
use planner::Tool;
use spec::{Bytes, Known};

/// The mapped weights of a plan, as its engine will report them.
pub(super) fn reported_as(advice: &Advice) -> Known<Bytes> {
    let host = &advice.plan.plan().requirement.host;
    let ranges = match &advice.engine.external {
        Some(engine) => engine.version.release < Some((0, 7, 0)),
        None => advice.engine.rules.tool == Tool::Bundled,
    };
    if ranges { host.mapped_span.clone() } else { host.weights_mapped.clone() }
}
