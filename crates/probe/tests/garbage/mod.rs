//! Recorded machines some of whose answers are garbage, made from any bytes; the fuzz target `detect` shares this file.
#![allow(dead_code, reason = "each program uses its part")]

use probe::detect::Depth;
use probe::{Answer, Host, Question, Recording, Refusal, Report, capture_to, detect_to};
use std::cell::RefCell;

/// Texts that parsers of hardware meet, and what they must never trust.
const TEXTS: [&str; 44] = [
    "",
    "0",
    "1",
    "-1",
    "0-3",
    "0-200",
    "0-4294967295",
    "4294967295",
    "18446744073709551615",
    "9223372036854771712",
    "99999999999999999999999",
    "max",
    "max 100000",
    "1 18446744073709551615",
    "-1 0",
    "32K",
    "18446744073709551615K",
    "99999999999999999999K",
    "Data",
    "Unified",
    "D3cold",
    "suspended",
    "NaN",
    "inf",
    "1e308",
    "0x7fffffffffffffff",
    "ffffffff ffffffff ffffffff ffffffff",
    "00000000 00000000 00000000 00000000",
    "00000001 00000100 00000201 00000003",
    "ffffffff,ffffffff,ffffffff,ffffffff",
    "..",
    "../../../../../../..",
    "cpu0 cpu1 cpu4294967296 node0 node9 index0 index1 card0 renderD128 0000:01:00.0 ffff:ff:1f.7",
    "MemTotal: 18446744073709551615 kB\nMemAvailable: 9223372036854775807 kB\nSwapTotal: -1 kB\nHugepagesize: 0 kB",
    "MemFree: 1 kB\nCached: 18014398509481983 kB",
    "Node 0 MemTotal: 18014398509481984 kB",
    "processor : 0\nphysical id : 4294967295\ncore id : 0\nflags : avx512f amx_tile\nprocessor : 4294967295\ncpu cores : 0",
    "processor : 0\nCPU implementer : 0x41\nCPU part : 0xd85\nFeatures : asimd sve",
    "0::/a/b/../../..\n3:memory,cpu,cpuset:/x",
    "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 none rw\n1 1 0:1 /x /m rw - cgroup none memory,cpu,cpuset",
    "inactive_file 18446744073709551615\ntotal_inactive_file 18446744073709551615\nhierarchical_memory_limit 0",
    "pci:v000010DEd00002684sv00001458sd000040BFbc03sc00i00",
    "name: x\nvendor: 1002\ndedicated: 18446744073709551615\nshared: 18446744073709551615\nlocal-budget: 1\nlocal-used: 2",
    "group 0 64 ffffffffffffffff\ngroup 1 64 f\ncore 1 0:3\ncore 0 1:f\ncache 1 data 5 0:3\nnode 9 0:1",
];

/// A machine on which the bytes decide, question by question, whether the recording answers or something else.
pub struct Garbage<'a> {
    base: &'a Recording,
    bytes: RefCell<Bytes<'a>>,
    /// Of 256 answers so many are garbage.
    share: u8,
}

/// Bytes that are taken from the front; zeros when they have ended.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, count: usize) -> usize {
        (usize::from(self.next()) << 8 | usize::from(self.next())) % count.max(1)
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.next()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    /// Another answer in place of the one that was recorded.
    fn answer(&mut self, true_answer: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
        let whole = match &true_answer {
            Ok(Answer::Text(text)) => text.clone(),
            Ok(Answer::Names(names)) => names.join(" "),
            Err(_) => String::new(),
        };
        let text = match self.next() % 12 {
            0 => return Err(Refusal::NotFound),
            1 => return Err(Refusal::Denied),
            2 => return Err(Refusal::TimedOut),
            3 => return Err(Refusal::NotSupported),
            4 => return Err(Refusal::Failed(self.text())),
            5 | 6 => TEXTS[self.below(TEXTS.len())].to_owned(),
            7 => self.text(),
            8 => self.cut(&whole),
            9 => self.changed(&whole),
            10 => whole.repeat(2),
            _ => format!("{whole}\0\0\0\0{}", TEXTS[self.below(TEXTS.len())]),
        };
        // Now and then a list where a text was asked for, and the other way round.
        let names = matches!(true_answer, Ok(Answer::Names(_))) != (self.next() % 16 == 1);
        Ok(if names { Answer::Names(text.split_whitespace().map(str::to_owned).collect()) } else { Answer::text(text) })
    }

    fn cut(&mut self, text: &str) -> String {
        let kept = self.below(text.len().max(1));
        text.char_indices().take_while(|(place, _)| *place < kept).map(|(_, c)| c).collect()
    }

    /// A text with some of its characters replaced.
    fn changed(&mut self, text: &str) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..=self.next() % 4 {
            let (place, character) = (self.below(characters.len()), char::from(self.next()));
            if let Some(old) = characters.get_mut(place) {
                *old = character;
            }
        }
        characters.into_iter().collect()
    }
}

impl Host for Garbage<'_> {
    fn origin(&self) -> String {
        "garbage".into()
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let answer = self.base.ask(question);
        let mut bytes = self.bytes.borrow_mut();
        // The system must be one that is detected at all.
        if *question == Question::Os || bytes.0.is_empty() || bytes.next() >= self.share {
            return answer;
        }
        bytes.answer(answer)
    }
}

/// Detects the machine that these bytes make of a recording, checks its laws and renders it in every form that there is.
pub fn check(bases: &[Recording], bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let base = &bases[bytes.below(bases.len())];
    let depth = [Depth::Static, Depth::Drivers, Depth::Waking, Depth::Full][bytes.below(4)];
    let share = [255, 128, 32, 8][bytes.below(4)];
    let garbage = || Garbage { base, bytes: RefCell::new(Bytes(bytes.0)), share };
    let Ok(machine) = detect_to(&garbage(), depth) else { return };
    laws(&machine);
    assert!(serde_json::to_string(&Report::from(&machine)).is_ok());
    // The same bytes ask the same questions: what was recorded reads back as it was written.
    let text = capture_to(&garbage(), depth).to_text();
    assert_eq!(Recording::parse(&text).map(|recording| recording.to_text()).ok().as_deref(), Some(text.as_str()));
}

/// What holds of every machine, whatever its files say.
pub fn laws(machine: &spec::Machine) {
    assert!(machine.effective_cpus() >= 1);
    assert!((1..=machine.effective_cpus()).contains(&machine.effective_cores()));
    assert_eq!(machine.facts.gpus.len(), machine.free.gpu_memory.len());
    assert_eq!(machine.facts.gpus.len(), machine.conditions.gpus.len());
    assert!(machine.limits.visible_gpus.iter().all(|&gpu| gpu < machine.facts.gpus.len()));
    assert!(machine.facts.gpus.iter().all(|gpu| gpu.peers.iter().all(|link| link.peer < machine.facts.gpus.len())));
    let cpu = &machine.facts.cpu;
    if let (Some(cores), Some(cpus)) = (cpu.physical_cores.get(), cpu.logical_cpus.get()) {
        assert!(cores <= cpus, "{cores} cores ({}) and {cpus} CPUs ({})", cpu.physical_cores.source(), cpu.logical_cpus.source());
    }
    if let (Some(free), Some(total)) = (machine.effective_memory_available().get(), machine.free.memory.get()) {
        assert!(free <= total);
    }
}
