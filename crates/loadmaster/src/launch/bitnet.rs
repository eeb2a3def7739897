//! The BitNet engine inside this program: our own kernels, in this process, over the mapped file.
//!
//! It computes what llama.cpp does not (`I2_S`, ReLU²), and the ternary types that it does, by the rules of the model's owner. It is Rust
//! and refuses what it cannot do, so it needs no process of its own; what it takes is what this process takes on top of what it had. Layers that
//! the plan puts on a GPU are computed there as long as it answers: then the CPU goes on with all of them.

use super::bundled::{BundledOptions, ChatMessage, Generated, Generation, Prompt, Stop};
use super::{BufferUse, Event, Interrupts, LaunchError, Outcome, ProcessMemory, ReportedBuffer, Stage, Timing, signal_name};
use crate::advise::Advice;
#[cfg(any(feature = "gpu", feature = "cuda"))]
use crate::gpus::{Layers, Wanted};
use crate::open::{FolderText, is_hub_folder};
use bitnet::{CacheType, ChatTemplate, Dialogue, Options, Sampler, Sampling, Session as Context, Step, Tokenizer, Weights};
use bitnet::{DialogueError, LoadOptions, Message, SessionError, ShapeTiles, Stack};
use footprint::bitnet::Buffers;
use kernels::Layout;
#[cfg(any(feature = "gpu", feature = "cuda"))]
use planner::plan::{Origin, Pool};
use spec::{Bytes, QuantType};
use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// A loaded model in this process.
#[derive(Debug)]
pub struct Session {
    dialogue: Dialogue,
    /// For a context without a GPU.
    weights: Arc<Weights>,
    sizes: Options,
    template: Option<ChatTemplate>,
    /// What this process had before.
    before: ProcessMemory,
    /// What is allocated without a GPU.
    on_cpu: Vec<ReportedBuffer>,
    outcome: Outcome,
}

/// A refusal with its reason.
fn refused(reason: impl std::fmt::Display) -> LaunchError {
    LaunchError::Refused { reason: reason.to_string(), memory: false, log: Vec::new() }
}

/// Maps the plan's model and makes its context. Of the options only the warm-up counts.
///
/// # Errors
/// The file is no BitNet model, its vocabulary is not known, no thread can be started, or a signal comes.
pub fn start(
    advice: &Advice,
    options: &BundledOptions,
    interrupts: &Interrupts,
    on: &mut dyn FnMut(Event<'_>),
) -> Result<Session, LaunchError> {
    let begun = Instant::now();
    let interrupted = || interrupts.take().map(|signal| LaunchError::Interrupted { signal: signal_name(signal) });
    let mut before = ProcessMemory::default();
    before.look(std::process::id());
    on(Event::Started { pid: std::process::id() });
    on(Event::Stage(Stage::ReadingHeader));
    let files = map(advice)?;
    let (tokenizer, template) = text(advice, &files)?;
    on(Event::Stage(Stage::LoadingWeights));
    let (sizes, tiles) = (sizes(advice)?, tiles(advice)?);
    let engine = advice.engine.rules.profile.bitnet.unwrap_or_default();
    let layout = if engine.in_place { Layout::Blocks128 } else { Layout::Blocks64 };
    let load =
        LoadOptions { layout, head: engine.head.unwrap_or_default(), tiles: &tiles, threads: sizes.threads, ..LoadOptions::default() };
    let weights = Arc::new(Weights::load(&advice.model, &files, &load).map_err(refused)?);
    if let Some(error) = interrupted() {
        return Err(error);
    }
    on(Event::Stage(Stage::MakingContext));
    let mut without_device = false;
    let device = on_device(advice, &weights, sizes).unwrap_or_else(|reason| {
        on(Event::Warning(&format!("{reason}; the CPU computes all layers")));
        without_device = true;
        None
    });
    let here = |device: &Option<OnDevice>| {
        let there = device.as_ref().map_or((0, false), |device| (device.stack.n_layer(), device.stack.has_head()));
        bitnet::memory::beside(&advice.model, &load, &sizes, there.0, there.1).map_err(refused)
    };
    let on_cpu = reported(&here(&None)?);
    let mut buffers = reported(&here(&device)?);
    buffers.extend(device.iter().flat_map(|device| device.buffers.clone()));
    let mut told = device.as_ref().map(|device| (device.told.clone(), device.notes.clone()));
    let mut context = Context::with_device(Arc::clone(&weights), sizes, device.map(|device| device.stack)).map_err(refused)?;
    if options.warm_up {
        on(Event::Stage(Stage::WarmingUp));
        if let Err(error) = context.extend(&[0]) {
            let SessionError::Device(_) = error else { return Err(refused(error)) };
            on(Event::Warning(&format!("{error}; the CPU computes all layers")));
            (buffers, told, without_device) = (on_cpu.clone(), None, true);
            context = Context::new(Arc::clone(&weights), sizes).map_err(refused)?;
        }
    }
    if let Some(error) = interrupted() {
        return Err(error);
    }
    on(Event::Stage(Stage::Ready));
    let (told, notes) = told.map_or_else(Default::default, |(told, notes)| (format!("; {told}"), notes));
    let engine = format!("{} {} ({}{told})", advice.engine.rules.tool, env!("CARGO_PKG_VERSION"), load.kernel);
    let outcome = Outcome { engine, load: Some(begun.elapsed()), buffers, notes, without_device, ..Outcome::default() };
    let mut session = Session { dialogue: Dialogue::new(context, tokenizer), weights, sizes, template, before, on_cpu, outcome };
    session.look();
    session.outcome.memory_at_load = session.outcome.memory;
    Ok(session)
}

/// Layers on a GPU, and what they hold there.
struct OnDevice {
    stack: Box<dyn Stack>,
    buffers: Vec<ReportedBuffer>,
    /// Where they are, in words.
    told: String,
    /// Where they take less than planned.
    notes: Vec<String>,
}

/// The layers that the plan puts on a GPU; `None` where it puts none there.
#[cfg(any(feature = "gpu", feature = "cuda"))]
fn on_device(advice: &Advice, weights: &Weights, sizes: Options) -> Result<Option<OnDevice>, String> {
    let n_gpu_layers = advice.plan.plan().settings.n_gpu_layers as usize;
    let Some(device) = advice.target.devices.first().filter(|_| n_gpu_layers > 0) else { return unnamed(advice) };
    let plan = advice.plan.plan();
    let pinned = plan.choices.iter().any(|choice| choice.setting == "n_ubatch" && choice.origin == Origin::Pinned);
    let budget = plan.budgets.iter().find(|budget| matches!(budget.pool, Pool::Device { index: 0, .. }));
    // The output head counts as the last of all.
    let all = weights.config().n_layer + 1;
    let wanted = Wanted { name: &device.name, layers: all.saturating_sub(n_gpu_layers)..all, sizes, open: budget.filter(|_| !pinned) };
    let layers = crate::gpus::layers(weights, &wanted)?;
    let parts = [(BufferUse::Weights, layers.weights), (BufferUse::Context, layers.kv_cache), (BufferUse::Compute, layers.compute)];
    let buffers = parts.map(|(usage, size)| buffer(&device.name, usage, size));
    let told = match layers.stack.n_layer() {
        0 => format!("the output head on {}", device.name),
        n_layer => format!("{n_layer} layers and the output head on {}, {} tokens at a time", device.name, layers.tokens),
    };
    let most = wanted.tokens();
    let fewer = (layers.stack.n_layer() > 0 && layers.tokens < most).then(|| {
        let Layers { tokens, compute, .. } = layers;
        format!(
            "{}: {tokens} tokens of a prompt at a time, of {most} that the plan leaves memory for, so that it computes in {compute}",
            device.name
        )
    });
    Ok(Some(OnDevice { stack: layers.stack, buffers: buffers.into(), told, notes: fewer.into_iter().collect() }))
}

/// No layers on a GPU: this build has no kernels for them.
#[cfg(not(any(feature = "gpu", feature = "cuda")))]
fn on_device(advice: &Advice, _: &Weights, _: Options) -> Result<Option<OnDevice>, String> {
    unnamed(advice)
}

/// Layers that were asked for without a GPU for them.
fn unnamed(advice: &Advice) -> Result<Option<OnDevice>, String> {
    let way = match (cfg!(feature = "gpu"), cfg!(feature = "cuda")) {
        (true, _) => "name one, as in --device wgpu0",
        (false, true) => "name one, as in --device cuda0",
        (false, false) => "this build has no kernels for one (features gpu and cuda)",
    };
    match advice.plan.plan().settings.n_gpu_layers {
        0 => Ok(None),
        layers => Err(format!("no GPU for {layers} layers of a BitNet model: {way}")),
    }
}

fn buffer(name: &str, usage: BufferUse, size: Bytes) -> ReportedBuffer {
    ReportedBuffer { buffer_type: name.to_owned(), usage, size, rounding: Bytes::ZERO }
}

/// Every file of the model.
fn map(advice: &Advice) -> Result<Vec<bytes::Bytes>, LaunchError> {
    let files = crate::open::weight_files(&advice.path).map_err(refused)?;
    let one = |path: PathBuf| {
        let mapped = File::open(&path).and_then(|file| kernels::map(&file));
        mapped.map_err(|error| refused(format!("cannot map {}: {error}", path.display())))
    };
    files.into_iter().map(one).collect()
}

/// How texts become tokens, and conversations texts: of a folder by the files in it, else by the vocabulary of the first file.
fn text(advice: &Advice, files: &[bytes::Bytes]) -> Result<(Tokenizer, Option<ChatTemplate>), LaunchError> {
    let template = |source: Option<&str>, bos: &str, eos: &str| source.map(|source| ChatTemplate::new(source, bos, eos)).transpose();
    if is_hub_folder(&advice.path) {
        let text = FolderText::read(&advice.path).map_err(refused)?;
        let tokenizer = Tokenizer::from_json(&text.tokenizer, &text.ends).map_err(refused)?;
        return Ok((tokenizer, template(text.chat_template.as_deref(), &text.bos, &text.eos).map_err(refused)?));
    }
    let first = files.first().cloned().unwrap_or_default();
    let vocabulary = formats::gguf::vocabulary(&first, Bytes::new(first.len() as u64)).map_err(refused)?;
    let spelled = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize)).map_or("", String::as_str);
    let template = template(vocabulary.chat_template.as_deref(), spelled(vocabulary.bos), spelled(vocabulary.eos)).map_err(refused)?;
    Ok((Tokenizer::from_vocabulary(&vocabulary).map_err(refused)?, template))
}

/// Beside a model in TL1 or TL2: the tiles of the build that it was made for.
const TILES: &str = "kernel_config.ini";
/// The most that is read of it: a build has some sections of a hundred bytes.
const LONGEST_TILES: u64 = 1 << 20;

/// How the tensors of a model in TL1 or TL2 are tiled, from the file beside it; nothing for all others.
fn tiles(advice: &Advice) -> Result<Vec<ShapeTiles>, LaunchError> {
    let Some(tensor) = advice.model.tensors.iter().find(|tensor| matches!(tensor.ty, QuantType::TL1 | QuantType::TL2)) else {
        return Ok(Vec::new());
    };
    let path = advice.path.with_file_name(TILES);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(LONGEST_TILES).read_to_string(&mut text)) {
        Ok(_) => ShapeTiles::of_config(&text).map_err(|error| refused(format!("{}: {error}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(refused(format!(
            "tensor {} is {}, whose tiles no model file states: put the {TILES} of the build that it was made for beside it, as {}",
            tensor.name,
            tensor.ty,
            path.display()
        ))),
        Err(error) => Err(refused(format!("cannot read {}: {error}", path.display()))),
    }
}

fn sizes(advice: &Advice) -> Result<Options, LaunchError> {
    let plan = advice.plan.plan();
    let (settings, context) = (&plan.settings, &plan.requirement.context);
    let cache = CacheType::of(settings.cache_type_k).ok_or_else(|| refused(format!("no cache in {}", settings.cache_type_k)))?;
    let count = |number: u32| number as usize;
    Ok(Options { n_ctx: count(context.n_ctx), n_ubatch: count(context.n_ubatch), cache, threads: count(settings.threads) })
}

/// What was allocated, under llama.cpp's names of buffer types.
fn reported(buffers: &Buffers) -> Vec<ReportedBuffer> {
    let parts = [
        ("CPU_Mapped", BufferUse::Weights, buffers.weights_mapped),
        ("CPU", BufferUse::Weights, buffers.weights_copied),
        ("CPU", BufferUse::Context, buffers.kv_cache),
        ("CPU", BufferUse::Compute, buffers.compute),
        ("CPU", BufferUse::Output, buffers.output),
    ];
    parts.into_iter().map(|(name, usage, size)| buffer(name, usage, size)).collect()
}

impl Session {
    /// The engine and the instructions that it computes with.
    pub fn engine(&self) -> &str {
        &self.outcome.engine
    }

    /// What was allocated, by use.
    pub fn buffers(&self) -> &[ReportedBuffer] {
        &self.outcome.buffers
    }

    /// Whether the model has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Continues a prompt; pieces of text come as [`Event::Text`]. A signal ends the text, not the session.
    ///
    /// # Errors
    /// The prompt is empty or longer than the context, the template refuses it, or the model computes no numbers.
    pub fn generate(
        &mut self,
        prompt: &Prompt,
        generation: &Generation,
        interrupts: &Interrupts,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, LaunchError> {
        // A conversation goes on where it was; a single prompt is computed whole, so that its time is that of the whole.
        let keep = matches!(prompt, Prompt::Chat(_));
        let prompt = self.written(prompt)?;
        let begun = Instant::now();
        let cancelled = Cell::new(false);
        let go_on = || {
            cancelled.set(cancelled.get() || interrupts.take().is_some());
            !cancelled.get()
        };
        let read = match self.dialogue.read(&prompt, keep, &go_on) {
            Err(error) if self.goes_on(&error, on)? => self.dialogue.read(&prompt, true, &go_on),
            read => read,
        };
        let read = read.map_err(refused)?;
        let Some(tokens) = read else {
            return Ok(Generated { text: String::new(), stop: Stop::Cancelled, prefill: Timing::default(), decode: Timing::default() });
        };
        let past = self.dialogue.session().past().saturating_sub(tokens) as u64;
        let prefill = Timing::behind(past, tokens as u64, begun.elapsed());
        let (text, stop, decode) = self.continued(generation, &go_on, on)?;
        self.outcome.prefill.add(prefill);
        self.outcome.decode.add(decode);
        self.look();
        Ok(Generated { text, stop, prefill, decode })
    }

    /// Writes until something stops it.
    fn continued(
        &mut self,
        generation: &Generation,
        go_on: &dyn Fn() -> bool,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<(String, Stop, Timing), LaunchError> {
        let Generation { n_predict, temperature, top_k, top_p, seed } = *generation;
        let mut sampler = Sampler::new(Sampling { temperature, top_k: top_k as usize, top_p, seed: seed.into() });
        let (begun, past) = (Instant::now(), self.dialogue.session().past() as u64);
        let mut text = String::new();
        let mut say = |piece: String, on: &mut dyn FnMut(Event<'_>)| {
            if !piece.is_empty() {
                on(Event::Text(&piece));
                text.push_str(&piece);
            }
        };
        let mut tokens = 0_u32;
        let stop = loop {
            if tokens >= n_predict {
                break Stop::Length;
            }
            if !go_on() {
                break Stop::Cancelled;
            }
            let step = match self.dialogue.step(&mut sampler) {
                Err(error) if self.goes_on(&error, on)? => self.dialogue.step(&mut sampler),
                step => step,
            };
            match step.map_err(refused)? {
                Step::Token(piece) => say(piece, on),
                Step::End => break Stop::EndOfText,
                Step::Full => break Stop::ContextFull,
            }
            tokens += 1;
        };
        say(self.dialogue.rest(), on);
        // The first token costs no decode: it is chosen from the prompt's logits. Finding an end costs one, and is none.
        let decode = Timing::behind(past, tokens.saturating_sub(1).into(), begun.elapsed());
        Ok((text, stop, decode))
    }

    /// Whether an error is that of a GPU: then the CPU has read all tokens again, and computes all layers from here on.
    fn goes_on(&mut self, error: &DialogueError, on: &mut dyn FnMut(Event<'_>)) -> Result<bool, LaunchError> {
        let DialogueError::Session(error @ SessionError::Device(_)) = error else { return Ok(false) };
        on(Event::Warning(&format!("{error}; the CPU goes on with all layers")));
        let context = Context::new(Arc::clone(&self.weights), self.sizes).map_err(refused)?;
        self.dialogue.replace(context).map_err(refused)?;
        (self.outcome.buffers, self.outcome.without_device) = (self.on_cpu.clone(), true);
        Ok(true)
    }

    fn written(&self, prompt: &Prompt) -> Result<String, LaunchError> {
        match (prompt, &self.template) {
            (Prompt::Text(text), _) => Ok(text.clone()),
            (Prompt::Chat(turns), Some(template)) => {
                let message = |turn: &ChatMessage| Message { role: turn.role.clone(), content: turn.content.clone() };
                template.apply(&turns.iter().map(message).collect::<Vec<_>>()).map_err(refused)
            }
            (Prompt::Chat(_), None) => Err(refused("the model has no chat template; give a text to continue instead")),
        }
    }

    /// Memory of this process on top of what it had before the engine.
    fn look(&mut self) {
        let mut now = ProcessMemory::default();
        now.look(std::process::id());
        self.outcome.memory.update(&now.beyond(&self.before));
    }

    /// Ends the engine and tells what it used.
    pub fn finish(mut self) -> Outcome {
        self.look();
        std::mem::take(&mut self.outcome)
    }
}
