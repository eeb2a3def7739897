//! What every block of a graph needs: the graph so far, the model's weights as leafs of it, and the batch.

use super::fusions::{Fusion, Fusions};
use super::graph::Graph;
use super::tensor::{Extents, Id, Memory, Op, Tensor};
use super::weights::{Part, Suffix, Weights};
use crate::placement::{Home, Placement};
use crate::profile::{Rules, interleaved};
use spec::settings::Pooling;
use spec::{Model, QuantType};

/// One micro-batch as the engine reserves for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Tokens, a multiple of the sequences.
    pub(super) n_tokens: u64,
    /// Sequences, with as many tokens each.
    pub(super) n_seqs: u64,
    /// Tokens whose logits are wanted.
    pub(super) n_outputs: u64,
}

impl Batch {
    /// Tokens of each sequence.
    pub(super) fn per_seq(&self) -> u64 {
        self.n_tokens / self.n_seqs.max(1)
    }
}

/// What of settings and target shapes a graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    /// What is computed as one.
    pub(super) fusions: Fusions,
    /// The V cache is stored transposed: decided before `auto` is resolved (llama-model.cpp, `create_memory`).
    pub(super) v_transposed: bool,
    pub(super) type_k: QuantType,
    pub(super) type_v: QuantType,
    /// Sequences with a cache of their own; 1 where all share one.
    pub(super) n_stream: u64,
    /// Sequences that the context serves.
    pub(super) n_seq_max: u64,
    /// Rows of recurrent state per sequence: more than one where drafts are rolled back.
    pub(super) n_states: u64,
    /// Cells of one stream's cache.
    pub(super) cells: u64,
    /// The same for layers with a window.
    pub(super) cells_window: u64,
    /// Context of one sequence.
    pub(super) n_ctx_seq: u64,
    /// Embeddings are handed out, pooled like this.
    pub(super) pooling: Option<Pooling>,
    pub(super) rules: Rules,
    pub(super) kv_offload: bool,
    /// Every layer and the output are on GPUs.
    pub(super) full_offload: bool,
    /// GPUs and, last, the host.
    pub(super) backends: u8,
    /// Backend of each layer.
    pub(super) layers: Vec<u8>,
}

impl Options {
    /// Fused attention.
    pub(super) const fn flash_attn(&self) -> bool {
        self.fusions.has(Fusion::Attention)
    }
}

/// The reason why a graph cannot be built: the file lacks a tensor that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) layer: Option<usize>,
    pub(super) part: Part,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "the file has no usable blk.{layer}.{}", self.part.name()),
            None => write!(f, "the file has no usable {}", self.part.name()),
        }
    }
}

/// What the norms of a family compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    /// Divide by the root of the mean square, times a weight.
    RootMeanSquare,
    /// Subtract the mean too.
    Layer,
    /// The latter without weights (OLMo): the file has no tensors for them.
    Unweighted,
}

/// A graph under construction.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    pub(super) model: &'a Model,
    pub(super) options: &'a Options,
    pub(super) batch: Batch,
    /// What [`Self::norm`] computes.
    pub(super) norm: Norm,
    placement: &'a Placement,
    weights: &'a Weights,
    /// Leaf of each tensor of the model, once used.
    leafs: Vec<Option<Id>>,
    tied_output: Option<Id>,
    /// Keys and values of each layer, once used.
    caches: Vec<Option<[Id; 2]>>,
    /// Copies of tensors that each backend has of its own (rotary frequencies).
    shared: Vec<(usize, u8, Id)>,
    /// Values of the first layer, which later ones mix in (RWKV 7).
    pub(super) first_value: Option<Id>,
    /// The tokens of the batch.
    pub(super) tokens: Option<Id>,
    /// The cells that the last indexer has chosen.
    pub(super) chosen_cells: Option<Id>,
    /// What is computed as one, with its layer.
    pub(super) fused: Vec<(Fusion, usize, Id)>,
    /// Where each layer began, and where the last ended.
    pub(super) borders: Vec<Border>,
}

/// A place between two layers of a graph under construction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Border {
    /// Tensors made before it.
    pub(super) tensors: usize,
    /// What passes from layer to layer.
    pub(super) stream: Id,
}

impl<'a> Builder<'a> {
    /// An empty graph over a model that is placed, with room for so many layers.
    pub(super) fn new(
        model: &'a Model,
        weights: &'a Weights,
        placement: &'a Placement,
        options: &'a Options,
        batch: Batch,
        layers: usize,
    ) -> Self {
        Self {
            graph: Graph::new(64 + 56 * layers, options.rules.fused_gate),
            model,
            options,
            batch,
            norm: Norm::RootMeanSquare,
            placement,
            weights,
            leafs: vec![None; model.tensors.len()],
            tied_output: None,
            caches: vec![None; model.layers.len()],
            shared: Vec::new(),
            first_value: None,
            tokens: None,
            chosen_cells: None,
            fused: Vec::new(),
            borders: Vec::with_capacity(layers + 1),
        }
    }

    /// The backend number of the host.
    pub(super) fn host(&self) -> u8 {
        self.options.backends - 1
    }
    /// The backend of a layer's weights.
    pub(super) fn layer_backend(&self, layer: usize) -> u8 {
        self.options.layers.get(layer).copied().unwrap_or_else(|| self.host())
    }
    /// The backend of a layer's cache and state.
    pub(super) fn cache_backend(&self, layer: usize) -> u8 {
        if self.options.kv_offload { self.layer_backend(layer) } else { self.host() }
    }

    /// Keys and values of a layer: what is made for a second layer that reads them is known to be the same memory.
    pub(super) fn cache(&mut self, layer: usize, make: impl FnOnce(&mut Self) -> [Id; 2]) -> [Id; 2] {
        let made = make(self);
        match self.caches.get_mut(layer) {
            Some(Some(first)) => self.graph.same.extend(made.into_iter().zip(*first)),
            Some(slot) => *slot = Some(made),
            None => {}
        }
        made
    }

    fn memory(&self, home: Home) -> Option<Memory> {
        let host = self.host();
        Some(match home {
            Home::Device(device) => {
                let backend = self.placement.devices.iter().position(|&d| d == device)?;
                Memory::Weights { backend: u8::try_from(backend).ok()?, host: false }
            }
            Home::Host | Home::HostLazy | Home::HostPinned(_) => Memory::Weights { backend: host, host: true },
            Home::HostRepacked | Home::HostAmx => Memory::Weights { backend: host, host: false },
            Home::Unused => return None,
        })
    }

    fn leaf(&mut self, index: usize, memory: Memory) -> Option<Id> {
        let tensor = self.model.tensors.get(index)?;
        let rearranged = self.options.rules.ik.is_some_and(|ik| ik.repack)
            && memory.backend() == Some(self.host())
            && tensor.shape[1].is_multiple_of(4)
            && tensor.shape[1] > 1
            && tensor.name != "token_embd.weight";
        let ty = if rearranged { interleaved(tensor.ty).unwrap_or(tensor.ty) } else { tensor.ty };
        Some(self.graph.placed(ty, tensor.shape, memory))
    }

    /// A tensor of the model, if the file has it and the engine loads it.
    pub(super) fn find(&mut self, layer: Option<usize>, part: Part, suffix: Suffix) -> Option<Id> {
        let index = self.weights.find(layer, part, suffix)?;
        if let Some(leaf) = self.leafs.get(index).copied().flatten() {
            return Some(leaf);
        }
        let memory = self.memory(*self.placement.homes.get(index)?)?;
        let leaf = self.leaf(index, memory)?;
        self.leafs[index] = Some(leaf);
        Some(leaf)
    }
    /// A tensor that the graph cannot do without.
    pub(super) fn weight(&mut self, layer: Option<usize>, part: Part) -> Result<Id, Missing> {
        self.find(layer, part, Suffix::Weight).ok_or(Missing { layer, part })
    }
    /// The same under other extents, as the engine loads it.
    pub(super) fn weight_as(&mut self, layer: usize, part: Part, ne: Extents) -> Result<Id, Missing> {
        let id = self.weight(Some(layer), part)?;
        let tensor = self.graph.tensor_mut(id);
        let loaded = Tensor::new(tensor.ty, ne);
        if loaded.elements() != tensor.elements() {
            return Err(Missing { layer: Some(layer), part });
        }
        (tensor.ne, tensor.nb) = (loaded.ne, loaded.nb);
        Ok(id)
    }
    /// A matrix that the engine itself makes of others when it loads, in the memory of `beside`.
    pub(super) fn derived(&mut self, layer: usize, beside: Part, ty: QuantType, ne: Extents) -> Result<Id, Missing> {
        let missing = Missing { layer: Some(layer), part: beside };
        let index = self.weights.find(Some(layer), beside, Suffix::Weight).ok_or(missing.clone())?;
        let home = *self.placement.homes.get(index).ok_or(missing.clone())?;
        let memory = self.memory(home).ok_or(missing)?;
        Ok(self.graph.placed(ty, ne, memory))
    }
    /// A tensor outside the layers that each backend holds a copy of, for the layers it computes.
    pub(super) fn shared(&mut self, layer: usize, part: Part) -> Option<Id> {
        let index = self.weights.find(None, part, Suffix::Weight)?;
        let backend = self.layer_backend(layer);
        if let Some(&(_, _, leaf)) = self.shared.iter().find(|&&(i, b, _)| (i, b) == (index, backend)) {
            return Some(leaf);
        }
        let leaf = self.leaf(index, Memory::Weights { backend, host: backend == self.host() })?;
        self.shared.push((index, backend, leaf));
        Some(leaf)
    }
    /// Makes the tensors that [`Self::shared`] finds, for the layers named, so that none of them is part of a layer.
    pub(super) fn share(&mut self, layers: &[usize]) {
        for part in [Part::RopeFreqs, Part::RopeFactorsLong, Part::RopeFactorsShort] {
            if self.weights.find(None, part, Suffix::Weight).is_some() {
                for &layer in layers {
                    self.shared(layer, part);
                }
            }
        }
    }
    /// Notes that a layer begins, or that the last has ended.
    pub(super) fn border(&mut self, stream: Id) {
        self.borders.push(Border { tensors: self.graph.len(), stream });
    }
    /// The output matrix: its own tensor, or the token embedding, or the second copy of it.
    pub(super) fn output(&mut self) -> Result<Id, Missing> {
        if let Some(output) = self.find(None, Part::Output, Suffix::Weight) {
            return Ok(output);
        }
        if let Some(output) = self.tied_output {
            return Ok(output);
        }
        let Some((index, home)) = self.placement.tied_copy() else { return self.weight(None, Part::TokenEmbd) };
        self.tied_output = self.memory(home).and_then(|memory| self.leaf(index, memory));
        self.tied_output.ok_or(Missing { layer: None, part: Part::Output })
    }

    /// `x` through a matrix, times the matrix's scale where it has one (`build_lora_mm`).
    pub(super) fn linear(&mut self, layer: Option<usize>, part: Part, x: Id) -> Result<Id, Missing> {
        let weight = self.weight(layer, part)?;
        let y = self.graph.mul_mat(weight, x);
        Ok(match self.find(layer, part, Suffix::Scale) {
            Some(scale) => self.graph.mul(y, scale),
            None => y,
        })
    }
    /// The same plus the bias where there is one.
    pub(super) fn linear_bias(&mut self, layer: Option<usize>, part: Part, x: Id) -> Result<Id, Missing> {
        let y = self.linear(layer, part, x)?;
        Ok(match self.find(layer, part, Suffix::Bias) {
            Some(bias) => self.graph.add(y, bias),
            None => y,
        })
    }
    /// True where this norm is part of the graph: the file has its weight, or the family's norms have none.
    pub(super) fn has_norm(&mut self, layer: Option<usize>, part: Part) -> bool {
        self.norm == Norm::Unweighted || self.find(layer, part, Suffix::Weight).is_some()
    }
    /// The family's norm with weight and, where there is one, bias (`build_norm`). `pin` is the layer on whose device it is
    /// computed, where the engine insists on it (llama-context.cpp:2640-2660).
    pub(super) fn norm(&mut self, layer: Option<usize>, part: Part, x: Id, pin: Option<usize>) -> Result<Id, Missing> {
        self.norm_as(self.norm, layer, part, x, pin)
    }
    /// Has `id` computed on a layer's own device, where the engine insists on it (llama-context.cpp:2638-2663).
    pub(super) fn pin(&mut self, id: Id, layer: usize) {
        if self.batch.n_tokens < 32 || self.options.full_offload {
            self.graph.pins.push((id, self.layer_backend(layer)));
        }
    }
    /// The same with a norm of another kind.
    pub(super) fn norm_as(&mut self, norm: Norm, layer: Option<usize>, part: Part, x: Id, pin: Option<usize>) -> Result<Id, Missing> {
        if norm == Norm::Unweighted {
            return Ok(self.graph.like(Op::Norm, &[x]));
        }
        let weight = self.weight(layer, part)?;
        if norm == Norm::RootMeanSquare && self.options.rules.ik.is_some() {
            let y = self.graph.fused(&[x, weight]);
            return Ok(match self.find(layer, part, Suffix::Bias) {
                Some(bias) => self.graph.add(y, bias),
                None => y,
            });
        }
        let normed = self.graph.like(if norm == Norm::Layer { Op::Norm } else { Op::RmsNorm }, &[x]);
        if let Some(pin) = pin {
            self.pin(normed, pin);
        }
        let y = self.graph.mul(normed, weight);
        Ok(match self.find(layer, part, Suffix::Bias) {
            Some(bias) => self.graph.add(y, bias),
            None => y,
        })
    }
}
