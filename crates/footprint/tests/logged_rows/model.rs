//! The model of a row: published shapes by what the row calls it, or the reason why there is none.

use super::row::Row;
use spec::{Model, QuantType};
use synthetic::writer::Value;

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
        168 => Whole("bitnet-3b F16 n_layer=24 n_embd=1536 n_ff=4096 n_head=16 n_head_kv=16 blk.=i2_s"),
        195 => Whole("qwen3-8b Q4_K_M"),
        135 => Untyped("gemma4-31b Q4_0 block_count=48 5376:3840 21504:15360 16384:8192 8192:4096 4096:2048 2048:512 32:16 16:8 4:1"),
        180..=185 => {
            Untyped("gemma4-31b Q4_K_M block_count=48 5376:3840 21504:15360 16384:8192 8192:4096 4096:2048 2048:512 32:16 16:8 4:1")
        }
        198 => Untyped("gemma4-26b-a4b Q4_0"),
        141 => Whole("pythia-1.4b F16 block_count=32 2048:2560 8192:10240 6144:7680 16:32 32:20"),
        142 => Whole("pythia-1.4b Q8_0 block_count=32 2048:2560 8192:10240 6144:7680 16:32 32:20"),
        151 => No("a build of a pull request, on cards whose free memory is not stated"),
        154 => Untyped("granite-3.1-8b Q8_0 49155:100352 head"),
        192 => Whole("granite-3.1-8b Q4_K_M 49155:100352 head"),
        200 => Untyped("qwen3.5-2b Q4_K_M trunk"),
        201..=205 => Untyped("qwen3.5-9b Q4_K_M trunk"),
        162 | 165 | 166 => No("a model between published shapes, or a context that is not stated"),
        148 => No("no context"),
        160 => No("an encoder, whose compute buffer is an estimate"),
        167 => No("micro-batch is not stated"),
        _ => No("no shape of this model yet"),
    }
}

/// Rows of ik_llama.cpp by what they call the model.
fn fork(row: &Row) -> Recipe {
    let name = row.get("model").to_lowercase();
    match row.id() {
        // No GPU took over experts of types that it computes with: weights were rearranged (`-rtr`), which these do not say.
        12 | 13 | 17 | 21 | 22 | 91 => return Partly("deepseek-v3 Q8_0"),
        29 | 30 | 94 | 95 | 99 => return Partly("qwen3-235b-a22b Q8_0"),
        50 | 106 => return No("a build before heads of fused attention were parted by -amb (pull request 260, 2025-03-18)"),
        57 => return No("types of tensors on the host decide which are computed there, and are not stated"),
        32 | 33 | 36 | 38 | 39 => return No("types of the experts are a mix of its owner's: no GPU took them over, as one takes IQ6_K"),
        41 => return No("types of the experts are a mix of its owner's"),
        101 => return No("row split, which is not modelled"),
        126 => return No("a build of a pull request, that turns -mla 0 into 1 where a file has parted projections"),
        _ => {}
    }
    match row.get("arch") {
        "" => No("the row names no architecture"),
        "deepseek2" if row.number("n_head") == Some(64) => Untyped("deepseek-v3 Q8_0 n_head=64 n_vocab=163840 n_expert=384 n_dense_lead=1"),
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
    match variant(name).map(|model| if row.is_mainline() { model } else { of_fork(row, model) }) {
        Some(model) => Source::Model { model: Box::new(model), weights_known, complete },
        None => Source::None("no shape of this model yet"),
    }
}

/// The model with experts of the type that a row's file type is named after, and with whole matrices of latent attention where
/// the row caches whole heads.
fn of_fork(row: &Row, mut model: Model) -> Model {
    let name = row.get("quant").split_whitespace().next().unwrap_or_default();
    if let Ok(ty) = name.parse::<QuantType>() {
        for tensor in model.tensors.iter_mut().filter(|tensor| tensor.name.contains("_exps")) {
            if let Some(bytes) = ty.tensor_bytes(tensor.shape) {
                (tensor.ty, tensor.bytes) = (ty, bytes);
            }
        }
    }
    model
}

/// A preset or an outline by the names of recorded cases; of outlines also resized ones: `OLD:NEW` for extents and figures,
/// `block_count=N`, `trunk` for one without prediction layers, `head` for one with an output matrix of its own.
fn variant(name: &str) -> Option<Model> {
    let words: Vec<&str> = name.split_whitespace().collect();
    let changed = words.iter().any(|word| word.contains(':') || *word == "trunk");
    if !changed {
        let known = synthetic::preset(words[0]).is_some() || synthetic::outline(words[0]).is_some();
        return known.then(|| super::super::recorded::model::model(name));
    }
    let mut outline = synthetic::outline(words[0])?;
    let n_layer = words.iter().find_map(|word| word.strip_prefix("block_count=")).and_then(|n| n.parse().ok());
    let trunk = outline.n_layer() - outline.number("nextn_predict_layers").unwrap_or(0);
    let resized: Vec<(u64, u64)> = words.iter().filter_map(|word| pair(word)).collect();
    let resize = |figure: u64| resized.iter().find(|(old, _)| *old == figure).map_or(figure, |(_, new)| *new);
    let n_layer: u64 = n_layer.unwrap_or(if words.contains(&"trunk") { trunk } else { outline.n_layer() });
    outline.keys.retain(|(key, _)| !(words.contains(&"trunk") && key.ends_with("nextn_predict_layers")));
    for (key, value) in &mut outline.keys {
        resize_value(value, &resize, n_layer);
        if key.ends_with(".block_count") {
            *value = Value::U32(n_layer as u32);
        }
    }
    if words.contains(&"head") {
        let embedding = outline.outside.iter().find(|(name, _)| name == "token_embd.weight").map(|(_, extents)| extents.clone());
        outline.outside.extend(embedding.map(|extents| ("output.weight".to_owned(), extents)));
    }
    let old: Vec<Vec<(String, Vec<u64>)>> = outline.layers.values().cloned().collect();
    outline.layers = (0..n_layer).map(|layer| (layer, old[layer as usize % old.len()].clone())).collect();
    for (_, extents) in outline.layers.values_mut().flatten().chain(&mut outline.outside) {
        extents.iter_mut().for_each(|extent| *extent = resize(*extent));
    }
    let options = synthetic::Options { vocabulary: synthetic::Vocabulary::None, ..Default::default() };
    let file = synthetic::outline_file(&outline, words[1].parse().ok()?, &options).ok()?;
    let header = formats::gguf::read(&file.header, file.size).ok()?;
    formats::describe(&[header]).ok()
}

fn pair(word: &str) -> Option<(u64, u64)> {
    let (old, new) = word.split_once(':')?;
    Some((old.parse().ok()?, new.parse().ok()?))
}

/// Whole figures by the table; lists by layer are cut or repeated.
fn resize_value(value: &mut Value, resize: &dyn Fn(u64) -> u64, n_layer: u64) {
    match value {
        Value::U32(figure) => *figure = resize(u64::from(*figure)) as u32,
        Value::Array { items, .. } if items.len() > 8 => {
            let old = items.clone();
            *items = (0..n_layer as usize).map(|layer| old[layer % old.len()].clone()).collect();
            items.iter_mut().for_each(|item| resize_value(item, resize, n_layer));
        }
        _ => {}
    }
}
