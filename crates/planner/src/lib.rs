//! PREDICT → PLAN → VALIDATE → EMIT: how fast a configuration will be, which one to take, whether the engine will accept
//! it, and the exact command that starts it.
//!
//! Pure and deterministic: no file, clock, environment, thread or randomness. The same machine, model and request give
//! the same plan, byte for byte.
//!
//! ```text
//! target(&Machine, &GpuSupport)                    -> footprint::Target
//! fit(&Model, &Settings, &Target, ...)             -> Result<Fitted, FitError>
//! plan(&Machine, &Model, &Target, &Request)        -> Result<Plan, Box<NoPlan>>
//! check(&Context, &Settings)                       -> Report
//! validate(Plan, &Context)                         -> Result<ValidPlan, Report>
//! emit(&ValidPlan, &Program)                       -> Invocation
//! ```
#![forbid(unsafe_code)]

pub mod emit;
pub mod fit;
mod inventory;
pub mod plan;
pub mod predict;
pub mod target;
pub mod validate;
pub mod workload;

pub use emit::{Invocation, Listen, Program, Tool, emit};
pub use plan::{NoPlan, Plan, Preferences, Request, Verdict, plan, plan_with};
pub use predict::{Prediction, predict};
pub use target::{GpuSupport, ListedDevice, gpu_of, target};
pub use validate::{Context, EngineRules, Report, Severity, ValidPlan, Violation, check, check_for, ignored, validate};
pub use workload::{Asked, UseCase, Workload};
