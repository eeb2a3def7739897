//! Detection over hosts that answer anything at all.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod garbage;

use probe::{Answer, Host, Question, Recording, Refusal, capture, detect};
use proptest::prelude::*;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A host that answers every question from a pool of texts, chosen by a seed and the question.
#[derive(Debug)]
struct Chaos {
    seed: u64,
    pool: Vec<String>,
    os: &'static str,
    arch: &'static str,
}

impl Host for Chaos {
    fn origin(&self) -> String {
        "chaos".into()
    }

    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        let mut hasher = DefaultHasher::new();
        (self.seed, question.to_string()).hash(&mut hasher);
        let draw = hasher.finish();
        let text = || self.pool[usize::try_from(draw >> 8).unwrap() % self.pool.len()].clone();
        match (question, draw % 8) {
            (Question::Os, _) => Ok(Answer::text(self.os)),
            (Question::Arch, _) => Ok(Answer::text(self.arch)),
            (_, 0) => Err(Refusal::NotFound),
            (_, 1) => Err([Refusal::Denied, Refusal::TimedOut, Refusal::NotSupported, Refusal::Failed(text())]
                [usize::try_from(draw >> 16).unwrap() % 4]
                .clone()),
            (Question::List(_), _) => Ok(Answer::Names(text().split_whitespace().map(str::to_owned).collect())),
            _ => Ok(Answer::text(text())),
        }
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0-3".to_owned()),
        Just("0".to_owned()),
        Just("2".to_owned()),
        Just("cpu0 cpu1 node0 node1 0000:01:00.0".to_owned()),
        Just("0-200".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just("9223372036854771712".to_owned()),
        Just("max 100000".to_owned()),
        Just("1 18446744073709551615".to_owned()),
        Just("32K".to_owned()),
        Just("99999999999999999999K".to_owned()),
        Just("Data".to_owned()),
        Just("0::/a/b/../c\n3:memory,cpu,cpuset:/x".to_owned()),
        Just("1 1 0:1 / /sys/fs/cgroup rw - cgroup2 none rw\n1 1 0:1 /x /m rw - cgroup none memory,cpu,cpuset".to_owned()),
        Just("MemTotal: 18014398509481984 kB\nMemFree: 1 kB\nCached: 18014398509481983 kB".to_owned()),
        Just("Node 0 MemTotal: 5 kB\nNode:  1".to_owned()),
        Just("processor : 0\nphysical id : 4294967295\ncore id : 0\nCPU implementer : 0x41\nCPU part : 0xd85\nflags : avx2\nprocessor : 99999".to_owned()),
        Just("ffffffff ffffffff ffffffff ffffffff".to_owned()),
        Just("pci:v000010DEd00002684sv00001458sd000040BFbc03sc00i00".to_owned()),
        Just("8.9".to_owned()),
        Just("GPU-,0,0,-1".to_owned()),
        Just("free: 18446744073709551615\nfile-backed: 5\nwired: 18446744073709551615\npurgeable: 3".to_owned()),
        Just("total: 5\nused: 1\nfree: 4".to_owned()),
        Just("4".to_owned()),
        Just("group 0 64 ffffffffffffffff\ngroup 1 64 f\ncore 1 0:3\ncore 0 1:f\ncache 1 data 5 0:3\nnode 9 0:1".to_owned()),
        Just("total: 9\navailable: 18446744073709551615\ncommit-limit: 4\ncommit-available: 5\npage: 0".to_owned()),
        Just("flags: 768\njob-memory: 9\nprocess-memory: 5\nused: 99\ncpu-flags: 5\ncpu-rate: 1".to_owned()),
        Just("process: f0\nsystem: ff\ngroups: 0 1 7".to_owned()),
        Just("name: x\nvendor: 1002\ndedicated: 18446744073709551615\nshared: 18446744073709551615\nlocal-budget: 1\nlocal-used: 2".to_owned()),
        Just("4294967295".to_owned()),
        Just("AC Power\nleft: 400".to_owned()),
        "\\PC{0,30}",
        "[0-9,/:\n -]{0,20}",
    ]
}

fn chaos() -> impl Strategy<Value = Chaos> {
    let (os, arch) =
        (prop::sample::select(vec!["linux", "android", "macos", "windows"]), prop::sample::select(vec!["x86_64", "aarch64", "riscv64"]));
    (any::<u64>(), prop::collection::vec(texts(), 1..12), os, arch).prop_map(|(seed, pool, os, arch)| Chaos { seed, pool, os, arch })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn detection_survives_any_answers(host in chaos()) {
        let machine = detect(&host).unwrap();
        garbage::laws(&machine);
    }

    #[test]
    fn a_recording_of_anything_replays(host in chaos()) {
        let recording = capture(&host);
        let text = recording.to_text();
        let parsed = Recording::parse(&text).unwrap();
        prop_assert_eq!(parsed.to_text(), text);
        let (original, replayed) = (detect(&host).unwrap(), detect(&parsed).unwrap());
        prop_assert_eq!(original.effective_cpus(), replayed.effective_cpus());
        prop_assert_eq!(original.facts.memory.total.get(), replayed.facts.memory.total.get());
        prop_assert_eq!(original.facts.gpus.len(), replayed.facts.gpus.len());
    }

    #[test]
    fn any_text_is_a_recording_or_an_error(text in "\\PC{0,200}") {
        let _ = Recording::parse(&text);
    }
}

#[test]
fn systems_without_detection_say_so() {
    let host = |os| Chaos { seed: 1, pool: vec![String::new()], os, arch: "aarch64" };
    insta::assert_snapshot!(detect(&host("haiku")).unwrap_err(), @"hardware detection on haiku is not there yet; describe the machine instead, e.g. --machine ram=16GiB,cores=8");
    insta::assert_snapshot!(detect(&Recording::new("")).unwrap_err(), @r#"the operating system is not known (not recorded); a recording needs an answer to "os" and to "arch""#);
}
