//! A captured machine as a host, held in memory.

use probe::host::START;
use probe::{Answer, Host, Question, Recording, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// Files, folders and links of a captured machine, held in memory.
#[derive(Default)]
pub struct Tree {
    pub os: String,
    pub arch: String,
    pub files: BTreeMap<String, Vec<u8>>,
    pub folders: BTreeMap<String, BTreeSet<String>>,
    pub links: BTreeMap<String, String>,
    /// Registers by CPU, leaf and subleaf.
    pub cpuid: BTreeMap<(u32, u32, u32), [u32; 4]>,
    /// The answers of a capture that is no tree; only they count where it is one.
    pub recording: Option<Recording>,
    /// What a person should know about this reading.
    pub notes: Vec<String>,
    /// Questions asked, in order.
    pub asked: Mutex<Vec<String>>,
}

impl Tree {
    /// Adds a path with its folders.
    pub fn add(&mut self, path: &str) {
        let mut path = path.trim_end_matches('/');
        while let Some((parent, name)) = path.rsplit_once('/') {
            self.folders.entry(if parent.is_empty() { "/".into() } else { parent.into() }).or_default().insert(name.to_owned());
            path = parent;
        }
    }

    fn registers(&self, cpu: u32, leaf: u32, subleaf: u32) -> Result<Answer, Refusal> {
        let [eax, ebx, ecx, edx] = self.cpuid.get(&(cpu, leaf, subleaf)).ok_or(Refusal::NotFound)?;
        Ok(Answer::text(format!("{eax:08x} {ebx:08x} {ecx:08x} {edx:08x}")))
    }

    /// A dump has no XCR0. What the processor can save (leaf 0xD) stands for it where the system of the dump used XSAVE.
    fn saved_state(&self) -> Option<u32> {
        const OSXSAVE: u32 = 1 << 27;
        let (&(cpu, ..), _) = self.cpuid.first_key_value()?;
        let xsave = self.cpuid.get(&(cpu, 1, 0))?[2] & OSXSAVE != 0;
        self.cpuid.get(&(cpu, 0xd, 0)).filter(|_| xsave).map(|registers| registers[0])
    }

    /// The path with links followed.
    fn resolve(&self, path: &str) -> String {
        let mut resolved = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match name {
                "." => {}
                ".." => resolved.truncate(resolved.rfind('/').unwrap_or(0)),
                name => {
                    let next = format!("{resolved}/{name}");
                    resolved = match self.links.get(&next) {
                        Some(target) if target.starts_with('/') => target.clone(),
                        Some(target) => self.resolve(&format!("{resolved}/{target}")),
                        None => next,
                    };
                }
            }
        }
        resolved
    }
}

impl Host for Tree {
    fn origin(&self) -> String {
        "tree".into()
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(question.to_string());
        if let Some(recording) = &self.recording {
            return recording.ask(question);
        }
        match question {
            Question::Os => Ok(Answer::text(self.os.clone())),
            Question::Arch => Ok(Answer::text(self.arch.clone())),
            Question::Read(path) => {
                let bytes = self.files.get(&self.resolve(path)).ok_or(Refusal::NotFound)?;
                Ok(Answer::text(String::from_utf8_lossy(bytes)))
            }
            Question::Start(path) => {
                let bytes = self.files.get(&self.resolve(path)).ok_or(Refusal::NotFound)?;
                Ok(Answer::text(String::from_utf8_lossy(bytes.get(..START).unwrap_or(bytes))))
            }
            Question::List(path) => {
                let names = self.folders.get(&self.resolve(path)).ok_or(Refusal::NotFound)?;
                Ok(Answer::Names(names.iter().cloned().collect()))
            }
            Question::Cpuid { leaf, subleaf } => {
                let (&(first, ..), _) = self.cpuid.first_key_value().ok_or(Refusal::NotFound)?;
                self.registers(first, *leaf, *subleaf)
            }
            Question::CpuidOf { cpu, leaf, subleaf } => self.registers(*cpu, *leaf, *subleaf),
            Question::Xcr0 => self.saved_state().map(|state| Answer::text(format!("{state:x}"))).ok_or(Refusal::NotFound),
            _ => Err(Refusal::NotFound),
        }
    }
}
