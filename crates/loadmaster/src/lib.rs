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
#[cfg(any(feature = "gpu", feature = "cuda"))]
mod gpus;
pub mod known;
pub mod launch;
pub mod loader;
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
/// What a model needs under given settings, by device and component, at load and at peak: [`footprint::require()`] by the name that
/// says so. For a search over many settings, [`footprint::Requirements`].
///
/// ```no_run
/// use loadmaster::footprint::{Device, EngineProfile, Target, target::Backend};
/// use loadmaster::spec::{Bytes, Known, Settings};
///
/// let model = loadmaster::open("model.gguf".as_ref())?;
/// let memory = Known::exact(Bytes::from_gib(24), "data sheet");
/// let target = Target {
///     devices: vec![Device::of_its_own("CUDA0", Backend::cuda(false), memory)],
///     idle: Vec::new(),
///     cpu_features: ["avx2".to_owned()].into(),
///     cpu_arch: "x86_64".to_owned(),
/// };
/// let settings = Settings { n_gpu_layers: 99, n_ctx: 8192, ..Settings::default() };
/// let needs = loadmaster::memory_requirements(&model, &settings, &target, &EngineProfile::bundled())?;
/// println!("the GPU holds {} at peak", needs.devices[0].total());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub use footprint::require as memory_requirements;
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
