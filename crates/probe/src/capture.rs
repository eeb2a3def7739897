//! Records a machine: runs detection on a host and writes down every question with its answer.

use crate::detect::{Depth, detect_to};
use crate::host::{Answer, Host, Question, Refusal};
use crate::recording::Recording;
use crate::scrub::Scrubber;
use spec::Machine;
use std::cell::RefCell;

/// The recording of a machine, without what identifies it or its owner (see `scrub`). Detection over the recording gives the
/// machine that detection over the host gives, but for the origin and the scrubbed names in it.
pub fn capture(host: &dyn Host) -> Recording {
    capture_to(host, Depth::default())
}

/// As [`capture`], asking as much as `depth` allows.
pub fn capture_to(host: &dyn Host, depth: Depth) -> Recording {
    let recorder = Recorder::new(host);
    // A platform that cannot be detected yet is recorded as far as it was asked: that is what its support starts from.
    let summary = detect_to(&recorder, depth).map_or_else(|error| error.to_string(), |machine| summary(&machine));
    let mut recording = recorder.finish();
    recording.description = summary;
    recording
}

/// One line that tells recordings apart.
fn summary(machine: &Machine) -> String {
    let facts = &machine.facts;
    let gpus = facts.gpus.iter().map(|gpu| gpu.name.value().map_or("GPU", String::as_str).to_owned());
    let cores = facts.cpu.physical_cores.get().map(|cores| format!("{cores} cores"));
    let memory = facts.memory.total.get().map(|memory| memory.to_string());
    let parts: Vec<String> = facts.cpu.model.value().cloned().into_iter().chain(cores).chain(memory).chain(gpus).collect();
    parts.join(", ")
}

/// A host that writes down what it is asked.
pub(crate) struct Recorder<'a> {
    host: &'a dyn Host,
    seen: RefCell<(Scrubber, Recording)>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(host: &'a dyn Host) -> Self {
        let mut scrubber = Scrubber::new();
        // Asked only to be taken out; these questions are not recorded.
        for question in ["/proc/sys/kernel/hostname", "/etc/hostname"] {
            if let Ok(name) = host.read(question) {
                scrubber.learn_name(&name, "host");
            }
        }
        let variables = [
            ("HOSTNAME", "host"),
            ("COMPUTERNAME", "host"),
            ("USER", "user"),
            ("LOGNAME", "user"),
            ("SUDO_USER", "user"),
            ("USERNAME", "user"),
        ];
        for (variable, what) in variables {
            if let Some(name) = host.env(variable) {
                scrubber.learn_name(&name, what);
            }
        }
        Self { host, seen: RefCell::new((scrubber, Recording::new(""))) }
    }

    pub(crate) fn finish(self) -> Recording {
        self.seen.into_inner().1
    }
}

impl Host for Recorder<'_> {
    fn origin(&self) -> String {
        self.host.origin()
    }

    fn begin(&self) {
        self.host.begin();
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let answer = self.host.ask(question);
        let (scrubber, recording) = &mut *self.seen.borrow_mut();
        let kept = match &answer {
            Ok(answer) => Ok(scrubber.answer(question, answer)),
            Err(Refusal::Failed(message)) => Err(Refusal::Failed(scrubber.text(message))),
            Err(refusal) => Err(refusal.clone()),
        };
        // The question itself may hold a name: the path of a control group that an earlier answer gave.
        recording.set_key(scrubber.question(question), kept);
        answer
    }
}
