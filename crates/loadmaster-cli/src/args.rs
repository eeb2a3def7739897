//! What can be typed: commands, options and their help. Nothing here touches the system.

mod hardware;
mod recommend;

pub use hardware::{HardwareArgs, HardwareCommand};
pub use recommend::RecommendArgs;

use crate::exit::Exit;
use crate::pins::PinArgs;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use loadmaster::beside::{Beside, OWN_DRAFT, draft_layers};
use loadmaster::footprint::EngineProfile;
use loadmaster::formats::{FileType, ParseFileTypeError};
use loadmaster::known::ModelSize;
use loadmaster::open::SIZE;
use loadmaster::planner::plan::{DevicePreference, DiskPolicy, Margin, Power, Priority, UseCase};
use spec::settings::CACHE_TYPES;
use spec::{Bytes, QuantType};
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// Find the best way to run a GGUF model on a machine, and prove it.
#[derive(Debug, Parser)]
#[command(name = "loadmaster", bin_name = "loadmaster", version, propagate_version = true, subcommand_required = true)]
#[command(args_override_self = true, disable_help_flag = true, max_term_width = 110, after_help = after_help())]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Print the result as JSON (schemas are in the project's `schemas` folder)
    #[arg(long, global = true)]
    pub json: bool,
    /// Pretend another machine: a recording made by `detect --capture`, an id that `hardware list` shows, or a description such as
    /// `rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x`, `m3-max-40c-64gb`, `ram=64GiB,cores=8,gpu=24GiB,gpu=24GiB`
    #[arg(long, global = true, value_name = "FILE|TEXT", value_hint = ValueHint::FilePath)]
    pub machine: Option<String>,
    /// Pretend that the machine has this much memory
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub ram: Option<Bytes>,
    /// Pretend that a GPU has this much memory, all of it free: `0=8GiB`; once per GPU
    #[arg(long, global = true, value_name = "N=SIZE", value_parser = gpu_memory)]
    pub gpu_memory: Vec<(usize, Bytes)>,
    /// Print results and errors only, nothing else
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say where each value comes from, and what the engine logs
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value_t = Color::Auto)]
    pub color: Color,
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

/// A size with its unit; a bare number would be bytes, which nobody means here.
fn size(text: &str) -> Result<Bytes, String> {
    let size: Bytes = text.parse().map_err(|error: spec::units::ParseBytesError| error.to_string())?;
    if size < Bytes::from_mib(1) { Err(format!("{size} is too small; write the unit, e.g. 16GiB")) } else { Ok(size) }
}

/// `0=8GiB`.
fn gpu_memory(text: &str) -> Result<(usize, Bytes), String> {
    let (index, bytes) = text.split_once('=').ok_or("write the number of the GPU and its memory, e.g. 0=8GiB")?;
    let index = index.trim().parse().map_err(|_| format!("not the number of a GPU: {index:?}"))?;
    Ok((index, size(bytes)?))
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl std::fmt::Display for Color {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the machine: processors, memory, GPUs, and what of them this process may use
    Detect(DetectArgs),
    /// Say what slows models down on the machine, what shows it, and what helps
    Doctor,
    /// Show hardware profiles: settings and speeds of kinds of machine, and which of them a machine is nearest to
    Hardware(HardwareArgs),
    /// Show a model: layers, parameters, quantisation, and what it asks of this machine
    Inspect(InspectArgs),
    /// Show how much memory a model needs, per device and component, at load and peak
    Memory(MemoryArgs),
    /// Compare the computed memory with an engine's own dry run, buffer by buffer
    Verify(VerifyArgs),
    /// Predict the speed of a model on a machine over the length of the context, and the time of a request
    Predict(Box<PredictArgs>),
    /// Rank models for the machine: files at hand, known models, or one model in every quantisation
    Recommend(RecommendArgs),
    /// Choose the settings for a model on a machine, and say why
    Plan(PlanArgs),
    /// Check a configuration file against the machine and the engine's rules
    Validate(ValidateArgs),
    /// Run a model with settings that fit, and compare what happened with the plan
    Run(RunArgs),
    /// Serve a model through llama-server with settings that fit
    Serve(ServeArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    #[command(hide = true)]
    Man(ManArgs),
    /// Write the JSON schemas of all outputs
    #[command(hide = true)]
    Schemas(SchemasArgs),
    /// Be the engine process of `run`
    #[command(hide = true)]
    EngineChild,
    /// Become an engine process that ends with its parent
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    /// Ask the libraries of drivers what the other process wants to know
    #[command(hide = true)]
    DriverChild,
}

/// `predict`
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// The model.
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Instead of a model, a table of measurements (CSV): at least the columns device, model, test (`pp512`, `tg128`) and tokens_per_s, the
    /// last of which may be empty; also quant, device_kind, memory_bandwidth_gbs, backend, engine, depth, flash_attn, ubatch,
    /// file_size_gib, ... What is missing is looked up by name or taken as unknown
    #[arg(long, value_name = "CSV", value_hint = ValueHint::FilePath, requires = "output", conflicts_with_all = ["model", "model_size", "svg"])]
    pub table: Option<PathBuf>,
    /// Where to write the table with p10, p50, p90 (tokens per second), basis, error and anomaly beside each row
    #[arg(long, value_name = "CSV", value_hint = ValueHint::FilePath, requires = "table", conflicts_with_all = ["model", "model_size"])]
    pub output: Option<PathBuf>,
    /// Write the curves as an SVG document
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// The engine whose rules apply: `bundled`, `bitnet`, or the path of a llama-server; without it, for BitNet models our own, else
    /// the llama-server on PATH, or the newest one known
    #[arg(long, value_name = "bundled|PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// What the settings are chosen for, and the requests that times are given of.
    #[command(flatten)]
    pub wishes: Wishes,
    /// What is loaded beside the model.
    #[command(flatten)]
    pub beside: CompanionArgs,
    /// Fixed settings.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `detect`
#[derive(Debug, Args)]
pub struct DetectArgs {
    /// Also wake GPUs that sleep and ask Vulkan: takes up to seconds
    #[arg(long)]
    pub full: bool,
    /// Write a recording of this machine for `--machine`, serial numbers and host names removed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub capture: Option<PathBuf>,
    /// Pretend that only this many logical CPUs may be used
    #[arg(short, long, value_name = "N")]
    pub threads: Option<u32>,
}

/// A model that need not be there: to look at and to plan, not to run.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// The model: a GGUF file, or the first of its shards; a folder of safetensors with its config.json; `ollama:NAME`;
    /// the URL of a GGUF file, of which only the header is fetched; or the name of a model that many people run, such as
    /// `qwen3-8b`, whose published shape is taken
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "model_size")]
    model: Option<PathBuf>,
    /// In place of a model, the shape that is typical of this size: `8B`, `350M`, with experts `30B-A3B`
    #[arg(long, value_name = "SIZE", value_parser = model_size, conflicts_with = "model")]
    model_size: Option<ModelSize>,
    /// Plan weights that are not a GGUF file yet as the file of this type that llama-quantize would make of them: `Q4_K_M`,
    /// `Q8_0`, `BF16`, ...; without it, safetensors as converted, in 16 bits, and a name or size in Q4_K_M, of which `plan` takes
    /// the best type that meets the use case in full
    #[arg(long, value_name = "TYPE", value_parser = quant)]
    pub quant: Option<FileType>,
}

impl SubjectArgs {
    /// The model, as the library takes it.
    pub fn model(&self) -> PathBuf {
        match (&self.model, self.model_size) {
            (Some(model), _) => model.clone(),
            (None, Some(size)) => format!("{SIZE}{size}").into(),
            (None, None) => PathBuf::new(),
        }
    }
}

fn model_size(text: &str) -> Result<ModelSize, String> {
    text.parse()
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The model.
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Pretend that only this many logical CPUs may be used
    #[arg(short, long, value_name = "N")]
    pub threads: Option<u32>,
}

/// `memory`
#[derive(Debug, Args)]
pub struct MemoryArgs {
    /// The model.
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// The engine whose rules apply: `bundled`, `bitnet`, or the path of a llama-server; without it, for BitNet models our own, else
    /// the llama-server on PATH, or the newest one known
    #[arg(long, value_name = "bundled|PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// Ask the bundled engine for its own dry run on pretended GPUs of these sizes and compare to the byte; exit with 6 where
    /// they disagree
    #[arg(long)]
    pub prove: bool,
    /// Apply the rules of this engine and version instead: `server-0.7.0`, `bench-0.7.0`, `llama.cpp-2025-03`,
    /// `llama.cpp-b5192`, `ik_llama.cpp-2025-07` or `ik_llama.cpp-b3826` with that fork's own flags behind it (`ik_llama.cpp
    /// -mla 3 -amb 512 -fmoe -rtr GGML_SCHED_MAX_COPIES=1`), ...; a name that does not exist lists those that do
    #[arg(long, value_name = "NAME", value_parser = engine_profile)]
    pub engine_profile: Option<EngineProfile>,
    /// Show for each number the rule that it follows, the line of llama.cpp that the rule mirrors, and the arithmetic
    #[arg(long)]
    pub explain: bool,
    /// Write the picture as an SVG document
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// What is loaded beside the model.
    #[command(flatten)]
    pub beside: CompanionArgs,
    /// Fixed settings.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The model: a GGUF file, or the first of its shards
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Whose dry run: `bundled`, on pretended GPUs of the machine's sizes, or the path of a llama-fit-params, on this machine
    #[arg(long, value_name = "bundled|PATH", default_value = "bundled", value_hint = ValueHint::ExecutablePath)]
    pub engine: String,
    /// Fixed settings.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The model.
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// The engine whose rules apply: `bundled`, `bitnet`, or the path of a llama-server; without it, for BitNet models our own, else
    /// the llama-server on PATH, or the newest one known
    #[arg(long, value_name = "bundled|PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// What the plan is for.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Write the plan as a configuration file for `run --config` and `validate`
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Say of every setting where it comes from and what it would cost to change it
    #[arg(long)]
    pub explain: bool,
    /// Write the plan among its alternatives as an SVG document
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    /// Accept no downgrade: exit with 4 where the wish does not fit as it is
    #[arg(long)]
    pub strict: bool,
    /// Ask the bundled engine for its own dry run on pretended GPUs of these sizes and compare to the byte; exit with 6 where
    /// they disagree
    #[arg(long)]
    pub prove: bool,
    /// What is loaded beside the model.
    #[command(flatten)]
    pub beside: CompanionArgs,
    /// Fixed settings.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `validate`
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The configuration file, or a model whose fixed settings are to be checked
    #[arg(value_name = "CONFIG|MODEL", value_hint = ValueHint::FilePath, required_unless_present = "rules")]
    pub file: Option<PathBuf>,
    /// Show every rule that there is: when it is broken, what shows it, and what to do
    #[arg(long, conflicts_with_all = ["file", "model"])]
    pub rules: bool,
    /// The model, where it is another than the configuration names
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: Option<PathBuf>,
    /// The engine whose rules apply: `bundled`, `bitnet`, or the path of a llama-server; without it, for BitNet models our own, else
    /// the llama-server on PATH, or the newest one known
    #[arg(long, value_name = "bundled|PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// What is loaded beside the model, over what the configuration names.
    #[command(flatten)]
    pub beside: CompanionArgs,
    /// Fixed settings, over those of the configuration.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The model: a GGUF file, the first of its shards, or `ollama:NAME`; without it, a small demo model that loadmaster writes itself
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: Option<PathBuf>,
    /// Plan the settings; what happens anyway without `--config`
    #[arg(long, conflicts_with = "config")]
    pub auto_configure: bool,
    /// Take the settings from this file, and check them first
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Text to continue
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "chat")]
    pub prompt: Option<String>,
    /// Talk with the model, line by line
    #[arg(long)]
    pub chat: bool,
    /// Seconds that the engine may show no sign of life while it loads
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub engine_timeout: u64,
    /// Tokens to generate at most
    #[arg(short = 'n', long = "predict", visible_alias = "n-predict", value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub predict: u32,
    /// Print the plan and the exact command, and run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the receipt, plan against what happened, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub receipt: Option<PathBuf>,
    /// Accept no downgrade: exit with 4 where the wish does not fit as it is
    #[arg(long)]
    pub strict: bool,
    /// The engine: `bundled`, `bitnet` (our own for BitNet models; `bitnet:file` and `bitnet:q8_0` fix how it keeps the output head, and
    /// `bitnet:blocks64` reads I2_S files that were quantised on ARM), or the path of a llama-server; without it, `bitnet` for models that
    /// it computes, else `bundled`
    #[arg(long, value_name = "bundled|PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// What the plan is for.
    #[command(flatten)]
    pub wishes: Wishes,
    /// What is loaded beside the model.
    #[command(flatten)]
    pub beside: CompanionArgs,
    /// Fixed settings.
    #[command(flatten)]
    pub pins: PinArgs,
}

/// `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The model: a GGUF file, the first of its shards, or `ollama:NAME`
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// The llama-server to start; without it, the one on PATH
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub engine: Option<String>,
    /// Seconds that the engine may show no sign of life while it loads
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    pub engine_timeout: u64,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0: any that is free
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Take the settings from this file, and check them first
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print the plan and the exact command, and run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the receipt, plan against what happened, as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub receipt: Option<PathBuf>,
    /// Accept no downgrade: exit with 4 where the wish does not fit as it is
    #[arg(long)]
    pub strict: bool,
    /// What the plan is for.
    #[command(flatten)]
    pub wishes: Wishes,
    /// What is loaded beside the model.
    #[command(flatten)]
    pub beside: CompanionArgs,
    /// Fixed settings.
    #[command(flatten)]
    pub pins: PinArgs,
    /// Further arguments for the engine, as they are
    #[arg(last = true, value_name = "ENGINE ARGUMENT")]
    pub extra: Vec<String>,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command; without it, the page of loadmaster itself
    pub command: Option<String>,
}

/// `schemas`
#[derive(Debug, Args)]
pub struct SchemasArgs {
    /// The folder to write to
    pub folder: PathBuf,
}

/// `supervise`
#[derive(Debug, Args)]
pub struct SuperviseArgs {
    /// Process id of the parent.
    pub parent: u32,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// What a plan is for.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "What the plan is for")]
pub struct Wishes {
    /// What the model will be used for
    #[arg(long, value_name = "CASE", default_value_t, value_parser = words(UseCase::ALL, UseCase::as_str))]
    pub use_case: UseCase,
    /// Where to compute, if there is a choice
    #[arg(long, value_name = "DEVICE", default_value_t, value_parser = words(DevicePreference::ALL, DevicePreference::as_str))]
    pub prefer: DevicePreference,
    /// Memory to leave free on each device: a share (`10%`) or a size (`2GiB`)
    #[arg(long, value_name = "SHARE|SIZE", allow_hyphen_values = true, value_parser = margin)]
    pub margin: Option<Margin>,
    /// What counts most: one answer soon, or many answers together
    #[arg(long, value_name = "GOAL", default_value_t, value_parser = words(Priority::ALL, Priority::as_str))]
    pub priority: Priority,
    /// How much power to spend
    #[arg(long, value_name = "MODE", default_value_t, value_parser = words(Power::ALL, Power::as_str))]
    pub power: Power,
    /// Whether a model that is larger than memory may run from its file, slowly
    #[arg(long, value_name = "POLICY", default_value_t, value_parser = words(DiskPolicy::ALL, DiskPolicy::as_str))]
    pub disk: DiskPolicy,
    /// Tokens of a typical prompt, none of them in the cache yet
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: Option<u32>,
    /// Tokens of a typical answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub output_tokens: Option<u32>,
    /// Requests at the same time: so many sequences, unless `--parallel` says otherwise
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub users: Option<u32>,
    /// Tokens of context per sequence below which there is no plan
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub min_context: Option<u32>,
    /// Seconds until the first token, at most
    #[arg(long, value_name = "SECONDS", value_parser = positive)]
    pub ttft: Option<f64>,
    /// Tokens per second of one answer, at least
    #[arg(long, value_name = "RATE", value_parser = positive)]
    pub min_tps: Option<f64>,
    /// The coarsest type that the KV cache may have: f16 forbids quantised ones
    #[arg(long, value_name = "TYPE", value_parser = cache_type)]
    pub quality_floor: Option<QuantType>,
}

/// What is loaded beside the model, as llama-server spells it.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(next_help_heading = "What is loaded beside the model, as llama-server spells it")]
pub struct CompanionArgs {
    /// [-mm] projector of a multimodal model
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub mmproj: Option<PathBuf>,
    /// Keep the projector on the host
    #[arg(long)]
    pub no_mmproj_offload: bool,
    /// [-mmdev] device of the projector, or none; without it, the first
    #[arg(long, value_name = "NAME")]
    pub mmproj_device: Option<String>,
    /// LoRA adapter; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub lora: Vec<PathBuf>,
    /// Control vector; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub control_vector: Vec<PathBuf>,
    /// [-md] model that drafts tokens
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "spec_type", visible_alias = "spec-draft-model")]
    pub model_draft: Option<PathBuf>,
    /// Draft with the model's own prediction layers
    #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new([OWN_DRAFT]))]
    pub spec_type: Option<String>,
    /// Tokens drafted at once at most; without it, 3, or what a plan chooses
    #[arg(long, value_name = "N", visible_alias = "spec-draft-n-max", allow_negative_numbers = true, value_parser = count())]
    pub draft_max: Option<u32>,
    /// [-ngld] layers of the draft model on GPUs; without it, all, or none where a plan so chooses
    #[arg(long, value_name = "N", visible_aliases = ["gpu-layers-draft", "spec-draft-ngl"], allow_negative_numbers = true, value_parser = draft_layers)]
    pub n_gpu_layers_draft: Option<u32>,
    /// [-cd] context of the draft model; without it, that of the model
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = count())]
    pub ctx_size_draft: Option<u32>,
    /// Micro-batch of the draft model; without it, that of the model
    #[arg(long = "spec-draft-n-ubatch", value_name = "N", allow_negative_numbers = true, value_parser = count().range(1..))]
    pub ubatch_draft: Option<u32>,
    /// [-ctkd] type of the draft's K cache; without it, f16
    #[arg(long, value_name = "TYPE", value_parser = cache_type, visible_alias = "spec-draft-type-k")]
    pub cache_type_k_draft: Option<QuantType>,
    /// [-ctvd] type of the draft's V cache; without it, f16
    #[arg(long, value_name = "TYPE", value_parser = cache_type, visible_alias = "spec-draft-type-v")]
    pub cache_type_v_draft: Option<QuantType>,
}

impl CompanionArgs {
    /// llama-server's short spellings of more than one letter, with the long ones that stand for them here.
    pub const SHORT: &'static [(&'static str, &'static str)] = &[
        ("-mm", "--mmproj"),
        ("-mmdev", "--mmproj-device"),
        ("-md", "--model-draft"),
        ("-ngld", "--n-gpu-layers-draft"),
        ("-cd", "--ctx-size-draft"),
        ("-ctkd", "--cache-type-k-draft"),
        ("-ctvd", "--cache-type-v-draft"),
    ];

    /// As the library takes it.
    pub fn beside(&self) -> Beside {
        Beside {
            mmproj: self.mmproj.clone(),
            mmproj_offload: self.no_mmproj_offload.then_some(false),
            mmproj_device: self.mmproj_device.clone(),
            lora: self.lora.clone(),
            control_vector: self.control_vector.clone(),
            model_draft: self.model_draft.clone(),
            own_draft: self.spec_type.is_some(),
            draft_max: self.draft_max,
            n_gpu_layers_draft: self.n_gpu_layers_draft,
            ctx_size_draft: self.ctx_size_draft,
            ubatch_draft: self.ubatch_draft,
            cache_type_k_draft: self.cache_type_k_draft,
            cache_type_v_draft: self.cache_type_v_draft,
        }
    }
}

/// What fits into an `int32_t`, as llama.cpp keeps counts.
fn count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..=i64::from(i32::MAX))
}

fn cache_type(name: &str) -> Result<QuantType, String> {
    let found = CACHE_TYPES.iter().copied().find(|ty| ty.name() == name);
    found.ok_or_else(|| format!("a cache can be {}", CACHE_TYPES.iter().map(|ty| ty.name()).collect::<Vec<_>>().join(", ")))
}

/// A parser of words that a type knows, listed in the help.
fn words<T>(all: &'static [T], name: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + FromStr<Err = String> + 'static,
{
    PossibleValuesParser::new(all.iter().map(|choice| name(*choice))).try_map(|word| word.parse::<T>())
}

/// A profile by its name; the error lists what there is.
fn engine_profile(name: &str) -> Result<EngineProfile, String> {
    EngineProfile::named(name).ok_or_else(|| format!("no such profile; there are {}", EngineProfile::names().join(", ")))
}

fn quant(text: &str) -> Result<FileType, ParseFileTypeError> {
    text.parse()
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "a number above 0 is meant".to_owned())
}

fn margin(text: &str) -> Result<Margin, String> {
    let Some(percent) = text.trim().strip_suffix('%') else {
        return text.parse().map(Margin::Size).map_err(|error: spec::units::ParseBytesError| format!("{error}; or a share such as 10%"));
    };
    match percent.trim().parse::<f64>() {
        Ok(percent) if (0.0..=90.0).contains(&percent) => Ok(Margin::Fraction(percent / 100.0)),
        _ => Err("a share is a number from 0% to 90%".to_owned()),
    }
}

/// The exit codes and where to read on, below every help text.
fn after_help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in Exit::TABLE {
        text.push_str(&format!("  {}  {meaning}\n", exit.code()));
    }
    text
}

/// The whole command line as clap sees it: for parsing, help, completions and manual pages.
pub fn command() -> clap::Command {
    // A table stands in the place of a model, in this command alone.
    let predict = |command: clap::Command| command.mut_arg("model", |model| model.required_unless_present("table"));
    Cli::command().mut_subcommand("predict", predict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn margins_are_shares_or_sizes() {
        assert_eq!(margin("10%"), Ok(Margin::Fraction(0.1)));
        assert_eq!(margin("2GiB"), Ok(Margin::Size(spec::Bytes::from_gib(2))));
        for text in ["95%", "-1%", "x%", "banana", "%"] {
            assert!(margin(text).is_err(), "{text}");
        }
    }
}
