//! Types of every tensor against dry runs of `llama-quantize`, recorded by the example `record_quantize` (llama.cpp 0.7.0).

#![allow(clippy::unwrap_used, reason = "a test that cannot read its record has failed")]

#[path = "quantize/summary.rs"]
mod summary;

use summary::summary;
use synthetic::mixture::{self, needs_importance_matrix};
use synthetic::{File, FileType, Options, ShapeError, Vocabulary, gguf, outline, outline_file, preset};

const RECORDED: &str = include_str!("quantize/recorded.txt");

fn file(model: &str, file_type: FileType, quantize: mixture::Options) -> Result<File, ShapeError> {
    let options = Options { vocabulary: Vocabulary::None, quantize, ..Options::default() };
    match preset(model) {
        Some(shape) => gguf(&shape, file_type, &options),
        None => outline_file(&outline(model).unwrap_or_else(|| panic!("no such model: {model}")), file_type, &options),
    }
}

fn ours(model: &str, file_type: FileType, words: &str) -> String {
    let mut options = mixture::Options::default();
    let mut words = words.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "--pure" => options.pure = true,
            "--leave-output-tensor" => options.leave_output = true,
            "--output-tensor-type" => options.output = words.next().map(|ty| ty.parse().unwrap()),
            "--token-embedding-type" => options.token_embedding = words.next().map(|ty| ty.parse().unwrap()),
            other => panic!("no such option: {other}"),
        }
    }
    match file(model, file_type, options) {
        Ok(file) => {
            let imatrix = file.tensors.iter().any(|tensor| needs_importance_matrix(&tensor.name, tensor.ty, file_type));
            summary(file.tensors.into_iter().map(|tensor| (tensor.name, tensor.ty.to_string())), imatrix)
        }
        Err(ShapeError::Mixture { .. }) => "refused".to_owned(),
        Err(other) => panic!("{model}: {other}"),
    }
}

#[test]
fn every_tensor_has_the_type_that_llama_quantize_gives_it() {
    let mut wrong = Vec::new();
    let mut models = std::collections::BTreeSet::new();
    let lines: Vec<&str> = RECORDED.lines().filter(|line| !line.starts_with('#')).collect();
    for line in &lines {
        let [case, expected] = line.split(" | ").collect::<Vec<_>>()[..] else { panic!("no case: {line}") };
        let mut words = case.splitn(3, ' ');
        let (model, file_type) = (words.next().unwrap(), words.next().unwrap().parse().unwrap());
        models.insert(model);
        let found = ours(model, file_type, words.next().unwrap_or(""));
        if found != expected {
            wrong.push(format!("{case}\n  llama-quantize {expected}\n  here           {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    assert!(lines.len() >= 3000 && models.len() >= 80, "only {} of {} models", lines.len(), models.len());
}
