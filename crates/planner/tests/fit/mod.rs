//! Cases of the engine's `--fit`: what was asked, and what it answered. `cases.csv` holds a line for each.

use footprint::target::Backend;
use footprint::{Device, EngineProfile, Target};
use planner::emit::ALL;
use planner::fit::FitGoal;
use spec::settings::{LoadMode, SplitMode, TensorOverride};
use spec::{Bytes, Known, Settings};
use std::collections::BTreeSet;

/// One question to `llama-fit-params`, and its answer.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Case {
    /// Preset, file type and changed figures, as footprint's recorded cases name a model.
    pub model: String,
    /// Memory of each pretended GPU in MiB, separated by commas; empty for none.
    pub gpus: String,
    /// What others hold of it, likewise.
    pub used: String,
    /// Arguments of the program.
    pub flags: String,
    /// Memory of the host that it ran on, in bytes.
    pub host: u64,
    /// Instruction-set extensions that its build uses, separated by spaces.
    pub features: String,
    /// What it printed: arguments, or `gave up: REASON`.
    pub answer: String,
}

impl Case {
    /// The devices as the engine saw them.
    pub fn target(&self) -> Target {
        let numbers = |text: &str| -> Vec<u64> { text.split(',').filter(|word| !word.is_empty()).map(parsed).collect() };
        let (sizes, used) = (numbers(&self.gpus), numbers(&self.used));
        let device = |(index, &mib): (usize, &u64)| Device {
            name: format!("GPU{index}"),
            backend: Backend::pretended(false),
            total: Known::exact(Bytes::from_mib(mib), "recorded"),
            free: Known::exact(Bytes::from_mib(mib.saturating_sub(used.get(index).copied().unwrap_or(0))), "recorded"),
            shares_host: false,
            pci_address: None,
        };
        Target {
            devices: sizes.iter().enumerate().map(device).collect(),
            idle: Vec::new(),
            cpu_features: self.features.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(),
            cpu_arch: "x86_64".into(),
        }
    }

    /// What is asked of it.
    pub fn question(&self) -> (Settings, FitGoal) {
        let mut settings = Settings { n_ctx: 0, n_gpu_layers: ALL, load_mode: LoadMode::None, ..Settings::default() };
        let mut goal = FitGoal::new(Bytes::new(self.host));
        let words: Vec<&str> = self.flags.split_whitespace().collect();
        for pair in words.chunks(2) {
            let [flag, value] = pair else { panic!("{}: a flag without a value", self.flags) };
            match *flag {
                "-c" => settings.n_ctx = parsed(value),
                "-np" => settings.n_parallel = parsed(value),
                "-b" => settings.n_batch = parsed(value),
                "-ub" => settings.n_ubatch = parsed(value),
                "-ctk" => settings.cache_type_k = parsed(value),
                "-ctv" => settings.cache_type_v = parsed(value),
                "-fa" => settings.flash_attn = parsed(value),
                "-ngl" => settings.n_gpu_layers = parsed(value),
                "-sm" => settings.split_mode = parsed(value),
                "-mg" => settings.main_gpu = parsed(value),
                "-ts" => settings.tensor_split = value.split(',').map(parsed).collect(),
                "-ncmoe" => settings.n_cpu_moe = parsed(value),
                "-fitt" => goal.margins = value.split(',').map(|mib| Bytes::from_mib(parsed(mib))).collect(),
                "-fitc" => goal.n_ctx_min = parsed(value),
                _ => panic!("unknown flag {flag}"),
            }
        }
        (settings, goal)
    }

    /// The answer as settings, over those that were asked with; the reason where it gave up.
    pub fn answered(&self) -> Result<Settings, &str> {
        if let Some(reason) = self.answer.strip_prefix("gave up: ") {
            return Err(reason);
        }
        let (mut settings, _) = self.question();
        let words: Vec<&str> = self.answer.split_whitespace().collect();
        for pair in words.chunks(2) {
            let [flag, value] = pair else { panic!("{}: a flag without a value", self.answer) };
            match *flag {
                "-c" => settings.n_ctx = parsed(value),
                "-ngl" => settings.n_gpu_layers = if *value == "-1" { ALL } else { parsed(value) },
                "-ts" => settings.tensor_split = value.split(',').map(parsed).collect(),
                // Quoted for a shell.
                "-ot" => settings.tensor_overrides = value.trim_matches('"').split(',').map(rule).collect(),
                _ => panic!("unknown flag {flag} in an answer"),
            }
        }
        // Devices without layers at the end are not printed, nor a split of one device or none.
        let devices = self.target().devices.len();
        let placed = settings.n_gpu_layers != ALL && self.question().0.n_gpu_layers == ALL;
        if devices > 1 && placed && settings.split_mode != SplitMode::None {
            let printed = settings.tensor_split.len();
            if printed == 0 && settings.n_gpu_layers > 0 {
                settings.tensor_split.push(settings.n_gpu_layers.into());
            }
            settings.tensor_split.resize(devices, 0.0);
        }
        Ok(settings)
    }
}

/// The profile of the program that was asked.
pub fn profile() -> EngineProfile {
    EngineProfile::fit_params_0_7()
}

fn rule(text: &str) -> TensorOverride {
    let (pattern, buffer) = text.rsplit_once('=').unwrap_or_else(|| panic!("no rule: {text}"));
    TensorOverride { pattern: pattern.to_owned(), buffer: buffer.to_owned() }
}

fn parsed<T: std::str::FromStr>(value: &str) -> T {
    value.parse().unwrap_or_else(|_| panic!("not a value: {value}"))
}
