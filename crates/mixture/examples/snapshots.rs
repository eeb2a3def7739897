//! The rules against llama.cpp's own tables: `snapshots FOLDER`, where the folder is `tests/snapshots` of llama.cpp's source.
//!
//! A table names the tensors whose type is not the file type's own, one section for each file type. The tensors of a model
//! are those that any of its sections names; the extents that matter, rows and the number of stacked matrices, come from
//! the models' published figures below. Of 12 models and 33 file types, all 396 sections agree with the source of
//! 28 September 2026 (in the npm package node-llama-cpp 3.22.1).
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for the terminal that reads files")]

use mixture::{Figures, FileType, Options, Tensor, types};
use spec::QuantType;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;

/// File name, architecture, width of the stream, and by part of a name the weights in a row where they differ.
type Model = (&'static str, &'static str, u64, &'static [(&'static str, u64)]);

const MODELS: [Model; 12] = [
    (
        "deepseek-v3.1",
        "deepseek2",
        7168,
        &[("attn_k_b.", 128), ("attn_q_b.", 1536), ("attn_output.", 16384), ("ffn_down.", 18432), ("ffn_down_", 2048)],
    ),
    ("gemma-3-4b-it", "gemma3", 2560, &[("attn_output.", 2048), ("ffn_down.", 10240)]),
    ("glm-4.6v", "glm4moe", 4096, &[("attn_output.", 12288), ("ffn_down.", 10944), ("ffn_down_", 1408)]),
    ("gpt-oss-120b", "gpt-oss", 2880, &[("attn_output.", 4096)]),
    ("meta-llama-3.1-70b-instruct", "llama", 8192, &[("ffn_down.", 28672)]),
    (
        "nvidia-nemotron-3-nano-30b-a3b",
        "nemotron_h_moe",
        2688,
        &[("attn_output.", 4096), ("ffn_down_shexp.", 3712), ("ffn_down_exps.", 1856), ("ssm_out.", 4096)],
    ),
    ("qwen3-0.6b", "qwen3", 1024, &[("attn_output.", 2048), ("ffn_down.", 3072)]),
    ("qwen3-14b", "qwen3", 5120, &[("ffn_down.", 17408)]),
    ("qwen3-coder-next", "qwen3next", 2048, &[("attn_output.", 4096), ("ffn_down_", 512), ("ssm_out.", 4096)]),
    ("qwen3.5-397b-a17b", "qwen35moe", 4096, &[("attn_output.", 8192), ("ffn_down_", 1024), ("ssm_out.", 8192)]),
    ("qwen3.6-27b", "qwen35", 5120, &[("attn_output.", 6144), ("ffn_down.", 17408), ("ssm_out.", 6144)]),
    ("step-3.5-flash", "step35", 4096, &[("attn_output.", 8192), ("ffn_down.", 11264), ("ffn_down_", 1280)]),
];

/// One section: the file type's own type, and the tensors that have another.
struct Section {
    file_type: FileType,
    default: QuantType,
    others: BTreeMap<String, QuantType>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder tests/snapshots of llama.cpp's source")?;
    let (mut sections, mut agree) = (0, 0);
    for model in &MODELS {
        let path = Path::new(&folder).join(format!("{}.schema", model.0));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (count, equal) = check(model, &text)?;
        println!("{:32} {equal} of {count} file types equal", model.0);
        sections += count;
        agree += equal;
    }
    println!("{agree} of {sections} tables equal");
    if agree == sections { Ok(()) } else { Err("tables differ".into()) }
}

fn check((name, architecture, n_embd, rows): &Model, text: &str) -> Result<(usize, usize), Box<dyn Error>> {
    let figure = |key: &str| -> u64 {
        let found = text.lines().take(2).flat_map(|line| line.split([' ', ',', '#'])).find_map(|word| word.strip_prefix(key));
        found.and_then(|value| value.strip_prefix('=')?.parse().ok()).unwrap_or(0)
    };
    let figures = Figures {
        architecture,
        n_layer: figure("n_layer"),
        n_head: figure("n_head"),
        n_head_kv: figure("n_head_kv"),
        n_expert: figure("n_expert"),
    };
    let sections = sections(text)?;
    let names: BTreeSet<&String> = sections.iter().flat_map(|section| section.others.keys()).collect();
    let tensors: Vec<Tensor<'_>> = names
        .iter()
        .map(|tensor| {
            let columns = rows.iter().find(|(part, _)| tensor.contains(part)).map_or(*n_embd, |(_, columns)| *columns);
            let stacked = if tensor.contains("_exps.") || tensor.contains("attn_k_b.") { figures.n_expert } else { 1 };
            Tensor { name: tensor, shape: [columns, 64, stacked, 1], ty: QuantType::F32 }
        })
        .collect();
    let mut equal = 0;
    for section in &sections {
        let found = types(&figures, &tensors, section.file_type, &Options::default())?;
        let different: Vec<String> = tensors
            .iter()
            .zip(found)
            .filter_map(|(tensor, found)| {
                let expected = section.others.get(tensor.name).copied().unwrap_or(section.default);
                (found != expected).then(|| format!("{} {expected} there, {found} here", tensor.name))
            })
            .collect();
        if different.is_empty() && section.default == section.file_type.default_type() {
            equal += 1;
        } else {
            let first = different.first().map_or("", String::as_str);
            println!("{name} {}: {} tensors differ, {first}", section.file_type, different.len());
        }
    }
    Ok((sections.len(), equal))
}

fn sections(text: &str) -> Result<Vec<Section>, Box<dyn Error>> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (left, right) = line.rsplit_once(' ').ok_or_else(|| format!("no type: {line}"))?;
        let ty = right.parse()?;
        match (left.strip_prefix('['), sections.last_mut()) {
            (Some(name), _) => {
                let file_type = name.trim_end_matches(']').parse()?;
                sections.push(Section { file_type, default: ty, others: BTreeMap::new() });
            }
            (None, Some(section)) => {
                section.others.insert(left.to_owned(), ty);
            }
            (None, None) => return Err(format!("a tensor before any section: {line}").into()),
        }
    }
    Ok(sections)
}
