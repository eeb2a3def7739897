//! Reads the header of a GGUF file and prints what it says and how long that took: `describe FILE...` (parts in order).
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program for the terminal")]

use formats::{analyze, describe, gguf};
use spec::Bytes;
use std::error::Error;
use std::io::Read;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for path in std::env::args().skip(1) {
        let mut file = std::fs::File::open(&path)?;
        let size = Bytes::new(file.metadata()?.len());
        let mut prefix = Vec::new();
        let mut wanted = 1 << 20;
        files.push(loop {
            file.by_ref().take(wanted - prefix.len() as u64).read_to_end(&mut prefix)?;
            let start = Instant::now();
            let header = gguf::read(&prefix, size);
            match header.as_ref().map_err(|error| error.need_more()) {
                Err(Some(at_least)) => wanted = at_least.get().max(2 * wanted),
                _ => {
                    println!("{path}: header of {} read in {:?}", Bytes::new(prefix.len() as u64), start.elapsed());
                    break header?;
                }
            }
        });
    }
    let start = Instant::now();
    let model = describe(&files)?;
    let described = start.elapsed();
    let analysis = analyze(&model);
    println!("described in {described:?}, analysed in {:?}", start.elapsed() - described);
    println!(
        "{} ({:?}), {:?}, {} tensors, {}",
        model.architecture,
        model.support,
        model.file_type,
        model.tensors.len(),
        model.tensor_bytes()
    );
    if let [first, .., last] = model.layers.as_slice() {
        println!("first layer {first:?}\nlast layer {last:?}");
    }
    println!("{analysis:#?}");
    Ok(())
}
