//! Simulations of one model's graphs, and what they have in common.

use super::allocate::{BufferRules, chunk_sizes};
use super::borders::Cuts;
use super::builder::{Batch, Builder, Missing, Options};
use super::catalog::{Catalog, Structures};
use super::decoder::Decoder;
use super::fusions::{Fusion, Fusions};
use super::outline::{Filled, Outline};
use super::pieces::{Pieces, Sequence};
use super::reorder::Optimizer;
use super::schedule::{Schedule, Scheduler, schedule};
use super::tensor::Id;
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
    families: RefCell<Vec<(Frame, Family)>>,
    /// None for graphs without pieces.
    catalogs: RefCell<Vec<(Shared, Option<Rc<Catalog>>)>>,
    structures: RefCell<Structures>,
    /// By what graphs share that differ in the length of the context, and by structure and place of their layers.
    outlines: RefCell<Vec<(Frame, Outlines)>>,
    graphs: Cell<usize>,
}

/// By structures of the layers, and of what lies outside of them; and where layers lie.
type Outlines = BTreeMap<Vec<[u32; 2]>, Rc<Outline>>;

/// What is known of graphs that differ only in where layers lie; none of graphs without pieces.
type Family = Option<(Pieces, Rc<Catalog>)>;

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

impl Shared {
    /// True where the same but for the length of the context, and so for sizes.
    fn differs_in_length(&self, other: &Self) -> bool {
        let Options { cells, cells_window, n_ctx_seq, .. } = self.options;
        let options = Options { cells, cells_window, n_ctx_seq, ..other.options.clone() };
        (self.batch, self.run) == (other.batch, other.run) && self.options == options
    }
}

impl Frame {
    /// True where the same but for the length of the context.
    fn differs_in_length(&self, other: &Self) -> bool {
        (self.outside, self.scheduler, &self.rules) == (other.outside, other.scheduler, &other.rules)
            && self.shared.differs_in_length(&other.shared)
    }
}

/// Repetitions of a pattern of layers that are left of it in a graph that is simulated for its pieces.
const REPEATS: usize = 2;
/// Graphs in short that are tried before the graph itself.
const ATTEMPTS: usize = 6;

impl<'a> Simulations<'a> {
    /// Nothing is simulated yet.
    pub(crate) fn new(model: &'a Model) -> Self {
        Self {
            model,
            weights: Weights::of(model),
            declared: arch::decoder(model),
            families: RefCell::default(),
            catalogs: RefCell::default(),
            structures: RefCell::default(),
            outlines: RefCell::default(),
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
            Some(shape) if self.scheduler.ik.is_none() && self.scheduler.is_local() => match self.scheduler.copies {
                1 => graph.in_pieces(shape),
                _ => graph.in_outline(shape),
            },
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

    fn frame(&self, shape: &Shape) -> Frame {
        let setup = self.setup;
        Frame {
            shared: Shared { options: Options { layers: Vec::new(), ..self.options.clone() }, batch: self.batch, run: self.run },
            scheduler: setup.scheduler,
            rules: setup.rules.clone(),
            outside: shape.outside,
        }
    }

    /// The same, scheduled as in a context of another length, where it is known.
    fn in_outline(&self, shape: &Shape) -> Result<Measured, Missing> {
        let frame = self.frame(shape);
        let all: Vec<usize> = (0..self.n_layer()).collect();
        let Some(catalog) = self.catalog(&frame.shared, &all)? else { return self.whole() };
        self.count();
        Ok(self.outline(&frame, &catalog, shape, &all)?.1.measured)
    }

    /// The same from the pieces of graphs of one family; what is missing is simulated.
    fn in_pieces(&self, shape: &Shape) -> Result<Measured, Missing> {
        let setup = self.setup;
        let frame = self.frame(shape);
        let mut families = setup.simulations.families.borrow_mut();
        let known = families.iter().position(|(known, _)| *known == frame);
        let all: Vec<usize> = (0..self.n_layer()).collect();
        let known = match known {
            Some(known) => known,
            None => {
                let catalog = self.catalog(&frame.shared, &all)?;
                families.push((frame, catalog.map(|catalog| (Pieces::new(Rc::clone(&catalog.contents)), catalog))));
                families.len() - 1
            }
        };
        let (frame, family) = &mut families[known];
        let (backends, variants) = (setup.rules.len(), self.variants());
        for attempt in 0..=ATTEMPTS {
            let Some((pieces, _)) = family else { return self.whole() };
            // Simulating may have taught that types tell layers apart.
            let sequence = sequence(pieces, shape, &all);
            if let Some(measured) = pieces.join(&sequence, backends, variants) {
                return Ok(measured);
            }
            let short = pieces.in_short(&sequence, REPEATS);
            if attempt == ATTEMPTS || short.len() == all.len() {
                break;
            }
            self.learn(frame, family, shape, &short)?;
        }
        self.learn(frame, family, shape, &all)
    }

    fn catalog(&self, shared: &Shared, all: &[usize]) -> Result<Option<Rc<Catalog>>, Missing> {
        let simulations = self.setup.simulations;
        let mut known = simulations.catalogs.borrow_mut();
        if let Some((_, catalog)) = known.iter().find(|(known, _)| known == shared) {
            return Ok(catalog.clone());
        }
        let structures = &mut simulations.structures.borrow_mut();
        let other = known.iter().find(|(known, _)| known.differs_in_length(shared)).and_then(|(_, other)| other.as_ref());
        let short = match other {
            Some(other) => {
                let chosen = other.representatives(&self.setup.model.layers);
                other.in_length(self.build(&chosen[0])?, chosen, structures)
            }
            None => None,
        };
        let catalog = match short {
            None => Catalog::of(self.build(all)?, structures),
            short => short,
        };
        let catalog = catalog.map(Rc::new);
        known.push((shared.clone(), catalog.clone()));
        Ok(catalog)
    }

    /// Layouts that are allocated: as backends fuse operations, and as they do not.
    fn variants(&self) -> usize {
        if self.setup.scheduler.fuses() { 2 } else { 1 }
    }

    /// Simulates the graph of these layers for its pieces. There are none any more once layers turn out to reach beyond their
    /// neighbours.
    fn learn(&self, frame: &Frame, family: &mut Family, shape: &Shape, layers: &[usize]) -> Result<Measured, Missing> {
        let Some((pieces, catalog)) = family else { return self.whole() };
        self.count();
        let (outline, filled) = self.outline(frame, catalog, shape, layers)?;
        if outline.copies_quantized && !pieces.typed {
            pieces.tell_types();
        }
        let sequence = sequence(pieces, shape, layers);
        match outline.words(&filled, &sequence.layers) {
            Some((words, between)) => pieces.learn(&sequence, words, between),
            None => *family = None,
        }
        Ok(filled.measured)
    }

    /// The graph of these layers, scheduled and laid out: from that of a context of another length, or built.
    fn outline(&self, frame: &Frame, catalog: &Catalog, shape: &Shape, layers: &[usize]) -> Result<(Rc<Outline>, Filled), Missing> {
        let rules = &self.setup.rules;
        let mut groups = self.setup.simulations.outlines.borrow_mut();
        let group = match groups.iter().position(|(known, _)| known.differs_in_length(frame)) {
            Some(known) => known,
            None => {
                groups.push((frame.clone(), Outlines::new()));
                groups.len() - 1
            }
        };
        let place = |&layer: &usize| [catalog.structure(layer), shape.layers.get(layer).map_or(0, |numbers| numbers[1])];
        let key: Vec<_> = layers.iter().map(place).chain([[catalog.structure(usize::MAX), 0]]).collect();
        let outlines = &mut groups[group].1;
        if let Some(known) = outlines.get(&key)
            && let Some(filled) = known.filled_from(catalog, layers, rules)
        {
            return Ok((Rc::clone(known), filled));
        }
        let mut builder = self.build(layers)?;
        let cuts = Cuts::of(&builder);
        let originals = builder.graph.len();
        let at = cuts.as_ref().filter(|_| self.setup.scheduler.copies == 1).map(|cuts| cuts.nodes.clone()).unwrap_or_default();
        let schedule = schedule(&mut builder.graph, self.setup.scheduler, at);
        let outline = Rc::new(Outline::of(&builder, cuts.as_ref(), originals, &schedule, rules, self.variants()));
        if outline.is_in(catalog, layers, rules) {
            outlines.insert(key, Rc::clone(&outline));
        }
        let filled = outline.filled(rules);
        Ok((outline, filled))
    }
}

/// What is computed as one, but for some node that `among` lets through not on its layer's own device.
pub(super) fn astray(builder: &Builder<'_>, schedule: &Schedule, among: impl Fn(Id) -> bool) -> Fusions {
    let elsewhere = |&&(_, layer, node): &&(Fusion, usize, Id)| schedule.backend(node) != Some(builder.layer_backend(layer));
    let nodes = builder.fused.iter().filter(|&&(_, _, node)| among(node)).filter(elsewhere);
    nodes.fold(Fusions::NONE, |all, &(fusion, ..)| all.with(fusion))
}

fn sequence(pieces: &Pieces, shape: &Shape, layers: &[usize]) -> Sequence {
    let place = |layer: usize| shape.layers.get(layer).map_or(0, |numbers| numbers[usize::from(pieces.typed)]);
    let kind = |layer: &usize| shape.kinds.get(*layer).copied().unwrap_or(0);
    Sequence::new(layers.iter().map(|&layer| pieces.layer(layer, place(layer))).collect(), layers.iter().map(kind))
}

fn size(builder: &Builder<'_>, splits: u32) -> GraphSize {
    let (nodes, leafs) = (builder.graph.nodes.len(), builder.graph.leafs.len());
    GraphSize { nodes: nodes as u32, tensors: (nodes + leafs) as u32, splits }
}
