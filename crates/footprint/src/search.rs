//! Requirements of many configurations of one model, with what they share computed once: for searches.
//!
//! Where tensors go is computed once per placement, compute buffers once per graph; caches, state and sums are cheap and
//! computed each time. Two placements share a graph where layers and tensors lie on the same devices: of weights that a
//! device reads in place the type does not matter. A graph that is new is put together from the pieces of others where layers
//! had the same neighbours, and simulated where they had not. Answers are those of [`crate::require_with`]: a law, every
//! recorded model with all its layers, and the engine's recorded answers check it.

mod layers;

use crate::companions::{Companions, Speculation};
use crate::compute::{Shape, Simulations};
use crate::error::FootprintError;
use crate::placement::Placement;
use crate::require::{Case, Placed, Simulated};
use crate::requirement::Requirement;
use crate::roles::Roles;
use crate::{ComputeBuffers, EngineProfile, Target};
use layers::Layers;
use spec::settings::{FlashAttention, LoadMode, SplitMode};
use spec::{Bytes, Known, Model, Settings};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The source of requirements of one model on one target. Not for several threads at once: each makes its own.
pub struct Requirements<'a> {
    model: &'a Model,
    target: Cow<'a, Target>,
    profile: &'a EngineProfile,
    companions: &'a Companions,
    roles: Roles,
    layers: Layers,
    simulations: Simulations<'a>,
    cache: RefCell<Cache>,
    /// Sources for other devices of the target, by their names.
    others: RefCell<BTreeMap<Vec<String>, Rc<Requirements<'a>>>>,
}

#[derive(Default)]
struct Cache {
    placed: BTreeMap<Vec<u64>, Rc<Shaped>>,
    shapes: BTreeMap<Shape, u32>,
    compute: BTreeMap<Vec<u64>, ComputeBuffers>,
    scratch: BTreeMap<Vec<u64>, Vec<Known<Bytes>>>,
}

/// A placement with its numbers.
struct Shaped {
    placed: Placed,
    /// Number of the placement.
    number: u64,
    shape: Shape,
    /// Number of the shape.
    shaped: u64,
}

impl<'a> Requirements<'a> {
    /// A source that knows nothing yet.
    pub fn new(model: &'a Model, target: &'a Target, profile: &'a EngineProfile, companions: &'a Companions) -> Self {
        Self::over(model, Cow::Borrowed(target), profile, companions)
    }

    fn over(model: &'a Model, target: Cow<'a, Target>, profile: &'a EngineProfile, companions: &'a Companions) -> Self {
        let (roles, layers, simulations) = (Roles::of(model), Layers::new(model), Simulations::new(model));
        let (cache, others) = (RefCell::default(), RefCell::default());
        Self { model, target, profile, companions, roles, layers, simulations, cache, others }
    }

    /// As [`crate::require_with`].
    ///
    /// # Errors
    /// As [`crate::require_with`].
    pub fn require(&self, settings: &Settings) -> Result<Requirement, FootprintError> {
        if settings.split_mode == SplitMode::Tensor || self.profile.bitnet.is_some() {
            return crate::require_with(self.model, settings, &self.target, self.profile, self.companions);
        }
        if let Cow::Owned(target) = self.target.only(&settings.devices)? {
            return self.on(target).require(settings);
        }
        let settings = &*self.profile.rules.apply(settings);
        let case = self.case(settings, self.companions.speculation(self.model))?;
        let shaped = self.placed(&case)?;
        let simulated = self.simulated(&case, &shaped);
        case.finish(&shaped.placed, simulated, self.companions)
    }

    /// As [`crate::dry_run`].
    ///
    /// # Errors
    /// As [`crate::dry_run`].
    pub fn dry_run(&self, settings: &Settings) -> Result<Requirement, FootprintError> {
        if settings.split_mode == SplitMode::Tensor
            || self.profile.bitnet.is_some()
            || matches!(self.target.only(&settings.devices)?, Cow::Owned(_))
        {
            return crate::dry_run(self.model, settings, &self.target, self.profile);
        }
        let settings = &Settings { load_mode: LoadMode::None, ..self.profile.rules.apply(settings).into_owned() };
        let case = self.case(settings, Speculation::NONE)?;
        let Shaped { placed, shape, .. } = &*self.placed(&case)?;
        case.dry_run(placed, &self.simulations, Some(shape))
    }

    /// The source for these devices, kept for the next time.
    fn on(&self, target: Target) -> Rc<Self> {
        let names = target.devices.iter().map(|device| device.name.clone()).collect();
        let new = || Rc::new(Self::over(self.model, Cow::Owned(target), self.profile, self.companions));
        Rc::clone(self.others.borrow_mut().entry(names).or_insert_with(new))
    }

    /// How many graphs have been simulated so far, in full or in short.
    pub fn simulations(&self) -> usize {
        self.simulations.graphs()
    }

    fn case<'b>(&'b self, settings: &'b Settings, speculation: Speculation) -> Result<Case<'b>, FootprintError> {
        Case::new(self.model, &self.roles, settings, &self.target, self.profile, speculation)
    }

    fn placed(&self, case: &Case<'_>) -> Result<Rc<Shaped>, FootprintError> {
        let key = placement_key(case.settings);
        if let Some(known) = self.cache.borrow().placed.get(&key) {
            return Ok(Rc::clone(known));
        }
        let (placed, shape) = self.layers.place(case)?;
        let mut cache = self.cache.borrow_mut();
        let next = cache.shapes.len() as u32;
        let shaped = u64::from(*cache.shapes.entry(shape.clone()).or_insert(next));
        let shaped = Rc::new(Shaped { placed, shape, shaped, number: cache.placed.len() as u64 });
        cache.placed.insert(key, Rc::clone(&shaped));
        Ok(shaped)
    }

    fn simulated(&self, case: &Case<'_>, shaped: &Shaped) -> Simulated {
        let key = graph_key(case, &shaped.placed.placement, shaped.shaped);
        let known = self.cache.borrow().compute.get(&key).cloned();
        let compute = known.unwrap_or_else(|| {
            let compute = case.compute(&self.simulations, &shaped.placed.placement, Some(&shaped.shape));
            self.cache.borrow_mut().compute.insert(key, compute.clone());
            compute
        });
        // Scratch follows the types of a device's tensors, too.
        let key = scratch_key(case, shaped.number);
        let known = self.cache.borrow().scratch.get(&key).cloned();
        let scratch = known.unwrap_or_else(|| {
            let scratch = case.scratch(&shaped.placed.placement);
            self.cache.borrow_mut().scratch.insert(key, scratch.clone());
            scratch
        });
        Simulated { compute, scratch }
    }
}

/// Everything of the settings that decides where tensors go.
fn placement_key(settings: &Settings) -> Vec<u64> {
    let &Settings { n_gpu_layers, ref tensor_split, n_cpu_moe, .. } = settings;
    let mut key = frame_key(settings);
    key.extend([u64::from(n_gpu_layers), u64::from(n_cpu_moe)]);
    key.extend(tensor_split.iter().map(|share| share.to_bits()));
    key
}

/// The part of it that moves no layer, and no experts layer by layer.
fn frame_key(settings: &Settings) -> Vec<u64> {
    let &Settings { split_mode, main_gpu, ref tensor_overrides, load_mode, repack, .. } = settings;
    let mut key = Vec::with_capacity(16);
    key.extend([split_mode as u64, u64::from(main_gpu), load_mode as u64, repack.into(), tensor_overrides.len() as u64]);
    for rule in tensor_overrides {
        for text in [&rule.pattern, &rule.buffer] {
            key.push(text.len() as u64);
            key.extend(text.bytes().map(u64::from));
        }
    }
    key
}

/// Everything that decides a graph.
fn graph_key(case: &Case<'_>, placement: &Placement, shape: u64) -> Vec<u64> {
    let context = &case.context;
    let settings = case.settings;
    let full_offload = settings.n_gpu_layers > case.model.n_layer_all();
    vec![
        shape,
        u64::from(context.n_ctx),
        u64::from(context.n_ctx_seq),
        u64::from(context.n_ubatch),
        u64::from(context.n_batch),
        u64::from(context.n_outputs) << 32 | u64::from(context.n_states),
        u64::from(settings.n_parallel),
        flags(&[
            context.flash_attn,
            settings.flash_attn == FlashAttention::Auto,
            settings.flash_attn == FlashAttention::Off,
            settings.kv_unified,
            settings.kv_offload,
            settings.op_offload,
            settings.swa_full,
            settings.split_mode == SplitMode::Layer,
            full_offload,
            placement.has_overrides,
            settings.embeddings,
        ]),
        settings.pooling as u64,
        settings.cache_type_k as u64,
        settings.cache_type_v as u64,
    ]
}

/// Everything besides the placement that decides scratch: caches where the engine copies them, and nothing else of theirs.
fn scratch_key(case: &Case<'_>, placement: u64) -> Vec<u64> {
    let (context, settings) = (&case.context, case.settings);
    let mut key = vec![placement, u64::from(context.n_ctx.min(context.n_ubatch)), settings.op_offload.into()];
    if !context.rules.attention_scratch {
        let types = [settings.cache_type_k, settings.cache_type_v].map(|ty| ty as u64);
        key.extend([u64::from(context.n_ctx), context.flash_attn.into()].into_iter().chain(types));
    }
    key
}

fn flags(flags: &[bool]) -> u64 {
    flags.iter().fold(0, |bits, &flag| bits << 1 | u64::from(flag))
}
