//! The type of each tensor, as `llama-quantize` gives it.

use crate::outline::Outline;
use crate::shape::Shape;
use crate::tensors::Plain;
use crate::writer::Value;
use mixture::{Figures, FileType, MixtureError, Options, Tensor, quantizable};
use spec::QuantType;

/// What the rules read of a shape.
pub(crate) fn figures(shape: &Shape) -> Figures<'_> {
    Figures {
        architecture: shape.architecture.name(),
        n_layer: shape.n_layer,
        n_head: shape.n_head,
        n_head_kv: shape.kv_heads(),
        n_expert: shape.n_expert,
    }
}

/// What the rules read of an outline: of lists by layer, the first layer's number.
pub(crate) fn outline_figures(outline: &Outline) -> Figures<'_> {
    let first = |key: &str| {
        let key = format!("{}.{key}", outline.architecture);
        let (_, value) = outline.keys.iter().find(|(known, _)| *known == key)?;
        let value = if let Value::Array { items, .. } = value { items.first()? } else { value };
        match value {
            Value::U32(number) => Some(u64::from(*number)),
            _ => None,
        }
    };
    let n_head = first("attention.head_count").unwrap_or(0);
    Figures {
        architecture: &outline.architecture,
        n_layer: outline.n_layer(),
        n_head,
        n_head_kv: first("attention.head_count_kv").unwrap_or(n_head),
        n_expert: first("expert_count").unwrap_or(0),
    }
}

/// The type of each tensor, parallel to `tensors`.
///
/// # Errors
/// Rows that no type in the mixture's place can hold.
pub(crate) fn types(
    figures: &Figures<'_>,
    tensors: &[Plain],
    file_type: FileType,
    options: &Options,
) -> Result<Vec<QuantType>, MixtureError> {
    // `llama-quantize` starts from a file of 16 bits, in which here all that it leaves alone has 32.
    let tensors: Vec<Tensor<'_>> = tensors.iter().map(|tensor| before(figures, tensor)).collect();
    mixture::types(figures, &tensors, file_type, options)
}

fn before<'a>(figures: &Figures<'_>, tensor: &'a Plain) -> Tensor<'a> {
    let mut shape = [1; 4];
    for (extent, &given) in shape.iter_mut().zip(&tensor.shape) {
        *extent = given;
    }
    let ty = match quantizable(figures.architecture, &tensor.name, shape) {
        true => QuantType::F16,
        // The experts of each token of the vocabulary.
        false if tensor.name.ends_with("ffn_gate_tid2eid.weight") => QuantType::I32,
        false => QuantType::F32,
    };
    Tensor { name: &tensor.name, shape, ty }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::preset;
    use crate::tensors::tensors;
    use std::fmt::Write;

    /// Types as one line per distinct tensor name, layers in ranges.
    fn summary(name: &str, file_type: FileType) -> String {
        let shape = preset(name).unwrap();
        let list = tensors(&shape);
        let mut lines: Vec<(String, QuantType, Vec<u64>)> = Vec::new();
        for (tensor, ty) in
            list.iter().zip(types(&figures(&shape), &list, file_type, &Options::default()).unwrap()).filter(|(_, ty)| *ty != QuantType::F32)
        {
            let (stem, layer) = match tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
                Some((layer, stem)) => (stem, layer.parse().ok()),
                None => (tensor.name.as_str(), None),
            };
            match lines.iter_mut().find(|(known, known_ty, _)| known == stem && *known_ty == ty) {
                Some((_, _, layers)) => layers.extend(layer),
                None => lines.push((stem.to_owned(), ty, layer.into_iter().collect())),
            }
        }
        lines.iter().fold(String::new(), |mut text, (stem, ty, layers)| {
            let _ = match layers.len() as u64 {
                0 => writeln!(text, "{stem} {ty}"),
                n if n == shape.n_layer => writeln!(text, "{stem} {ty} in all layers"),
                n => writeln!(text, "{stem} {ty} in {n} layers from {}", layers.first().copied().unwrap_or(0)),
            };
            text
        })
    }

    #[test]
    fn the_common_mixture_gives_more_bits_to_v_and_down() {
        insta::assert_snapshot!(summary("llama-3.1-8b", FileType::Q4_K_M), @r"
        token_embd.weight q4_K
        output.weight q6_K
        attn_q.weight q4_K in all layers
        attn_k.weight q4_K in all layers
        attn_v.weight q6_K in 16 layers from 0
        attn_output.weight q4_K in all layers
        ffn_gate.weight q4_K in all layers
        ffn_up.weight q4_K in all layers
        ffn_down.weight q6_K in 16 layers from 0
        attn_v.weight q4_K in 16 layers from 4
        ffn_down.weight q4_K in 16 layers from 4
        ");
    }

    #[test]
    fn experts_are_told_by_their_own_layer() {
        insta::assert_snapshot!(summary("mixtral-8x7b", FileType::Q3_K_M), @r"
        token_embd.weight q3_K
        output.weight q6_K
        attn_q.weight q3_K in all layers
        attn_k.weight q8_0 in all layers
        attn_v.weight q8_0 in all layers
        attn_output.weight q5_K in all layers
        ffn_gate_exps.weight q3_K in all layers
        ffn_down_exps.weight q5_K in 2 layers from 0
        ffn_up_exps.weight q3_K in all layers
        ffn_down_exps.weight q4_K in 30 layers from 2
        ");
    }

    #[test]
    fn rows_that_no_block_divides_fall_back() {
        insta::assert_snapshot!(summary("smollm2-135m", FileType::Q4_K_M), @r"
        token_embd.weight q8_0
        attn_q.weight q5_0 in all layers
        attn_k.weight q5_0 in all layers
        attn_v.weight q8_0 in 14 layers from 0
        attn_output.weight q5_0 in all layers
        ffn_gate.weight q5_0 in all layers
        ffn_up.weight q5_0 in all layers
        ffn_down.weight q6_K in 14 layers from 0
        attn_v.weight q5_0 in 16 layers from 3
        ffn_down.weight q4_K in 16 layers from 3
        ");
    }
}
