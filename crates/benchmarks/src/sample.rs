//! A measurement understood: what ran on what, and how fast.

use crate::device::{Found, device, host};
use crate::model::{Known, shape};
use crate::row::Measurement;
use roofline::{Case, Class, Conditions, Device, Host, Noise, Observation, Phase, Placement, Quant, Switch, Work, placed};
use std::collections::BTreeMap;

/// Who measured, which decides how exact a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// llama-bench: warm, alone, repeated.
    LlamaBench,
    /// LocalScore, whose hosts are as people have them: the mean over nine runs of llamafile.
    LocalScore,
    /// llama.cpp through a server or a front end, told by its users.
    Community,
    /// Other engines.
    Other,
}

impl Source {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LlamaBench => "llama-bench",
            Self::LocalScore => "localscore",
            Self::Community => "community",
            Self::Other => "other engines",
        }
    }

    /// First guess of the deviation of a measurement around the formula. What users tell of prompts comes without their lengths, and with the
    /// time of a first token, whatever is in it.
    const fn deviation(self, phase: Phase) -> f64 {
        match (self, phase) {
            (Self::LlamaBench, _) => 0.04,
            (Self::Community, Phase::Decode) => 0.06,
            (Self::Community, Phase::Prefill) => 0.3,
            (Self::LocalScore | Self::Other, _) => 0.1,
        }
    }
}

/// Why the formula does not hold for a measurement that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Several devices.
    Split,
    /// Part of the layers or experts on the host.
    Offloaded,
    /// More than the memory of the device.
    Spilled,
    /// Tokens guessed ahead by a draft or by the model's own head.
    Speculative,
    /// Not llama.cpp.
    Engine,
    /// Held to far less power than its maker gives it.
    Throttled,
    /// Of runs alike but for their length, the longer ones were much faster.
    Unsteady,
    /// A build of 2023.
    Old,
    /// Faster than the device can be.
    Impossible,
}

impl Problem {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Split => "several devices",
            Self::Offloaded => "partly on the host",
            Self::Spilled => "more than the device's memory",
            Self::Speculative => "speculative",
            Self::Engine => "another engine",
            Self::Throttled => "power limited",
            Self::Unsteady => "faster the longer it ran",
            Self::Old => "a build of 2023",
            Self::Impossible => "faster than the device can be",
        }
    }
}

/// A measurement as hardware, work and conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its place among the rows.
    pub row: usize,
    /// What was measured.
    pub phase: Phase,
    /// Who measured.
    pub source: Source,
    /// The device.
    pub found: Found,
    /// The device by the name of its row, or as the table writes it.
    pub title: String,
    /// Device, host, backend and source: measurements that one calibration is for.
    pub host: String,
    /// Where the model comes from, by the first words of its name.
    pub family: String,
    /// The name of the model.
    pub model: String,
    /// The work; several for an average over prompts.
    pub work: Vec<Work>,
    /// How it was run.
    pub conditions: Conditions,
    /// Over how many devices, and what the host holds.
    pub placement: Placement,
    /// How well the model is known.
    pub known: Known,
    /// Measured tokens per second; `None` where a table only asks.
    pub rate: Option<f64>,
    /// Standard deviation of its repeats, relative to it, where the table tells it.
    pub repeats: Option<f64>,
    /// Why the formula does not hold.
    pub problem: Option<Problem>,
}

impl Sample {
    /// Class of the device.
    pub fn class(&self) -> Class {
        self.found.device.class
    }

    /// True for a run over several devices, or partly on the host, whose parts are known.
    pub fn several(&self) -> bool {
        matches!(self.problem, Some(Problem::Split)) || (self.problem == Some(Problem::Offloaded) && self.placement.host.is_some())
    }

    /// What tells one model from another to the formula, whatever its name and quantisation.
    pub fn shape_key(&self) -> String {
        self.work.first().map_or(String::new(), |work| {
            let shape = &work.shape;
            format!("{} {} {:.1}", shape.layers, shape.width, (shape.active_elements + shape.output_elements) / 1e9)
        })
    }

    /// Share of the device's memory that weights and cache take, where its size is known.
    pub fn filled(&self) -> Option<f64> {
        let bytes = self.work.first().map(|work| work.shape.all_bytes + work.shape.cache_read(work.depth + work.tokens))?;
        self.found.memory.map(|memory| bytes / (memory * self.placement.devices.max(1.0)))
    }

    /// The times of its runs.
    pub fn cases(&self) -> Vec<Case> {
        let tokens = |work: &Work| if self.phase == Phase::Decode { 1.0 } else { work.tokens };
        let time = |work: &Work| Case {
            sum: placed(self.phase, &self.found.device, work, &self.conditions, &self.placement),
            tokens: tokens(work),
        };
        self.work.iter().map(time).collect()
    }

    /// For the fit, counting `weight` times.
    pub fn observation(&self, weight: f64) -> Observation {
        let noise = Noise { deviation: self.source.deviation(self.phase).hypot(self.repeats.unwrap_or(0.0)), weight };
        Observation { cases: self.cases(), rate: self.rate.unwrap_or(0.0), noise }
    }
}

/// Prompts and answers of LocalScore's nine tests as remembered; not compared with its source.
const LOCALSCORE: [(f64, f64); 9] = [
    (1024.0, 16.0),
    (4096.0, 256.0),
    (2048.0, 256.0),
    (2048.0, 768.0),
    (1024.0, 1024.0),
    (1280.0, 3072.0),
    (384.0, 1152.0),
    (64.0, 1024.0),
    (16.0, 1536.0),
];

/// Phase, then depth and tokens of each run.
fn runs(row: &Measurement) -> Option<(Phase, Vec<(f64, f64)>)> {
    let test = row.text("test")?;
    let depth = row.number("depth").unwrap_or(0.0).max(0.0);
    let written = row.note("outTok").and_then(|text| text.parse::<f64>().ok()).filter(|&tokens| tokens >= 1.0);
    let number = |text: &str| text.parse::<f64>().ok().filter(|&tokens| tokens >= 1.0);
    Some(match test {
        "pp_avg_localscore9" => (Phase::Prefill, LOCALSCORE.map(|(prompt, _)| (0.0, prompt)).to_vec()),
        // The mean of their depths: speed falls evenly with depth.
        "tg_avg_localscore9" => (Phase::Decode, vec![(1400.0, 1000.0)]),
        "pp(prefill)" => (Phase::Prefill, vec![(0.0, if depth >= 1.0 { depth } else { 512.0 })]),
        "pp(depth0 prefill)" => (Phase::Prefill, vec![(0.0, 2048.0)]),
        _ => match (test.strip_prefix("pp"), test.strip_prefix("tg")) {
            (Some(tokens), _) => (Phase::Prefill, vec![(depth, number(tokens)?)]),
            (_, Some(tokens)) => (Phase::Decode, vec![(depth, number(tokens).or(written).unwrap_or(128.0))]),
            _ => return None,
        },
    })
}

fn source(row: &Measurement) -> (Source, &'static str) {
    let engine = row.text("engine").unwrap_or("llama.cpp").to_lowercase();
    let test = row.text("test").unwrap_or("");
    let bare = test.len() > 2 && test.get(2..).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    match engine.as_str() {
        "llamafile (localscore)" => (Source::LocalScore, "localscore"),
        "llama.cpp" if bare || test.contains("llama-bench") || test.contains("llama-2-7b") => (Source::LlamaBench, "llama-bench"),
        "llama.cpp" | "llamacpp" | "llama-server" => (Source::Community, "server"),
        "llama.cpp/ollama" | "ollama" => (Source::Community, "ollama"),
        _ => (Source::Other, "other"),
    }
}

/// The first build of 2024, or nearly: matrix kernels of those before it are gone from every build in use.
const OLDEST: u32 = 1700;

/// The number of a build: 6918 of a version `b6918`.
fn build(row: &Measurement) -> Option<u32> {
    let version = row.text("engine_version/build").unwrap_or("");
    let mut words = version.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| word.len() >= 4);
    words.find_map(|word| word.strip_prefix('b')?.parse::<u32>().ok()).filter(|&number| number > 100)
}

/// The build as the table names it, and the change that a note says it is before or after of.
fn software(row: &Measurement) -> String {
    let change = row.text("notes").filter(|notes| notes.starts_with("before ") || notes.starts_with("after "));
    format!("{} {}", row.text("engine_version/build").unwrap_or(""), change.unwrap_or(""))
}

/// A build, or a year, as an age.
fn era(row: &Measurement, source: Source) -> Option<&'static str> {
    let version = row.text("engine_version/build").unwrap_or("");
    match build(row) {
        Some(..3500) => Some("early"),
        Some(..6000) => Some("middle"),
        Some(_) => Some("late"),
        None if version.contains("2024") => Some("early"),
        None if version.contains("2025") || source == Source::LocalScore => Some("middle"),
        None if source == Source::Community || row.text("source").is_some_and(|text| text.contains("kyuz0")) => Some("late"),
        None => None,
    }
}

/// ROCm whose rocBLAS has no kernels for the device.
const UNTUNED: &str = "rocm-untuned";
/// Tokens from which on products go through rocBLAS; those of fewer have kernels of the engine's own (`ggml_cuda_should_use_mmq` of
/// llama.cpp's `mmq.cu`, `MMQ_DP4A_MAX_BATCH_SIZE`).
const LIBRARY: f64 = 64.0;

fn backend(row: &Measurement, device: &Device) -> Option<&'static str> {
    let text = row.text("backend").unwrap_or("").to_lowercase();
    let has = |word: &str| text.contains(word);
    Some(match device.class {
        Class::Cpu => "cpu",
        Class::Apple => "metal",
        _ if has("vulkan") => "vulkan",
        _ if has("sycl") => "sycl",
        Class::NvidiaGddr | Class::NvidiaHbm | Class::NvidiaUnified => "cuda",
        // rocBLAS had no kernels of its own for RDNA 3.5 when these were built; hipBLASLt had, and the toolboxes `rocm...` use it.
        _ if matches!(text.as_str(), "hip" | "rocwmma") && device.generation.as_deref() == Some("rdna3.5") => UNTUNED,
        _ if has("rocm") || has("hip") || has("rocwmma") => "rocm",
        _ => return None,
    })
}

fn conditions(row: &Measurement, device: &Device, source: Source, engine: &'static str) -> Conditions {
    let os = match (row.note("os").unwrap_or(""), device.class) {
        ("Linux", _) => Some("linux"),
        ("Windows", _) => Some("windows"),
        ("Darwin", _) | (_, Class::Apple) => Some("macos"),
        _ => None,
    };
    let flash_attention = match row.text("flash_attn") {
        Some("1" | "True" | "true" | "on") => Switch::On,
        Some("0" | "False" | "false" | "off") => Switch::Off,
        _ => Switch::Unknown,
    };
    let own = |text: &'static str| text.to_owned();
    Conditions {
        backend: backend(row, device).map(own),
        os: os.map(own),
        era: era(row, source).map(own),
        engine: Some(engine.to_owned()),
        flash_attention,
    }
}

/// Operations of the matrix units that the kernels of a build use, per vector operation, where builds differ.
fn matrix(device: &Device, conditions: &Conditions, build: Option<u32>, quant: Quant, brain: bool) -> f64 {
    /// Dot products of four bytes each on vector units.
    const DOT: f64 = 4.0;
    let before = |number: u32| match build {
        Some(build) => build < number,
        None => conditions.era.as_deref() != Some("late"),
    };
    let backend = conditions.backend.as_deref().unwrap_or("");
    match device.class {
        // llama.cpp PR 14624, July 2025: matrix cores for quantised weights.
        Class::AmdHbm if backend.starts_with("rocm") && quant != Quant::Float && before(6000) => DOT.min(device.matrix),
        // rocBLAS without kernels for the device falls back to plain ones, which have no matrix instructions.
        _ if backend == UNTUNED => 1.0,
        // PR 10597, December 2024: VK_KHR_cooperative_matrix; PR 14001, June 2025: on Intel from Xe2 on.
        Class::Intel | Class::IntelUnified if backend == "vulkan" && (device.generation.as_deref() != Some("xe2") || before(5600)) => 1.0,
        _ if backend == "vulkan" && before(4290) => 1.0,
        // Without VK_KHR_shader_bfloat16, which drivers have on NVIDIA's and from RDNA 4 on.
        Class::AmdGddr | Class::AmdUnified if brain && backend == "vulkan" && device.generation.as_deref() != Some("rdna4") => 1.0,
        _ => device.matrix,
    }
}

/// Share of its usual power below which a device loses speed: an RTX PRO 6000 of 600 W computes 3 % slower at 450 W, and 15 % at 350 W
/// (AUGMXNT/llm-tracker, RTX PRO 6000).
const THROTTLED: f64 = 0.75;

/// True for prompts that were read with more operations than all units of the device make, by a fifth or more: part of them was in the cache.
fn impossible(phase: Phase, found: &Found, work: &[Work], rate: Option<f64>) -> bool {
    /// How far clocks may be above those on paper.
    const MARGIN: f64 = 1.2;
    let ([work], Some(rate), Some(vector), true) = (work, rate, found.device.vector, phase == Phase::Prefill) else { return false };
    2.0 * work.shape.active_elements * rate > MARGIN * vector * found.device.matrix.max(1.0)
}

fn problem(row: &Measurement, source: Source, found: &Found, work: &[Work]) -> Option<Problem> {
    let says = |column: &str, words: &[&str]| {
        row.text(column).map(str::to_lowercase).is_some_and(|text| words.iter().any(|word| text.contains(word)))
    };
    let layers = work.first().map_or(0.0, |work| work.shape.layers);
    let on_gpu = found.device.class != Class::Cpu;
    let few = row.number("n_gpu_layers").is_some_and(|given| given < layers && on_gpu);
    let bytes = work.first().map_or(0.0, |work| work.shape.all_bytes + work.shape.cache_read(work.depth + work.tokens));
    // A build with the number 1 is a fork whose history was cut off.
    let cut = row.text("engine_version/build").is_some_and(|version| version.ends_with("(b1)"));
    if source == Source::Other || cut {
        Some(Problem::Engine)
    } else if build(row).is_some_and(|build| build < OLDEST) {
        Some(Problem::Old)
    } else if says("notes", &["spec=true", "mtp=true"])
        || says("kv_type", &["mtp", "spec", "dflash"])
        || says("model", &["mtp-2", "dflash"])
    {
        Some(Problem::Speculative)
    } else if row.number("n_devices").is_some_and(|number| number > 1.0) {
        Some(Problem::Split)
    } else if few || says("split_or_offload", &["ncmoe", "cpu", "offload", "exps"]) || says("backend", &["gpu/cpu"]) {
        Some(Problem::Offloaded)
    } else if found.memory.is_some_and(|memory| bytes > 0.97 * memory) {
        Some(Problem::Spilled)
    } else {
        let limit = row.text("notes").and_then(|notes| notes.strip_prefix("power limit ")?.strip_suffix(" W")?.parse::<f64>().ok());
        let throttled = limit.zip(found.watts).is_some_and(|(limit, watts)| limit < THROTTLED * watts);
        throttled.then_some(Problem::Throttled)
    }
}

/// Layers, or layers' experts, on the host, as columns tell it; nothing where they do not.
fn placement(row: &Measurement, problem: Option<Problem>, work: &[Work]) -> Placement {
    let devices = row.positive("n_devices").unwrap_or(1.0);
    let layers = work.first().map_or(1.0, |work| work.shape.layers.max(1.0));
    let told = row.text("split_or_offload").unwrap_or("").to_lowercase();
    let moved = told.split_once("ncmoe").and_then(|(_, rest)| {
        let digits: String = rest.chars().skip_while(|letter| !letter.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse::<f64>().ok()
    });
    let moved = moved.or((told.contains("exps") || told.contains("cmoe")).then_some(layers));
    let left = row.number("n_gpu_layers").filter(|&given| given >= 0.0 && given < layers).map(|given| layers - given);
    let (share, experts_only) = match (moved, left) {
        (Some(moved), _) => (moved / layers, true),
        (None, Some(left)) => (left / layers, false),
        (None, None) => (0.0, false),
    };
    let host =
        (problem == Some(Problem::Offloaded) && share > 0.0).then(|| Host { device: host(row), share: share.min(1.0), experts_only });
    Placement { devices, host }
}

/// First word of a model's name behind its publisher and up to its size.
fn family(row: &Measurement) -> String {
    let name = row.text("model").unwrap_or("").to_lowercase();
    for family in
        ["llama", "mistral", "ministral", "gemma", "phi", "gpt-oss", "glm", "nemotron", "lfm", "granite", "deepseek", "falcon", "olmo"]
    {
        if name.contains(family) && !name.contains("qwen") {
            return family.to_owned();
        }
    }
    for family in ["qwen3.", "qwen3", "qwen2"] {
        if name.contains(family) {
            return family.to_owned();
        }
    }
    name.chars().take_while(|letter| letter.is_alphabetic()).collect()
}

/// What a row says, or what it lacks.
///
/// # Errors
/// What is missing, in a few words.
pub fn sample(place: usize, row: &Measurement) -> Result<Sample, &'static str> {
    understand(place, row, device(row))
}

fn understand(place: usize, row: &Measurement, found: Result<Found, &'static str>) -> Result<Sample, &'static str> {
    let (phase, runs) = runs(row).ok_or("test not known")?;
    let mut found = found?;
    let (shape, known) = shape(row)?;
    let (source, engine) = source(row);
    let ubatch = row.positive("ubatch").unwrap_or(512.0).min(row.positive("batch").filter(|&batch| batch >= 32.0).unwrap_or(2048.0));
    let work: Vec<Work> = runs.into_iter().map(|(depth, tokens)| Work { shape: shape.clone(), depth, tokens, ubatch }).collect();
    let mut conditions = conditions(row, &found.device, source, engine);
    if conditions.backend.as_deref() == Some(UNTUNED) && (phase == Phase::Decode || work.iter().all(|work| work.tokens < LIBRARY)) {
        conditions.backend = Some("rocm".to_owned());
    }
    found.device.matrix = matrix(
        &found.device,
        &conditions,
        build(row),
        shape.quant,
        row.text("quant").is_some_and(|text| text.to_uppercase().contains("BF16")),
    );
    let title = found.row.clone().unwrap_or_else(|| row.text("device").unwrap_or("").to_owned());
    let who = row.text("source").unwrap_or("");
    let who = if source == Source::LocalScore {
        // Two hosts with another size of memory are two.
        let [os, memory] = ["os", "accel_ram_gb"].map(|key| row.note(key).unwrap_or(""));
        format!("{}{os}{memory}", row.text("system_cpu").unwrap_or(""))
    } else {
        who.split('@').next().unwrap_or("").to_owned()
    };
    let machine = format!("{title}|{}|{who}", source.as_str());
    // As the table names it: two drivers or libraries under one backend are two programs to measure.
    // As does the build: what a run told is forgotten with it.
    let host = format!("{machine}|{}|{}", row.text("backend").unwrap_or(""), software(row));
    found.device.identity = Some(machine);
    let rate = row.positive("tokens_per_s");
    let problem = problem(row, source, &found, &work).or_else(|| impossible(phase, &found, &work, rate).then_some(Problem::Impossible));
    let placement = placement(row, problem, &work);
    Ok(Sample {
        row: place,
        phase,
        source,
        found,
        title,
        host,
        family: family(row),
        model: row.text("model").unwrap_or("").to_owned(),
        work,
        conditions,
        placement,
        known,
        rate,
        repeats: row.positive("stddev").zip(row.positive("tokens_per_s")).map(|(stddev, rate)| stddev / rate),
        problem,
    })
}

/// Every row as a sample or as what it lacks, in order.
pub fn samples(rows: &[Measurement]) -> Vec<Result<Sample, &'static str>> {
    // Looking a name up compares it with a thousand others; tables name each device many times.
    let mut devices = BTreeMap::new();
    let columns = ["device", "device_kind", "backend", "memory_bandwidth_gbs", "threads"];
    let mut found = |row: &Measurement| {
        let key = columns.map(|column| row.text(column).map(str::to_owned));
        devices.entry(key).or_insert_with(|| device(row)).clone()
    };
    let mut all: Vec<Result<Sample, &'static str>> =
        rows.iter().enumerate().map(|(place, row)| understand(place, row, found(row))).collect();
    for place in unsteady(rows, &all) {
        if let Some(Ok(sample)) = all.get_mut(place) {
            sample.problem = Some(Problem::Unsteady);
        }
    }
    all
}

/// How much faster a run of twice the tokens may be.
const STEADY: f64 = 1.1;

/// Places of runs on one device that are alike but for their length, of which a run of twice the tokens or more was faster than
/// [`STEADY`] allows: attention only adds work, so that something else changed, such as clocks, or kernels that were compiled on first use.
/// Prompts fill a micro-batch of 512.
fn unsteady(rows: &[Measurement], samples: &[Result<Sample, &'static str>]) -> Vec<usize> {
    let mut alike: BTreeMap<String, Vec<(f64, f64, usize)>> = BTreeMap::new();
    for (row, sample) in rows.iter().zip(samples) {
        let Ok(sample) = sample else { continue };
        let (Some(rate), [work], None, Source::LlamaBench) = (sample.rate, sample.work.as_slice(), sample.problem, sample.source) else {
            continue;
        };
        if work.tokens >= if sample.phase == Phase::Prefill { 512.0 } else { 128.0 } {
            let key = format!("{:?} {}", sample.phase, row.but(&["test", "tokens_per_s", "stddev"]));
            alike.entry(key).or_default().push((work.tokens, rate, sample.row));
        }
    }
    let faster = |runs: &Vec<(f64, f64, usize)>| {
        runs.iter().any(|short| runs.iter().any(|long| long.0 >= 2.0 * short.0 && long.1 > STEADY * short.1))
    };
    alike.into_values().filter(faster).flatten().map(|(.., place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::read;

    const HEAD: &str = "device,device_kind,memory_bandwidth_gbs,engine,engine_version/build,backend,model,quant,test,tokens_per_s\n";

    fn of(rows: &str) -> Vec<Sample> {
        samples(&read(&format!("{HEAD}{rows}")).unwrap().1).into_iter().flatten().collect()
    }

    #[test]
    fn runs_that_grow_faster_with_length_are_told() {
        let run = |test: &str, rate: f64| format!("NVIDIA L40S,nvidia,864,llama.cpp,b2900,CUDA,Llama 3 8B,F16,{test},{rate}\n");
        let problems = |rows: [(&str, f64); 3]| -> Vec<Option<Problem>> {
            let rows: String = rows.iter().map(|(test, rate)| run(test, *rate)).collect();
            of(&rows).iter().map(|sample| sample.problem).collect()
        };
        assert_eq!(problems([("pp512", 2254.0), ("pp1024", 2492.0), ("pp4096", 2888.0)]), [Some(Problem::Unsteady); 3]);
        assert_eq!(problems([("pp512", 6000.0), ("pp1024", 6100.0), ("pp4096", 5200.0)]), [None; 3]);
        // Short prompts leave units idle.
        assert_eq!(problems([("pp32", 600.0), ("pp512", 6000.0), ("tg128", 40.0)]), [None; 3]);
    }

    #[test]
    fn rocblas_without_kernels_concerns_long_prompts_alone() {
        let backend = |text: &str, test: &str| {
            let found = of(&format!("Radeon 8060S,amd,256,llama.cpp,x (b6000),{text},llama 7B,Q4_0,{test},100\n"));
            (found[0].conditions.backend.clone().unwrap(), found[0].found.device.matrix > 1.0)
        };
        let [own, tuned] = ["hip", "hip+hipblaslt"].map(|text| ["pp512", "pp32", "tg128"].map(|test| backend(text, test)));
        assert_eq!(own.map(|(word, matrix)| (word == UNTUNED, matrix)), [(true, false), (false, true), (false, true)]);
        assert!(tuned.iter().all(|(word, matrix)| word == "rocm" && *matrix), "{tuned:?}");
    }

    #[test]
    fn a_run_is_of_one_build() {
        let host = |build: &str| of(&format!("NVIDIA L40S,,,llama.cpp,{build},CUDA,llama 7B,Q4_0,tg128,100\n"))[0].host.clone();
        assert!(host("x (b5000)") == host("x (b5000)") && host("x (b5000)") != host("x (b5001)"));
    }

    #[test]
    fn kernels_use_the_matrix_units_of_their_time() {
        let matrix = |device: &str, build: &str, backend: &str, quant: &str| {
            of(&format!("{device},,,llama.cpp,{build},{backend},llama 7B,{quant},pp512,1000\n"))[0].found.device.matrix
        };
        let cdna = |build, quant| matrix("AMD Instinct MI300X", build, "ROCm", quant);
        assert!(cdna("x (b3891)", "Q4_0") < cdna("x (b6500)", "Q4_0") && cdna("x (b3891)", "F16") > 4.0);
        assert_eq!(matrix("Intel Arc Pro B70", "x (b4008)", "Vulkan", "Q4_0"), 1.0);
        assert!(matrix("Intel Arc Pro B70", "x (b9739)", "Vulkan", "Q4_0") > 4.0);
    }

    #[test]
    fn prompts_faster_than_all_units_are_left_out() {
        let problem = |rate: f64| of(&format!("Apple M1 Max,apple,409.6,ollama,,Metal,Qwen2.5-7B,Q4_K_M,pp512,{rate}\n"))[0].problem;
        // 10.6e12 operations a second read 800 tokens of 6.5e9 weights.
        assert_eq!([problem(700.0), problem(1729.0)], [None, Some(Problem::Impossible)]);
    }

    #[test]
    fn check_bits_leave_fifteen_sixteenths_of_a_bandwidth() {
        let rate = |device: &str, stated: &str| {
            of(&format!("{device},nvidia,{stated},llama.cpp,x (b5000),CUDA,llama 7B,Q4_0,tg128,100\n"))[0].found.device.bandwidth.round()
                / 1e9
        };
        assert_eq!([rate("NVIDIA L40S", "864"), rate("NVIDIA L40S", ""), rate("NVIDIA GeForce RTX 4090", "1008")], [810.0, 810.0, 1008.0]);
    }

    #[test]
    fn vulkan_has_no_matrix_units_for_bf16_before_rdna_4() {
        let matrix = |device: &str, quant: &str| {
            of(&format!("{device},,,llama.cpp,x (b7000),Vulkan,llama 7B,{quant},pp512,1000\n"))[0].found.device.matrix > 1.0
        };
        let [old, new] = ["AMD Radeon RX 7900 XT", "AMD Radeon RX 9070 XT"];
        assert_eq!([matrix(old, "BF16"), matrix(old, "F16"), matrix(new, "BF16")], [false, true, true]);
    }

    #[test]
    fn builds_of_2023_and_forks_without_history_are_not_fitted() {
        let problem = |build: &str| of(&format!("NVIDIA L40S,,,llama.cpp,{build},CUDA,llama 7B,Q4_0,tg128,100\n"))[0].problem;
        assert_eq!([problem("x (b1148)"), problem("x (b1988)")], [Some(Problem::Old), None]);
        assert_eq!(problem("1d5f8dd (b1)"), Some(Problem::Engine));
    }
}
