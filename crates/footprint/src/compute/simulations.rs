//! Simulations of one model's graphs, and what they have in common.

use super::borders::{Cuts, Traced};
use super::buffer::{BufferRules, NO_LIMIT};
use super::builder::{Batch, Builder, Missing, Options};
use super::catalog::{Catalog, Structures};
use super::course::Course;
use super::decoder::Decoder;
use super::fusions::{Fusion, Fusions};
use super::outline::Outline;
use super::pieces::{Lack, Pieces};
use super::plan::{Live, chunk_sizes};
use super::reorder::Optimizer;
use super::schedule::{Schedule, Scheduler, schedule};
use super::tensor::Id;
use super::weights::Weights;
use super::{Certainty, ComputeBuffers, Configuration, MAX_LAYERS, Measured, Run, Setup, Shape, arch, estimate};
use crate::{GraphSize, ResolvedContext};
use spec::Model;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The source of compute buffers of one model on one target. What it has simulated serves again, piece by piece.
pub(crate) struct Simulations<'a> {
    pub(super) model: &'a Model,
    weights: Weights,
    /// The graph of the model's family, where it is declared.
    declared: Option<Decoder>,
    families: RefCell<Vec<(Frame, Option<Family>)>>,
    /// None for graphs without pieces.
    catalogs: RefCell<Vec<(Shared, Option<Rc<Catalog>>)>>,
    structures: RefCell<Structures>,
    /// By what graphs share that differ in sizes, and the structure of what lies outside of layers; none where layers reach beyond
    /// their neighbours.
    courses: RefCell<Vec<(Frame, u32, Option<Course>)>>,
    graphs: Cell<usize>,
}

/// What is known of graphs that differ only in where layers lie.
struct Family {
    catalog: Rc<Catalog>,
    pieces: Pieces,
    /// Index of their course.
    course: usize,
}

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
    /// True where the same but for the length of the context and the types of its caches, and so for sizes.
    fn differs_in_size(&self, other: &Self) -> bool {
        let Options { cells, cells_window, n_ctx_seq, type_k, type_v, .. } = self.options;
        let options = Options { cells, cells_window, n_ctx_seq, type_k, type_v, ..other.options.clone() };
        (self.batch, self.run) == (other.batch, other.run) && self.options == options
    }
}

impl Frame {
    /// True where the same but for the length of the context and the types of its caches.
    fn differs_in_size(&self, other: &Self) -> bool {
        (self.outside, self.scheduler, &self.rules) == (other.outside, other.scheduler, &other.rules)
            && self.shared.differs_in_size(&other.shared)
    }
}

/// Repetitions of a pattern of layers that are left of it in a graph that is simulated for its pieces.
const REPEATS: usize = 3;
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
            courses: RefCell::default(),
            graphs: Cell::new(0),
        }
    }

    /// The index of the course of such graphs.
    fn course(&self, frame: &Frame, catalog: &Catalog) -> usize {
        let outside = catalog.structure(usize::MAX);
        let mut courses = self.courses.borrow_mut();
        let known = courses.iter().position(|(known, structure, _)| *structure == outside && known.differs_in_size(frame));
        known.unwrap_or_else(|| {
            courses.push((frame.clone(), outside, Some(Course::new())));
            courses.len() - 1
        })
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
        // What a pipeline keeps is apart from all else in a buffer that is one.
        let one = || self.scheduler.copies == 1 || self.rules.iter().all(|rules| rules.max_buffer == NO_LIMIT);
        match self.shape {
            Some(shape) if self.scheduler.ik.is_none() && self.scheduler.is_local() && one() => graph.in_pieces(shape),
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

    fn all(&self) -> Vec<usize> {
        (0..self.n_layer()).collect()
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
        let mut builder = self.build(&self.all())?;
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

    /// The same from the pieces of graphs of one family; what is missing is simulated.
    fn in_pieces(&self, shape: &Shape) -> Result<Measured, Missing> {
        let (frame, all) = (self.frame(shape), self.all());
        let simulations = self.setup.simulations;
        let mut families = simulations.families.borrow_mut();
        let known = families.iter().position(|(known, _)| *known == frame);
        let known = match known {
            Some(known) => known,
            None => {
                let family = self.catalog(&frame.shared, &all)?.map(|catalog| Family {
                    pieces: Pieces::new(Rc::clone(&catalog), self.setup.rules.clone(), self.setup.scheduler),
                    course: simulations.course(&frame, &catalog),
                    catalog,
                });
                families.push((frame, family));
                families.len() - 1
            }
        };
        let Some(Family { catalog, pieces, course }) = &mut families[known].1 else { return self.whole() };
        let (.., course) = &mut simulations.courses.borrow_mut()[*course];
        for attempt in 0..=ATTEMPTS {
            let Some(known) = course else { return self.whole() };
            match pieces.join(known, shape, &all) {
                Ok(measured) => return Ok(measured),
                Err(Lack::Tensor) => return self.whole(),
                Err(Lack::Step) if attempt < ATTEMPTS => {
                    let sequence = catalog.structures(shape, &all);
                    let short = if attempt + 1 < ATTEMPTS { known.steps.in_short(&sequence, REPEATS) } else { all.clone() };
                    self.learn(course, catalog, shape, &short)?;
                }
                Err(Lack::Step) => {}
            }
        }
        self.whole()
    }

    fn catalog(&self, shared: &Shared, all: &[usize]) -> Result<Option<Rc<Catalog>>, Missing> {
        let simulations = self.setup.simulations;
        let mut known = simulations.catalogs.borrow_mut();
        if let Some((_, catalog)) = known.iter().find(|(known, _)| known == shared) {
            return Ok(catalog.clone());
        }
        let structures = &mut simulations.structures.borrow_mut();
        let short = match known.iter().find_map(|(_, other)| other.as_ref()) {
            Some(other) => {
                let [chosen, rows] = other.representatives(&self.setup.model.layers);
                Catalog::of_representatives(self.build(&chosen)?, rows, structures)
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

    /// Schedules the graph of these layers for its steps. There is no course any more once layers turn out to reach beyond their
    /// neighbours.
    fn learn(&self, course: &mut Option<Course>, catalog: &Catalog, shape: &Shape, layers: &[usize]) -> Result<(), Missing> {
        let Some(known) = course else { return Ok(()) };
        self.count();
        let learnt = self.scheduled(layers, |traced| {
            let sequence = catalog.structures(shape, layers);
            let mut borders = traced.borders(&sequence);
            let mut within = !traced.fuses_over_borders();
            let outlines = self.outlines(traced, catalog, layers, |border, live| {
                within &= traced.arrange(border, live, &mut borders[border]).is_some();
            })?;
            within.then(|| known.learn(&sequence, borders, outlines))
        })?;
        if learnt.is_none() {
            *course = None;
        }
        Ok(())
    }

    /// What the graph of these layers tells once it is scheduled; `None` where layers reach beyond their neighbours.
    fn scheduled<T>(&self, layers: &[usize], tell: impl FnOnce(&Traced<'_>) -> Option<T>) -> Result<Option<T>, Missing> {
        let mut builder = self.build(layers)?;
        let Some(cuts) = Cuts::of(&builder) else { return Ok(None) };
        let originals = builder.graph.len();
        let schedule = schedule(&mut builder.graph, self.setup.scheduler, cuts.nodes.clone());
        Ok(tell(&Traced { builder: &builder, cuts: &cuts, originals, schedule: &schedule }))
    }

    /// The outlines of a graph of these layers; `None` where the catalog of its own context has not each tensor as it is.
    fn outlines(
        &self,
        traced: &Traced<'_>,
        catalog: &Catalog,
        layers: &[usize],
        arrange: impl FnMut(usize, &mut Vec<Live>),
    ) -> Option<Vec<Outline>> {
        let rules = &self.setup.rules;
        let outlines = Outline::of(traced, rules, arrange);
        let mut sizes = catalog.sizes(layers, rules);
        outlines.iter().enumerate().all(|(step, outline)| outline.is_in(&mut sizes, step)).then_some(outlines)
    }
}

/// What is computed as one, but for some node that `among` lets through not on its layer's own device.
pub(super) fn astray(builder: &Builder<'_>, schedule: &Schedule, among: impl Fn(Id) -> bool) -> Fusions {
    let elsewhere = |&&(_, layer, node): &&(Fusion, usize, Id)| schedule.backend(node) != Some(builder.layer_backend(layer));
    let nodes = builder.fused.iter().filter(|&&(_, _, node)| among(node)).filter(elsewhere);
    nodes.fold(Fusions::NONE, |all, &(fusion, ..)| all.with(fusion))
}

fn size(builder: &Builder<'_>, splits: u32) -> GraphSize {
    let (nodes, leafs) = (builder.graph.nodes.len(), builder.graph.leafs.len());
    GraphSize { nodes: nodes as u32, tensors: (nodes + leafs) as u32, splits }
}
