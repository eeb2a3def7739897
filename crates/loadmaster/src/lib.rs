//! loadmaster: finds the best way to run a language model on a given machine, and proves it.
//!
//! The pipeline, `detect → inspect → require → predict → plan → validate → emit → launch`, as one function:
//!
//! ```no_run
//! let request = loadmaster::Request::new("model.gguf");
//! let advice = loadmaster::advise(&request)?;
//! println!("{}", advice.invocation(&loadmaster::advise::CommandOptions::default()));
//! # Ok::<(), loadmaster::Error>(())
//! ```
//!
//! Everything pure lives in the crates re-exported here. This crate adds what touches the world: files ([`mod@open`],
//! [`beside`], [`config`], [`demo`], [`store`]), other programs ([`engine`], [`launch`]), and the account of what happened
//! ([`receipt`], [`runs`]). It prints nothing: facts come back as values and events, errors as types with an exit code and a hint.
#![forbid(unsafe_code)]

pub mod advise;
mod anomaly;
pub mod beside;
pub mod config;
pub mod configure;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod known;
pub mod launch;
pub mod machine;
pub mod open;
pub mod profiles;
pub mod prove;
pub mod receipt;
pub mod recommend;
pub mod runs;
pub mod store;
pub mod system;
pub mod verify;

pub use advise::{Advice, Request, advise};
pub use error::Error;
pub use open::open;
pub use prove::prove;
pub use verify::verify;

pub use benchmarks;
pub use footprint;
pub use formats;
#[cfg(feature = "bundled")]
pub use llama;
pub use planner;
pub use probe;
pub use roofline;
pub use spec;
pub use synthetic;
