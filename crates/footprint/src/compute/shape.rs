//! What of a placement shapes a graph: layers by where they and their tensors lie, and everything outside of them.

use super::steps::Sequence;
use crate::placement::{Home, Placement};
use spec::model::Mixer;
use spec::{Model, QuantType};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Tensors whose types decide which operations a backend fuses, wherever they lie (`fusions`).
const FUSED: [&str; 4] = ["ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_gate_shexp.weight", "ffn_up_shexp.weight"];

/// The shapes of one model's placements, numbered as they come.
pub(crate) struct Shapes {
    /// First layer that is like each.
    like: Vec<u32>,
    /// Layer whose cache each reads, where that is another one's.
    shared: Vec<Option<u32>>,
    /// Per tensor a number for its part and shape, and one that tells its type, too.
    tensors: Vec<[u32; 2]>,
    /// Tensors of each layer and, last, those outside of layers.
    pub(crate) groups: Vec<Vec<usize>>,
    numbers: RefCell<BTreeMap<Vec<u32>, u32>>,
}

/// One placement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    layers: Vec<LayerShape>,
    /// A number for everything outside of layers.
    pub(crate) outside: u32,
}

/// What of a placement shapes one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LayerShape {
    /// For what it is and where its tensors lie; and one that tells types of the host's, too, which matter where devices copy such
    /// tensors.
    numbers: [u32; 2],
    /// One bit for what it is and its device; others may have the same.
    kind: u64,
}

impl Shape {
    /// Some layers as steps tell them apart: by what they are, where they lie and, of the host's tensors, by types where asked.
    pub(super) fn sequence(&self, layers: &[usize], typed: bool, what: impl Fn(usize) -> u32) -> Sequence {
        let place = |layer: usize| self.layers.get(layer).map_or(0, |layer| layer.numbers[usize::from(typed)]);
        let told = |&layer: &usize| u64::from(what(layer)) << 32 | u64::from(place(layer));
        let kind = |layer: &usize| self.layers.get(*layer).map_or(0, |layer| layer.kind);
        Sequence::new(layers.iter().map(told).collect(), layers.iter().map(kind))
    }
}

impl Shapes {
    /// No shape yet.
    pub(crate) fn new(model: &Model) -> Self {
        let layers = &model.layers;
        let like = (0..layers.len()).map(|i| (0..i).find(|&j| layers[j] == layers[i]).unwrap_or(i) as u32).collect();
        let shared = layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention(attention) | Mixer::Both(attention, _) => attention.shares_kv_of,
            _ => None,
        });
        let mut numbers: BTreeMap<(Option<QuantType>, [u64; 4], &str), u32> = BTreeMap::new();
        let mut groups = vec![Vec::new(); layers.len() + 1];
        let tensors = model.tensors.iter().enumerate().map(|(index, tensor)| {
            let stem = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            let stem = stem.map_or(tensor.name.as_str(), |(_, stem)| stem);
            let layer = tensor.layer().map(|layer| layer as usize).filter(|&layer| layer < layers.len());
            groups[layer.unwrap_or(layers.len())].push(index);
            let fused = FUSED.contains(&stem);
            [fused, true].map(|typed| {
                let next = numbers.len() as u32;
                *numbers.entry((typed.then_some(tensor.ty), tensor.shape, stem)).or_insert(next)
            })
        });
        Self { like, shared: shared.collect(), tensors: tensors.collect(), groups, numbers: RefCell::default() }
    }

    /// The devices that a layer and its cache are on.
    pub(crate) fn devices(&self, layer_devices: &[Option<usize>], layer: usize) -> [u32; 2] {
        let device = |layer: usize| device_number(layer_devices.get(layer).copied().flatten());
        let source = self.shared.get(layer).copied().flatten().map_or(layer, |source| source as usize);
        [device(layer), device(source)]
    }

    /// What of a placement shapes one layer.
    pub(crate) fn layer(&self, placement: &Placement, layer: usize) -> LayerShape {
        let like = self.like.get(layer).copied().unwrap_or(u32::MAX);
        let [device, source] = self.devices(&placement.layer_devices, layer);
        let mut parts = [(); 2].map(|()| {
            let mut part = Vec::with_capacity(64);
            part.extend([like, device, source]);
            part
        });
        for (&[read, typed], home) in self.placed(placement, layer) {
            let told = if is_copied_from(home) { [read, typed] } else { [read; 2] };
            for (part, number) in parts.iter_mut().zip(told) {
                part.extend([number, home_number(home)]);
            }
        }
        LayerShape { numbers: parts.map(|part| self.number(part)), kind: 1 << (like.wrapping_mul(16).wrapping_add(device) % 64) }
    }

    /// The shape of one placement of the model, with those of its layers.
    pub(crate) fn of(&self, placement: &Placement, layers: Vec<LayerShape>) -> Shape {
        let mut last = vec![device_number(placement.output_device())];
        for (&[read, typed], home) in self.placed(placement, self.like.len()) {
            last.extend([if is_copied_from(home) { typed } else { read }, home_number(home)]);
        }
        last.extend(placement.tied_copy().map(|(_, home)| home_number(home)));
        for &(index, home) in &placement.copies {
            last.extend([u32::MAX, index as u32, home_number(home)]);
        }
        last.push(u32::MAX);
        last.extend(placement.devices.iter().map(|&device| device as u32));
        Shape { layers, outside: self.number(last) }
    }

    fn placed<'a>(&'a self, placement: &'a Placement, group: usize) -> impl Iterator<Item = (&'a [u32; 2], Home)> {
        let tensors = self.groups.get(group).into_iter().flatten();
        tensors.filter_map(|&tensor| self.tensors.get(tensor).zip(placement.homes.get(tensor).copied()))
    }

    fn number(&self, part: Vec<u32>) -> u32 {
        let mut numbers = self.numbers.borrow_mut();
        let next = numbers.len() as u32;
        *numbers.entry(part).or_insert(next)
    }
}

/// True where devices may copy tensors from.
fn is_copied_from(home: Home) -> bool {
    matches!(home, Home::Host | Home::HostLazy | Home::HostPinned(_))
}

fn device_number(device: Option<usize>) -> u32 {
    device.map_or(0, |device| device as u32 + 1)
}

fn home_number(home: Home) -> u32 {
    let (kind, device) = match home {
        Home::Unused => (0, 0),
        Home::Host => (1, 0),
        Home::HostLazy => (2, 0),
        Home::HostRepacked => (3, 0),
        Home::HostAmx => (4, 0),
        Home::HostPinned(device) => (5, device),
        Home::Device(device) => (6, device),
    };
    kind + 8 * device as u32
}
