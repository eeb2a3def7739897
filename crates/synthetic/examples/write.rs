//! Writes a model file of a known shape: `write SHAPE FILE_TYPE PATH [zero] [figure=value ...]`, or of an outline, where the
//! only figure is `n_layer`; an outline may also be a text file. Without arguments, the known shapes. `write BITNET safetensors FOLDER
//! [bitlinear]` writes a BitNet model as Hugging Face publishes it.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::path::Path;
use synthetic::write::{write, write_folder};
use synthetic::{
    Fill, LinearClass, Options, Outline, bitnet, bitnets, demo, gguf, outline, outline_file, outlines, packed, preset, presets,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, file_type, path, rest @ ..] = arguments.as_slice() else {
        presets().for_each(|shape| println!("{:20} {}", shape.name, shape.architecture));
        bitnets().for_each(|name| println!("{name:20} BitNet with a vocabulary, in I2_S only"));
        outlines().filter_map(outline).for_each(|outline| println!("{:20} {}", outline.name, outline.architecture));
        return Ok(());
    };
    if file_type == "safetensors" {
        let class = if rest.iter().any(|word| word == "bitlinear") { LinearClass::BitLinear } else { LinearClass::AutoBitLinear };
        let folder = packed(name, class).ok_or_else(|| format!("no shape that is written as safetensors: {name}"))?;
        write_folder(&folder, Fill::Random { seed: 1 }, Path::new(path))?;
        println!("{path}: {} tensors, {}, random ternary weights", folder.weights.tensors.len(), folder.weights.size);
        return Ok(());
    }
    if let Some(file) = bitnet(name) {
        if !file_type.eq_ignore_ascii_case("I2_S") {
            return Err(format!("{name} is written in I2_S: {file_type}").into());
        }
        let (file, fill) = (file?, if rest.iter().any(|word| word == "zero") { Fill::Zero } else { Fill::Random { seed: 1 } });
        write(&file, fill, Path::new(path))?;
        println!("{path}: {} tensors, {}, random ternary weights", file.tensors.len(), file.size);
        return Ok(());
    }
    if let Some(mut outline) = find_outline(name)? {
        for word in rest {
            if let Some(n) = word.strip_prefix("n_layer=") {
                outline = outline.shortened(n.parse()?);
            }
        }
        let fill = if rest.iter().any(|word| word == "zero") { Fill::Zero } else { Fill::Random { seed: 1 } };
        let file = outline_file(&outline, file_type.parse()?, &Options::default())?;
        write(&file, fill, Path::new(path))?;
        println!("{path}: {} tensors, {}", file.tensors.len(), file.size);
        return Ok(());
    }
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

fn find_outline(name: &str) -> Result<Option<Outline>, Box<dyn Error>> {
    if name.ends_with(".txt") {
        #[expect(clippy::disallowed_methods, reason = "a development tool reads the outline that it is given")]
        let text = std::fs::read_to_string(name)?;
        return Ok(Some(Outline::parse(name, &text)?));
    }
    Ok(outline(name))
}
