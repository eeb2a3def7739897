//! The table of published shapes, and the shape of the demonstration model.

use crate::shape::{Architecture, Shape};

const TABLE: &str = include_str!("shapes.txt");

/// Every published shape, in the order of the table.
pub fn presets() -> impl Iterator<Item = Shape> {
    rows().filter_map(|row| row.ok())
}

/// The published shape of this name.
///
/// ```
/// let mut shape = synthetic::preset("qwen3-0.6b").unwrap();
/// shape.set("n_layer", "4").unwrap();
/// assert_eq!((shape.n_layer, shape.n_embd), (4, 1024));
/// ```
pub fn preset(name: &str) -> Option<Shape> {
    presets().find(|shape| shape.name == name)
}

/// The demonstration model: Qwen3's architecture at 45 million parameters, some 30 MB as Q4_K_M. Its text is noise.
pub fn demo() -> Shape {
    Shape {
        source: "loadmaster".to_owned(),
        n_layer: 8,
        n_embd: 512,
        n_ff: 1536,
        n_head: 8,
        n_head_kv: 4,
        head_dim: 64,
        n_vocab: 32000,
        n_ctx: 4096,
        rope_base: 1e6,
        tied: true,
        ..Shape::new("loadmaster-demo", Architecture::Qwen3)
    }
}

/// The rows of the table; an error names the row that is malformed.
fn rows() -> impl Iterator<Item = Result<Shape, String>> {
    TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(row)
}

fn row(line: &str) -> Result<Shape, String> {
    let mut words = line.split_ascii_whitespace();
    let mut next = |what: &str| words.next().ok_or_else(|| format!("no {what}: {line}"));
    let name = next("name")?;
    let architecture = next("architecture")?;
    let source = next("source")?;
    let architecture = Architecture::from_name(architecture).ok_or_else(|| format!("no such architecture: {architecture}"))?;
    let mut shape = Shape { source: source.to_owned(), ..Shape::new(name, architecture) };
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{name}: no key=value: {word}"))?;
        shape.set(key, value).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_is_a_consistent_shape_and_appears_once() {
        let mut names = BTreeSet::new();
        for row in rows() {
            let shape = row.unwrap();
            shape.check().unwrap();
            assert!(shape.source.contains('/'), "{} has no source", shape.name);
            assert!(names.insert(shape.name.clone()), "{} appears twice", shape.name);
        }
        assert!(names.len() >= 42);
        demo().check().unwrap();
    }

    #[test]
    fn every_architecture_has_a_shape() {
        let seen: BTreeSet<_> = presets().map(|shape| shape.architecture).collect();
        assert_eq!(seen, BTreeSet::from(Architecture::ALL));
    }

    #[test]
    fn a_malformed_row_names_itself() {
        for (line, complaint) in [
            ("x", "no architecture: x"),
            ("x gpt9 y", "no such architecture: gpt9"),
            ("x llama y n_layer", "x: no key=value: n_layer"),
            ("x llama y n_layer=-1", "x: n_layer is no whole number: -1"),
        ] {
            assert_eq!(row(line).unwrap_err(), complaint);
        }
    }
}
