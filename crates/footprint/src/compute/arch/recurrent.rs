//! Families with a recurrence, alone or beside attention.

use super::super::decoder::Decoder;
use super::LLAMA;
use spec::Model;

pub(super) fn decoder(model: &Model) -> Option<Decoder> {
    Some(match model.architecture.as_str() {
        "mamba" => LLAMA,
        _ => return None,
    })
}
