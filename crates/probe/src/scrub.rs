//! Takes out of a recording what identifies a machine or its owner: serial numbers, UUIDs, MAC addresses, long
//! hexadecimal ids (containers, machine ids), host names and user names.
//!
//! The same original always gets the same replacement, in questions and in answers, so that a path that one answer names
//! is still found under its new name when the recording is replayed.

use crate::host::{Answer, Question};
use std::collections::BTreeMap;

/// Hexadecimal words from this length on are ids: registers have 8 digits, addresses up to 16.
const ID_DIGITS: usize = 17;

/// Where the kernel itself names devices, by addresses that drivers repeat: nobody's name stands there.
const BUS: &str = "/sys/bus/";

/// Fields of `/proc/cpuinfo` that name the single machine: Raspberry Pi and other boards; s390.
const SERIAL_FIELDS: [&str; 3] = ["Serial", "serial", "identification"];

/// Names that may not be replaced: paths of control groups are made of these, and whoever calls a host or a user so is not
/// identified by it.
const COMMON_WORDS: [&str; 40] = [
    "admin",
    "blkio",
    "cgroup",
    "container",
    "containerd",
    "cpu",
    "cpuacct",
    "cpuset",
    "current",
    "debian",
    "devices",
    "docker",
    "effective",
    "freezer",
    "host",
    "init",
    "kubepods",
    "limit",
    "linux",
    "localhost",
    "lxc",
    "machine",
    "max",
    "memory",
    "none",
    "pids",
    "pod",
    "podman",
    "process",
    "root",
    "scope",
    "service",
    "session",
    "slice",
    "stat",
    "swap",
    "system",
    "systemd",
    "ubuntu",
    "user",
];

/// Replaces identifying words, each always by the same.
#[derive(Debug, Default)]
pub(crate) struct Scrubber {
    /// Original (lower case) to replacement.
    ids: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
}

/// The bytes of a file as the recording keeps them: of a memory module without its serial number, of anything else nothing.
fn bytes(path: &str, digits: &str) -> String {
    if !path.starts_with("/sys/firmware/dmi/entries/17-") {
        return String::new();
    }
    let raw = crate::host::from_hexadecimal(digits).unwrap_or_default();
    crate::host::to_hexadecimal(&crate::detect::dmi::scrubbed(&raw))
}

impl Scrubber {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A name to be replaced wherever it stands as a word: of the host or of a user.
    pub(crate) fn learn_name(&mut self, name: &str, what: &str) {
        let name = name.trim();
        if name.len() < 2 || COMMON_WORDS.contains(&name.to_ascii_lowercase().as_str()) || name.chars().all(|c| c.is_ascii_digit()) {
            return;
        }
        let number = self.names.len() + 1;
        self.names.entry(name.to_owned()).or_insert_with(|| format!("{what}-{number}"));
        // The short name of `node7.example.org` appears alone too.
        if let Some((short, _)) = name.split_once('.') {
            self.learn_name(short, what);
        }
    }

    /// The key of a question in the recording.
    pub(crate) fn question(&mut self, question: &Question) -> String {
        match question {
            Question::Read(path) if path.starts_with(BUS) => format!("read {}", self.text(path)),
            Question::Read(path) => format!("read {}", self.path(path)),
            Question::Start(path) => format!("start {}", self.path(path)),
            Question::List(path) if path.starts_with(BUS) => format!("list {}", self.text(path)),
            Question::List(path) => format!("list {}", self.path(path)),
            Question::Link(path) => format!("link {}", self.path(path)),
            Question::Bytes(path) => format!("bytes {}", self.path(path)),
            other => other.to_string(),
        }
    }

    /// What the recording keeps of an answer.
    pub(crate) fn answer(&mut self, question: &Question, answer: &Answer) -> Answer {
        match (question, answer) {
            // The list of mounts says much about a person, and detection needs the control groups only.
            (Question::Read(path), Answer::Text(text)) if path.ends_with("/mountinfo") => {
                let groups: Vec<String> = text.lines().filter(|line| line.contains(" - cgroup")).map(|line| self.path(line)).collect();
                Answer::text(groups.join("\n"))
            }
            (Question::Read(path), Answer::Text(text)) if path.ends_with("/cgroup") => Answer::text(self.path(text)),
            (Question::Env(_) | Question::Link(_), Answer::Text(text)) => Answer::text(self.path(text)),
            // The process's own name and ids stand beside the field that is read.
            (Question::Read(path), Answer::Text(text)) if path.ends_with("/status") => {
                Answer::text(text.lines().filter(|line| line.starts_with("Cpus_allowed_list:")).collect::<Vec<_>>().join("\n"))
            }
            // AMD's numbers of single devices have as many digits as an address.
            (Question::Read(path), Answer::Text(text)) if path.ends_with("/unique_id") && !text.trim().is_empty() => {
                Answer::text(format!("{:016x}", self.number(text.trim())))
            }
            (Question::Read(path), Answer::Text(text)) if path.starts_with("/sys/class/kfd/") => Answer::text(without_device_numbers(text)),
            // Bytes are digits to the rules for texts; only what is known not to identify is kept.
            (Question::Bytes(path), Answer::Text(text)) => Answer::Text(bytes(path, text)),
            (_, Answer::Text(text)) => Answer::text(self.text(text)),
            (Question::List(path), Answer::Names(names)) if path.starts_with(BUS) => {
                Answer::Names(names.iter().map(|name| self.text(name)).collect())
            }
            (_, Answer::Names(names)) => Answer::Names(names.iter().map(|name| self.path(name)).collect()),
        }
    }

    /// A text from the kernel or a driver: ids and serial numbers are replaced. Names are not looked for here: no host name
    /// stands in these files, and a host called `intel` must not change them.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let lines: Vec<String> = text.split('\n').map(|line| self.line(line)).collect();
        lines.join("\n")
    }

    /// A text that may hold paths: names are replaced too.
    pub(crate) fn path(&mut self, text: &str) -> String {
        let mut text = self.text(text);
        for (name, replacement) in &self.names {
            text = replace_word(&text, name, replacement);
        }
        text
    }

    fn line(&mut self, line: &str) -> String {
        if let Some((field, _)) = line.split_once(':')
            && SERIAL_FIELDS.contains(&field.trim())
        {
            return format!("{field}: 0");
        }
        // s390: "processor 0: version = FF,  identification = 123456,  machine = 2964"
        if let Some((before, after)) = line.split_once("identification = ") {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            return format!("{before}identification = 0{}", self.words(rest));
        }
        self.words(line)
    }

    /// A line word by word, a word being hexadecimal digits with what joins them in UUIDs and MAC addresses.
    fn words(&mut self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (before, from) = rest.split_at(start);
            out.push_str(before);
            let end = from.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '_'))).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            out.push_str(&self.word(word));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(range) = uuid(word) {
            let (before, id, after) = (&word[..range.start], &word[range.clone()], &word[range.end..]);
            let joint = if id.contains('_') { '_' } else { '-' };
            let number = self.number(&id.replace('_', "-"));
            let after = if after.is_empty() { String::new() } else { self.word(after) };
            return format!("{before}00000000{joint}0000{joint}0000{joint}0000{joint}{number:012x}{after}");
        }
        if is_mac(word) {
            return "00:00:00:00:00:00".to_owned();
        }
        // An id may stand in a longer word: docker-0123...ef, vmid:..., GPU-8932f937 shortened.
        let parts: Vec<String> = word.split_inclusive(['-', ':', '_']).map(|part| self.id(part)).collect();
        self.shortened_gpu(word).unwrap_or_else(|| parts.concat())
    }

    fn id(&mut self, part: &str) -> String {
        let digits = part.trim_end_matches(['-', ':', '_']);
        let joint = &part[digits.len()..];
        let is_id = digits.len() >= ID_DIGITS
            && digits.chars().all(|c| c.is_ascii_hexdigit())
            && digits.chars().any(|c| c.is_ascii_alphabetic())
            && digits.chars().any(|c| c.is_ascii_digit());
        if !is_id {
            return part.to_owned();
        }
        format!("{:0width$x}{joint}", self.number(digits), width = digits.len())
    }

    /// CUDA_VISIBLE_DEVICES takes any beginning of a UUID; it must go on meaning the same device.
    fn shortened_gpu(&self, word: &str) -> Option<String> {
        let digits = word.strip_prefix("GPU-").or_else(|| word.strip_prefix("MIG-"))?;
        if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            return None;
        }
        let mut matching = self.ids.iter().filter(|(original, _)| original.starts_with(&digits.to_ascii_lowercase()));
        let kind = &word[..4];
        Some(match (matching.next(), matching.next()) {
            (Some((original, number)), None) if !original.contains('-') => format!("{kind}{number:0>16}"),
            (Some((_, number)), None) => format!("{kind}00000000-0000-0000-0000-{number}"),
            // Names no device that was seen: stays a name of none.
            _ => format!("{kind}ffffffff"),
        })
    }

    fn number(&mut self, id: &str) -> usize {
        let next = self.ids.len() + 1;
        let text = self.ids.entry(id.to_ascii_lowercase()).or_insert_with(|| format!("{next:012x}"));
        usize::from_str_radix(text, 16).unwrap_or(next)
    }
}

/// The properties of AMD's compute driver without the numbers of the single device and of its group.
fn without_device_numbers(text: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((name @ ("unique_id" | "hive_id"), _)) => format!("{name} 0"),
        _ => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Where in a word the first UUID stands: 8, 4, 4, 4 and 12 digits joined by `-` or, in names of systemd, by `_`.
fn uuid(word: &str) -> Option<std::ops::Range<usize>> {
    const LENGTH: usize = 36;
    let bytes = word.as_bytes();
    let fits = |window: &[u8]| {
        window.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => matches!(byte, b'-' | b'_'),
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let start = bytes.windows(LENGTH).position(fits)?;
    Some(start..start + LENGTH)
}

fn is_mac(word: &str) -> bool {
    let separated = |joint: char| {
        word.split(joint).count() == 6 && word.split(joint).all(|pair| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit()))
    };
    separated(':') || separated('-')
}

fn replace_word(text: &str, name: &str, replacement: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(name) {
        let (before, from) = rest.split_at(start);
        let after = &from[name.len()..];
        let joined = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        out.push_str(before);
        let alone = !joined(before.chars().next_back().or_else(|| out.chars().next_back())) && !joined(after.chars().next());
        out.push_str(if alone { replacement } else { name });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifying_words_go_and_the_same_word_gets_the_same_replacement() {
        let mut scrubber = Scrubber::new();
        scrubber.learn_name("node7.example.org\n", "host");
        scrubber.learn_name("alice", "user");
        let text = scrubber.path(concat!(
            "/kubepods.slice/pod0e9c3f4a_11d2_4b3c_9d8e_7f6a5b4c3d2e.slice/cri-containerd-",
            "4f1c9a0b7e6d5c4b3a29181706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3.scope\n",
            "/pod0e9c3f4a-11d2-4b3c-9d8e-7f6a5b4c3d2e/node7/home/alice/alices 52:54:00:12:34:56"
        ));
        insta::assert_snapshot!(text, @r"
        /kubepods.slice/pod00000000_0000_0000_0000_000000000001.slice/cri-containerd-0000000000000000000000000000000000000000000000000000000000000002.scope
        /pod00000000-0000-0000-0000-000000000001/host-2/home/user-3/alices 00:00:00:00:00:00
        ");
    }

    #[test]
    fn numbers_of_the_kernel_stay() {
        let mut scrubber = Scrubber::new();
        for text in [
            "9223372036854771712",
            "ffffffff,ffffffff",
            "0000:65:00.0",
            "00000010 68747541 444d4163 69746e65",
            "microcode\t: 0x1000065",
            "0x00000000410fd490",
            "Intel(R) Xeon(R) Platinum 8480+",
            "flags\t\t: fpu avx512_vpopcntdq amx_tile",
        ] {
            assert_eq!(scrubber.path(text), text);
        }
    }

    #[test]
    fn serial_numbers_go() {
        let mut scrubber = Scrubber::new();
        assert_eq!(
            scrubber.text("Hardware\t: BCM2711\nSerial\t\t: 100000001234abcd\nModel\t\t: Raspberry Pi 4"),
            "Hardware\t: BCM2711\nSerial\t\t: 0\nModel\t\t: Raspberry Pi 4"
        );
        assert_eq!(
            scrubber.text("processor 0: version = FF,  identification = 1A2B3C,  machine = 2964"),
            "processor 0: version = FF,  identification = 0,  machine = 2964"
        );
    }

    #[test]
    fn a_shortened_uuid_goes_on_naming_its_device() {
        let mut scrubber = Scrubber::new();
        let first = scrubber.text("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6");
        let second = scrubber.text("GPU-abcdef01-d72c-4106-c12f-20bd9faed9f6");
        assert_eq!(scrubber.path("GPU-8932f937,GPU-ab,GPU-77"), format!("{first},{second},GPU-ffffffff"));
    }

    #[test]
    fn numbers_of_amd_devices_go_and_a_variable_goes_on_naming_them() {
        let mut scrubber = Scrubber::new();
        let read = |path: &str| Question::Read(path.to_owned());
        let own = scrubber.answer(&read("/sys/bus/pci/devices/0000:03:00.0/unique_id"), &Answer::text("946d7e1ef9b172dd\n"));
        assert_eq!(own, Answer::text("0000000000000001"));
        let variable = scrubber.answer(&Question::Env("ROCR_VISIBLE_DEVICES".into()), &Answer::text("GPU-946d7e1ef9b172dd"));
        assert_eq!(variable, Answer::text("GPU-0000000000000001"));
        let properties = Answer::text("simd_count 24\nunique_id 10695347347398488797\nhive_id 5\nnum_xcc 1");
        let kept = scrubber.answer(&read("/sys/class/kfd/kfd/topology/nodes/1/properties"), &properties);
        assert_eq!(kept, Answer::text("simd_count 24\nunique_id 0\nhive_id 0\nnum_xcc 1"));
    }

    #[test]
    fn a_host_called_like_a_part_of_the_kernel_breaks_nothing() {
        let mut scrubber = Scrubber::new();
        scrubber.learn_name("memory", "host");
        scrubber.learn_name("vm", "host");
        assert_eq!(scrubber.path("/sys/fs/cgroup/memory/vm/memory.max"), "/sys/fs/cgroup/memory/host-1/memory.max");
        assert_eq!(scrubber.text("vm"), "vm");
    }
}
