//! The one table of flags: every setting with llama.cpp's spellings, the kind of its value, its help, and how its text is
//! read and written. Emission, validation, the command line's pins and configuration files all go by these rows.
//!
//! Spellings and values: `common/arg.cpp` of llama.cpp v0.6.0-dev (crate llama-cpp-sys-2 0.1.161) and the help texts of
//! 0.7.0; spellings of older builds where they are still in wide use.

use super::text::{self, Fixed};
use spec::Settings;
use spec::settings::{FlashAttention, LoadMode, Numa, Pins, SplitMode};

/// What text a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// A whole number from zero.
    Count,
    /// A switch: spellings that turn it on, and others that turn it off; no value follows.
    Switch,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Comma-separated numbers.
    Shares,
    /// `PATTERN=BUFFER`, comma-separated, and may be repeated.
    Overrides,
    /// Comma-separated names, or a word for all or none.
    Names,
    /// A hexadecimal mask of CPUs or ranges of them; may be repeated: the CPUs of all.
    Mask,
    /// A switch whose value follows as 0 or 1.
    Bit,
}

/// How llama-bench takes a setting; its flags differ from those of the other tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bench {
    /// Not at all: its tests decide.
    Nothing,
    /// The flag and the value.
    Value(&'static str),
    /// The flag and 1 or 0.
    On(&'static str),
    /// The flag and 0 or 1: it names the opposite.
    Off(&'static str),
}

/// One setting as a flag.
#[derive(Debug)]
pub struct Flag {
    /// Field of [`Settings`] and [`Pins`].
    pub setting: &'static str,
    /// Spellings that a value follows, short first; empty for switches.
    pub spellings: &'static [&'static str],
    /// Spellings that carry their value.
    pub fixed: &'static [Fixed],
    /// What follows.
    pub kind: ValueKind,
    /// Placeholder of the value in help: `N`, `TYPE`.
    pub metavar: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Environment variable that llama.cpp reads for it.
    pub env: &'static str,
    pub(crate) bench: Bench,
    read: fn(&str, &mut Pins) -> Result<(), String>,
    write: fn(&Settings) -> String,
}

impl Flag {
    /// Writes the value that `text` stands for into `pins`. `auto`, and -1 where llama.cpp means automatic by it, removes
    /// the pin; tensor overrides are appended.
    ///
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn read(&self, text: &str, pins: &mut Pins) -> Result<(), String> {
        (self.read)(text, pins)
    }
    /// The setting's value as text that [`Flag::read`] takes; empty for empty lists.
    pub fn write(&self, settings: &Settings) -> String {
        (self.write)(settings)
    }
    /// Long spelling in newest use, dashes included: `--ctx-size`, `--kv-offload`.
    pub fn long(&self) -> &'static str {
        let fixed = self.fixed.iter().find(|fixed| fixed.value == text::ON && fixed.flag.starts_with("--"));
        let valued = self.spellings.iter().rfind(|spelling| spelling.starts_with("--"));
        valued.copied().or(fixed.map(|fixed| fixed.flag)).unwrap_or(self.setting)
    }
    /// Every spelling, those that carry their value included.
    pub fn all_spellings(&self) -> impl Iterator<Item = &'static str> {
        self.spellings.iter().copied().chain(self.fixed.iter().map(|fixed| fixed.flag))
    }
}

const CACHE_TYPES: &[&str] = &["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"];
const CACHE_KIND: ValueKind = ValueKind::Word(CACHE_TYPES);

macro_rules! count {
    ($field:ident) => {
        (|text, pins| text::count(text, &mut pins.$field), |settings| settings.$field.to_string())
    };
}

macro_rules! switch {
    ($field:ident) => {
        (|text, pins| text::switch(text, &mut pins.$field), |settings| text::switch_word(settings.$field).to_owned())
    };
}

macro_rules! mask {
    ($field:ident) => {
        (|text, pins| text::mask(text, &mut pins.$field), |settings| settings.$field.to_string())
    };
}

macro_rules! bit {
    ($field:ident) => {
        (|text, pins| text::switch(text, &mut pins.$field), |settings| u8::from(settings.$field).to_string())
    };
}

macro_rules! word {
    ($field:ident) => {
        (|text, pins| text::word(text, &mut pins.$field), |settings| settings.$field.to_string())
    };
}

/// One row per line group: setting, spellings, fixed spellings, kind, placeholder, environment, llama-bench, help, and the
/// pair of functions that read and write it.
macro_rules! table {
    ($($setting:literal [$($spelling:literal),*] [$($flag:literal = $value:literal),*] $kind:expr, $metavar:literal, $env:literal,
       $bench:expr, $functions:expr, $help:literal;)*) => {
        static FLAGS: &[Flag] = &[$({
            const FUNCTIONS: (fn(&str, &mut Pins) -> Result<(), String>, fn(&Settings) -> String) = $functions;
            Flag {
                setting: $setting,
                spellings: &[$($spelling),*],
                fixed: &[$(Fixed { flag: $flag, value: $value }),*],
                kind: $kind,
                metavar: $metavar,
                help: $help,
                env: $env,
                bench: $bench,
                read: FUNCTIONS.0,
                write: FUNCTIONS.1,
            }
        }),*];
    };
}

table! {
    "n_ctx" ["-c", "--ctx-size"] [] ValueKind::Count, "N", "LLAMA_ARG_CTX_SIZE", Bench::Nothing, count!(n_ctx),
        "context in tokens over all slots; 0 takes the trained context";
    "n_batch" ["-b", "--batch-size"] [] ValueKind::Count, "N", "LLAMA_ARG_BATCH", Bench::Value("--batch-size"), count!(n_batch),
        "logical batch: tokens handed over per call";
    "n_ubatch" ["-ub", "--ubatch-size"] [] ValueKind::Count, "N", "LLAMA_ARG_UBATCH", Bench::Value("--ubatch-size"), count!(n_ubatch),
        "micro-batch: tokens computed at once";
    "n_parallel" ["-np", "--parallel"] [] ValueKind::Count, "N", "LLAMA_ARG_N_PARALLEL", Bench::Nothing,
        (|text, pins| text::count_or_auto(text, &mut pins.n_parallel), |settings| settings.n_parallel.to_string()),
        "slots: sequences served in parallel; -1 leaves it to the plan";
    "kv_unified" [] ["-kvu" = "on", "--kv-unified" = "on", "-no-kvu" = "off", "--no-kv-unified" = "off"]
        ValueKind::Switch, "", "LLAMA_ARG_KV_UNIFIED", Bench::Nothing, switch!(kv_unified), "one cache shared by all slots";
    "cache_type_k" ["-ctk", "--cache-type-k"] [] CACHE_KIND, "TYPE", "LLAMA_ARG_CACHE_TYPE_K", Bench::Value("--cache-type-k"),
        (|text, pins| text::cache_type(text, CACHE_TYPES, &mut pins.cache_type_k), |settings| settings.cache_type_k.to_string()),
        "type of the K cache";
    "cache_type_v" ["-ctv", "--cache-type-v"] [] CACHE_KIND, "TYPE", "LLAMA_ARG_CACHE_TYPE_V", Bench::Value("--cache-type-v"),
        (|text, pins| text::cache_type(text, CACHE_TYPES, &mut pins.cache_type_v), |settings| settings.cache_type_v.to_string()),
        "type of the V cache; a quantised one needs flash attention";
    "flash_attn" ["-fa", "--flash-attn"] [] ValueKind::Word(&["auto", "on", "off"]), "on|off|auto", "LLAMA_ARG_FLASH_ATTN",
        Bench::Value("--flash-attn"),
        (|text, pins| text::flash_attention(text, &mut pins.flash_attn), |settings| settings.flash_attn.to_string()),
        "flash attention";
    "n_gpu_layers" ["-ngl", "--gpu-layers", "--n-gpu-layers"] [] ValueKind::Count, "N", "LLAMA_ARG_N_GPU_LAYERS",
        Bench::Value("--n-gpu-layers"),
        (|text, pins| text::gpu_layers(text, &mut pins.n_gpu_layers), |settings| settings.n_gpu_layers.to_string()),
        "layers on GPUs, counted from the last, the output being one more; or all, or auto";
    "rpc_servers" ["--rpc"] [] ValueKind::Names, "HOST:PORT,...", "LLAMA_ARG_RPC", Bench::Value("--rpc"),
        (|text, pins| text::endpoints(text, &mut pins.rpc_servers), |settings| settings.rpc_servers.join(",")),
        "servers of remote devices (rpc-server)";
    "devices" ["-dev", "--device"] [] ValueKind::Names, "NAME,...", "LLAMA_ARG_DEVICE", Bench::Value("--device"), word!(devices),
        "devices to use, by the engine's names and in this order; or all, or none: the CPU alone";
    "split_mode" ["-sm", "--split-mode"] [] ValueKind::Word(&["none", "layer", "row", "tensor"]), "MODE", "LLAMA_ARG_SPLIT_MODE",
        Bench::Value("--split-mode"), word!(split_mode), "how layers are spread over several GPUs";
    "tensor_split" ["-ts", "--tensor-split"] [] ValueKind::Shares, "N0,N1,...", "LLAMA_ARG_TENSOR_SPLIT", Bench::Value("--tensor-split"),
        (|text, pins| text::shares(text, &mut pins.tensor_split), |settings| text::shares_text(&settings.tensor_split)),
        "share of each GPU";
    "main_gpu" ["-mg", "--main-gpu"] [] ValueKind::Count, "INDEX", "LLAMA_ARG_MAIN_GPU", Bench::Value("--main-gpu"), count!(main_gpu),
        "the GPU that split mode none uses";
    "tensor_overrides" ["-ot", "--override-tensor"] [] ValueKind::Overrides, "PATTERN=BUFFER,...", "LLAMA_ARG_OVERRIDE_TENSOR",
        Bench::Value("--override-tensor"),
        (|text, pins| text::overrides(text, &mut pins.tensor_overrides), |settings| text::overrides_text(&settings.tensor_overrides)),
        "put tensors whose name matches into a buffer such as CPU or CUDA0";
    "n_cpu_moe" ["-ncmoe", "--n-cpu-moe"] ["-cmoe" = "all", "--cpu-moe" = "all"] ValueKind::Count, "N", "LLAMA_ARG_N_CPU_MOE",
        Bench::Value("--n-cpu-moe"),
        (|text, pins| text::count_or_all(text, &mut pins.n_cpu_moe), |settings| settings.n_cpu_moe.to_string()),
        "layers, counted from the first, whose routed experts stay in host memory";
    "kv_offload" [] ["-kvo" = "on", "--kv-offload" = "on", "-nkvo" = "off", "--no-kv-offload" = "off"] ValueKind::Switch, "",
        "LLAMA_ARG_KV_OFFLOAD", Bench::Off("--no-kv-offload"), switch!(kv_offload), "keep the cache beside its layer's weights";
    "op_offload" [] ["--op-offload" = "on", "--no-op-offload" = "off"] ValueKind::Switch, "", "LLAMA_ARG_OP_OFFLOAD",
        Bench::Off("--no-op-offload"), switch!(op_offload), "compute large batches over host weights on the GPU";
    "swa_full" [] ["--swa-full" = "on"] ValueKind::Switch, "", "LLAMA_ARG_SWA_FULL", Bench::Nothing, switch!(swa_full),
        "full-size cache for layers that slide a window";
    "repack" [] ["--repack" = "on", "-nr" = "off", "--no-repack" = "off"] ValueKind::Switch, "", "LLAMA_ARG_REPACK",
        Bench::On("--repack"), switch!(repack), "repack weights for the CPU: a second copy of them in memory";
    "load_mode" ["-lm", "--load-mode"] ["--mmap" = "mmap", "--no-mmap" = "none", "--mlock" = "mmap+mlock", "-dio" = "dio", "--direct-io" = "dio"]
        ValueKind::Word(&["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"]), "MODE", "LLAMA_ARG_LOAD_MODE",
        Bench::Value("--load-mode"), word!(load_mode), "how weights come into memory";
    "threads" ["-t", "--threads"] [] ValueKind::Count, "N", "LLAMA_ARG_THREADS", Bench::Value("--threads"),
        (|text, pins| text::count_or_auto(text, &mut pins.threads), |settings| settings.threads.to_string()),
        "threads for decode; -1 leaves it to the plan";
    "threads_batch" ["-tb", "--threads-batch"] [] ValueKind::Count, "N", "", Bench::Nothing,
        (|text, pins| text::count_or_auto(text, &mut pins.threads_batch), |settings| settings.threads_batch.to_string()),
        "threads for prefill; -1 leaves it to the plan";
    "cpu_mask" ["-C", "-Cr", "--cpu-range", "--cpu-mask"] [] ValueKind::Mask, "HEX|LO-HI", "", Bench::Value("--cpu-mask"), mask!(cpu_mask),
        "CPUs that threads of decode are held to: a hexadecimal mask, or ranges; of several all count";
    "cpu_strict" ["--cpu-strict"] [] ValueKind::Bit, "0|1", "", Bench::Value("--cpu-strict"), bit!(cpu_strict),
        "one CPU of the mask for each thread of decode";
    "cpu_mask_batch" ["-Cb", "-Crb", "--cpu-range-batch", "--cpu-mask-batch"] [] ValueKind::Mask, "HEX|LO-HI", "", Bench::Nothing,
        mask!(cpu_mask_batch), "CPUs that threads of prefill are held to; without it, those that decode was given by hand";
    "cpu_strict_batch" ["--cpu-strict-batch"] [] ValueKind::Bit, "0|1", "", Bench::Nothing, bit!(cpu_strict_batch),
        "one CPU of the mask for each thread of prefill";
    "numa" ["--numa"] [] ValueKind::Word(&["none", "distribute", "isolate", "numactl"]), "TYPE", "LLAMA_ARG_NUMA", Bench::Value("--numa"),
        word!(numa), "threads evenly over NUMA nodes, on one of them, or where numactl has put them";
    "cache_ram_mib" ["-cram", "--cache-ram"] [] ValueKind::Count, "MIB", "LLAMA_ARG_CACHE_RAM", Bench::Nothing,
        (|text, pins| text::count_or_unlimited(text, &mut pins.cache_ram_mib), |settings| text::unlimited_text(settings.cache_ram_mib)),
        "limit of the server's prompt cache in host memory, in MiB; 0 disables it, -1 lifts it";
    "ctx_checkpoints" ["-ctxcp", "--swa-checkpoints", "--ctx-checkpoints"] [] ValueKind::Count, "N", "LLAMA_ARG_CTX_CHECKPOINTS",
        Bench::Nothing, count!(ctx_checkpoints), "context checkpoints per slot, for models with windows or state";
    "embeddings" [] ["--embedding" = "on", "--embeddings" = "on"] ValueKind::Switch, "", "LLAMA_ARG_EMBEDDINGS", Bench::On("--embeddings"),
        switch!(embeddings), "hand out embeddings and no text";
    "pooling" ["--pooling"] [] ValueKind::Word(&["model", "none", "mean", "cls", "last", "rank"]), "TYPE", "LLAMA_ARG_POOLING",
        Bench::Nothing, word!(pooling), "what is handed out of the embeddings; model: what the file says";
}

/// Every setting, in the order of [`Settings`].
pub fn flags() -> &'static [Flag] {
    FLAGS
}

/// The row of a setting.
pub fn flag(setting: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.setting == setting)
}

/// The row that a spelling belongs to, and the value it carries where it carries one.
///
/// ```
/// use planner::emit::flags::spelled;
/// assert_eq!(spelled("-ngl").map(|(flag, value)| (flag.setting, value)), Some(("n_gpu_layers", None)));
/// assert_eq!(spelled("--no-repack").map(|(flag, value)| (flag.setting, value)), Some(("repack", Some("off"))));
/// assert!(spelled("--temp").is_none());
/// ```
pub fn spelled(spelling: &str) -> Option<(&'static Flag, Option<&'static str>)> {
    FLAGS.iter().find_map(|flag| {
        if flag.spellings.contains(&spelling) {
            return Some((flag, None));
        }
        let fixed = flag.fixed.iter().find(|fixed| fixed.flag == spelling)?;
        Some((flag, Some(fixed.value)))
    })
}

/// The value of a setting as text.
pub fn value_text(settings: &Settings, setting: &str) -> String {
    match flag(setting).map(|flag| flag.write(settings)) {
        Some(text) if text.is_empty() => "none".to_owned(),
        Some(text) => text,
        None => String::new(),
    }
}

const _: () = {
    // The words of the table are those of the types; a new variant must be entered in both.
    assert!(FlashAttention::ALL.len() == 3 && SplitMode::ALL.len() == 4 && LoadMode::ALL.len() == 6 && Numa::ALL.len() == 4);
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_every_setting_once_in_order() {
        let names: Vec<&str> = FLAGS.iter().map(|flag| flag.setting).collect();
        assert_eq!(names, Pins::from(Settings::default()).names());
    }

    #[test]
    fn no_spelling_means_two_things_and_each_leads_back() {
        let spellings: Vec<&str> = FLAGS.iter().flat_map(Flag::all_spellings).collect();
        assert_eq!(spellings.iter().collect::<BTreeSet<_>>().len(), spellings.len());
        for flag in FLAGS {
            assert!(flag.long().starts_with("--"), "{}", flag.setting);
            assert!(!flag.help.is_empty() && flag.metavar.is_empty() == (flag.kind == ValueKind::Switch), "{}", flag.setting);
            assert!(flag.all_spellings().all(|spelling| spelled(spelling).is_some_and(|(found, _)| found.setting == flag.setting)));
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let settings = Settings {
            tensor_split: vec![3.0, 1.5],
            rpc_servers: vec!["10.0.0.2:50052".into(), "[::1]:50053".into()],
            devices: spec::settings::Devices::Only(vec!["RPC0".into(), "CUDA1".into()]),
            tensor_overrides: vec![spec::settings::TensorOverride { pattern: r"blk\.1\.".into(), buffer: "CPU".into() }],
            cache_ram_mib: super::super::ALL,
            cpu_mask: "0-5,8".parse().unwrap(),
            cpu_strict: true,
            numa: Numa::Isolate,
            kv_unified: true,
            repack: false,
            ..Settings::default()
        };
        let mut pins = Pins::default();
        FLAGS.iter().for_each(|flag| flag.read(&flag.write(&settings), &mut pins).unwrap());
        assert_eq!(pins, Pins::from(settings));
    }

    #[test]
    fn the_words_of_the_engine_are_taken_and_others_are_not() {
        let read = |setting: &str, text: &str| {
            let mut pins = Pins { threads: Some(3), ..Pins::default() };
            flag(setting).unwrap().read(text, &mut pins).map(|()| pins)
        };
        assert_eq!(read("threads", "-1").unwrap().threads, None);
        assert_eq!(read("n_gpu_layers", "all").unwrap().n_gpu_layers, Some(super::super::ALL));
        assert_eq!(read("n_gpu_layers", "auto").unwrap().n_gpu_layers, None);
        assert_eq!(read("flash_attn", "1").unwrap().flash_attn, Some(FlashAttention::On));
        assert_eq!(read("cpu_mask", "ff").unwrap().cpu_mask, read("cpu_mask", "0-7").unwrap().cpu_mask);
        assert_eq!(read("cpu_strict", "1").unwrap().cpu_strict, Some(true));
        assert_eq!(read("load_mode", "none").unwrap().load_mode, Some(LoadMode::None));
        for (setting, text) in [
            ("n_ctx", "-5"),
            ("n_ctx", "many"),
            ("n_ctx", "99999999999"),
            ("cache_type_k", "q4_K"),
            ("tensor_split", "0,0"),
            ("tensor_split", "1,x"),
            ("tensor_overrides", "no-buffer"),
            ("split_mode", "diagonal"),
            ("repack", "perhaps"),
            ("cpu_mask", "P-cores"),
            ("cpu_mask_batch", "0-512"),
            ("cpu_strict", "2"),
            ("numa", "mirror"),
        ] {
            assert!(read(setting, text).is_err(), "{setting} {text}");
        }
    }
}
