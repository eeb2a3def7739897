//! The arithmetic behind each number of the BitNet engine, for people.

use super::{BLOCK, BitNet, Figures, HEAD_BLOCK, MERGE, PROGRAM, TOKEN, Use, head_copy, head_input, is_elsewhere, is_unread, tokenizer};
use crate::parts::Component;
use crate::requirement::Requirement;
use spec::{Bytes, Model, QuantType, Settings};
use std::collections::BTreeMap;

/// The factors of a component on the host, one line each.
pub(crate) fn steps(model: &Model, settings: &Settings, requirement: &Requirement, engine: BitNet, component: Component) -> Vec<String> {
    let Some(figures) = Figures::of(model) else { return Vec::new() };
    let context = &requirement.context;
    let here = requirement.layer_devices.iter().take(model.layers.len()).filter(|device| device.is_none()).count() as u64;
    let head_on_device = requirement.layer_devices.get(model.layers.len()).is_some_and(Option::is_some);
    match component {
        Component::Weights => weights(model, &figures, engine, here, head_on_device),
        Component::KvCache => {
            let (ty, width) = (settings.cache_type_k, figures.kv_width());
            let row = ty.row_bytes(width).unwrap_or(Bytes::ZERO);
            vec![format!("{} layers × K and V of {width} × {ty} = {row} each × {} tokens", here, context.n_ctx)]
        }
        Component::Compute => {
            let widths = format!("{} + 2 × ({} + {} + {})", figures.n_embd, figures.q_width(), figures.kv_width(), figures.n_ff);
            let angles = figures.head_dim / 2 * 2;
            let widest = figures.n_embd.max(figures.n_ff).max(figures.q_width()).next_multiple_of(BLOCK);
            vec![
                format!(
                    "(({widths} + {angles} for angles) × 4 B + {widest} B of a linear layer's input, 8 B of its sum and scale) × {} tokens",
                    context.n_ubatch
                ),
                format!("frequencies of rotary angles: {} × 4 B", figures.head_dim / 2),
            ]
        }
        Component::Output => {
            let stream =
                format!("logits of one token: {} × 4 B, and the stream that they come from: {} × 4 B", figures.n_vocab, figures.n_embd);
            let blocks = head_input(model, &figures, engine).get() / HEAD_BLOCK.get();
            let in_blocks = || format!("the same as a head in q8_0 takes it: {blocks} blocks × (32 × 2 B + 4 B)");
            std::iter::once(stream).chain((blocks > 0).then(in_blocks)).collect()
        }
        Component::Program => {
            let (tokens, merges) = tokenizer(model);
            vec![format!("{tokens} tokens × {TOKEN} + {merges} merges × {MERGE} + {PROGRAM}")]
        }
        _ => Vec::new(),
    }
}

/// Tensors by what becomes of them on the host and by type, the largest sums first.
fn weights(model: &Model, figures: &Figures, engine: BitNet, here: u64, head_on_device: bool) -> Vec<String> {
    let mut sums: BTreeMap<(&str, QuantType), (usize, Bytes, Bytes)> = BTreeMap::new();
    for tensor in &model.tensors {
        let (what, copy) = match Use::of(tensor, engine) {
            Use::InPlace if tensor.ty == QuantType::I2_S && is_elsewhere(tensor, here) => continue,
            Use::InPlace if is_unread(model, tensor, engine, head_on_device) => (UNREAD, Bytes::ZERO),
            Use::InPlace => (IN_PLACE, Bytes::ZERO),
            Use::Copied(bytes) if tensor.name.ends_with("norm.weight") => (FLOATS, bytes),
            Use::Copied(bytes) => (REPACKED, bytes),
            Use::Scale => continue,
        };
        let sum = sums.entry((what, tensor.ty)).or_default();
        *sum = (sum.0 + 1, sum.1 + tensor.bytes, sum.2 + copy);
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, (_, bytes, _))| std::cmp::Reverse(*bytes));
    let line = |((what, ty), (count, bytes, copy)): ((&str, QuantType), (usize, Bytes, Bytes))| {
        let (count, copy) = (
            if count == 1 { "1 tensor".to_owned() } else { format!("{count} tensors") },
            if copy.is_zero() { String::new() } else { format!(": {copy}") },
        );
        format!("{count} in {ty}, {bytes} of the file: {what}{copy}")
    };
    let head = head_copy(model, engine).map(|ty| {
        let bytes = ty.row_bytes(figures.n_embd).unwrap_or(Bytes::ZERO).times(figures.n_vocab);
        format!("the output head copied in {ty}: {bytes}")
    });
    sums.into_iter().map(line).chain(head).collect()
}

const IN_PLACE: &str = "used in place: page cache, which the system may drop and read again";
const UNREAD: &str = "mapped, and not counted: a token reads one row of it at most";
const FLOATS: &str = "copied as floats";
const REPACKED: &str = "copied to the layout of the kernels";

#[cfg(test)]
mod tests {
    use super::super::Head;
    use super::*;
    use crate::{Companions, EngineProfile, Target};

    fn explained(ternary: &str, head: Head) -> Vec<String> {
        let file = match ternary {
            "I2_S" => synthetic::bitnet("bitnet-b1.58-tiny").unwrap().unwrap(),
            ty => {
                let shape = synthetic::Shape {
                    n_layer: 3,
                    n_embd: 256,
                    n_ff: 768,
                    n_head: 4,
                    n_head_kv: 2,
                    n_vocab: 2304,
                    ..synthetic::preset("bitnet-2b").unwrap()
                };
                let f16 = synthetic::Override { part: "token_embd".into(), ty: QuantType::F16 };
                synthetic::gguf(&shape, ty.parse().unwrap(), &synthetic::Options { overrides: vec![f16], ..synthetic::Options::default() })
                    .unwrap()
            }
        };
        let model = formats::describe(&[formats::gguf::read(&file.header, file.size).unwrap()]).unwrap();
        let (settings, profile) =
            (Settings { n_ctx: 128, ..Settings::default() }, EngineProfile::bitnet(BitNet::default().with_head(head)));
        let target = Target { devices: Vec::new(), idle: Vec::new(), cpu_features: Default::default(), cpu_arch: "x86_64".into() };
        let none = Companions::default();
        let requirement = crate::require(&model, &settings, &target, &profile).unwrap();
        let parts = crate::explain(&model, &settings, &target, &profile, &none, &requirement).unwrap();
        parts.into_iter().find(|part| part.component == Component::Weights).unwrap().steps
    }

    #[test]
    fn what_is_used_in_place_and_what_is_copied_is_told_apart() {
        let f16 = "1 tensor in f16, 1.12 MiB of the file";
        let in_place = "used in place: page cache, which the system may drop and read again";
        let norms = "13 tensors in f32, 19.00 KiB of the file: copied as floats: 19.00 KiB";
        let codes = format!("21 tensors in i2_s, 576.66 KiB of the file: {in_place}");
        assert_eq!(explained("I2_S", Head::File), [&*format!("{f16}: {in_place}"), &codes, norms]);
        let copied = "21 tensors in tq2_0, 594.00 KiB of the file: copied to the layout of the kernels: 576.00 KiB";
        assert_eq!(explained("TQ2_0", Head::File), [&*format!("{f16}: {in_place}"), copied, norms]);
        let unread = format!("{f16}: mapped, and not counted: a token reads one row of it at most");
        let copy = "the output head copied in q8_0: 612.00 KiB";
        assert_eq!(explained("I2_S", Head::Q8_0), [&*unread, &codes, norms, copy]);
    }
}
