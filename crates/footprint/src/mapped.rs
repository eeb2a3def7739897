//! Pages of the model's files that are used in place, by the host and by devices that read them where they lie.
//!
//! Upstream: a buffer over the mapped file takes of each file the range from the first to the last tensor that it holds, whatever
//! lies between them (`llama-model.cpp:1856-1876`, `llama-model-loader.cpp:1447-1462`). A device that reads weights in place (Metal)
//! has such a range of its own and keeps all of it in memory; that of the host is only addresses, of which it reads its tensors.

use crate::placement::{Home, Placement};
use crate::target::Target;
use spec::model::Tensor;
use spec::{Bytes, Model};
use std::collections::BTreeMap;

/// The range of one buffer in each file, by the file's number: first byte and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Span(BTreeMap<usize, (Bytes, Bytes)>);

impl Span {
    fn of<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Self {
        let mut ranges: BTreeMap<usize, (Bytes, Bytes)> = BTreeMap::new();
        for tensor in tensors {
            let end = tensor.offset + tensor.bytes;
            let range = ranges.entry(tensor.file).or_insert((tensor.offset, end));
            *range = (range.0.min(tensor.offset), range.1.max(end));
        }
        Self(ranges)
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

/// What is mapped under a placement with [`Placement::mapped`] set; without it only tables that are mapped in any case.
pub fn mapped(model: &Model, target: &Target, placement: &Placement) -> Mapped {
    let placed = || model.tensors.iter().zip(&placement.homes);
    let lazy = || placed().filter(|(_, home)| **home == Home::HostLazy).map(|(tensor, _)| tensor.bytes);
    if !placement.mapped {
        let lazy = lazy().sum();
        return Mapped { span: lazy, touched: lazy, shared: Bytes::ZERO, devices: vec![None; target.devices.len()] };
    }
    let touched = |home: Home| matches!(home, Home::Host | Home::HostLazy | Home::HostRepacked | Home::HostAmx);
    let spans: Vec<Option<Span>> = target
        .devices
        .iter()
        .enumerate()
        .map(|(device, on)| on.backend.maps_weights.then(|| Span::of(on_device(model, placement, device))))
        .collect();
    let of_the_host: Vec<&Span> =
        spans.iter().zip(&target.devices).filter(|(_, device)| device.shares_host).filter_map(|(span, _)| span.as_ref()).collect();
    let in_place = placed().filter(|(_, home)| matches!(home, Home::Host | Home::HostLazy)).map(|(tensor, _)| tensor);
    Mapped {
        span: Span::of(placed().filter(|(_, home)| **home == Home::Host).map(|(tensor, _)| tensor)).bytes() + lazy().sum(),
        touched: placed().filter(|(_, home)| touched(**home)).map(|(tensor, _)| tensor.bytes).sum(),
        shared: in_place.filter(|tensor| of_the_host.iter().any(|span| span.holds(tensor))).map(|tensor| tensor.bytes).sum(),
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
    use crate::target::{Backend, Device};
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
