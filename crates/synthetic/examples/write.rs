//! Writes a model file of a known shape: `write SHAPE FILE_TYPE PATH [zero] [figure=value ...]`; without arguments, the
//! known shapes.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::path::Path;
use synthetic::{Fill, Options, demo, gguf, preset, presets, write::write};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file_type, path, rest @ ..] = arguments.as_slice() else {
        presets().for_each(|shape| println!("{:20} {}", shape.name, shape.architecture));
        return Ok(());
    };
    let mut shape = if name == "demo" { demo() } else { preset(name).ok_or("no such shape")? };
    let mut fill = Fill::Random { seed: 1 };
    for word in rest {
        match word.split_once('=') {
            Some((key, value)) => shape.set(key, value)?,
            None if word == "zero" => fill = Fill::Zero,
            None => return Err(format!("neither zero nor figure=value: {word}").into()),
        }
    }
    let file = gguf(&shape, file_type.parse()?, &Options::default())?;
    write(&file, fill, Path::new(path))?;
    println!("{path}: {} tensors, {}", file.tensors.len(), file.size);
    Ok(())
}
