//! The commands: one file each, and what several of them share.

mod completions;
mod detect;
mod doctor;
mod hardware;
mod inspect;
mod memory;
mod plan;
mod predict;
mod recommend;
mod run;
mod schemas;
mod serve;
mod validate;
mod verify;

use crate::args::{Cli, Command, CompanionArgs, SubjectArgs, Wishes};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::pins::PinArgs;
use crate::view::{ModelName, PrecisionView, Quantity, Rate, RefusalView};
use loadmaster::advise::{Advice, EngineChoice, Request as Facts, Survey, newest_server, survey};
use loadmaster::beside::Beside;
use loadmaster::config::{ConfigFile, Metadata};
use loadmaster::footprint::bitnet::BitNet;
use loadmaster::footprint::{Companions, Device, Target};
use loadmaster::known::precision::Choice;
use loadmaster::launch::Interrupts;
use loadmaster::launch::bundled::BundledOptions;
use loadmaster::machine::MachineSource;
use loadmaster::open::Origin;
use loadmaster::planner::plan::{Preferences, Request};
use loadmaster::planner::{self, Asked, EngineRules, Tool};
use loadmaster::probe::{Depth, Overrides};
use loadmaster::receipt::Proof;
use loadmaster::{Error, engine};
use spec::settings::Pins;
use spec::{AttachmentKind, Machine, Model, Settings};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Does what the command line says.
pub fn execute(cli: Cli) -> Outcome {
    let output = Output::new(&cli.global);
    let machine = cli.global.machine.as_deref().map_or(MachineSource::Live, machine_source).pretending(overrides(&cli));
    let shared = Shared { output, machine };
    match cli.command {
        Command::Detect(args) => detect::detect(&shared, &args),
        Command::Doctor => doctor::doctor(&shared),
        Command::Hardware(args) => hardware::hardware(&shared, &args),
        Command::Inspect(args) => inspect::inspect(&shared, &args),
        Command::Memory(args) => memory::memory(&shared, &args),
        Command::Verify(args) => verify::verify(&shared, &args),
        Command::Predict(args) => predict::predict(&shared, *args),
        Command::Recommend(args) => recommend::recommend(&shared, &args),
        Command::Plan(args) => plan::plan(&shared, args),
        Command::Validate(args) => validate::validate(&shared, &args),
        Command::Run(args) => run::run(&shared, args),
        Command::Serve(args) => serve::serve(&shared, args),
        Command::Completions(args) => completions::completions(&shared, &args),
        Command::Man(args) => completions::man(&shared, &args),
        Command::Schemas(args) => schemas::schemas(&shared, &args),
        Command::EngineChild => engine_child(),
        Command::Supervise(args) => serve::supervise(&args),
        Command::DriverChild => detect::answer_for_drivers(),
    }
}

/// The hidden command that is the engine. It ends the process itself: its output belongs to the protocol.
#[cfg(feature = "bundled")]
fn engine_child() -> Outcome {
    let code = loadmaster::llama::child::main();
    // An ExitCode cannot be looked into; the two that exist are told apart by equality.
    if code == std::process::ExitCode::SUCCESS { Ok(Exit::Done) } else { Ok(Exit::Engine) }
}

/// The hidden command that is the engine, in a build without one.
#[cfg(not(feature = "bundled"))]
fn engine_child() -> Outcome {
    Err(failure(&engine::EngineError::NotBundled.into()))
}

/// What every command gets.
pub struct Shared {
    /// Where output goes.
    pub output: Output,
    /// The machine to look at.
    pub machine: MachineSource,
}

/// What the command line pretends of the machine. Other commands take `--threads` as the engine's setting.
fn overrides(cli: &Cli) -> Overrides {
    let threads = match &cli.command {
        Command::Detect(args) => args.threads,
        Command::Inspect(args) => args.threads,
        _ => None,
    };
    Overrides { gpu_memory: cli.global.gpu_memory.iter().copied().collect(), ram: cli.global.ram, threads }
}

fn machine_source(text: &str) -> MachineSource {
    match text.parse() {
        Ok(source) => source,
        Err(never) => match never {},
    }
}

impl Shared {
    /// The machine.
    pub fn machine(&self) -> Result<Machine, Failure> {
        self.machine_to(Depth::default())
    }

    /// The machine, asking as much of it as `depth` allows.
    pub fn machine_to(&self, depth: Depth) -> Result<Machine, Failure> {
        self.machine.load_to(depth, &driver_child()).map_err(|error| failure(&error.into()))
    }

    /// True where the machine is the one that runs this program.
    pub fn is_live(&self) -> bool {
        self.machine == MachineSource::Live
    }

    /// The engine that a plan is made for: the one named; else the llama-server on PATH; else the newest that is known.
    ///
    /// A machine that is only recorded or described has no PATH, so nothing is searched for it.
    pub fn engine(&self, named: Option<&str>) -> EngineChoice {
        if let Some(Ok(engine)) = named.map(str::parse) {
            return EngineChoice::BitNet(engine);
        }
        match named {
            Some("bundled") => EngineChoice::Bundled,
            // A bare name is a file here: only without --engine is anything searched on PATH.
            Some(path) if !path.contains(std::path::MAIN_SEPARATOR) => {
                EngineChoice::External { tool: Tool::Server, path: Some(Path::new(".").join(path)) }
            }
            Some(path) => EngineChoice::External { tool: Tool::Server, path: Some(PathBuf::from(path)) },
            None if self.is_live() && engine::locate(Tool::Server, None).is_ok() => {
                suited(EngineChoice::External { tool: Tool::Server, path: None })
            }
            None => suited(EngineChoice::Assumed(Box::new(newest_server()))),
        }
    }

    /// The facts of a model that need not be there, and of the machine with the devices that are declared.
    pub fn survey(&self, subject: &SubjectArgs, pins: &PinArgs, engine: Option<&str>) -> Result<Survey, Failure> {
        let facts = Facts {
            machine: self.machine.clone(),
            driver_child: driver_child(),
            engine: self.engine(engine),
            quant: subject.quant,
            plan: Request { pins: pins.pins.clone(), ..Request::default() },
            ..Facts::new(subject.model())
        };
        let mut survey = survey(&facts).map_err(|error| failure(&error))?;
        if let Some(devices) = pins.devices() {
            pretend(&mut survey, devices)?;
        }
        Ok(survey)
    }

    /// A command that was asked for a plan and has none: the refusal is its result.
    pub fn refusal(&self, error: Error, model: &ModelName, machine: &Machine) -> Outcome {
        self.refusal_in(error, model, machine, None)
    }

    /// The same of a model whose type was chosen.
    pub fn refusal_in(&self, error: Error, model: &ModelName, machine: &Machine, choice: Option<&Choice>) -> Outcome {
        let exit = Exit::from_code(error.exit_code());
        match error {
            Error::Refused(refusal) => {
                let view = RefusalView::new(model.clone(), machine_name(machine), &refusal);
                self.output.show(&RefusalView { precision: choice.map(PrecisionView::new), ..view })?;
                Ok(exit)
            }
            error => Err(failure(&error)),
        }
    }

    /// A command that was asked for more than a plan and has none: the refusal is told, unless results are JSON.
    pub fn refuse(&self, error: Error, model: &ModelName, machine: &Machine) -> Outcome {
        let exit = Exit::from_code(error.exit_code());
        match error {
            Error::Refused(refusal) if !self.output.json() => {
                self.output.insist(&RefusalView::new(model.clone(), machine_name(machine), &refusal));
                Ok(exit)
            }
            error => self.refusal(error, model, machine),
        }
    }
}

/// Our own engine for the models that it computes, the other for all others.
pub fn suited(other: EngineChoice) -> EngineChoice {
    EngineChoice::Suited(BitNet::default(), Box::new(other))
}

/// The same, where our own engine is one of several, as a configuration has it.
pub fn as_configured(choice: EngineChoice, own: Option<BitNet>) -> EngineChoice {
    match (choice, own) {
        (EngineChoice::Suited(_, other), Some(own)) => EngineChoice::Suited(own, other),
        (choice, _) => choice,
    }
}

/// What the bundled engine says of settings, beside what was computed.
pub fn proof(path: &Path, model: &Model, settings: &Settings, target: &Target) -> Result<Proof, Failure> {
    let interrupts = Interrupts::install().unwrap_or_else(|_| Interrupts::none());
    loadmaster::prove(path, model, settings, target, &BundledOptions::default(), &interrupts).map_err(|error| failure(&error))
}

/// Opens what is loaded beside a model.
pub fn companions(beside: &Beside) -> Result<Companions, Failure> {
    beside.check().map_err(|problem| Failure::new(Exit::Usage, problem))?;
    beside.open().map_err(|error| failure(&error.into()))
}

/// Puts devices that are declared in the place of those that the machine has. Nothing but their memory is known.
pub fn pretend(survey: &mut Survey, devices: Vec<Device>) -> Result<(), Failure> {
    let described: Vec<String> =
        devices.iter().filter_map(|device| device.total.get()).map(|bytes| format!("gpu={}B", bytes.get())).collect();
    let gpus = MachineSource::Description(described.join(",")).load().map_err(|error| failure(&error.into()))?;
    let machine = &mut survey.machine;
    machine.facts.gpus = gpus.facts.gpus;
    machine.free.gpu_memory = gpus.free.gpu_memory;
    machine.limits.visible_gpus = gpus.limits.visible_gpus;
    survey.target.devices = devices;
    Ok(())
}

/// The arguments that make an engine load what is to be loaded beside a model.
pub fn arguments(beside: &Beside, engine: &EngineRules) -> Result<Vec<OsString>, Failure> {
    let usage = |message: String| Failure::new(Exit::Usage, message);
    if !beside.is_empty() && matches!(engine.tool, Tool::Bundled | Tool::BitNet) {
        return Err(usage(format!("the {} loads nothing beside a model", engine.tool)).hint("name a llama-server with --engine"));
    }
    // The newest has no context of its own for a draft (0.7.0).
    let accepts = |spelling: &str| match &engine.accepted {
        Some(accepted) => accepted.contains(spelling),
        None => spelling != "--ctx-size-draft",
    };
    beside.arguments(&accepts).map_err(|flag| {
        let version = engine.version.as_deref().unwrap_or("the newest known");
        usage(format!("{} ({version}) has no flag {flag}", engine.tool)).hint("leave it out, or name another engine with --engine")
    })
}

/// The machine in a few words: what is not known is left out.
pub fn machine_name(machine: &Machine) -> String {
    let mut parts: Vec<String> = machine.facts.cpu.model.value().cloned().into_iter().collect();
    let (limits, cpu) = (&machine.limits, &machine.facts.cpu);
    if !(limits.allowed_physical_cores.is_unknown() && limits.allowed_cpus.is_unknown() && cpu.physical_cores.is_unknown()) {
        parts.push(match machine.effective_cores() {
            1 => "1 core".to_owned(),
            cores => format!("{cores} cores"),
        });
    }
    parts.extend(machine.effective_memory_total().get().map(|memory| memory.to_string()));
    let mut gpus: Vec<(String, usize)> = Vec::new();
    for (_, gpu, _) in machine.usable_gpus() {
        let name = gpu.name.value().map_or("GPU", String::as_str);
        let memory = gpu.memory_total.get().map(|memory| format!(" {memory}")).unwrap_or_default();
        let text = format!("{name}{memory}");
        match gpus.last_mut() {
            Some((last, count)) if *last == text => *count += 1,
            _ => gpus.push((text, 1)),
        }
    }
    parts.extend(gpus.into_iter().map(|(text, count)| if count == 1 { text } else { format!("{count} x {text}") }));
    if parts.is_empty() { machine.origin.clone() } else { parts.join(", ") }
}

/// The pins over llama-server's defaults, with what those take from model, machine and devices: as many threads as
/// cores, all layers on GPUs where there are any (`common/arg.cpp`, `--n-gpu-layers auto`).
pub fn settings(pins: &Pins, survey: &Survey) -> Settings {
    let (model, machine) = (&survey.model, &survey.machine);
    let all_layers = model.n_layer_all().saturating_add(1);
    let mut settings = Settings {
        threads: machine.effective_cores(),
        threads_batch: machine.effective_cores(),
        n_gpu_layers: if survey.target.devices.is_empty() { 0 } else { all_layers },
        ..Settings::default()
    };
    settings.n_ctx = settings.n_ctx.min(model.n_ctx_train.unwrap_or(u32::MAX));
    pins.apply(&mut settings);
    // Zero asks for the trained context, and "all" is more than any model has.
    if settings.n_ctx == 0 {
        settings.n_ctx = model.n_ctx_train.unwrap_or(Settings::default().n_ctx);
    }
    settings.n_gpu_layers = settings.n_gpu_layers.min(all_layers);
    settings.n_cpu_moe = settings.n_cpu_moe.min(model.n_layer_all());
    settings
}

/// Tells what of the settings the engine ignores, or makes something else of.
pub fn warn_ignored(output: &Output, survey: &Survey, settings: &Settings) {
    for violation in planner::ignored(&survey.context(), settings).violations {
        output.warn(format_args!("{}; {}", violation.message, violation.fix));
    }
}

/// The request of wishes and pins.
pub fn request(wishes: &Wishes, pins: Pins) -> Request {
    Request {
        use_case: wishes.use_case,
        asked: Asked {
            prompt_tokens: wishes.prompt_tokens,
            output_tokens: wishes.output_tokens,
            users: wishes.users,
            min_context: wishes.min_context,
            ttft: wishes.ttft,
            min_tps: wishes.min_tps,
            quality_floor: wishes.quality_floor,
        },
        preferences: Preferences {
            device: wishes.prefer,
            margin: wishes.margin,
            priority: wishes.priority,
            power: wishes.power,
            disk: wishes.disk,
        },
        pins,
        ..Request::default()
    }
}

/// Model and request of a command that takes a configuration: what is typed counts more than what the file says.
pub struct Wish {
    /// The model; `None` where neither names one.
    pub model: Option<PathBuf>,
    /// What to plan for.
    pub request: Request,
    /// What is loaded beside the model.
    pub beside: Beside,
    /// How our own engine computes a BitNet model, where the configuration says it.
    pub own_engine: Option<BitNet>,
    /// What the configuration was planned for.
    pub planned_for: Metadata,
}

impl Wish {
    /// Out of a configuration, if there is one, and the command line.
    pub fn new(
        shared: &Shared,
        model: Option<&Path>,
        config: Option<&Path>,
        wishes: &Wishes,
        pins: &Pins,
        beside: &CompanionArgs,
    ) -> Result<Self, Failure> {
        let mut beside = beside.beside();
        let mut request = request(wishes, pins.clone());
        let mut model = model.map(Path::to_owned);
        let (mut planned_for, mut own_engine) = (Metadata::default(), None);
        if let Some(path) = config {
            let config = ConfigFile::read(path).map_err(|error| failure(&error.into()))?;
            for step in &config.migrated {
                shared.output.warn(format_args!("{}: {step}", path.display()));
            }
            model = model.or_else(|| config.model_path(path));
            if let (None, Some(name)) = (&model, &config.metadata.model) {
                return Err(Failure::new(Exit::Usage, format!("planned for the shape of {name}, and no file is named"))
                    .at(path.display())
                    .hint("name the model's file before it: loadmaster run MODEL.gguf --config FILE"));
            }
            (planned_for, own_engine) = (config.metadata.clone(), config.engine);
            beside = beside.or(config.beside_from(path));
            request.pins = request.pins.or(config.settings);
            if *wishes == Wishes::default() {
                request.preferences = config.preferences;
                request.use_case = config.use_case.unwrap_or_default();
                request.asked = config.workload;
            }
        }
        (request.companions, request.drafting) = (companions(&beside)?.into(), beside.drafting());
        Ok(Self { model, request, beside, own_engine, planned_for })
    }
}

/// This program with the hidden command that asks the libraries of drivers. Empty where its own file is not known: they are then
/// asked in this process.
pub fn driver_child() -> Vec<OsString> {
    std::env::current_exe().map(|program| vec![program.into_os_string(), "driver-child".into()]).unwrap_or_default()
}

/// The program itself, for the processes of the engine that it starts.
pub fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(Exit::Engine, format!("cannot find this program's own file: {error}")))
}

/// What a launch begins with: facts, then a plan. Breaks off with the exit code where nothing is to be launched.
pub fn advise(shared: &Shared, facts: &Facts, wish: &Wish, strict: bool) -> Result<ControlFlow<Exit, Box<Advice>>, Failure> {
    let survey = survey(facts).map_err(|error| failure(&error))?;
    warn_elsewhere(&shared.output, &wish.planned_for, &survey);
    survey.origin.check_runnable(&survey.path).map_err(|error| failure(&error.into()))?;
    mention(&shared.output, &survey.beside);
    let (model, machine) = (ModelName::new(&survey.model, &survey.path).from(survey.origin), survey.machine.clone());
    let advice = match survey.advise(&wish.request) {
        Ok(advice) => advice,
        Err(error) => return shared.refuse(error, &model, &machine).map(ControlFlow::Break),
    };
    if strict && advice.is_downgraded() {
        announce(&shared.output, &advice);
        return Ok(ControlFlow::Break(Exit::Downgraded));
    }
    Ok(ControlFlow::Continue(Box::new(advice)))
}

/// Tells where a configuration was planned for something else than what is there.
pub fn warn_elsewhere(output: &Output, planned_for: &Metadata, survey: &Survey) {
    let engine = &survey.engine.rules.profile.name;
    for difference in planned_for.differences(&machine_name(&survey.machine), survey.model.file_type.as_deref(), engine) {
        output.warn(format_args!("{difference}"));
    }
}

/// Says that no file was read, where none was.
pub fn disclose(output: &Output, origin: Origin) {
    if let Origin::Assumed(known) = origin {
        output.say(format_args!("no file was read: this is the published shape of {} ({})", known.title, known.source));
    }
}

/// Says which files belong to the model and are not counted with it, and how they are.
pub fn mention(output: &Output, beside: &[(AttachmentKind, PathBuf)]) {
    for (kind, path) in beside {
        let flag = match kind {
            AttachmentKind::Projector => "--mmproj",
            AttachmentKind::Lora => "--lora",
            AttachmentKind::ControlVector => "--control-vector",
        };
        output.say(format_args!("the model comes with a {kind}, which counts with {flag} {}", path.display()));
    }
}

/// What a plan says before it is launched, on stderr.
pub fn announce(output: &Output, advice: &Advice) {
    let plan = advice.plan.plan();
    let context = &plan.requirement.context;
    let name = ModelName::new(&advice.model, &advice.path);
    let decode = Quantity::<Rate>::of(&plan.prediction.decode);
    output.say(format_args!("{name}: {}, {}, context {}, decode {decode} estimated", plan.verdict, plan.strategy, context.n_ctx));
    for step in plan.verdict.downgrades() {
        output.warn(step);
    }
    for warning in &plan.warnings {
        output.warn(warning);
    }
    for violation in advice.plan.warnings() {
        output.warn(format_args!("{}: {}; {}", violation.setting, violation.message, violation.fix));
    }
}

/// A failure of the library, as the program reports it.
pub fn failure(error: &Error) -> Failure {
    let message = crate::exit::chain(error);
    let hint = match error {
        Error::Invalid(report) => {
            let fixes: Vec<&str> = report.errors().map(|violation| violation.fix.as_str()).collect();
            Some(fixes.join("; ")).filter(|text| !text.is_empty())
        }
        _ => error.hint(),
    };
    Failure { exit: Exit::from_code(error.exit_code()), message, hint }
}
