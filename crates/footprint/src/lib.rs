//! REQUIRE: memory to the byte. What llama.cpp allocates for a model, a placement and settings.
//!
//! Pure: no file, clock or environment. It mirrors an engine that we do not own, so every rule names the upstream file,
//! line and version it follows (llama.cpp v0.6.0-dev as bundled in the crate llama-cpp-sys-2 0.1.161), and has a
//! recorded oracle that checks it.
//!
//! [`require()`] is the whole: it resolves the context ([`context`]), places layers and tensors ([`placement`]), and adds up
//! [`weights`], [`kv_cache`], [`state`], [`compute`], [`output`] and what the host program itself takes ([`host`]).
//! [`Requirements`] does the same for a search. [`explain()`] names the rule behind each number, [`savings()`] what would take less.
#![forbid(unsafe_code)]

pub mod backends;
pub mod bitnet;
pub mod companions;
mod compressed;
pub mod compute;
pub mod context;
pub mod error;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod host;
pub mod kv_cache;
pub mod mapped;
pub mod output;
pub mod parts;
pub mod placement;
pub mod process;
pub mod profile;
pub mod recommend;
mod repack;
pub mod require;
pub mod requirement;
mod roles;
pub mod savings;
mod scratch;
pub mod search;
pub mod state;
mod tally;
pub mod target;
mod tensor_parallel;
pub mod weights;

pub use companions::{Companions, Draft};
pub use compute::ComputeBuffers;
pub use error::FootprintError;
pub use explain::{Explanation, explain};
pub use parts::{Component, Part, Totals, totals};
pub use placement::{Home, Pattern, Placement};
pub use profile::{BatchKinds, EngineProfile, Ik, LatentCache, Offload, Outputs, Rules, WindowCells};
pub use recommend::{Recommendation, Sizing, recommend};
pub use require::{dry_run, require, require_with};
pub use requirement::{DeviceRequirement, GraphSize, HostRequirement, Requirement, ResolvedContext};
pub use savings::{Saving, savings};
pub use search::Requirements;
pub use target::{Backend, Device, Target};
