//! The arithmetic behind each number of a requirement, for people.
//!
//! The rule and the upstream line are the source that a [`Known`] carries; here are the factors.

use crate::bitnet::{self, BitNet};
use crate::companions::Companions;
use crate::compressed;
use crate::error::FootprintError;
use crate::kv_cache::{self, Cells, Shape, Shapes};
use crate::parts::Component;
use crate::placement::{self, Home, Placement};
use crate::requirement::{Requirement, ResolvedContext};
use crate::{EngineProfile, Target, context, host, tensor_parallel};
use spec::model::{Compressed, Mixer, Tensor};
use spec::settings::{Devices, SplitMode};
use spec::{Bytes, Known, Model, QuantType, Settings};
use std::collections::BTreeMap;

/// How one number came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The device (index into [`Target::devices`]); `None` is the host.
    pub device: Option<usize>,
    /// The component.
    pub component: Component,
    /// The number at peak, with the rule that it follows as its source.
    pub bytes: Known<Bytes>,
    /// The factors, one line each; empty where the rule says it all.
    pub steps: Vec<String>,
}

/// How each number of `requirement` came about, the host first. Components of which there is nothing are left out.
///
/// # Errors
/// As [`crate::require_with()`], whose result for the same arguments `requirement` is.
pub fn explain(
    model: &Model,
    settings: &Settings,
    target: &Target,
    profile: &EngineProfile,
    companions: &Companions,
    requirement: &Requirement,
) -> Result<Vec<Explanation>, FootprintError> {
    if settings.devices != Devices::All {
        let (target, settings) = (target.only(&settings.devices)?, Settings { devices: Devices::All, ..settings.clone() });
        return explain(model, &settings, &target, profile, companions, requirement);
    }
    if let Some(engine) = profile.bitnet {
        return Ok(of_bitnet(model, settings, requirement, engine));
    }
    let facts = Facts {
        model,
        settings,
        target,
        context: ResolvedContext {
            flash_attn: requirement.context.flash_attn,
            ..context::resolve_with(model, settings, profile, companions.speculation(model))?
        },
        placement: match settings.split_mode {
            SplitMode::Tensor => tensor_parallel::placement(model, settings, target, profile, companions)?,
            _ => placement::place(model, settings, target, profile)?,
        },
        requirement,
    };
    let places = std::iter::once(None).chain((0..requirement.devices.len()).map(Some));
    let explained = places.flat_map(|device| {
        let facts = &facts;
        requirement.parts(device).into_iter().filter(|part| part.peak.get() != Some(Bytes::ZERO)).map(move |part| Explanation {
            device,
            component: part.component,
            // Factors of slices would be one line per tensor and device: the rule says it all.
            steps: if device.is_some() && settings.split_mode == SplitMode::Tensor {
                Vec::new()
            } else {
                facts.steps(device, part.component)
            },
            bytes: part.peak,
        })
    });
    Ok(explained.collect())
}

/// Numbers of the BitNet engine; the rules of those on a device say it all.
fn of_bitnet(model: &Model, settings: &Settings, requirement: &Requirement, engine: BitNet) -> Vec<Explanation> {
    let places = std::iter::once(None).chain((0..requirement.devices.len()).map(Some));
    let parts = places.flat_map(|device| requirement.parts(device).into_iter().map(move |part| (device, part)));
    let explained = parts.filter(|(_, part)| part.peak.get() != Some(Bytes::ZERO)).map(|(device, part)| Explanation {
        device,
        component: part.component,
        steps: match device {
            Some(_) => Vec::new(),
            None => bitnet::steps(model, settings, requirement, engine, part.component),
        },
        bytes: part.peak,
    });
    explained.collect()
}

struct Facts<'a> {
    model: &'a Model,
    settings: &'a Settings,
    target: &'a Target,
    context: ResolvedContext,
    placement: Placement,
    requirement: &'a Requirement,
}

impl Facts<'_> {
    fn steps(&self, device: Option<usize>, component: Component) -> Vec<String> {
        match component {
            Component::Weights => {
                let mut steps = self.weights(|home| match device {
                    Some(device) => home == Home::Device(device),
                    None => matches!(home, Home::Host | Home::HostLazy | Home::HostPinned(_)),
                });
                if device.is_none() && self.placement.mapped {
                    steps.push("used in place from the mapped file: page cache, which the system may drop and read again".to_owned());
                }
                steps.extend(device.and_then(|device| self.mapped_range(device)));
                steps
            }
            Component::Repacked => self.weights(|home| matches!(home, Home::HostRepacked | Home::HostAmx)),
            Component::KvCache => self.kv_cache(device),
            Component::State => self.state(device),
            Component::Compute => self.compute(),
            Component::Output => {
                let rows = self.context.n_rows;
                vec![format!(
                    "{} tokens of vocabulary × 4 B × {}, one per sequence and drafted token",
                    self.model.n_vocab,
                    counted(rows, "row")
                )]
            }
            Component::Checkpoints => {
                let one = host::checkpoint(self.model, self.settings, &self.context);
                let Settings { ctx_checkpoints, n_parallel, .. } = self.settings;
                vec![format!("{one} of state and windows × {ctx_checkpoints} checkpoints × {n_parallel} slots")]
            }
            Component::Program => vec![format!("{} layers, vocabulary of {} tokens", self.model.n_layer_all(), self.model.n_vocab)],
            _ => Vec::new(),
        }
    }

    /// What a device that reads its weights in place has mapped beside them.
    fn mapped_range(&self, device: usize) -> Option<String> {
        let device = self.requirement.devices.get(device)?;
        let mapped = device.weights_mapped.get().filter(|mapped| !mapped.is_zero())?;
        let whose = if device.shares_host { "the host's own pages" } else { "pages of the host" };
        Some(format!("used in place from the mapped file, {whose}: {mapped} from the first of them to the last, with what lies between"))
    }

    /// Tensors in homes that are `wanted`, summed by type, the largest sum first.
    fn weights(&self, wanted: impl Fn(Home) -> bool) -> Vec<String> {
        let tensors = self.model.tensors.iter().zip(self.placement.homes.iter().copied());
        let copies = self.placement.copies.iter().copied().chain(self.placement.tied_copy());
        let copies: Vec<(&Tensor, Home)> = copies.filter_map(|(index, home)| Some((self.model.tensors.get(index)?, home))).collect();
        let mut types: BTreeMap<QuantType, (usize, Bytes, Bytes)> = BTreeMap::new();
        for (tensor, home) in tensors.chain(copies).filter(|(_, home)| wanted(*home)) {
            let padded = match home {
                Home::Device(device) => self.target.devices.get(device).map(|d| d.backend.padded(tensor.ty, tensor.shape[0], tensor.bytes)),
                _ => None,
            };
            let sum = types.entry(tensor.ty).or_default();
            *sum = (sum.0 + 1, sum.1 + tensor.bytes, sum.2 + padded.unwrap_or(tensor.bytes).saturating_sub(tensor.bytes));
        }
        let mut types: Vec<_> = types.into_iter().collect();
        types.sort_by_key(|(_, (_, bytes, _))| std::cmp::Reverse(*bytes));
        let line = |(ty, (count, bytes, padding)): (QuantType, (usize, Bytes, Bytes))| {
            let padding = if padding.is_zero() { String::new() } else { format!(" + {padding} of padding") };
            format!("{} in {ty}: {bytes}{padding}", counted(count, "tensor"))
        };
        types.into_iter().map(line).collect()
    }

    fn holds(&self, layer: usize, device: Option<usize>) -> bool {
        let home = self.placement.layer_devices.get(layer).copied().flatten().filter(|_| self.settings.kv_offload);
        home == device
    }

    /// Layers with caches of one shape are one line.
    fn kv_cache(&self, device: Option<usize>) -> Vec<String> {
        let Cells { full, window, streams } = kv_cache::cells(self.model, self.settings, &self.context);
        let shapes = Shapes::new(self.model, self.settings, &self.context);
        let mut counts: BTreeMap<Shape, usize> = BTreeMap::new();
        let layers = self.model.layers.iter().enumerate().take(kv_cache::trunk_layers(self.model));
        for shape in layers.filter(|(index, _)| self.holds(*index, device)).filter_map(|(_, layer)| shapes.of(&layer.mixer)) {
            *counts.entry(shape).or_default() += 1;
        }
        let row = |width: u64, ty: QuantType| format!("{width} × {ty} = {}", ty.row_bytes(width).unwrap_or(Bytes::ZERO));
        let line = |(Shape { k_width, v_width, index_width, windowed }, count): (Shape, usize)| {
            let cells = if windowed { window } else { full };
            let k = row(k_width, self.settings.cache_type_k);
            let rows = match v_width {
                0 => format!("K and V together {k}"),
                width => format!("(K {k} + V {})", row(width, self.settings.cache_type_v)),
            };
            let rows = match index_width {
                0 => rows,
                width => format!("({rows} + keys of the indexer {})", row(width, self.settings.cache_type_k)),
            };
            let kind = if windowed { " of their window" } else { "" };
            format!("{} × {rows} × {cells} cells{kind} × {}", counted(count, "layer"), counted(streams, "stream"))
        };
        let mut compressed: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for attention in self.compressed(device, self.model.layers.len()) {
            for shape in kv_cache::compressed_rows(attention, Cells { full, window, streams }) {
                *compressed.entry(shape).or_default() += 1;
            }
        }
        let compressed_line = |((width, rows), count): ((u64, u64), usize)| {
            let row = row(width, self.settings.cache_type_k);
            format!("{} × {row} × {rows} rows × {}", counted(count, "layer"), counted(streams, "stream"))
        };
        counts.into_iter().map(line).chain(compressed.into_iter().map(compressed_line)).collect()
    }

    /// Attention over compressed rows in the first `n` layers that a place holds.
    fn compressed(&self, device: Option<usize>, n: usize) -> impl Iterator<Item = &Compressed> {
        let layers = self.model.layers.iter().enumerate().take(n);
        layers.filter(move |(index, _)| self.holds(*index, device)).filter_map(|(_, layer)| match &layer.mixer {
            Mixer::Compressed(attention) => Some(attention),
            _ => None,
        })
    }

    fn state(&self, device: Option<usize>) -> Vec<String> {
        let mut shapes: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        let layers = self.model.layers.iter().enumerate().take(kv_cache::trunk_layers(self.model));
        for (_, layer) in layers.filter(|(index, _)| self.holds(*index, device)) {
            if let Mixer::Recurrent(r) | Mixer::Both(_, r) = &layer.mixer {
                *shapes.entry((r.r_elements, r.s_elements)).or_default() += 1;
            }
        }
        let sequences = self.settings.n_parallel.max(1).saturating_mul(self.context.n_states);
        let line = |((r, s), count): ((u64, u64), usize)| {
            format!("{} × ({r} of convolution or shift + {s} of state) × 4 B × {}", counted(count, "layer"), counted(sequences, "row"))
        };
        let mut pending: BTreeMap<(u64, u64), usize> = BTreeMap::new();
        for kept in self.compressed(device, kv_cache::trunk_layers(self.model)).flat_map(compressed::pending) {
            *pending.entry((kept.tokens, kept.width)).or_default() += 1;
        }
        let pending_line = |((tokens, width), count): ((u64, u64), usize)| {
            let kept = format!("{tokens} tokens of incomplete rows × 2 × {width} × 4 B");
            format!("{} × {kept} × {}", counted(count, "layer"), counted(sequences, "row"))
        };
        shapes.into_iter().map(line).chain(pending.into_iter().map(pending_line)).collect()
    }

    fn compute(&self) -> Vec<String> {
        let context = &self.context;
        let fused = if context.flash_attn { "with" } else { "without" };
        let tokens = context.n_ctx.min(context.n_ubatch);
        let mut steps = vec![format!(
            "the larger of a prefill of {} with {} of logits and a decode of {}, {fused} flash attention",
            counted(tokens, "token"),
            counted(context.n_outputs.min(tokens), "row"),
            counted(self.settings.n_parallel.max(1), "token"),
        )];
        if let Some(graph) = self.requirement.graph {
            steps.push(format!("{} nodes of the prefill graph in {} splits", graph.nodes, graph.splits));
        }
        steps
    }
}

/// `1 row`, `2 rows`.
fn counted(n: impl std::fmt::Display, noun: &str) -> String {
    let n = n.to_string();
    let plural = if n == "1" { "" } else { "s" };
    format!("{n} {noun}{plural}")
}
