//! The model of a row: published shapes by what the row calls it, or the reason why there is none.

use super::row::Row;
use spec::Model;

/// Where the model of a row comes from.
pub enum Source {
    /// Its shape is known.
    Model {
        model: Box<Model>,
        /// The types of its tensors too: the row names a file type that one tool makes in one way.
        weights_known: bool,
        /// The row names every flag that decides a buffer.
        complete: bool,
    },
    /// There is no model of it.
    None(&'static str),
}

/// How a row is recomputed.
enum Recipe {
    /// Everything is known.
    Whole(&'static str),
    /// All but the types of the tensors.
    Untyped(&'static str),
    /// Flags are missing; what is compared says little.
    Partly(&'static str),
    /// Not at all.
    No(&'static str),
}

use Recipe::{No, Partly, Untyped, Whole};

fn recipe(row: &Row) -> Recipe {
    if !row.is_mainline() {
        return fork(row);
    }
    match row.id() {
        1..=7 => Whole("llama-3.1-8b Q4_K_M rope_freqs=false"),
        26 => No("a build of a pull request that kept latent attention in a way of its own"),
        31 | 123 => Partly("qwen3-235b-a22b Q8_0"),
        34 => Partly("qwen3-235b-a22b Q6_K"),
        35 | 37 | 122 => Whole("qwen3-235b-a22b Q6_K"),
        44 => Whole("llama-3.1-8b Q4_0"),
        49 => Untyped("deepseek-v3 Q8_0"),
        127 => Untyped("deepseek-v3 Q2_K"),
        136 | 137 | 169 => Untyped("gpt-oss-20b MXFP4_MOE"),
        140 => No("Hexagon is not modelled"),
        150 => Untyped("qwen2.5-32b Q4_K_M"),
        155 | 179 => No("an indexer cache beside the attention cache, which is not modelled"),
        157 => Whole("qwen3-8b Q4_K_M"),
        158 => Whole("qwen2.5-7b Q4_K_M"),
        164 => Untyped("qwen3-14b Q8_0"),
        170 | 171 => No("a file of 2023 with experts apart, and a graph for them"),
        172 => No("cache types of the fork"),
        173 => Whole("mistral-7b Q4_K_M n_vocab=32000"),
        174 => No("context and micro-batch are not stated"),
        175 => No("context and cache types are not stated"),
        178 => Untyped("llama-3.1-8b Q4_K_M"),
        186 => Whole("qwen2.5-7b Q4_K_M"),
        187 | 188 => No("compressed caches, which are not modelled"),
        195 => Whole("qwen3-8b Q4_K_M"),
        _ => No("no shape of this model yet"),
    }
}

/// Rows of ik_llama.cpp by what they call the model.
fn fork(row: &Row) -> Recipe {
    let name = row.get("model").to_lowercase();
    match row.get("arch") {
        "" => No("the row names no architecture"),
        "deepseek2" if row.number("n_layer") == Some(61) => Untyped("deepseek-v3 Q8_0"),
        "deepseek2" if row.number("n_layer") == Some(27) => Untyped("deepseek-v2-lite Q8_0"),
        "qwen3moe" if row.number("n_layer") == Some(94) => Untyped("qwen3-235b-a22b Q8_0"),
        "qwen3moe" if row.number("n_layer") == Some(48) => Untyped("qwen3-30b-a3b Q8_0"),
        "llama" if name.contains("70b") => Untyped("llama-3.1-70b Q8_0"),
        "llama" if row.number("n_layer") == Some(32) && row.number("n_vocab") == Some(128_256) => Untyped("llama-3.1-8b Q8_0"),
        _ => No("no shape of this model"),
    }
}

/// The model of a row.
pub fn source(row: &Row) -> Source {
    let (name, weights_known, complete) = match recipe(row) {
        Whole(name) => (name, true, true),
        Untyped(name) => (name, false, true),
        Partly(name) => (name, true, false),
        No(reason) => return Source::None(reason),
    };
    Source::Model { model: Box::new(super::super::recorded::model::model(name)), weights_known, complete }
}
