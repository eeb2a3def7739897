//! Models of every kind: published shapes, recorded lists of tensors, and shapes with figures changed at random.

use super::draw::Draw;
use spec::Model;
use std::sync::OnceLock;
use synthetic::{File, FileType, Options, Outline, Shape, Vocabulary, gguf, outline, outline_file, outlines, presets};

/// Variants of each published shape beside the published one: other types, other figures.
const VARIANTS: usize = 3;

/// File types from the smallest to the largest; one that a shape cannot have gives way to the next.
const TYPES: [&str; 12] = ["MXFP4_MOE", "Q2_K", "IQ3_XXS", "Q3_K_M", "IQ4_XS", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16"];

/// A model by its description; made when it is first asked for.
pub struct Entry {
    /// Its name, changed figures included.
    pub name: String,
    origin: Origin,
    seed: u64,
    made: OnceLock<(Model, &'static str)>,
}

enum Origin {
    Shape(Box<Shape>),
    Outline(Box<Outline>),
}

/// All of them.
pub fn models() -> Vec<Entry> {
    let mut draw = Draw(17);
    let mut entries = Vec::new();
    let mut add = |name: String, origin, draw: &mut Draw| {
        entries.push(Entry { name, origin, seed: draw.below(1 << 20) as u64, made: OnceLock::new() });
    };
    for shape in presets() {
        add(shape.name.clone(), Origin::Shape(Box::new(shape.clone())), &mut draw);
        for _ in 0..VARIANTS {
            let (name, changed) = changed(&shape, &mut draw);
            add(name, Origin::Shape(Box::new(changed)), &mut draw);
        }
    }
    for outline in outlines().filter_map(outline) {
        add(outline.name.clone(), Origin::Outline(Box::new(outline)), &mut draw);
    }
    entries
}

/// The shape with some figures changed, as long as they agree with each other.
fn changed(shape: &Shape, draw: &mut Draw) -> (String, Shape) {
    let (mut name, mut changed) = (shape.name.clone(), shape.clone());
    let some = |draw: &mut Draw, of: u64, factors: &[u64]| (of * draw.of(factors) / 4).max(1);
    let figures: [(&str, u64); 8] = [
        ("n_layer", some(draw, shape.n_layer, &[1, 2, 3, 5, 6])),
        ("n_ff", some(draw, shape.n_ff, &[2, 3, 6, 8]) / 256 * 256),
        ("n_head_kv", draw.of(&[1, 2, 4, 8, shape.n_head])),
        ("n_vocab", draw.of(&[32_000, 49_152, 128_256, 262_144])),
        ("n_ctx", draw.of(&[0, 512, 2048, 8192, 131_072, 1_048_576])),
        ("window", draw.of(&[128, 1024, 4096])),
        ("n_expert", draw.of(&[8, 32, 160])),
        ("n_expert_used", draw.of(&[1, 2, 8])),
    ];
    for (key, value) in figures {
        let mut next = changed.clone();
        let there = matches!(key, "n_layer" | "n_vocab" | "n_ctx") || figure(shape, key) > 0;
        if there && draw.percent(50) && next.set(key, &value.to_string()).is_ok() && next.check().is_ok() {
            changed = next;
            name.push_str(&format!(" {key}={value}"));
        }
    }
    if draw.percent(30) {
        changed.tied = !changed.tied;
        name.push_str(&format!(" tied={}", changed.tied));
    }
    (name, changed)
}

fn figure(shape: &Shape, key: &str) -> u64 {
    match key {
        "n_ff" => shape.n_ff,
        "n_head_kv" => shape.n_head_kv,
        "window" => shape.window,
        "n_expert" => shape.n_expert,
        "n_expert_used" => shape.n_expert_used,
        _ => 0,
    }
}

impl Entry {
    /// The model, read from the header of its file as any other, and its file type.
    pub fn get(&self) -> &(Model, &'static str) {
        self.made.get_or_init(|| {
            let mut draw = Draw(self.seed);
            let first = draw.below(TYPES.len());
            let types = TYPES[first..].iter().chain(&TYPES[..first]);
            let made = types.filter_map(|&name| Some((self.describe(name)?, name))).next();
            made.unwrap_or_else(|| panic!("{}: no file type suits it", self.name))
        })
    }

    fn describe(&self, file_type: &str) -> Option<Model> {
        let file_type: FileType = file_type.parse().ok()?;
        // A table of tokens changes nothing that is planned but the host program's own memory, and takes most of the time.
        let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
        let file: File = match &self.origin {
            Origin::Shape(shape) => gguf(shape, file_type, &options).ok()?,
            Origin::Outline(outline) => outline_file(outline, file_type, &options).ok()?,
        };
        let header = formats::gguf::read(&file.header, file.size).ok()?;
        formats::describe(&[header]).ok()
    }
}
