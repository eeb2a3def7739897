//! Machines made by rule (`made`): servers of hundreds of CPUs, laptops, groups that limit swap; and what becomes of a machine whose
//! files are missing, closed, padded or garbage.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
mod foreign;
mod garbage;
mod made;

use foreign::Tree;
use made::{EPYC_384, EPYC_NPS4};
use probe::{Answer, Host, Question, Recording, Refusal, detect};
use proptest::prelude::*;
use spec::machine::PowerSource;
use spec::{Bytes, Machine};

#[test]
fn two_sockets_in_four_nodes_each() {
    let machine = detect(&EPYC_NPS4.tree()).unwrap();
    insta::assert_snapshot!("epyc-nps4", common::render(&machine));
    let (cpu, numa) = (&machine.facts.cpu, &machine.facts.numa);
    assert_eq!((cpu.sockets.get(), cpu.physical_cores.get(), cpu.logical_cpus.get()), (Some(2), Some(128), Some(256)));
    // Nodes are no sockets: eight of them in two.
    assert_eq!(numa.iter().map(|node| node.cpus.len()).collect::<Vec<_>>(), [32; 8]);
    assert_eq!(numa[1].distances, [12, 10, 12, 12, 32, 32, 32, 32]);
}

#[test]
fn more_cpus_than_a_mask_of_64_has_bits() {
    let tree = EPYC_384.tree();
    let machine = detect(&tree).unwrap();
    let cpu = &machine.facts.cpu;
    assert_eq!((cpu.sockets.get(), cpu.physical_cores.get(), cpu.logical_cpus.get()), (Some(2), Some(192), Some(384)));
    assert_eq!((machine.effective_cpus(), machine.effective_cores()), (384, 192));
    let l3 = cpu.caches.iter().find(|cache| cache.level == 3).unwrap();
    assert_eq!((l3.instances, l3.shared_by, l3.size), (24, 16, Bytes::from_mib(32)));
    // Per core its list, its frequency and two files of each of its three caches; nothing for its second thread.
    let questions = tree.asked.lock().unwrap().len();
    assert!(questions < 192 * 8 + 200, "{questions}");

    // A mask has no room for CPU 300; the list has.
    let mut pinned = EPYC_384.tree();
    made::put(&mut pinned, "/proc/self/status", "Cpus_allowed:\tff\nCpus_allowed_list:\t100-103,292-295,300");
    let machine = detect(&pinned).unwrap();
    assert_eq!((machine.effective_cpus(), machine.effective_cores()), (9, 5));
}

#[test]
fn cpus_that_are_switched_off_count_nowhere() {
    // The second threads of all cores, as `nosmt` leaves them, and the second socket.
    let machine = detect(&made::without(EPYC_384.tree(), "0-191", 192..384)).unwrap();
    let cpu = &machine.facts.cpu;
    assert_eq!((cpu.sockets.get(), cpu.physical_cores.get(), cpu.logical_cpus.get()), (Some(2), Some(192), Some(192)));
    let machine = detect(&made::without(EPYC_384.tree(), "0-95,192-287", (96..192).chain(288..384))).unwrap();
    let cpu = &machine.facts.cpu;
    assert_eq!((cpu.sockets.get(), cpu.physical_cores.get(), cpu.logical_cpus.get()), (Some(1), Some(96), Some(192)));
    assert_eq!(machine.warnings, ["CPUs 96-191,288-383 are present and switched off"]);
}

#[test]
fn a_laptop_that_saves_power() {
    let machine = detect(&made::laptop()).unwrap();
    insta::assert_snapshot!("laptop-saving", common::render(&machine));
    let kinds: Vec<_> = machine.facts.cpu.core_kinds.iter().map(|kind| (kind.name.as_str(), kind.physical_cores)).collect();
    assert_eq!(kinds, [("performance", 6), ("efficiency", 8), ("low-power", 2)]);
    let now = &machine.conditions;
    assert_eq!((now.power.get(), now.power_profile.value().map(String::as_str)), (Some(PowerSource::Battery(23)), Some("low-power")));
    assert_eq!(now.cpu_throttled.get(), Some(true));
}

#[test]
fn swap_that_a_group_of_version_2_limits() {
    let files = |swap| {
        [
            ("pod/app/memory.max", "max"),
            ("pod/app/memory.swap.max", "max"),
            ("pod/memory.max", "17179869184"),
            ("pod/memory.current", "1073741824"),
            ("pod/memory.stat", "inactive_file 0"),
            ("pod/memory.swap.max", swap),
        ]
    };
    let machine = |swap| detect(&made::grouped(made::laptop(), &files(swap))).unwrap();
    let none = machine("0");
    assert_eq!(none.limits.memory.len(), 1);
    assert_eq!((none.limits.memory[0].limit, none.limits.memory[0].swap.get()), (Bytes::from_gib(16), Some(Bytes::ZERO)));
    assert_eq!(none.effective_memory_available().get(), Some(Bytes::from_gib(15)));
    assert_eq!(machine("1073741824").limits.memory[0].swap.get(), Some(Bytes::from_gib(1)));
    assert!(machine("max").limits.memory[0].swap.is_unknown());
    // A limit on swap alone is one too.
    let alone = detect(&made::grouped(made::laptop(), &[("pod/app/memory.max", "max"), ("pod/app/memory.swap.max", "0")])).unwrap();
    assert_eq!(alone.effective_memory_total().get(), Some(Bytes::from_gib(32)));
}

/// The tree with each file changed; a file for which nothing is left goes.
fn with_files(mut tree: Tree, change: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) -> Tree {
    tree.files = tree.files.iter().filter_map(|(path, bytes)| Some((path.clone(), change(path, bytes)?))).collect();
    tree.folders.retain(|folder, _| tree.files.keys().any(|path| path.starts_with(folder.as_str())));
    tree
}

#[test]
fn without_sys_the_processors_text_counts() {
    let no_sys = |tree| with_files(tree, |path, bytes| (!path.starts_with("/sys/")).then(|| bytes.to_vec()));
    let machine = detect(&no_sys(EPYC_NPS4.tree())).unwrap();
    let cpu = &machine.facts.cpu;
    assert_eq!((cpu.sockets.get(), cpu.physical_cores.get(), cpu.logical_cpus.get()), (Some(2), Some(128), Some(256)));
    assert_eq!(machine.facts.memory.total.get(), Some(Bytes::from_gib(512)));
    assert_eq!((machine.facts.numa.len(), machine.facts.gpus.len()), (1, 0));
    assert!(cpu.caches.is_empty() && machine.conditions.power.is_unknown() && cpu.max_frequency_hz.is_unknown());
}

#[test]
fn padding_and_line_ends_change_nothing() {
    let plain = |name: fn() -> Tree| detect(&name()).unwrap();
    let same = |name: fn() -> Tree, end: &'static [u8]| {
        let padded = with_files(name(), |_, bytes| Some([bytes.trim_ascii_end(), end].concat()));
        assert_eq!(detect(&padded).unwrap(), plain(name), "{end:?}");
    };
    for end in [b"\0\0\0\0\0\0\0\0".as_slice(), b"\n\0", b"", b"  \n\n", b"\r\n"] {
        same(|| EPYC_NPS4.tree(), end);
        same(made::laptop, end);
    }
}

/// A machine that refuses some of the files.
struct Closed<'a> {
    tree: &'a Tree,
    closed: &'a dyn Fn(&str) -> bool,
    refusal: Refusal,
}

impl Host for Closed<'_> {
    fn origin(&self) -> String {
        "closed".into()
    }
    fn ask(&self, question: &Question) -> Result<Answer, Refusal> {
        match question {
            Question::Read(path) | Question::Start(path) | Question::List(path) if (self.closed)(path) => Err(self.refusal.clone()),
            question => self.tree.ask(question),
        }
    }
}

/// The machine with these files closed.
fn closed(tree: &Tree, closed: &dyn Fn(&str) -> bool) -> Machine {
    detect(&Closed { tree, closed, refusal: Refusal::Denied }).unwrap()
}

#[test]
fn a_file_that_may_not_be_read_costs_what_only_it_knows() {
    let tree = made::laptop();
    let whole = detect(&tree).unwrap();
    let without_memory = closed(&tree, &|path| path == "/proc/meminfo");
    assert_eq!(without_memory.facts.memory.total.source().as_str(), "/proc/meminfo: permission denied");
    assert!(without_memory.free.memory.is_unknown() && without_memory.facts.memory.swap_total.is_unknown());
    assert_eq!(without_memory.facts.cpu, whole.facts.cpu);
    // The lists of cores are closed: the text names cores, and for the hybrid's two threads nothing does.
    let without_lists = closed(&tree, &|path| path.contains("/topology/"));
    assert_eq!(without_lists.facts.cpu.logical_cpus.get(), Some(22));
    assert_eq!(without_lists.facts.cpu.physical_cores.source().as_str(), "/proc/cpuinfo core id");
    let without_any = closed(&tree, &|path| path.starts_with("/sys/") || path.starts_with("/proc/"));
    assert!(without_any.facts.cpu.physical_cores.is_unknown() && without_any.facts.memory.total.is_unknown());
    assert!(without_any.facts.cpu.logical_cpus.is_unknown());
}

#[test]
fn each_file_alone_may_be_closed_late_or_garbage() {
    let laptop = made::laptop();
    let server = made::grouped(EPYC_NPS4.tree(), &[("pod/memory.max", "1073741824"), ("pod/cpu.max", "200000 100000")]);
    for tree in [&laptop, &server] {
        detect(tree).unwrap();
        let mut asked: Vec<String> = std::mem::take(&mut tree.asked.lock().unwrap());
        asked.retain(|question| question.starts_with("read ") || question.starts_with("list "));
        // CPUs are alike: two of them stand for all.
        asked.retain(|question| !question.contains("/cpu/cpu") || ["/cpu0/", "/cpu13/"].iter().any(|cpu| question.contains(cpu)));
        asked.sort();
        asked.dedup();
        assert!(asked.len() > 40);
        for question in asked {
            let path = question.split_once(' ').unwrap().1;
            for refusal in [Refusal::Denied, Refusal::TimedOut, Refusal::NotFound] {
                garbage::laws(&detect(&Closed { tree, closed: &|other| other == path, refusal }).unwrap());
            }
        }
    }
}

fn recordings() -> Vec<Recording> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| Recording::parse(&std::fs::read_to_string(file).unwrap()).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn garbage_in_every_file_is_a_machine(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        thread_local!(static MACHINES: Vec<Recording> = recordings());
        MACHINES.with(|machines| garbage::check(machines, &bytes));
    }

    #[test]
    fn trees_of_garbage_are_machines(seed in any::<[u8; 32]>()) {
        let tree = with_files(made::laptop(), |path, bytes| {
            let draw = seed[path.len() % 32] ^ seed[path.bytes().map(usize::from).sum::<usize>() % 32];
            let mut bytes = bytes.to_vec();
            match draw % 8 {
                0 => return None,
                1 => bytes.clear(),
                2 => bytes = seed.to_vec(),
                3 => bytes.iter_mut().for_each(|byte| *byte ^= draw),
                4 => bytes = bytes.repeat(1 + usize::from(draw)),
                5 => bytes.truncate(usize::from(draw) % (bytes.len() + 1)),
                _ => {}
            }
            Some(bytes)
        });
        garbage::laws(&detect(&tree).unwrap());
    }
}
