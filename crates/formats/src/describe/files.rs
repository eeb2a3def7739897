//! The files of a model: one, or all parts of a split one, checked against each other.

use super::error::DescribeError;
use crate::gguf::{Gguf, Value};
use spec::model::{MetaValue, ModelFile, Tensor};
use std::collections::BTreeMap;

/// How many missing parts an error names.
const NAMED_PARTS: usize = 20;

fn uint(file: &Gguf, key: &str) -> Option<u64> {
    match file.metadata.get(key)? {
        Value::Scalar(MetaValue::Uint(value)) => Some(*value),
        Value::Scalar(MetaValue::Int(value)) => u64::try_from(*value).ok(),
        _ => None,
    }
}

/// Checks that the files are one model, whole and in order.
pub(super) fn check(files: &[Gguf]) -> Result<(), DescribeError> {
    let first = files.first().ok_or(DescribeError::NoFile)?;
    let count = match uint(first, "split.count") {
        None | Some(0 | 1) if files.len() == 1 => return Ok(()),
        None => return Err(DescribeError::NotSplit { files: files.len(), file: 1 }),
        Some(count) => u32::try_from(count).unwrap_or(u32::MAX),
    };
    let mut seen = BTreeMap::new();
    for (position, file) in (1..).zip(files) {
        let mismatch = |problem: String| DescribeError::ShardMismatch { position, problem };
        match uint(file, "split.count") {
            None => return Err(DescribeError::NotSplit { files: files.len(), file: position }),
            Some(other) if other != u64::from(count) => {
                return Err(mismatch(format!("it is split into {other} files instead of {count}")));
            }
            Some(_) => {}
        }
        let number = uint(file, "split.no").and_then(|number| u32::try_from(number).ok()).filter(|&number| number < count);
        let number = 1 + number.ok_or_else(|| mismatch(format!("split.no is missing or not below {count}")))?;
        if let Some(first) = seen.insert(number, position) {
            return Err(DescribeError::DuplicateShard { number, first, second: position });
        }
    }
    let missing: Vec<u32> = (1..=count).filter(|number| !seen.contains_key(number)).take(NAMED_PARTS).collect();
    if !missing.is_empty() {
        return Err(DescribeError::MissingShards { count, missing });
    }
    if let Some((&number, &position)) = seen.iter().find(|&(&number, &position)| number as usize != position) {
        return Err(DescribeError::ShardOrder { position, number });
    }
    let found = files.iter().map(|file| file.tensors.len() as u64).sum();
    match uint(first, "split.tensors.count") {
        Some(stated) if stated != found => Err(DescribeError::TensorCount { stated, found }),
        _ => Ok(()),
    }
}

/// All tensors, file after file.
pub(super) fn tensors(files: &[Gguf]) -> Result<Vec<Tensor>, DescribeError> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut tensors = Vec::with_capacity(files.iter().map(|file| file.tensors.len()).sum());
    for (index, file) in files.iter().enumerate() {
        for tensor in &file.tensors {
            // Within one file the reader has refused duplicates.
            let before = if files.len() > 1 { seen.insert(&tensor.name, index) } else { None };
            if let Some(first) = before {
                return Err(DescribeError::DuplicateTensor { name: tensor.name.clone(), first: first + 1, second: index + 1 });
            }
            tensors.push(Tensor {
                name: tensor.name.clone(),
                ty: tensor.ty,
                shape: tensor.shape,
                bytes: tensor.bytes,
                file: index,
                offset: tensor.offset,
            });
        }
    }
    Ok(tensors)
}

/// Length and start of data of each file.
pub(super) fn sizes(files: &[Gguf]) -> Vec<ModelFile> {
    files.iter().map(|file| ModelFile { size: file.file_size, data_offset: file.data_offset }).collect()
}
