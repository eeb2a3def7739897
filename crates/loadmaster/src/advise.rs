//! The pipeline as one function: detect → inspect → plan → validate, ready to be emitted or launched.

use crate::engine::{self, EngineError};
use crate::error::Error;
use crate::launch::Outcome;
use crate::machine::MachineSource;
use crate::open::{Opened, Origin};
use footprint::Target;
use footprint::bitnet::BitNet;
use formats::FileType;
use formats::analysis::Analysis;
use planner::emit::{Invocation, Listen, Program};
use planner::{EngineRules, GpuSupport, Tool, ValidPlan, Verdict};
use spec::settings::Pins;
use spec::{AttachmentKind, Machine, Model};
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::PathBuf;

/// What to advise on.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The model, as [`crate::open()`] takes it: a file, a folder of safetensors, `ollama:NAME`, a URL.
    pub model: PathBuf,
    /// The file type that a model which is no GGUF file yet is planned as; `None`: as converted, in 16 bits.
    pub quant: Option<FileType>,
    /// The machine to plan for.
    pub machine: MachineSource,
    /// A program with its arguments that asks the libraries of drivers in a process of its own: see
    /// [`MachineSource::load_to`]. Empty: they are asked in this process.
    pub driver_child: Vec<OsString>,
    /// The engine to plan for.
    pub engine: EngineChoice,
    /// Use case, preferences and pins, whose servers of remote devices the engine is asked for. Its profile is replaced by the engine's.
    pub plan: planner::Request,
}

impl Request {
    /// General use of a model on this machine with the bundled engine.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            quant: None,
            machine: MachineSource::Live,
            driver_child: Vec::new(),
            engine: EngineChoice::Bundled,
            plan: planner::Request::default(),
        }
    }
}

/// Which engine will run the plan.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineChoice {
    /// The BitNet engine inside this program for the models that it computes, the other for all others.
    Suited(BitNet, Box<EngineChoice>),
    /// The BitNet engine inside this program.
    BitNet(BitNet),
    /// The one inside this program.
    Bundled,
    /// A tool of llama.cpp on this machine: found on `PATH`, or the file or folder given.
    External {
        /// Which tool.
        tool: Tool,
        /// Where it is.
        path: Option<PathBuf>,
    },
    /// One that is not at hand: its rules are given, nothing is run.
    Assumed(Box<EngineRules>),
}

impl EngineChoice {
    /// The choice for a model: nothing is left of [`EngineChoice::Suited`].
    fn for_model(&self, model: &Model) -> Self {
        match self {
            Self::Suited(engine, _) if bitnet::computes(model) => Self::BitNet(*engine),
            Self::Suited(_, other) => other.for_model(model),
            other => other.clone(),
        }
    }
}

/// An engine that is known: its rules, the devices it can use, and the executable if it is external.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedEngine {
    /// What the planner has to know.
    pub rules: EngineRules,
    /// The GPUs that its build can use.
    pub gpus: GpuSupport,
    /// The executable; `None` for the bundled engine and for one that is assumed.
    pub external: Option<engine::Engine>,
}

/// A plan that an engine will accept, with all it was made from.
#[derive(Clone, Debug)]
pub struct Advice {
    /// Path of the model's first file; the folder or URL of one that no engine can load yet.
    pub path: PathBuf,
    /// Whether an engine can load it.
    pub origin: Origin,
    /// Files that belong to the model and are not part of it.
    pub beside: Vec<(AttachmentKind, PathBuf)>,
    /// The machine.
    pub machine: Machine,
    /// The model.
    pub model: Model,
    /// The model's analysis.
    pub analysis: Analysis,
    /// What the model can be put on.
    pub target: Target,
    /// The engine.
    pub engine: ResolvedEngine,
    /// The plan, checked.
    pub plan: ValidPlan,
}

/// Finds the best way to run a model: detect, inspect, plan, validate.
///
/// # Errors
/// An input that cannot be read, no engine, a model that does not fit ([`Error::Refused`]), or pins that break a rule
/// ([`Error::Invalid`]).
pub fn advise(request: &Request) -> Result<Advice, Error> {
    let survey = survey(request)?;
    survey.advise(&request.plan)
}

/// The two halves of the facts, machine and model, with the engine that brings them together.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Path of the model's first file; the folder or URL of one that no engine can load yet.
    pub path: PathBuf,
    /// Whether an engine can load it.
    pub origin: Origin,
    /// Files that belong to the model and are not part of it.
    pub beside: Vec<(AttachmentKind, PathBuf)>,
    /// The machine.
    pub machine: Machine,
    /// The model.
    pub model: Model,
    /// The model's analysis.
    pub analysis: Analysis,
    /// What the model can be put on.
    pub target: Target,
    /// The engine.
    pub engine: ResolvedEngine,
}

/// The facts of a request: detect and inspect, without a plan.
///
/// # Errors
/// An input that cannot be read, or no engine.
pub fn survey(request: &Request) -> Result<Survey, Error> {
    // A GPU that is missed because its driver was asleep makes a plan for another machine.
    let machine = request.machine.load_to(probe::Depth::Waking, &request.driver_child)?;
    let opened = crate::open::open_as(&request.model, request.quant)?;
    let servers = request.plan.pins.rpc_servers.as_deref().unwrap_or_default();
    let engine = resolve(&request.engine.for_model(&opened.model), &request.machine, servers)?;
    let target = with_own_gpus(target(&machine, &engine), &machine, &engine, request);
    Ok(Ground { machine, target, engine }.survey(opened))
}

/// What does not depend on a model: the machine, and the engine with what it can use of it.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The machine.
    pub machine: Machine,
    /// What models can be put on.
    pub target: Target,
    /// The engine.
    pub engine: ResolvedEngine,
}

impl Ground {
    /// Machine and engine of a request, whose model is not looked at.
    ///
    /// # Errors
    /// The machine cannot be detected, or there is no engine.
    pub fn of(request: &Request) -> Result<Self, Error> {
        let machine = request.machine.load_to(probe::Depth::Waking, &request.driver_child)?;
        let servers = request.plan.pins.rpc_servers.as_deref().unwrap_or_default();
        let engine = resolve(&request.engine, &request.machine, servers)?;
        let target = with_own_gpus(target(&machine, &engine), &machine, &engine, request);
        Ok(Self { machine, target, engine })
    }

    /// The facts of a model here.
    pub fn survey(&self, opened: Opened) -> Survey {
        Survey {
            path: opened.first(),
            origin: opened.origin,
            beside: opened.beside,
            machine: self.machine.clone(),
            analysis: formats::analysis::analyze(&opened.model),
            model: opened.model,
            target: self.target.clone(),
            engine: self.engine.clone(),
        }
    }
}

impl Survey {
    /// What settings are checked against.
    pub fn context(&self) -> planner::Context<'_> {
        planner::Context { machine: &self.machine, model: &self.model, target: &self.target, engine: &self.engine.rules }
    }

    /// Leaves of the target the devices that are pinned.
    ///
    /// # Errors
    /// [`Error::Settings`] for a device that does not exist; [`Error::NoRemoteDevices`] for servers of which no device is known.
    pub fn use_devices(&mut self, pins: &Pins) -> Result<(), Error> {
        let servers = pins.rpc_servers.as_deref().unwrap_or_default();
        let remote = self.target.devices.iter().any(|device| device.backend.name == "RPC");
        if !servers.is_empty() && (self.engine.rules.tool == Tool::Bundled || !remote) {
            return Err(Error::NoRemoteDevices { servers: servers.join(","), bundled: self.engine.rules.tool == Tool::Bundled });
        }
        if let Some(devices) = &pins.devices {
            self.target = self.target.only(devices).map_err(Error::Settings)?.into_owned();
        }
        Ok(())
    }

    /// Plans and validates.
    ///
    /// # Errors
    /// As [`Survey::use_devices`]; [`Error::Refused`] or [`Error::Invalid`]; [`Error::BitNetFork`] and [`Error::IkFork`] for a model that this
    /// engine does not load.
    pub fn advise(mut self, request: &planner::Request) -> Result<Advice, Error> {
        self.use_devices(&request.pins)?;
        let fork = self.model.tensors.iter().find(|tensor| tensor.ty.is_foreign_ternary());
        if let Some(tensor) = fork.filter(|_| self.engine.rules.profile.bitnet.is_none()) {
            return Err(Error::BitNetFork { tensor: tensor.name.clone(), ty: tensor.ty });
        }
        let ik = self.engine.rules.profile.rules.ik.is_some();
        if let Some(tensor) = self.model.tensors.iter().find(|tensor| tensor.ty.is_ik_fork() && !ik) {
            return Err(Error::IkFork { tensor: tensor.name.clone(), ty: tensor.ty });
        }
        let request = planner::Request { profile: self.engine.rules.profile.clone(), ..request.clone() };
        let plan = planner::plan(&self.machine, &self.model, &self.target, &request).map_err(Error::Refused)?;
        // What a plan chooses of the engine itself is the engine from here on.
        self.engine.rules.profile = plan.request.profile.clone();
        let plan = planner::validate(plan, &self.context()).map_err(|report| Error::Invalid(Box::new(report)))?;
        let Self { path, origin, beside, machine, model, analysis, target, engine } = self;
        let target = plan.plan().target(&target).into_owned();
        Ok(Advice { path, origin, beside, machine, model, analysis, target, engine, plan })
    }
}

/// Finds and asks the engine of a choice, for the devices of these servers (`HOST:PORT`) too. On a machine that is not this one, GPUs are taken to be usable.
///
/// # Errors
/// No such engine, or it does not answer.
pub fn resolve(choice: &EngineChoice, machine: &MachineSource, servers: &[String]) -> Result<ResolvedEngine, EngineError> {
    let here = matches!(machine, MachineSource::Live);
    match choice {
        // Which model it is for is not known here: most are no BitNet models.
        EngineChoice::Suited(_, other) => resolve(other, machine, servers),
        EngineChoice::BitNet(engine) => Ok(ResolvedEngine { rules: EngineRules::bitnet(*engine), gpus: GpuSupport::None, external: None }),
        EngineChoice::Bundled => {
            // The bundled engine is built for the CPU; on a described machine the question is what the machine could do.
            let gpus = if here { GpuSupport::None } else { GpuSupport::Native };
            Ok(ResolvedEngine { rules: bundled_rules(), gpus, external: None })
        }
        EngineChoice::External { tool, path } => {
            let found = engine::find(*tool, path.as_deref())?;
            let gpus =
                if here { GpuSupport::Listed(engine::list_devices(&found, servers, engine::PROBE_DEADLINE)?) } else { GpuSupport::Native };
            Ok(ResolvedEngine { rules: found.rules(), gpus, external: Some(found) })
        }
        EngineChoice::Assumed(rules) => Ok(ResolvedEngine { rules: (**rules).clone(), gpus: GpuSupport::Native, external: None }),
    }
}

/// The rules of the newest llama-server that is known, for machines that have none at hand.
pub fn newest_server() -> EngineRules {
    EngineRules { tool: Tool::Server, version: None, accepted: None, profile: footprint::EngineProfile::server_0_7() }
}

/// The rules of the bundled engine as this program was built.
pub(crate) fn bundled_rules() -> EngineRules {
    let rules = EngineRules::bundled();
    #[cfg(feature = "bundled")]
    let rules = {
        let build = llama::build_info();
        let amx = build.cpu_features.contains("amx_int8");
        EngineRules { version: Some(build.version), profile: footprint::EngineProfile { amx, ..rules.profile }, ..rules }
    };
    rules
}

/// What a model can be put on. The bundled engine uses of a processor only what it was built for.
fn target(machine: &Machine, engine: &ResolvedEngine) -> Target {
    let target = planner::target(machine, &engine.gpus);
    #[cfg(feature = "bundled")]
    if engine.rules.tool == Tool::Bundled {
        let unused = llama::build_info().unused_features(target.cpu_features.iter().map(String::as_str));
        let cpu_features = target.cpu_features.into_iter().filter(|feature| !unused.contains(feature)).collect();
        return Target { cpu_features, ..target };
    }
    target
}

/// A target of the BitNet engine with the GPUs of this machine that our own kernels reach, idle until they are named. Drivers are started only
/// for requests that name one.
fn with_own_gpus(target: Target, machine: &Machine, engine: &ResolvedEngine, request: &Request) -> Target {
    #[cfg(any(feature = "gpu", feature = "cuda"))]
    {
        let here = matches!(request.machine, MachineSource::Live) && engine.rules.tool == Tool::BitNet;
        let named = matches!(&request.plan.pins.devices, Some(spec::settings::Devices::Only(names)) if !names.is_empty());
        if here && named {
            return Target { idle: crate::gpus::devices(machine), ..target };
        }
    }
    let _ = (machine, engine, request);
    target
}

/// What of a command is no setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOptions {
    /// Where a server listens.
    pub listen: Option<Listen>,
    /// Further arguments for the engine, as they are.
    pub extra: Vec<OsString>,
}

impl Advice {
    /// What a run is held against: this, or where the device of the plan was not there, the same settings with all layers on the CPU; this
    /// where they would not be allowed there, so that a receipt says by how much.
    pub(crate) fn as_run(&self, outcome: &Outcome) -> Cow<'_, Self> {
        let on_cpu = outcome.without_device.then(|| self.on_cpu()).and_then(Result::ok);
        on_cpu.map_or(Cow::Borrowed(self), Cow::Owned)
    }

    /// The same settings without a device.
    fn on_cpu(&self) -> Result<Self, Error> {
        let plan = self.plan.plan();
        let settings = &plan.settings;
        let pins = Pins {
            n_ctx: Some(plan.requirement.context.n_ctx),
            n_ubatch: Some(settings.n_ubatch),
            cache_type_k: Some(settings.cache_type_k),
            cache_type_v: Some(settings.cache_type_v),
            threads: Some(settings.threads),
            n_gpu_layers: Some(0),
            devices: None,
            ..plan.request.pins.clone()
        };
        let survey = Survey {
            path: self.path.clone(),
            origin: self.origin,
            beside: self.beside.clone(),
            machine: self.machine.clone(),
            model: self.model.clone(),
            analysis: self.analysis.clone(),
            target: Target { devices: Vec::new(), idle: Vec::new(), ..self.target.clone() },
            engine: self.engine.clone(),
        };
        survey.advise(&planner::Request { pins, ..plan.request.clone() })
    }

    /// True where something was given up so that the model fits.
    pub fn is_downgraded(&self) -> bool {
        matches!(self.plan.plan().verdict, Verdict::FitsAfterDowngrade(_))
    }

    /// The command that starts the plan. Its program is the engine found, or the tool's name where none was looked for.
    pub fn invocation(&self, options: &CommandOptions) -> Invocation {
        let path = match &self.engine.external {
            Some(found) => found.path.clone(),
            None if self.engine.rules.tool == Tool::BitNet => PathBuf::from("loadmaster"),
            None => PathBuf::from(self.engine.rules.tool.to_string()),
        };
        let program = Program { path, model: self.path.clone(), listen: options.listen.clone(), extra: options.extra.clone() };
        planner::emit(&self.plan, &program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The header of a model with as much of nothing behind it as its tensors are long.
    fn model(folder: &Path, preset: &str) -> PathBuf {
        let path = folder.join(format!("{preset}.gguf"));
        let shape = synthetic::preset(preset).unwrap();
        let file = synthetic::gguf(&shape, synthetic::FileType::Q4_K_M, &synthetic::Options::default()).unwrap();
        std::fs::write(&path, &file.header).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(file.size.get()).unwrap();
        path
    }

    fn request(model: PathBuf, machine: &str) -> Request {
        Request { machine: MachineSource::Description(machine.into()), ..Request::new(model) }
    }

    #[test]
    fn a_model_that_fits_is_planned_and_can_be_emitted() {
        let folder = tempfile::tempdir().unwrap();
        let path = model(folder.path(), "llama-3.2-1b");
        let mut request = request(path.clone(), "ram=16GiB,cores=4,gpu=8GiB");
        request.engine = EngineChoice::Assumed(Box::new(EngineRules { tool: Tool::Server, ..EngineRules::bundled() }));
        let advice = advise(&request).unwrap();
        assert!(!advice.is_downgraded());
        assert_eq!(advice.plan.plan().settings.n_gpu_layers, advice.model.n_layer_all() + 1);
        let options = CommandOptions { listen: Some(Listen { host: "127.0.0.1".into(), port: 8080 }), extra: vec!["--verbose".into()] };
        let line = advice.invocation(&options).to_string();
        for part in ["llama-server ", &path.display().to_string(), "--port 8080", "--ctx-size", "--verbose"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_broken_pins_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let large = request(model(folder.path(), "llama-3.1-70b"), "ram=2GiB,cores=4");
        let large = Request { plan: planner::Request { preferences: never_from_disk(), ..large.plan.clone() }, ..large };
        let error = advise(&large).unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error}");
        assert_eq!(error.exit_code(), 3);

        let mut pinned = request(model(folder.path(), "llama-3.2-1b"), "ram=16GiB,cores=4");
        pinned.plan.pins = Pins { n_ctx: Some(8192), n_batch: Some(0), ..Pins::default() };
        let error = advise(&pinned).unwrap_err();
        assert!(matches!(error, Error::Invalid(_) | Error::Refused(_)), "{error}");
        assert_eq!(error.exit_code(), 2, "the engine refuses it, however much memory there is");
    }

    fn never_from_disk() -> planner::Preferences {
        planner::Preferences { disk: planner::plan::DiskPolicy::Never, ..planner::Preferences::default() }
    }

    #[test]
    fn an_engine_is_needed_only_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = EngineChoice::External { tool: Tool::Server, path: Some(folder.path().to_owned()) };
        let request = Request { engine: nowhere, ..request(model(folder.path(), "smollm2-135m"), "ram=16GiB,cores=4") };
        assert_eq!(advise(&request).unwrap_err().exit_code(), 5);
        assert!(advise(&Request { engine: EngineChoice::Bundled, ..request }).is_ok());
    }
}
