//! The rules as a table: one row per rule, which the checks, `validate --rules` and this documentation go by.

use super::{Severity, Violation};

/// A rule over settings, machine, model and engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its stable name: `context-above-trained`.
    pub id: &'static str,
    /// How bad it is to break it, where nothing else is said.
    pub severity: Severity,
    /// When it is broken.
    pub condition: &'static str,
    /// What shows it, or who says so.
    pub evidence: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// True where the engine ignores the setting without a word, or makes something else of it.
    pub quiet: bool,
}

impl Rule {
    /// The rule as broken by this setting.
    pub(super) fn broken(&self, setting: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Violation {
        self.broken_as(self.severity, setting, message, fix)
    }

    /// As [`Rule::broken`], with another severity than usual.
    pub(super) fn broken_as(
        &self,
        severity: Severity,
        setting: &'static str,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Violation {
        Violation { severity, rule: self.id, setting, message: message.into(), fix: fix.into() }
    }
}

macro_rules! rules {
    ($($name:ident = $id:literal, $severity:ident, $quiet:literal, $condition:literal, $evidence:literal, $fix:literal;)*) => {
        $(pub(super) const $name: Rule = Rule {
            id: $id,
            severity: Severity::$severity,
            condition: $condition,
            evidence: $evidence,
            fix: $fix,
            quiet: $quiet,
        };)*

        /// Every rule: errors and warnings over settings, then over memory, then over the state of the machine.
        pub const RULES: &[Rule] = &[$($name,)*];
    };
}

rules! {
    ZERO = "zero", Error, true,
        "batch, micro-batch, slots or threads are 0", "the setting", "take 1 or more";
    UBATCH_ABOVE_BATCH = "ubatch-above-batch", Error, true,
        "the micro-batch is larger than the batch", "llama.cpp cuts it in silence (src/llama-context.cpp)", "lower -ub, or raise -b";
    POOLING_OF_NOTHING = "pooling-of-nothing", Warning, true,
        "a pooling of embeddings without embeddings", "the settings", "take --embedding too";
    TOO_MANY_SLOTS = "too-many-slots", Error, false,
        "more slots than sequences of a context", "LLAMA_MAX_SEQ, 256 (src/llama-cparams.h)", "take fewer";
    CONTEXT_ABOVE_TRAINED = "context-above-trained", Warning, false,
        "a sequence may grow longer than the model was trained for; an error where the planner itself chose it",
        "context_length of the model's file", "take a shorter context, or a RoPE scaling that the model supports";
    CONTEXT_UNKNOWN = "context-unknown", Error, false,
        "context 0, which stands for the trained one, of a file that states none", "the model's file", "give a number of tokens";
    CONTEXT_ROUNDED = "context-rounded", Warning, true,
        "a context that is no multiple of 256", "llama.cpp rounds up (src/llama-context.cpp)", "take the multiple";
    SLOT_CONTEXT_SMALL = "slot-context-small", Warning, false,
        "less than 1024 tokens for each slot", "context over slots", "a larger context, or --kv-unified";
    REQUEST_LONGER_THAN_CONTEXT = "request-longer-than-context", Warning, false,
        "a request that is planned for takes more tokens than a slot has", "the use case or what was said of requests; llama-server refuses such prompts and ends such answers",
        "a larger context, or shorter requests";
    QUANTISED_V_WITHOUT_FLASH_ATTENTION = "quantised-v-without-flash-attention", Error, false,
        "a quantised V cache with flash attention off", "llama.cpp refuses it (src/llama-context.cpp)", "take -fa auto, or -ctv f16";
    LATENT_CACHE_TYPES_DIFFER = "latent-cache-types-differ", Error, false,
        "K and V of different types where latent attention keeps one cache", "llama.cpp refuses it", "take one type for both";
    COARSE_CACHE = "coarse-cache", Warning, false,
        "a cache below 8 bits per element", "the type's block", "take q8_0 where memory allows";
    CACHE_BLOCK_AND_HEAD = "cache-block-and-head", Error, false,
        "blocks of the cache's type do not divide the width of a head", "llama.cpp refuses it (src/llama-context.cpp)", "take f16";
    GPU_LAYERS_CLAMPED = "gpu-layers-clamped", Warning, true,
        "more layers for GPUs than the model has", "llama.cpp takes all", "take the number that there is";
    MAIN_GPU_RANGE = "main-gpu-range", Error, true,
        "a main GPU that does not exist", "devices of the engine", "count from 0";
    SPLIT_MODE_ROW = "split-mode-row", Warning, false,
        "split mode row with GPUs", "deprecated upstream; backends without split buffers refuse it", "take -sm layer";
    SPLIT_MODE_TENSOR = "split-mode-tensor", Warning, false,
        "split mode tensor with GPUs", "experimental upstream", "take -sm layer";
    NO_EXPERTS = "no-experts", Warning, true,
        "experts for the CPU of a model that has none", "the model's tensors", "leave out --n-cpu-moe";
    RPC_SERVER_UNNAMED = "rpc-server-unnamed", Warning, true,
        "a device of an rpc-server without its address", "devices of the engine", "add --rpc HOST:PORT";
    NO_DEVICE = "no-device", Warning, true,
        "settings for GPUs where the engine has none", "devices of the engine", "leave them out, or use another build";
    TENSOR_SPLIT_EMPTY = "tensor-split-empty", Error, false,
        "shares that give no device anything", "the setting", "give at least one device a share above 0";
    TENSOR_SPLIT_UNUSED = "tensor-split-unused", Warning, true,
        "shares under split mode none", "llama.cpp uses one GPU then", "leave out -ts, or take -sm layer";
    TENSOR_SPLIT_LENGTH = "tensor-split-length", Error, true,
        "more shares than devices; a warning where there are fewer", "devices of the engine", "give one for each device";
    OVERRIDE_BUFFER = "override-buffer", Error, false,
        "an override to a buffer that does not exist", "devices of the engine", "name CPU or a device";
    OVERRIDE_SEPARATOR = "override-separator", Error, true,
        "a comma or an equals sign in the pattern of an override", "llama.cpp splits there (common/arg.cpp)", "write it without";
    OVERRIDE_PATTERN = "override-pattern", Error, false,
        "a pattern that is no regular expression", "the pattern", "correct it";
    OVERRIDE_MATCHES_NOTHING = "override-matches-nothing", Warning, true,
        "an override that matches no tensor", "the model's tensors", "compare it with the names that `inspect` shows";
    THREADS_ABOVE_CPUS = "threads-above-cpus", Warning, false,
        "more threads than CPUs that may be used", "affinity, cpuset and quota of this process", "take as many as cores";
    THREADS_ABOVE_CORES = "threads-above-cores", Warning, false,
        "more threads for decode than physical cores that may be used", "affinity and topology", "take as many as cores";
    THREADS_ON_SLOW_CORES = "threads-on-slow-cores", Warning, false,
        "threads span kinds of cores: the fast ones wait for the slow ones", "kinds of core", "take as many as fast cores";
    CPUS_OF_SLOW_CORES_ONLY = "cpus-of-slow-cores-only", Warning, false,
        "the CPUs that may be used are all of the slower kind", "affinity and kinds of core", "start it without the mask, or with the fast cores in it";
    SLOW_CORES_IN_MASK = "slow-cores-in-mask", Warning, false,
        "the mask of decode names slower cores beside fast ones", "kinds of core", "take the fast ones alone";
    CPU_MASK_FORBIDDEN = "cpu-mask-forbidden", Warning, false,
        "a mask names CPUs that this process may not use", "affinity and cpuset of this process", "choose of those that it may";
    CPU_MASK_IGNORED = "cpu-mask-ignored", Warning, true,
        "a mask, or a part of it, that the system does not take", "llama.cpp sets none on macOS, and 64 bits on Windows (ggml-cpu.c)", "leave it out";
    CPU_STRICT_WITHOUT_MASK = "cpu-strict-without-mask", Warning, true,
        "one CPU for each thread, and no mask to choose of", "llama.cpp holds threads to nothing then (ggml-cpu.c)", "name the CPUs";
    NUMA_OF_ONE_NODE = "numa-of-one-node", Warning, true,
        "a strategy for NUMA nodes where there is one, or on a system on which llama.cpp has none",
        "the machine's nodes; llama.cpp does it on Linux (ggml-cpu.c)", "leave out --numa";
    NUMA_OVER_MASK = "numa-over-mask", Warning, true,
        "a strategy for NUMA nodes beside a mask of CPUs", "llama.cpp gives threads the strategy's CPUs at every step (ggml-cpu.c)", "take one of both";
    NUMA_NODES_LEFT_OUT = "numa-nodes-left-out", Warning, false,
        "threads are spread over nodes some of which have no CPUs, or over more than eight",
        "the machine's nodes; llama.cpp counts every node, and eight at most (ggml-cpu.c)", "take numactl, with --numa numactl";
    NUMA_BEYOND_AFFINITY = "numa-beyond-affinity", Warning, false,
        "a strategy gives threads all CPUs of a node, and this process may not use them all", "affinity of this process; ggml-cpu.c", "take --numa numactl, which keeps to them";
    NUMA_ISOLATED_THREADS = "numa-isolated-threads", Warning, false,
        "more threads on one node than it has cores", "the machine's nodes", "take as many as cores of a node";
    NUMA_ISOLATED_MEMORY = "numa-isolated-memory", Warning, false,
        "threads of one node read what its memory cannot hold", "the computed requirement, and memory of the nodes", "take --numa distribute";
    NUMA_ON_ONE_NODE = "numa-on-one-node", Warning, false,
        "threads are spread over nodes, and one thread lays down all weights: they lie on its node",
        "llama.cpp spreads weights that threads read in from the mapped file themselves (src/llama-mmap.cpp)", "take -lm mmap and --no-repack";
    ENGINE_CANNOT_EXPRESS = "engine-cannot-express", Error, false,
        "the program has no flag for a setting", "its --help", "take the default, or a newer build";
    ENGINE_REFUSES = "engine-refuses", Error, false,
        "the engine refuses the settings", "the rules of its profile", "change the setting that it names";

    MEMORY_OVER_LIMIT = "memory-over-limit", Error, false,
        "a pool of memory needs more than is free", "the computed requirement, and free memory", "fewer layers there, a shorter context, a smaller micro-batch";
    MEMORY_TIGHT = "memory-tight", Warning, false,
        "a pool of memory is filled above 90 % (of a plan: into its margin)", "the computed requirement, and free memory", "leave a tenth for peaks and for other programs";
    SHARED_LIMIT = "shared-limit", Warning, false,
        "a GPU that shares the host's memory is filled above 90 % of the limit that the system sets it, while the host has more",
        "the limit: Metal's working set, GTT", "raise the limit (macOS: sysctl iogpu.wired_limit_mb; amdgpu: ttm.pages_limit)";
    WEIGHTS_NOT_RESIDENT = "weights-not-resident", Warning, false,
        "mapped weights do not stay in memory", "the computed requirement, and free memory", "a smaller quantisation, or more layers on a GPU";
    MAPPED_TIGHT = "mapped-tight", Warning, false,
        "mapped weights stay in memory only while other programs take less than a tenth of what is free",
        "the computed requirement, and free memory", "a smaller quantisation, or --load-mode none, which other programs cannot push out";
    PROMPT_CACHE_MAY_GROW = "prompt-cache-may-grow", Warning, false,
        "prompt cache and checkpoints may grow past what is left", "--cache-ram and --ctx-checkpoints, and free memory", "lower them";
    LOCK_OVER_MEMORY = "lock-over-memory", Error, false,
        "weights to be locked are larger than free memory", "the computed requirement", "take -lm auto";
    LOCK_LIMIT = "lock-limit", Warning, false,
        "locked memory needs a limit that is high enough", "ulimit -l, which is not known here", "raise it, or take -lm auto";
    SWAP_IN_USE = "swap-in-use", Warning, false,
        "programs lie in swap already, and the plan takes most of what is free", "swap in use, and the computed requirement", "end other programs, or leave a larger margin";

    ON_BATTERY = "on-battery", Warning, false,
        "the machine runs on its battery", "the power supply", "plug it in, or plan with --power saver";
    SAVING_POWER = "saving-power", Warning, false,
        "a power profile or governor holds the processor down that computes", "the power profile, the governor", "choose the profile performance";
    HOST_THROTTLED = "host-throttled", Warning, false,
        "the processor that computes is at 92 °C or above, or runs below its clock", "its sensors", "improve its cooling, or take fewer threads";
    GPU_THROTTLED = "gpu-throttled", Warning, false,
        "a GPU that computes runs below its clock", "its driver", "improve its cooling, or raise its power limit";
    SUSTAINED_HEAT = "sustained-heat", Warning, false,
        "a phone, a tablet or a module is to compute with all its cores: it slows down after some minutes",
        "the platform", "take half of the threads (--power saver) for long work, or a smaller model";
    LINK_NARROW = "link-narrow", Warning, false,
        "weights stay on the host and their GPU is connected by fewer lanes than it has, or by four or fewer",
        "the link as it runs now, and what it could", "use the slot next to the processor, or keep all layers on one side";
    BAR_SMALL = "bar-small", Warning, false,
        "weights stay on the host and the host addresses only a part of the GPU's memory", "the size of its BAR", "switch on Resizable BAR in the firmware";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_there_once_and_every_cell_is_filled() {
        let ids: BTreeSet<&str> = RULES.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), RULES.len());
        for rule in RULES {
            assert!(rule.id.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", rule.id);
            assert!([rule.condition, rule.evidence, rule.fix].iter().all(|cell| !cell.is_empty()), "{}", rule.id);
        }
    }
}
