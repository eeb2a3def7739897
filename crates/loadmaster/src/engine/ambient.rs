//! Settings that reach an engine besides its command line: llama.cpp's `config.ini` files and `LLAMA_ARG_*` variables.
//!
//! Precedence upstream: arguments, then environment, then the user's file, then the system's file (llama.cpp
//! v0.6.0-dev, `common/arg.cpp:718-767`). A plan writes out every setting it decides, so what remains dangerous is what
//! it does not write. Variables of that kind are taken out of the child's environment; the files belong to the user and
//! also hold keys and certificates, so they stay in force and are reported line by line.

use super::{Engine, Flags};
use planner::Invocation;
use std::path::{Path, PathBuf};

/// What becomes of a setting from outside the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interference {
    /// In force, and it can change memory, placement or speed: the plan may not hold.
    InForce,
    /// A variable that would interfere; taken out of the child's environment.
    Removed,
    /// The plan's own argument takes precedence.
    Overridden,
    /// In force, and it changes nothing that a plan speaks of.
    Harmless,
}

/// A setting from outside the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmbientSetting {
    /// Where it stands: `environment`, or a file with its line.
    pub origin: String,
    /// Its name there.
    pub key: String,
    /// Its value.
    pub value: String,
    /// What becomes of it.
    pub effect: Interference,
}

/// Finds what would reach `engine` besides `invocation`, and adds the variables that interfere to its `env_remove`.
pub fn ambient(engine: &Engine, invocation: &mut Invocation) -> Vec<AmbientSetting> {
    let environment = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.to_string_lossy().into_owned())));
    isolate(&engine.flags, invocation, environment, &config_files())
}

/// The files that llama.cpp reads on this system, those of lower precedence first.
fn config_files() -> Vec<PathBuf> {
    let system = match std::env::var_os("PROGRAMDATA") {
        Some(folder) if cfg!(windows) => PathBuf::from(folder).join("llama.cpp").join("config.ini"),
        _ => PathBuf::from("/etc/llama.cpp/config.ini"),
    };
    let user = crate::store::config_home().map(|folder| folder.join("llama.cpp").join("config.ini"));
    std::iter::once(system).chain(user).collect()
}

fn isolate(
    flags: &Flags,
    invocation: &mut Invocation,
    environment: impl Iterator<Item = (String, String)>,
    files: &[PathBuf],
) -> Vec<AmbientSetting> {
    let mut found = Vec::new();
    for (key, value) in environment.filter(|(key, _)| key.starts_with(PREFIX)) {
        let effect = match effect(flags, invocation, &key) {
            Interference::InForce => Interference::Removed,
            other => other,
        };
        // Overridden ones go too: the engine warns of each, and its log is what we read.
        if effect != Interference::Harmless && !invocation.env.contains_key(&key) && !invocation.env_remove.contains(&key) {
            invocation.env_remove.push(key.clone());
        }
        found.push(AmbientSetting { origin: "environment".into(), key, value, effect });
    }
    for file in files {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        found.extend(ini_settings(&text).map(|(line, key, value)| AmbientSetting {
            origin: place(file, line),
            effect: effect(flags, invocation, key),
            key: key.to_owned(),
            value: value.to_owned(),
        }));
    }
    found.sort_by(|a, b| (a.effect, &a.origin, &a.key).cmp(&(b.effect, &b.origin, &b.key)));
    found
}

fn place(file: &Path, line: usize) -> String {
    format!("{}:{line}", file.display())
}

/// Begins the names of variables that stand for options.
pub(super) const PREFIX: &str = "LLAMA_ARG_";

/// What follows [`PREFIX`] in variables that decide how a server talks, not how it computes. What is not named here is
/// taken to interfere, so that a variable of a newer build is on the safe side.
const HARMLESS: &[&str] = &[
    "AGENT",
    "ALIAS",
    "API_",
    "CHAT_TEMPLATE",
    "CONTEXT_SHIFT",
    "CORS_",
    "ENDPOINT_",
    "FREQUENCY_PENALTY",
    "JINJA",
    "MCP_",
    "MIN_P",
    "N_PREDICT",
    "OFFLINE",
    "PREFILL_ASSISTANT",
    "PRESENCE_PENALTY",
    "REASONING",
    "REPEAT_PENALTY",
    "REUSE_PORT",
    "SKIP_CHAT_PARSING",
    "SLOT_SAVE_PATH",
    "SSE_",
    "SSL_",
    "STATIC_PATH",
    "TAGS",
    "TEMPERATURE",
    "THINK",
    "THREADS_HTTP",
    "TIMEOUT",
    "TOOLS",
    "TOP_",
    "UI",
];

/// Options whose values add up instead of replacing each other (`common/arg.cpp`: `--override-tensor`, `--lora`, ...).
const ADDITIVE: &[&str] = &["--override-tensor", "--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled", "--override-kv"];

fn effect(flags: &Flags, invocation: &Invocation, key: &str) -> Interference {
    let flag = flags.by_key(key);
    let env = flag.and_then(|flag| flag.env.as_deref()).unwrap_or(key);
    if let Some(name) = env.strip_prefix(PREFIX)
        && HARMLESS.iter().any(|harmless| name.starts_with(harmless))
    {
        return Interference::Harmless;
    }
    let Some(flag) = flag else {
        // The engine ignores keys of files that it does not know; variables are never asked for.
        return if key.starts_with(PREFIX) { Interference::InForce } else { Interference::Harmless };
    };
    if env == "LLAMA_API_KEY" {
        return Interference::Harmless;
    }
    let given = invocation.args.iter().filter_map(|arg| arg.to_str()).any(|arg| flag.spellings.iter().any(|spelling| spelling == arg));
    let additive = flag.spellings.iter().any(|spelling| ADDITIVE.contains(&spelling.as_str()));
    if given && !additive { Interference::Overridden } else { Interference::InForce }
}

/// Line number, key and value of each setting that applies to every model: those before any section and those in
/// `[default]` and `[*]`. The other sections are presets of single models, which only the router reads.
fn ini_settings(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut applies = true;
    text.lines().enumerate().filter_map(move |(index, line)| {
        // As upstream: a comment begins at `;` or `#`, wherever it stands.
        let line = line.split([';', '#']).next().unwrap_or_default().trim();
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            applies = matches!(section.trim(), "default" | "*");
            return None;
        }
        let (key, value) = line.split_once('=')?;
        (applies && key.trim() != "version").then(|| (index + 1, key.trim(), value.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "\
-c,    --ctx-size N                     size of the prompt context
                                        (env: LLAMA_ARG_CTX_SIZE)
-ot,   --override-tensor <pattern>=<buffer type>,...
                                        override tensor buffer type
                                        (env: LLAMA_ARG_OVERRIDE_TENSOR)
-cmoe, --cpu-moe                        keep experts in the CPU
                                        (env: LLAMA_ARG_CPU_MOE)
--temp, --temperature N                 temperature
                                        (env: LLAMA_ARG_TEMPERATURE)
--api-key KEY                           API key
                                        (env: LLAMA_API_KEY)
-C,    --cpu-mask M                     CPU affinity mask
";

    fn invocation(args: &[&str]) -> Invocation {
        Invocation {
            program: "llama-server".into(),
            args: args.iter().map(|arg| (*arg).into()).collect(),
            env: std::collections::BTreeMap::new(),
            env_remove: Vec::new(),
        }
    }

    #[test]
    fn variables_that_interfere_are_removed_and_the_rest_is_left() {
        let mut invocation = invocation(&["-c", "4096"]);
        let environment = [
            ("LLAMA_ARG_CTX_SIZE", "99"),
            ("LLAMA_ARG_CPU_MOE", "1"),
            ("LLAMA_ARG_TEMPERATURE", "0"),
            ("LLAMA_ARG_NEW", "x"),
            ("PATH", "/"),
        ];
        let environment = environment.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        let found = isolate(&Flags::parse(HELP), &mut invocation, environment, &[]);
        let effects: Vec<_> = found.iter().map(|setting| (setting.key.as_str(), setting.effect)).collect();
        assert_eq!(
            effects,
            [
                ("LLAMA_ARG_CPU_MOE", Interference::Removed),
                ("LLAMA_ARG_NEW", Interference::Removed),
                ("LLAMA_ARG_CTX_SIZE", Interference::Overridden),
                ("LLAMA_ARG_TEMPERATURE", Interference::Harmless),
            ]
        );
        assert_eq!(invocation.env_remove, ["LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_CPU_MOE", "LLAMA_ARG_NEW"]);
    }

    #[test]
    fn files_are_reported_with_line_and_effect() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.ini");
        let text = "version = 1\nctx-size = 512 ; small\n[*]\nLLAMA_ARG_CPU_MOE = 1\nC = ff\n[qwen]\ncpu-moe = 1\n[default]\not = a=CPU\napi-key = s\nmystery = 1\n";
        std::fs::write(&file, text).unwrap();
        let mut invocation = invocation(&["--ctx-size", "4096", "-ot", "b=CPU"]);
        let found = isolate(&Flags::parse(HELP), &mut invocation, std::iter::empty(), &[folder.path().join("none.ini"), file]);
        let mut effects: Vec<_> = found.iter().map(|setting| (setting.key.as_str(), setting.value.as_str(), setting.effect)).collect();
        effects.sort_by_key(|effect| effect.0);
        assert_eq!(
            effects,
            [
                ("C", "ff", Interference::InForce),
                ("LLAMA_ARG_CPU_MOE", "1", Interference::InForce),
                ("api-key", "s", Interference::Harmless),
                ("ctx-size", "512", Interference::Overridden),
                ("mystery", "1", Interference::Harmless),
                ("ot", "a=CPU", Interference::InForce),
            ]
        );
        assert!(found.iter().any(|setting| setting.origin.ends_with("config.ini:2")));
        assert!(invocation.env_remove.is_empty());
    }
}
