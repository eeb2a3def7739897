//! The table of known models: every row a model of the size that its name says, and every name leading to one.

use super::*;
use std::collections::BTreeSet;

#[test]
fn every_row_is_a_model_of_the_size_that_its_name_says() {
    let rows = read(TABLE).unwrap();
    assert!(rows.len() >= 60, "{}", rows.len());
    let mut off = Vec::new();
    for row in &rows {
        let model = row.model(precision::usual(row)).unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(model.name.as_deref(), Some(row.name.as_str()));
        assert!(row.released.len() == 7 && row.released.as_str() > "2023", "{}: {}", row.name, row.released);
        let parameters = model.tensors.iter().map(|tensor| tensor.elements()).sum::<u64>() as f64;
        // The size in the title; figures of makers leave out embeddings or round up, which makes some tenths.
        let stated = row.title.split([' ', '-']).filter_map(|word| word.parse::<ModelSize>().ok()).next();
        if let Some(stated) = stated
            && !(0.85..1.18).contains(&(parameters / stated.parameters))
        {
            off.push(format!("{} {:.2} B", row.title, parameters / 1e9));
        }
    }
    insta::assert_snapshot!(off.join("\n"), @r"
    Llama 3.2 1B 1.24 B
    DeepSeek R1 Distill Qwen 1.5B 1.78 B
    Gemma 2 2B 2.61 B
    Granite 3.1 2B 2.53 B
    Falcon3 1B 1.67 B
    BitNet b1.58 2B-4T 2.41 B
    ");
}

#[test]
fn every_name_leads_to_one_model() {
    let mut seen = BTreeSet::new();
    for model in models() {
        for name in std::iter::once(&model.name).chain(&model.aliases) {
            assert!(seen.insert(plain(name)), "{name} is there twice");
            assert_eq!(find(name).unwrap().name, model.name, "{name}");
        }
        assert!(model.source.contains('/'), "{}", model.name);
    }
}

#[test]
fn names_are_taken_as_people_write_them() {
    for (text, name) in [
        ("Qwen3-8B", "qwen3-8b"),
        ("qwen3:8b", "qwen3-8b"),
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.3-70b"),
        ("llama3.2:3b-instruct", "llama-3.2-3b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("gemma3:27b", "gemma-3-27b"),
        ("DeepSeek-R1", "deepseek-v3"),
        ("gpt_oss 20b", "gpt-oss-20b"),
        ("mistralai/Mistral-Nemo-Instruct-2407", "mistral-nemo-12b"),
        ("Qwen3-30B-A3B-Instruct-2507-GGUF", "qwen3-30b-a3b-2507"),
    ] {
        assert_eq!(find(text).map(|known| known.name.as_str()), Ok(name), "{text}");
    }
}

#[test]
fn an_unknown_name_has_neighbours_or_none() {
    let nearest = |text: &str| find(text).unwrap_err().nearest.join(", ");
    insta::assert_snapshot!(nearest("qwen3-9b"), @"qwen3.5-9b, qwen3-4b, qwen3-8b");
    insta::assert_snapshot!(nearest("lama-3.1-8b"), @"llama-3.1-8b, llama-3.2-1b, llama-3-8b");
    insta::assert_snapshot!(nearest("mixtral"), @"mixtral-8x7b, mixtral-8x22b, mistral-7b");
    assert_eq!(nearest("///"), "");
    assert_eq!(nearest("0000"), "");
}

#[test]
fn a_malformed_row_names_itself() {
    let header = "name,title,shape,released,aliases\n";
    assert_eq!(read(&format!("{header}a,A,nothing,2024-01,\n")).unwrap_err(), "models.csv, row 1: no shape \"nothing\"");
    assert!(read(&format!("{header}a,b\n")).unwrap_err().starts_with("models.csv, row 1: "));
}
