//! The nouns of loadmaster: every other crate speaks in these types.
//!
//! No I/O, no `unsafe`, no dependencies. One module per concept:
//!
//! * [`units`]: sizes, rates; the only place where a unit is converted
//! * [`known`]: a value together with how well it is known and from where
//! * [`quant`]: tensor types and their block geometry
//! * [`machine`]: what a machine is, what of it may be used, what is free now
//! * [`model`]: what a model is: layers, tensors, attention, experts, state
//! * [`attachment`]: what is loaded beside a model
//! * [`vocabulary`]: the tokens of a model, as its file lists them
//! * [`settings`]: every knob of an engine that changes memory or speed
#![forbid(unsafe_code)]

pub mod attachment;
pub mod known;
pub mod machine;
pub mod model;
pub mod quant;
pub mod settings;
mod text;
pub mod units;
pub mod vocabulary;
mod words;

pub use attachment::{Attachment, AttachmentKind};
pub use known::{Known, Source};
pub use machine::Machine;
pub use model::Model;
pub use quant::QuantType;
pub use settings::Settings;
pub use text::Utf8Stream;
pub use units::{Bytes, BytesPerSec, OpsPerSec, TokensPerSec};
pub use vocabulary::Vocabulary;
