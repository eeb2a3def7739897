//! Writes the files of a machine that is made by rule, for programs that read real files: `cargo run -p probe --example made -- 256
//! FOLDER` or `384`. In it are `proc` and `sys`; `proc/stat` is there for programs that count CPUs in it.

#[path = "../tests/foreign/mod.rs"]
mod foreign;
#[path = "../tests/made/mod.rs"]
mod made;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (server, folder) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["256", folder] => (made::EPYC_NPS4, folder),
        ["384", folder] => (made::EPYC_384, folder),
        _ => return Err("usage: made 256|384 FOLDER".into()),
    };
    let mut tree = server.tree();
    let cpus = tree.files.keys().filter(|path| path.ends_with("/topology/core_id")).count();
    let stat = (0..cpus).map(|cpu| format!("cpu{cpu} 1 0 1 1 0 0 0 0 0 0\n")).collect::<String>();
    tree.files.insert("/proc/stat".into(), format!("cpu 1 0 1 1 0 0 0 0 0 0\n{stat}btime 1\n").into_bytes());
    for (path, bytes) in &tree.files {
        let path = Path::new(folder).join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
