//! Simulations of one model's graphs, and what they have in common.

use super::allocate::{BufferRules, chunk_sizes, traced};
use super::borders::{Cuts, Traced};
use super::builder::{Batch, Builder, Missing, Options};
use super::decoder::Decoder;
use super::fusions::{Fusion, Fusions};
use super::pieces::{Pieces, Sequence};
use super::reorder::Optimizer;
use super::schedule::{Schedule, Scheduler, schedule};
use super::tensor::{Id, Memory};
use super::weights::Weights;
use super::{Certainty, ComputeBuffers, Configuration, MAX_LAYERS, Measured, Run, Setup, Shape, arch, estimate};
use crate::{GraphSize, ResolvedContext};
use spec::Model;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The source of compute buffers of one model on one target. What it has simulated serves again, piece by piece.
pub(crate) struct Simulations<'a> {
    pub(super) model: &'a Model,
    weights: Weights,
    /// The graph of the model's family, where it is declared.
    declared: Option<Decoder>,
    families: RefCell<Vec<(Frame, Option<Pieces>)>>,
    contents: RefCell<Vec<(Shared, Contents)>>,
    graphs: Cell<usize>,
}

/// Numbers for what each layer is; `None` for graphs without pieces.
type Contents = Option<Rc<[u32]>>;

/// What decides a graph apart from where anything lies.
#[derive(Clone, Debug, PartialEq)]
struct Shared {
    /// With no layer.
    options: Options,
    batch: Batch,
    run: Run,
}

/// What graphs share that differ only in where layers lie.
#[derive(Clone, Debug, PartialEq)]
struct Frame {
    shared: Shared,
    scheduler: Scheduler,
    rules: Vec<BufferRules>,
    /// Number of the shape of everything outside of layers.
    outside: u32,
}

/// Repetitions of a pattern of layers that are left of it in a graph that is simulated for its pieces.
const REPEATS: usize = 2;
/// Graphs in short that are tried before the graph itself.
const ATTEMPTS: usize = 3;

impl<'a> Simulations<'a> {
    /// Nothing is simulated yet.
    pub(crate) fn new(model: &'a Model) -> Self {
        Self {
            model,
            weights: Weights::of(model),
            declared: arch::decoder(model),
            families: RefCell::default(),
            contents: RefCell::default(),
            graphs: Cell::new(0),
        }
    }

    /// How many graphs have been simulated.
    pub(crate) fn graphs(&self) -> usize {
        self.graphs.get()
    }

    /// As [`super::buffers`], or [`super::dry_run`] by `run`; with the shape of the placement, out of pieces.
    pub(crate) fn buffers(
        &self,
        configuration: Configuration<'_>,
        shape: Option<&Shape>,
        context: &ResolvedContext,
        run: Run,
    ) -> ComputeBuffers {
        let Configuration { settings, target, placement } = configuration;
        let model = self.model;
        let closed_forms = |reason: &str| estimate::buffers(model, settings, target, placement, context, reason);
        if model.layers.len() > MAX_LAYERS {
            return closed_forms("more than 512 layers");
        }
        let declared = self.declared;
        if model.encoder && declared.is_none() {
            return closed_forms("an encoder whose graph is not declared");
        }
        let setup = Setup::new(self, shape, configuration, context);
        match setup.reserve(&declared.unwrap_or(arch::LLAMA), context, run) {
            Ok(reserved) => setup.known(target, &reserved, declared.is_none().then_some(Certainty::StandIn)),
            Err(missing) => closed_forms(&missing.to_string()),
        }
    }
}

impl Setup<'_> {
    /// What the graph of one batch takes.
    pub(super) fn measure(&self, decoder: &Decoder, fusions: Fusions, batch: Batch, run: Run) -> Result<Measured, Missing> {
        let options = Options { fusions, ..self.options.clone() };
        let graph = Graph { setup: self, decoder, options: &options, batch, run };
        match self.shape {
            // Several copies of the inputs are laid out ahead of all.
            Some(shape) if self.scheduler.copies == 1 && self.scheduler.ik.is_none() && self.scheduler.is_local() => graph.in_pieces(shape),
            _ => graph.whole(),
        }
    }
}

/// One graph to be simulated.
struct Graph<'a> {
    setup: &'a Setup<'a>,
    decoder: &'a Decoder,
    options: &'a Options,
    batch: Batch,
    run: Run,
}

impl<'a> Graph<'a> {
    fn n_layer(&self) -> usize {
        let model = self.setup.model;
        model.layers.len().min(model.n_layer() as usize)
    }

    fn count(&self) {
        let graphs = &self.setup.simulations.graphs;
        graphs.set(graphs.get() + 1);
    }

    fn build(&self, layers: &[usize]) -> Result<Builder<'a>, Missing> {
        let simulations = self.setup.simulations;
        let mut builder =
            Builder::new(self.setup.model, &simulations.weights, self.setup.placement, self.options, self.batch, layers.len());
        self.decoder.build(&mut builder, layers)?;
        if self.run == Run::Dry {
            builder.graph.pins.clear();
        }
        Ok(builder)
    }

    fn whole(&self) -> Result<Measured, Missing> {
        self.count();
        let mut builder = self.build(&(0..self.n_layer()).collect::<Vec<_>>())?;
        let mut scheduler = self.setup.scheduler;
        for optimizer in scheduler.optimizers.iter_mut().flatten() {
            if let Optimizer::Metal { dry } = optimizer {
                *dry = self.run == Run::Dry;
            }
        }
        let schedule = schedule(&mut builder.graph, scheduler, Vec::new());
        let (graph, rules) = (&builder.graph, &self.setup.rules);
        Ok(Measured {
            chunks: chunk_sizes(graph, &schedule.layout, rules),
            unfused: schedule.unfused.as_ref().map(|layout| chunk_sizes(graph, layout, rules)),
            graph: size(&builder, schedule.splits),
            astray: astray(&builder, &schedule, |_| true),
        })
    }

    /// The same from the pieces of graphs of one family; what is missing is simulated.
    fn in_pieces(&self, shape: &Shape) -> Result<Measured, Missing> {
        let setup = self.setup;
        let frame = Frame {
            shared: Shared { options: Options { layers: Vec::new(), ..self.options.clone() }, batch: self.batch, run: self.run },
            scheduler: setup.scheduler,
            rules: setup.rules.clone(),
            outside: shape.outside,
        };
        let mut families = setup.simulations.families.borrow_mut();
        let known = families.iter().position(|(known, _)| *known == frame);
        let all: Vec<usize> = (0..self.n_layer()).collect();
        let known = match known {
            Some(known) => known,
            None => {
                let contents = self.contents(&frame.shared, &all)?;
                families.push((frame, contents.map(Pieces::new)));
                families.len() - 1
            }
        };
        let Some(pieces) = &mut families[known].1 else { return self.whole() };
        let sequence = sequence(pieces, shape, &all);
        let (backends, variants) = (setup.rules.len(), self.variants());
        if let Some(measured) = pieces.join(&sequence, backends, variants) {
            return Ok(measured);
        }
        for _ in 0..ATTEMPTS {
            let Some(pieces) = &families[known].1 else { return self.whole() };
            let short = pieces.in_short(&sequence, REPEATS);
            if short.len() == all.len() {
                break;
            }
            self.learn(&mut families[known].1, shape, &short)?;
            let Some(pieces) = &families[known].1 else { return self.whole() };
            if let Some(measured) = pieces.join(&sequence, backends, variants) {
                return Ok(measured);
            }
        }
        self.learn(&mut families[known].1, shape, &all)
    }

    fn contents(&self, shared: &Shared, all: &[usize]) -> Result<Contents, Missing> {
        let mut known = self.setup.simulations.contents.borrow_mut();
        if let Some((_, contents)) = known.iter().find(|(known, _)| known == shared) {
            return Ok(contents.clone());
        }
        let whole = self.build(all)?;
        let contents = Cuts::of(&whole).map(|cuts| numbered(cuts.contents(&whole)));
        known.push((shared.clone(), contents.clone()));
        Ok(contents)
    }

    /// Layouts that are allocated: as backends fuse operations, and as they do not.
    fn variants(&self) -> usize {
        if self.setup.scheduler.fuses() { 2 } else { 1 }
    }

    /// Simulates the graph of these layers for its pieces. There are none any more once layers turn out to reach beyond their
    /// neighbours.
    fn learn(&self, pieces: &mut Option<Pieces>, shape: &Shape, layers: &[usize]) -> Result<Measured, Missing> {
        self.count();
        let mut builder = self.build(layers)?;
        let cuts = Cuts::of(&builder);
        let originals = builder.graph.len();
        let at = cuts.as_ref().map(|cuts| cuts.nodes.clone()).unwrap_or_default();
        let schedule = schedule(&mut builder.graph, self.setup.scheduler, at);
        let layouts = [Some(&schedule.layout), schedule.unfused.as_ref()].into_iter().flatten();
        let (mut chunks, mut memory): (Vec<_>, Vec<_>) = layouts.map(|layout| traced(&builder.graph, layout, &self.setup.rules)).unzip();
        while memory.len() < self.variants() {
            chunks.extend_from_within(..1);
            memory.extend_from_within(..1);
        }
        let mut chunks = chunks.into_iter();
        let measured = Measured {
            chunks: chunks.next().unwrap_or_default(),
            unfused: chunks.next(),
            graph: size(&builder, schedule.splits),
            astray: astray(&builder, &schedule, |_| true),
        };
        if let Some(pieces) = pieces.as_mut().filter(|pieces| !pieces.typed)
            && copies_quantized(&builder.graph, &schedule)
        {
            pieces.tell_types();
        }
        let learnt = pieces.as_mut().zip(cuts).and_then(|(pieces, cuts)| {
            let sequence = sequence(pieces, shape, layers);
            let traced = Traced { builder: &builder, cuts: &cuts, originals, schedule: &schedule, memory };
            pieces.learn(&sequence, traced.words(&sequence.layers)?, traced.pieces());
            Some(())
        });
        if learnt.is_none() {
            *pieces = None;
        }
        Ok(measured)
    }
}

/// What is computed as one, but for some node that `among` lets through not on its layer's own device.
pub(super) fn astray(builder: &Builder<'_>, schedule: &Schedule, among: impl Fn(Id) -> bool) -> Fusions {
    let elsewhere = |&&(_, layer, node): &&(Fusion, usize, Id)| schedule.backend(node) != Some(builder.layer_backend(layer));
    let nodes = builder.fused.iter().filter(|&&(_, _, node)| among(node)).filter(elsewhere);
    nodes.fold(Fusions::NONE, |all, &(fusion, ..)| all.with(fusion))
}

/// True where a device copies quantised weights: their types then decide sizes.
fn copies_quantized(graph: &super::graph::Graph, schedule: &Schedule) -> bool {
    schedule.trace.copies.iter().any(|copy| {
        let weight = graph.tensor(graph.root(copy.source));
        matches!(weight.memory, Memory::Weights { .. }) && weight.ty.is_quantized()
    })
}

fn sequence(pieces: &Pieces, shape: &Shape, layers: &[usize]) -> Sequence {
    let place = |layer: usize| shape.layers.get(layer).map_or(0, |numbers| numbers[usize::from(pieces.typed)]);
    let kind = |layer: &usize| shape.kinds.get(*layer).copied().unwrap_or(0);
    Sequence::new(layers.iter().map(|&layer| pieces.layer(layer, place(layer))).collect(), layers.iter().map(kind))
}

/// Equal contents get equal numbers.
fn numbered(contents: Vec<Vec<u64>>) -> Rc<[u32]> {
    let mut numbers = BTreeMap::new();
    let number = |content| {
        let next = numbers.len() as u32;
        *numbers.entry(content).or_insert(next)
    };
    contents.into_iter().map(number).collect()
}

fn size(builder: &Builder<'_>, splits: u32) -> GraphSize {
    let (nodes, leafs) = (builder.graph.nodes.len(), builder.graph.leafs.len());
    GraphSize { nodes: nodes as u32, tensors: (nodes + leafs) as u32, splits }
}
