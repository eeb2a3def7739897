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
    /// Per tensor its layer and a number for its part and shape: where a device reads it in place; where it is the host's;
    /// and there together with its type.
    tensors: Vec<(usize, [u32; 3])>,
    numbers: RefCell<BTreeMap<Vec<u32>, u32>>,
}

/// One placement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    /// Per layer, a number for what it is and where its tensors lie; and one that tells quantised types of the host's, too,
    /// which matter where devices copy such tensors.
    layers: Vec<[u32; 2]>,
    /// Per layer, one bit for what it is and its device; others may have the same.
    kinds: Vec<u64>,
    /// A number for everything outside of layers.
    pub(crate) outside: u32,
}

impl Shape {
    /// Some layers as steps tell them apart: by what they are, where they lie and, of the host's tensors, by types where asked.
    pub(super) fn sequence(&self, layers: &[usize], typed: bool, what: impl Fn(usize) -> u32) -> Sequence {
        let place = |layer: usize| self.layers.get(layer).map_or(0, |numbers| numbers[usize::from(typed)]);
        let told = |&layer: &usize| u64::from(what(layer)) << 32 | u64::from(place(layer));
        let kind = |layer: &usize| self.kinds.get(*layer).copied().unwrap_or(0);
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
        let tensors = model.tensors.iter().map(|tensor| {
            let stem = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            let stem = stem.map_or(tensor.name.as_str(), |(_, stem)| stem);
            let layer = tensor.layer().map(|layer| layer as usize).filter(|&layer| layer < layers.len());
            let fused = FUSED.contains(&stem);
            let kinds = [fused, fused || !tensor.ty.is_quantized(), true].map(|typed| {
                let next = numbers.len() as u32;
                *numbers.entry((typed.then_some(tensor.ty), tensor.shape, stem)).or_insert(next)
            });
            (layer.unwrap_or(layers.len()), kinds)
        });
        Self { like, shared: shared.collect(), tensors: tensors.collect(), numbers: RefCell::default() }
    }

    /// The shape of one placement of the model.
    pub(crate) fn of(&self, placement: &Placement) -> Shape {
        let outside = self.like.len();
        let device = |layer: usize| device_number(placement.layer_devices.get(layer).copied().flatten());
        let mut parts: Vec<[Vec<u32>; 2]> = Vec::with_capacity(outside + 1);
        let mut kinds = Vec::with_capacity(outside);
        for (layer, (&like, shared)) in self.like.iter().zip(&self.shared).enumerate() {
            let home = shared.map_or(layer, |source| source as usize);
            parts.push([(); 2].map(|()| {
                let mut part = Vec::with_capacity(64);
                part.extend([like, device(layer), device(home)]);
                part
            }));
            kinds.push(1 << ((like * 16 + device(layer)) % 64));
        }
        let mut last = vec![device_number(placement.output_device())];
        for (&(layer, [read, copied, typed]), &home) in self.tensors.iter().zip(&placement.homes) {
            // Where a device may copy it from.
            let host = matches!(home, Home::Host | Home::HostLazy | Home::HostPinned(_));
            match parts.get_mut(layer) {
                Some(layer) => {
                    for (part, number) in layer.iter_mut().zip(if host { [copied, typed] } else { [read; 2] }) {
                        part.extend([number, home_number(home)]);
                    }
                }
                None => last.extend([if host { typed } else { read }, home_number(home)]),
            }
        }
        last.extend(placement.tied_copy().map(|(_, home)| home_number(home)));
        for &(index, home) in &placement.copies {
            last.extend([u32::MAX, index as u32, home_number(home)]);
        }
        last.push(u32::MAX);
        last.extend(placement.devices.iter().map(|&device| device as u32));
        let mut numbers = self.numbers.borrow_mut();
        let mut number = |part: Vec<u32>| {
            let next = numbers.len() as u32;
            *numbers.entry(part).or_insert(next)
        };
        let outside = number(last);
        Shape { layers: parts.into_iter().map(|layer| layer.map(&mut number)).collect(), kinds, outside }
    }
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
