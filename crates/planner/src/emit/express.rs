//! How one setting becomes arguments of one program, or why it cannot.

use super::Tool;
use super::flags::{Bench, Flag, ValueKind, flags};
use super::text;
use crate::validate::EngineRules;
use spec::Settings;
use spec::settings::{Devices, FlashAttention, LoadMode, Numa, Pooling};

/// A setting on a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// These arguments; none where the program has nothing to be told.
    Args(Vec<String>),
    /// The program has no flag for this value.
    Impossible,
}

impl Expression {
    fn flag(flag: &str) -> Self {
        Self::Args(vec![flag.to_owned()])
    }
    fn value(flag: &str, value: impl Into<String>) -> Self {
        Self::Args(vec![flag.to_owned(), value.into()])
    }
    const NOTHING: Self = Self::Args(Vec::new());
}

/// Every setting with its expression, in the order of the table.
pub(crate) fn expressions<'a>(settings: &'a Settings, rules: &'a EngineRules) -> impl Iterator<Item = (&'static Flag, Expression)> + 'a {
    flags().iter().map(move |flag| (flag, express(flag, settings, rules)))
}

/// Settings that the BitNet engine has.
const BITNET: [&str; 5] = ["n_ctx", "n_ubatch", "cache_type_k", "cache_type_v", "threads"];

/// What it has besides with layers on a GPU.
const BITNET_ON_GPU: [&str; 2] = ["n_gpu_layers", "devices"];

/// Whether the BitNet engine has a setting in a plan of these.
pub(crate) fn bitnet_has(setting: &str, settings: &Settings) -> bool {
    BITNET.contains(&setting) || settings.n_gpu_layers > 0 && BITNET_ON_GPU.contains(&setting)
}

fn express(flag: &'static Flag, settings: &Settings, rules: &EngineRules) -> Expression {
    if flag.setting == "devices" && settings.devices == Devices::All {
        return Expression::NOTHING;
    }
    // A build that cannot be told uses no device for no layers.
    let nothing_there = settings.devices == Devices::Only(Vec::new()) && settings.n_gpu_layers == 0;
    if flag.setting == "devices" && nothing_there && !accepts("--device", rules) {
        return Expression::NOTHING;
    }
    if holds_nothing(flag.setting, settings) {
        return Expression::NOTHING;
    }
    if rules.tool == Tool::Bench {
        return for_bench(flag, settings, rules);
    }
    if rules.tool == Tool::BitNet {
        return if bitnet_has(flag.setting, settings) { plain(flag, settings, rules) } else { Expression::NOTHING };
    }
    match flag.setting {
        "flash_attn" if !takes_flash_attention_word(rules) => match settings.flash_attn {
            FlashAttention::Off => Expression::NOTHING,
            FlashAttention::On | FlashAttention::Auto => Expression::flag("--flash-attn"),
        },
        "load_mode" if accepted(flag.spellings, rules).is_none() => old_load_mode(settings.load_mode, rules),
        // llama-cli serves one sequence and has no such flag; with one sequence both ways are the same.
        "kv_unified" if rules.tool == Tool::Cli && settings.n_parallel == 1 => Expression::NOTHING,
        // The other spellings take no mask.
        "cpu_mask" => only("--cpu-mask", flag, settings, rules),
        "cpu_mask_batch" => only("--cpu-mask-batch", flag, settings, rules),
        "pooling" if settings.pooling == Pooling::Model => Expression::NOTHING,
        "n_cpu_moe" if settings.n_cpu_moe == 0 => Expression::NOTHING,
        "n_cpu_moe" if accepted(flag.spellings, rules).is_none() => experts_by_pattern(settings.n_cpu_moe, rules),
        _ => plain(flag, settings, rules),
    }
}

/// No mask, and nothing strict about it; no strategy for nodes: what no flag can say, and no flag need say.
fn holds_nothing(setting: &str, settings: &Settings) -> bool {
    match setting {
        "cpu_mask" => settings.cpu_mask.is_empty(),
        "cpu_mask_batch" => settings.cpu_mask_batch.is_empty(),
        "cpu_strict" => !settings.cpu_strict,
        "numa" => settings.numa == Numa::None,
        "cpu_strict_batch" => !settings.cpu_strict_batch,
        _ => false,
    }
}

fn only(spelling: &str, flag: &'static Flag, settings: &Settings, rules: &EngineRules) -> Expression {
    if accepts(spelling, rules) { Expression::value(spelling, flag.write(settings)) } else { Expression::Impossible }
}

fn plain(flag: &'static Flag, settings: &Settings, rules: &EngineRules) -> Expression {
    let value = flag.write(settings);
    if value.is_empty() {
        return Expression::NOTHING;
    }
    let spelling = if flag.kind == ValueKind::Switch {
        let spellings: Vec<&str> = flag.fixed.iter().filter(|fixed| fixed.value == value).map(|fixed| fixed.flag).collect();
        accepted(&spellings, rules).map(Expression::flag)
    } else {
        accepted(flag.spellings, rules).map(|spelling| Expression::value(spelling, value.clone()))
    };
    spelling.unwrap_or_else(|| {
        let is_default = value == flag.write(&Settings::default());
        if is_default || may_be_absent(flag.setting) { Expression::NOTHING } else { Expression::Impossible }
    })
}

/// Settings of features that a build without the flag does not have at all.
fn may_be_absent(setting: &str) -> bool {
    matches!(setting, "cache_ram_mib" | "ctx_checkpoints" | "op_offload")
}

/// The last (longest, newest) spelling that the program accepts; without knowledge of it, the last one.
fn accepted<'a>(spellings: &[&'a str], rules: &EngineRules) -> Option<&'a str> {
    let long = spellings.iter().rev().filter(|spelling| spelling.starts_with("--"));
    let mut candidates = long.chain(spellings.iter().filter(|spelling| !spelling.starts_with("--"))).copied();
    candidates.find(|spelling| accepts(spelling, rules))
}

pub(crate) fn accepts(spelling: &str, rules: &EngineRules) -> bool {
    rules.accepted.as_ref().is_none_or(|accepted| accepted.contains(spelling))
}

/// Builds before September 2025 took `--flash-attn` as a bare switch, off without it. `--help` names flags, not their
/// values, so the prompt cache, which came six weeks later, tells them apart.
fn takes_flash_attention_word(rules: &EngineRules) -> bool {
    accepts("--cache-ram", rules) || accepts("--load-mode", rules) || accepts("--fit", rules)
}

/// Spellings of builds before `--load-mode`.
fn old_load_mode(mode: LoadMode, rules: &EngineRules) -> Expression {
    let flags: &[&str] = match mode {
        LoadMode::Auto | LoadMode::Mmap => return Expression::NOTHING,
        LoadMode::None => &["--no-mmap"],
        LoadMode::Mlock => &["--mlock", "--no-mmap"],
        LoadMode::MmapMlock => &["--mlock"],
        LoadMode::DirectIo => &["--direct-io"],
    };
    if flags.iter().all(|flag| accepts(flag, rules)) {
        Expression::Args(flags.iter().map(|flag| (*flag).to_owned()).collect())
    } else {
        Expression::Impossible
    }
}

/// What `--n-cpu-moe` stands for, as a pattern (`common/arg.cpp:2770`, `common/common.h` `LLM_FFN_EXPS_REGEX`).
fn experts_by_pattern(layers: u32, rules: &EngineRules) -> Expression {
    let Some(spelling) = accepted(&["-ot", "--override-tensor"], rules) else { return Expression::Impossible };
    let numbers: Vec<String> = (0..layers).map(|layer| layer.to_string()).collect();
    Expression::value(spelling, format!("blk\\.({})\\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU", numbers.join("|")))
}

/// llama-bench: other spellings, 0 and 1 for switches, and no flags for what its tests decide.
fn for_bench(flag: &'static Flag, settings: &Settings, rules: &EngineRules) -> Expression {
    let value = match flag.setting {
        // Commas separate the values of a sweep there.
        "tensor_split" | "devices" => flag.write(settings).replace(',', "/"),
        "tensor_overrides" => flag.write(settings).replace(',', ";"),
        _ => flag.write(settings),
    };
    let is_default = value == flag.write(&Settings::default());
    let number = |on: bool| if on { "1" } else { "0" };
    let (spelling, value) = match flag.bench {
        Bench::Nothing => return Expression::NOTHING,
        _ if value.is_empty() => return Expression::NOTHING,
        Bench::Value(spelling) => (spelling, value),
        Bench::On(spelling) => (spelling, number(value == text::ON).to_owned()),
        Bench::Off(spelling) => (spelling, number(value != text::ON).to_owned()),
    };
    match accepts(spelling, rules) {
        true => Expression::value(spelling, value),
        false if is_default => Expression::NOTHING,
        false => Expression::Impossible,
    }
}
