//! EMIT: a valid plan as the exact command that starts it, from one table of flags.
//!
//! Every setting is written out, so that neither a configuration file nor an environment variable of the engine decides
//! anything that the plan has decided: arguments take precedence over both (`common/arg.cpp:718-767`).

mod express;
pub mod flags;
mod invocation;
mod text;

pub(crate) use express::{Expression, accepts, bitnet_has, expressions};
pub use invocation::{Invocation, Listen, Program};
pub use text::{ALL, Fixed};

use crate::validate::{EngineRules, ValidPlan};
use footprint::bitnet::BitNet;
use spec::Settings;
use spec::settings::Pins;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// The programs that take a plan: those of llama.cpp, and our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The engine built into loadmaster: it takes settings as they are. Its command is written in llama-server's
    /// spellings, for people.
    Bundled,
    /// The BitNet engine built into loadmaster: `loadmaster run` with the settings that it has.
    BitNet,
    /// `llama-server`.
    Server,
    /// `llama-cli`.
    Cli,
    /// `llama-bench`.
    Bench,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bundled => "bundled engine",
            Self::BitNet => "BitNet engine",
            Self::Server => "llama-server",
            Self::Cli => "llama-cli",
            Self::Bench => "llama-bench",
        })
    }
}

/// Variables that change placement or memory and have no flag in a plan's command, or only a flag that adds to them.
const INTERFERING: &[&str] = &[
    "LLAMA_ARG_OVERRIDE_TENSOR",
    "LLAMA_ARG_TENSOR_SPLIT",
    "LLAMA_ARG_CPU_MOE",
    "LLAMA_ARG_N_CPU_MOE",
    "LLAMA_ARG_N_CPU_FFN",
    "LLAMA_ARG_MOE_CACHE_MIB",
    "LLAMA_ARG_SWA_FULL",
    "LLAMA_ARG_DEVICE",
    "LLAMA_ARG_RPC",
    "LLAMA_ARG_NO_HOST",
    "LLAMA_ARG_NUMA",
    "LLAMA_ARG_LAZY_MODE",
    "LLAMA_ARG_KV_UNIFIED_PER_SLOT",
    "LLAMA_ARG_FIT",
    "LLAMA_ARG_FIT_TARGET",
    "LLAMA_ARG_FIT_CTX",
    "LLAMA_ARG_MMPROJ",
    "LLAMA_ARG_NO_MMAP",
    "LLAMA_ARG_MLOCK",
    "LLAMA_ARG_MMAP",
];

/// The command that starts a plan. Cannot fail: what a program cannot express, [`validate()`](crate::validate()) has refused.
pub fn emit(plan: &ValidPlan, program: &Program) -> Invocation {
    let (settings, rules) = (&plan.plan().settings, plan.engine());
    let model = program.model.clone().into_os_string();
    let mut args: Vec<OsString> = match rules.tool {
        Tool::BitNet => ["run".into(), model].into_iter().chain(own_engine(rules)).collect(),
        _ => vec!["--model".into(), model],
    };
    for (_, expression) in expressions(settings, rules) {
        if let Expression::Args(words) = expression {
            args.extend(words.into_iter().map(OsString::from));
        }
    }
    if matches!(rules.tool, Tool::Server | Tool::Cli) && accepts("--fit", rules) {
        args.extend(["--fit".into(), "off".into()]);
    }
    if let (Tool::Server, Some(listen)) = (rules.tool, &program.listen) {
        args.extend(["--host".into(), OsString::from(&listen.host), "--port".into(), listen.port.to_string().into()]);
    }
    args.extend(program.extra.iter().cloned());
    Invocation {
        program: program.path.clone().into_os_string(),
        args,
        env: BTreeMap::new(),
        env_remove: INTERFERING.iter().map(|&name| name.to_owned()).collect(),
    }
}

/// What the BitNet engine takes with its name: the output head, and how codes lie.
fn own_engine(rules: &EngineRules) -> Vec<OsString> {
    let engine = rules.profile.bitnet.filter(|engine| *engine != BitNet::default());
    engine.map_or_else(Vec::new, |engine| vec!["--engine".into(), engine.to_string().into()])
}

/// The arguments of settings that nobody has planned or checked, for asking a program what it makes of them.
///
/// # Errors
/// The name of the first setting whose value the program has no flag for.
pub fn arguments(settings: &Settings, rules: &EngineRules) -> Result<Vec<String>, &'static str> {
    let mut arguments = Vec::new();
    for (flag, expression) in expressions(settings, rules) {
        match expression {
            Expression::Args(words) => arguments.extend(words),
            Expression::Impossible => return Err(flag.setting),
        }
    }
    Ok(arguments)
}

/// Settings out of an argument vector of llama-server or llama-cli, in any spelling of the table, and the arguments that
/// are none.
///
/// ```
/// let args = ["-m", "model.gguf", "-ngl", "99", "--no-repack", "-c", "8192"].map(String::from);
/// let (pins, rest) = planner::emit::read_args(&args).unwrap();
/// assert_eq!((pins.n_gpu_layers, pins.repack, pins.n_ctx), (Some(99), Some(false), Some(8192)));
/// assert_eq!(rest, ["-m", "model.gguf"]);
/// ```
///
/// # Errors
/// A flag without its value, or a value that the flag does not take; the text names the flag.
pub fn read_args(args: &[String]) -> Result<(Pins, Vec<String>), String> {
    let (mut pins, mut rest) = (Pins::default(), Vec::new());
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match flags::spelled(arg) {
            Some((flag, Some(value))) => flag.read(value, &mut pins)?,
            Some((flag, None)) => {
                let value = args.next().ok_or_else(|| format!("{arg} needs a value: {}", flag.metavar))?;
                flag.read(value, &mut pins).map_err(|error| format!("{arg}: {error}"))?;
            }
            None => rest.push(arg.clone()),
        }
    }
    Ok((pins, rest))
}
