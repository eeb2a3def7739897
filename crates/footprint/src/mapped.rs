//! Pages of the model's files that are used in place, by the host and by devices that read them where they lie.
//!
//! Upstream: a buffer over the mapped file takes of each file the range from the first to the last tensor that it holds, whatever
//! lies between them (`llama-model.cpp:1856-1876`, `llama-model-loader.cpp:1447-1462`). A device that reads weights in place (Metal)
//! has such a range of its own and keeps all of it in memory; that of the host is only addresses, of which it reads its tensors.

use crate::placement::{Home, Placement};
use crate::target::{Device, Target};
use spec::model::Tensor;
use spec::{Bytes, Model};
use std::collections::BTreeMap;

/// The range of one buffer in each file, by the file's number: first byte and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Span(BTreeMap<usize, (Bytes, Bytes)>);

impl Span {
    fn of<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Self {
        let mut span = Self::default();
        tensors.for_each(|tensor| span.add(tensor.file, tensor.offset, tensor.offset + tensor.bytes));
        span
    }
    fn add(&mut self, file: usize, first: Bytes, end: Bytes) {
        let range = self.0.entry(file).or_insert((first, end));
        *range = (range.0.min(first), range.1.max(end));
    }
    fn bytes(&self) -> Bytes {
        self.0.values().map(|(first, end)| end.saturating_sub(*first)).sum()
    }
    /// Tensors do not overlap, so that one lies in a range as a whole or not at all.
    fn holds(&self, tensor: &Tensor) -> bool {
        self.0.get(&tensor.file).is_some_and(|(first, end)| tensor.offset >= *first && tensor.offset < *end)
    }
}

/// What is mapped of the files of a model, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapped {
    /// What the engine reports for the host: in each file everything from the first to the last tensor used in place.
    pub span: Bytes,
    /// File pages that loading reads on behalf of the host: tensors used in place and originals of repacked ones; a tensor that
    /// has both uses counts once.
    pub touched: Bytes,
    /// Of the tensors that the host uses in place: those in a range that a device which shares the host's memory has mapped.
    pub shared: Bytes,
    /// The range of each device that reads its weights in place, parallel to [`Target::devices`]; `None` where the device has
    /// memory of its own for them.
    pub devices: Vec<Option<Bytes>>,
}

/// What the host maps of some tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnHost {
    /// From the first to the last that it uses in place.
    span: Span,
    /// Tables that are mapped whatever the load mode.
    lazy: Bytes,
    touched: Bytes,
}

impl OnHost {
    /// Adds a tensor in its home.
    pub(crate) fn add(&mut self, tensor: &Tensor, home: Home) {
        match home {
            Home::Host => self.span.add(tensor.file, tensor.offset, tensor.offset + tensor.bytes),
            Home::HostLazy => self.lazy += tensor.bytes,
            _ => {}
        }
        if matches!(home, Home::Host | Home::HostLazy | Home::HostRepacked | Home::HostAmx) {
            self.touched += tensor.bytes;
        }
    }

    /// Adds all of these.
    pub(crate) fn join(&mut self, others: &Self) {
        others.span.0.iter().for_each(|(&file, &(first, end))| self.span.add(file, first, end));
        self.lazy += others.lazy;
        self.touched += others.touched;
    }
}

/// What is mapped under a placement with [`Placement::mapped`] set; without it only tables that are mapped in any case.
pub fn mapped(model: &Model, target: &Target, placement: &Placement) -> Mapped {
    let mut on_host = OnHost::default();
    model.tensors.iter().zip(&placement.homes).for_each(|(tensor, &home)| on_host.add(tensor, home));
    mapped_by(model, target, placement, &on_host)
}

/// The same with what the host maps of all tensors.
pub(crate) fn mapped_by(model: &Model, target: &Target, placement: &Placement, on_host: &OnHost) -> Mapped {
    let OnHost { span, lazy, touched } = on_host;
    if !placement.mapped {
        return Mapped { span: *lazy, touched: *lazy, shared: Bytes::ZERO, devices: vec![None; target.devices.len()] };
    }
    let of_device = |(index, device): (usize, &Device)| device.backend.maps_weights.then(|| Span::of(on_device(model, placement, index)));
    let spans: Vec<Option<Span>> = target.devices.iter().enumerate().map(of_device).collect();
    let of_the_host: Vec<&Span> =
        spans.iter().zip(&target.devices).filter(|(_, device)| device.shares_host).filter_map(|(span, _)| span.as_ref()).collect();
    let shared = |(tensor, home): (&Tensor, &Home)| {
        let is = matches!(home, Home::Host | Home::HostLazy) && of_the_host.iter().any(|span| span.holds(tensor));
        is.then_some(tensor.bytes)
    };
    let shared = if of_the_host.is_empty() { Bytes::ZERO } else { model.tensors.iter().zip(&placement.homes).filter_map(shared).sum() };
    Mapped {
        span: span.bytes() + *lazy,
        touched: *touched,
        shared,
        devices: spans.iter().map(|span| span.as_ref().map(Span::bytes)).collect(),
    }
}

/// The tensors of a device, second uses of one included.
fn on_device<'a>(model: &'a Model, placement: &'a Placement, device: usize) -> impl Iterator<Item = &'a Tensor> {
    let own = placement.homes.iter().copied().enumerate();
    let copies = placement.copies.iter().copied().chain(placement.tied_copy());
    own.chain(copies).filter(move |(_, home)| *home == Home::Device(device)).filter_map(|(index, _)| model.tensors.get(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::target::Backend;
    use spec::{Known, QuantType};

    fn tensor(name: &str, offset: u64, bytes: u64) -> Tensor {
        let (offset, bytes) = (Bytes::new(offset), Bytes::new(bytes));
        Tensor { name: name.into(), ty: QuantType::F32, shape: [bytes.get() / 4, 1, 1, 1], bytes, file: 0, offset }
    }

    /// A file as llama-quantize writes it: the output first, then the embedding, then the layers.
    fn placed(homes: [Home; 4]) -> Mapped {
        let tensors = vec![
            tensor("output.weight", 0, 400),
            tensor("token_embd.weight", 400, 400),
            tensor("blk.0.attn_q.weight", 800, 100),
            tensor("blk.1.attn_q.weight", 900, 100),
        ];
        let model = Model { tensors, ..fixture::model([]) };
        let memory = Known::exact(Bytes::from_gib(16), "test");
        let metal = Device { shares_host: true, ..Device::of_its_own("Metal0", Backend::metal(), memory) };
        let target = Target { devices: vec![metal], ..fixture::target(&[]) };
        let placement = Placement {
            devices: vec![0],
            layer_devices: Vec::new(),
            homes: homes.into(),
            copies: Vec::new(),
            tied_output: None,
            tied_apart: false,
            token_embedding: Some(1),
            mapped: true,
            has_overrides: false,
            rows: None,
        };
        mapped(&model, &target, &placement)
    }

    #[test]
    fn one_layer_and_an_output_at_the_head_of_the_file_map_all_of_it() {
        let (host, metal) = (Home::Host, Home::Device(0));
        let partly = placed([metal, host, host, metal]);
        assert_eq!((partly.devices.clone(), partly.span), (vec![Some(Bytes::new(1000))], Bytes::new(500)));
        // What the host reads lies in the device's range: the same pages.
        assert_eq!((partly.touched, partly.shared), (Bytes::new(500), Bytes::new(500)));
        let last = placed([host, host, host, metal]);
        assert_eq!((last.devices.clone(), last.shared), (vec![Some(Bytes::new(100))], Bytes::ZERO));
        assert_eq!(placed([host; 4]).devices, [Some(Bytes::ZERO)]);
    }
}
