//! Every knob of an engine that changes memory or speed, under llama-server's names.
//!
//! [`Settings`] is complete: each knob has a value. [`Pins`] is what a person has fixed: the same knobs, each optional.
//! Both come from one table, so they cannot drift apart.

mod cpu_mask;

pub use cpu_mask::CpuMask;

use crate::quant::QuantType;
use crate::words;

words! {
    /// Flash attention (`-fa`).
    FlashAttention {
        /// On where every device of the graph supports it.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

words! {
    /// How layers are spread over several GPUs (`-sm`).
    SplitMode {
        /// One GPU only.
        None = "none",
        /// Whole layers per GPU.
        Layer = "layer",
        /// Rows of each weight per GPU; deprecated upstream.
        Row = "row",
        /// Tensor parallel; experimental upstream.
        Tensor = "tensor",
    }
}

words! {
    /// How weights come into memory (`-lm`; older builds: `--mlock`, `--no-mmap`).
    LoadMode {
        /// Mapped, unless a device cannot.
        Auto = "auto",
        /// Read into anonymous memory.
        None = "none",
        /// Mapped from the file.
        Mmap = "mmap",
        /// Read and locked.
        Mlock = "mlock",
        /// Mapped and locked.
        MmapMlock = "mmap+mlock",
        /// Read with direct I/O.
        DirectIo = "dio",
    }
}

words! {
    /// What is handed out of the embeddings of a text's tokens (`--pooling`).
    Pooling {
        /// What the file says; without a word there, all of them.
        Model = "model",
        /// All of them.
        None = "none",
        /// Their mean.
        Mean = "mean",
        /// The first one.
        Cls = "cls",
        /// The last one.
        Last = "last",
        /// A score by the file's classifier, for rerankers.
        Rank = "rank",
    }
}

words! {
    /// Over which NUMA nodes threads are spread, and who touches mapped weights first (`--numa`).
    Numa {
        /// As the system has it: threads anywhere, and weights where their pages were read in.
        None = "none",
        /// The same number of threads on each node, each of which reads its share of the weights in.
        Distribute = "distribute",
        /// All threads on the node on which the engine has started.
        Isolate = "isolate",
        /// On the CPUs that `numactl` has given the engine.
        Numactl = "numactl",
    }
}

/// Which devices an engine may use (`-dev`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Every one that it finds, in its own order.
    #[default]
    All,
    /// These, by the engine's names and in this order; none of them is the CPU alone.
    Only(Vec<String>),
}

impl std::fmt::Display for Devices {
    /// `all`, `none`, or the names with commas between them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.pad("all"),
            Self::Only(names) if names.is_empty() => f.pad("none"),
            Self::Only(names) => f.pad(&names.join(",")),
        }
    }
}

impl std::str::FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "none" => Ok(Self::Only(Vec::new())),
            _ if text.split(',').any(|name| name.is_empty() || name.contains(char::is_whitespace)) => {
                Err(format!("{text:?} is not a list of devices by name: CUDA0,CUDA1, or none"))
            }
            _ => Ok(Self::Only(text.split(',').map(str::to_owned).collect())),
        }
    }
}

/// Types that a KV cache can have (llama.cpp v0.6.0-dev, `common/arg.cpp`, `kv_cache_types`).
pub const CACHE_TYPES: &[QuantType] = &[
    QuantType::F32,
    QuantType::F16,
    QuantType::BF16,
    QuantType::Q8_0,
    QuantType::Q4_0,
    QuantType::Q4_1,
    QuantType::IQ4_NL,
    QuantType::Q5_0,
    QuantType::Q5_1,
];

/// A rule that puts matching tensors into another buffer (`-ot PATTERN=BUFFER`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TensorOverride {
    /// Regular expression, searched in the tensor's name; the first rule that matches wins.
    pub pattern: String,
    /// Buffer type: `CPU`, `CUDA0`, ...
    pub buffer: String,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $ty:ty = $default:expr,)*) => {
        /// A complete configuration.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings { $($(#[$doc])* pub $field: $ty,)* }

        impl Default for Settings {
            /// What llama-server v0.6 uses when nothing is given, with one slot and 4096 tokens of context
            /// (`common/common.h:452-560`; its own `-c 0` means the trained context, which a plan decides).
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        /// What a person has fixed: kept as it is, and the rest planned around it.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Pins { $($(#[$doc])* pub $field: Option<$ty>,)* }

        impl Pins {
            /// Names of the pinned settings, in the order of the table.
            pub fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$field.is_some() { names.push(stringify!($field)); })*
                names
            }
            /// Writes every pinned value over `settings`.
            pub fn apply(&self, settings: &mut Settings) {
                $(if let Some(value) = &self.$field { settings.$field = value.clone(); })*
            }
            /// These pins, and where one is missing the one of `base`.
            pub fn or(self, base: Self) -> Self {
                Self { $($field: self.$field.or(base.$field),)* }
            }
        }

        impl From<Settings> for Pins {
            /// Everything fixed.
            fn from(settings: Settings) -> Self {
                Self { $($field: Some(settings.$field),)* }
            }
        }
    };
}

settings! {
    /// Context in tokens, over all sequences (`-c`).
    n_ctx: u32 = 4096,
    /// Logical batch: tokens handed over per call (`-b`).
    n_batch: u32 = 2048,
    /// Micro-batch: tokens computed at once (`-ub`).
    n_ubatch: u32 = 512,
    /// Sequences served in parallel (`-np`).
    n_parallel: u32 = 1,
    /// One KV cache shared by all sequences (`-kvu`).
    kv_unified: bool = false,
    /// Type of the K cache (`-ctk`).
    cache_type_k: QuantType = QuantType::F16,
    /// Type of the V cache (`-ctv`).
    cache_type_v: QuantType = QuantType::F16,
    /// Flash attention (`-fa`).
    flash_attn: FlashAttention = FlashAttention::Auto,
    /// Layers on GPUs, counted from the last, the output being one more than the layers (`-ngl`).
    n_gpu_layers: u32 = 0,
    /// Servers of remote devices, each `HOST:PORT` (`--rpc`).
    rpc_servers: Vec<String> = Vec::new(),
    /// Devices that the engine may use (`-dev`).
    devices: Devices = Devices::All,
    /// How layers are spread over GPUs (`-sm`).
    split_mode: SplitMode = SplitMode::Layer,
    /// Share of each GPU (`-ts`); empty: by free memory.
    tensor_split: Vec<f64> = Vec::new(),
    /// The GPU that is used alone with split mode `none` (`-mg`).
    main_gpu: u32 = 0,
    /// Tensor placement rules in order (`-ot`).
    tensor_overrides: Vec<TensorOverride> = Vec::new(),
    /// Layers, counted from the first, whose routed experts stay in host memory (`--n-cpu-moe`).
    n_cpu_moe: u32 = 0,
    /// KV cache beside its layer's weights instead of in host memory (off: `-nkvo`).
    kv_offload: bool = true,
    /// Compute large batches over host weights on the GPU (off: `--no-op-offload`).
    op_offload: bool = true,
    /// Full-size cache for sliding-window layers (`--swa-full`).
    swa_full: bool = false,
    /// Repack weights for the CPU (off: `--no-repack`).
    repack: bool = true,
    /// How weights come into memory (`-lm`).
    load_mode: LoadMode = LoadMode::Auto,
    /// Threads for decode (`-t`).
    threads: u32 = 1,
    /// Threads for prefill (`-tb`).
    threads_batch: u32 = 1,
    /// CPUs that threads of decode are held to (`-C`, `-Cr`).
    cpu_mask: CpuMask = CpuMask::default(),
    /// One CPU of the mask for each thread of decode (`--cpu-strict`).
    cpu_strict: bool = false,
    /// CPUs that threads of prefill are held to (`-Cb`, `-Crb`).
    cpu_mask_batch: CpuMask = CpuMask::default(),
    /// One CPU of the mask for each thread of prefill (`--cpu-strict-batch`).
    cpu_strict_batch: bool = false,
    /// Threads over NUMA nodes (`--numa`).
    numa: Numa = Numa::None,
    /// Limit of the server's prompt cache in host memory, in MiB; 0 disables it (`-cram`).
    cache_ram_mib: u32 = 8192,
    /// Context checkpoints per slot for models with windows or state (`-ctxcp`).
    ctx_checkpoints: u32 = 32,
    /// Hand out embeddings and no text (`--embedding`); encoders do nothing else.
    embeddings: bool = false,
    /// What is handed out of them (`--pooling`).
    pooling: Pooling = Pooling::Model,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_kept_and_the_rest_is_left_alone() {
        let pins = Pins { n_ctx: Some(8192), flash_attn: Some(FlashAttention::Off), ..Pins::default() };
        let mut settings = Settings::default();
        pins.apply(&mut settings);
        assert_eq!((settings.n_ctx, settings.flash_attn, settings.n_batch), (8192, FlashAttention::Off, 2048));
        assert_eq!(pins.names(), ["n_ctx", "flash_attn"]);
    }

    #[test]
    fn devices_are_named_as_the_engine_names_them() {
        for text in ["all", "none", "CUDA0", "RPC0,CUDA1"] {
            assert_eq!(text.parse::<Devices>().unwrap().to_string(), text);
        }
        for text in ["", ",", "CUDA0,", "CUDA0, CUDA1"] {
            assert!(text.parse::<Devices>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn words_are_the_engines() {
        assert_eq!("mmap+mlock".parse(), Ok(LoadMode::MmapMlock));
        assert_eq!("yes".parse::<FlashAttention>(), Err("\"yes\" is not one of auto, on, off".to_owned()));
    }
}
