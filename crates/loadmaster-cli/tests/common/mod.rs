//! Runs the binary in a folder of its own and shows what it said: exit code, stdout, stderr.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use synthetic::writer::{Header, TensorEntry};
use synthetic::{FileType, Fill, Options};

/// No command may take longer, even where it does not know how to go on.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with files, and a clean environment.
pub struct Folder {
    dir: tempfile::TempDir,
    path_variable: Option<PathBuf>,
}

impl Folder {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), path_variable: None }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file of these bytes.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path().join(name), content).unwrap();
        self
    }

    /// A model without trained weights, sparse on the disk.
    pub fn model(&self, name: &str, preset: &str, file_type: FileType) -> &Self {
        let shape = if preset == "demo" { synthetic::demo() } else { synthetic::preset(preset).unwrap() };
        let file = synthetic::gguf(&shape, file_type, &Options::default()).unwrap();
        synthetic::write::write(&file, Fill::Zero, &self.path().join(name)).unwrap();
        self
    }

    /// A file of these tensors in F16, with these texts and figures as metadata.
    pub fn attachment(&self, name: &str, texts: &[(&str, &str)], figures: &[(&str, u32)], tensors: &[(&str, [u64; 2])]) {
        let mut header = Header::new();
        header.metadata.extend(texts.iter().map(|&(key, text)| (key.to_owned(), text.into())));
        header.metadata.extend(figures.iter().map(|&(key, figure)| (key.to_owned(), figure.into())));
        let mut offset = 0;
        for &(name, shape) in tensors {
            header.tensors.push(TensorEntry { name: name.into(), shape: shape.to_vec(), type_id: 1, offset });
            offset += (shape[0] * shape[1] * 2).next_multiple_of(32);
        }
        let mut bytes = header.encode();
        bytes.resize(bytes.len() + offset as usize, 0);
        self.file(name, bytes);
    }

    /// An executable script; what is in the folder is on PATH from now on.
    pub fn script(&mut self, name: &str, body: &str) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.path_variable = Some(self.path().to_owned());
        self
    }

    /// The command, ready to run.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("loadmaster"));
        command.args(line.split_whitespace()).current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("LLAMA_") || name == "NO_COLOR" || name == "CLICOLOR_FORCE" {
                command.env_remove(name);
            }
        }
        let path = match &self.path_variable {
            Some(folder) => format!("{}:/usr/bin:/bin", folder.display()),
            None => "/nowhere".to_owned(),
        };
        command.env("PATH", path);
        command.env("XDG_CACHE_HOME", self.path().join(".cache")).env("XDG_CONFIG_HOME", self.path().join(".config"));
        command.env("XDG_DATA_HOME", self.path().join(".data")).env("HOME", self.path());
        command
    }

    /// Runs it to its end.
    pub fn output(&self, line: &str) -> Output {
        finish(self.command(line), line)
    }

    /// Runs it and shows exit code, stdout and stderr, paths and times made the same everywhere.
    pub fn run(&self, line: &str) -> String {
        self.show(&self.output(line))
    }

    /// What a command said, for a snapshot.
    pub fn show(&self, output: &Output) -> String {
        let mut text = match output.status.code() {
            Some(code) => format!("exit {code}\n"),
            None => format!("{}\n", output.status),
        };
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                text.push_str(&format!("--- {name}\n{}", String::from_utf8_lossy(bytes)));
            }
        }
        let folder = self.path().display().to_string();
        text.replace(&format!("{folder}/"), "").replace(&folder, "[FOLDER]")
    }
}

/// Figures that follow from the size of a test file say nothing to a reader: `#` in their place, the exit code stays.
pub fn without_numbers(text: &str) -> String {
    let (exit, said) = text.split_once('\n').unwrap_or((text, ""));
    let mut out = format!("{exit}\n");
    let mut in_number = false;
    for c in said.chars() {
        if c.is_ascii_digit() {
            if !in_number {
                out.push('#');
            }
            in_number = true;
        } else {
            in_number = false;
            out.push(c);
        }
    }
    out
}

/// Runs a command, and fails where it hangs.
pub fn finish(mut command: Command, line: &str) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let streams: Vec<_> = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>),
    ]
    .into_iter()
    .flatten()
    .map(|mut stream| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
            bytes
        })
    })
    .collect();
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if start.elapsed() > DEADLINE => {
                let _ = child.kill();
                panic!("loadmaster {line} did not end");
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut bytes = streams.into_iter().map(|thread| thread.join().unwrap());
    Output { status, stdout: bytes.next().unwrap(), stderr: bytes.next().unwrap() }
}

/// A header with one small tensor, to be broken by a test.
pub fn header() -> Header {
    let mut header = Header::new();
    header.metadata.push(("general.architecture".into(), "llama".into()));
    header.tensors.push(TensorEntry { name: "token_embd.weight".into(), shape: vec![32, 4], type_id: 0, offset: 0 });
    header
}
