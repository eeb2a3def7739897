//! `nvidia-smi -q`, as text and as XML: two spellings of one tree.

use probe::host::{NvmlField, NvmlQuestion};
use probe::{Answer, Question, Recording, Refusal};

/// A field or a section: `fb_memory_usage` and `FB Memory Usage` are both `fb memory usage`.
#[derive(Debug, Default)]
struct Node {
    name: String,
    value: String,
    children: Vec<Node>,
}

impl Node {
    fn child(&self, names: &[&str]) -> Option<&Node> {
        names.iter().find_map(|name| self.children.iter().find(|child| child.name == *name))
    }

    /// The value at the end of a path, each step of which may have several names.
    fn at(&self, path: &[&[&str]]) -> Option<&str> {
        let end = path.iter().try_fold(self, |node, names| node.child(names))?;
        Some(end.value.trim()).filter(|value| !value.is_empty())
    }

    /// All nodes of a name below this one.
    fn all<'a>(&'a self, name: &str, found: &mut Vec<&'a Node>) {
        for child in &self.children {
            if child.name == name {
                found.push(child);
            } else {
                child.all(name, found);
            }
        }
    }
}

fn spelled(name: &str) -> String {
    name.trim().replace('_', " ").to_ascii_lowercase()
}

/// The first `-q` of a text that may hold other commands' output too.
pub fn read_text(text: &str) -> Result<Recording, String> {
    let log = text.split("NVSMI LOG").nth(1).ok_or("no NVSMI LOG")?;
    let mut root = Node::default();
    // Sections that are open, by how far they are set in.
    let mut open: Vec<(usize, Node)> = Vec::new();
    let close = |open: &mut Vec<(usize, Node)>, root: &mut Node, depth: usize| {
        while open.last().is_some_and(|(own, _)| *own >= depth) {
            if let Some((_, node)) = open.pop() {
                open.last_mut().map_or(&mut *root, |(_, parent)| parent).children.push(node);
            }
        }
    };
    for line in log.lines().skip(1).take_while(|line| !line.starts_with('#')).filter(|line| !line.trim().is_empty()) {
        let depth = line.len() - line.trim_start().len();
        let (name, value) = line.split_once(" : ").unwrap_or((line, ""));
        close(&mut open, &mut root, depth);
        let mut node = Node { name: spelled(name), value: value.trim().to_owned(), children: Vec::new() };
        if depth == 0
            && let Some(address) = line.strip_prefix("GPU ")
        {
            node = Node { name: "gpu".into(), value: address.trim().to_owned(), children: Vec::new() };
        }
        open.push((depth, node));
    }
    close(&mut open, &mut root, 0);
    let os = if text.lines().any(|line| line.starts_with("os:") && line.contains("windows")) { "windows" } else { "linux" };
    Ok(recording(&root, os))
}

/// XML as this one program writes it: elements and text, one attribute, no entities that matter.
pub fn read_xml(text: &str) -> Result<Recording, String> {
    let start = text.find("<nvidia_smi_log").ok_or("no nvidia_smi_log")?;
    let mut open = vec![Node::default()];
    let mut rest = &text[start..];
    while let Some(place) = rest.find('<') {
        let end = rest[place..].find('>').ok_or("an element without an end")? + place;
        let (before, tag) = (&rest[..place], &rest[place + 1..end]);
        rest = &rest[end + 1..];
        if let Some(node) = open.last_mut() {
            node.value.push_str(before.trim());
        }
        if tag.starts_with('/') {
            let node = open.pop().ok_or("an end without a beginning")?;
            open.last_mut().ok_or("an end without a beginning")?.children.push(node);
        } else if !tag.starts_with(['!', '?']) {
            let (name, attributes) = tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
            let id = attributes.split('"').nth(1).unwrap_or_default();
            open.push(Node { name: spelled(name), value: id.to_owned(), children: Vec::new() });
            if tag.ends_with('/') {
                let node = open.pop().ok_or("an element without a parent")?;
                open.last_mut().ok_or("an element without a parent")?.children.push(node);
            }
        }
    }
    let root = open.swap_remove(0).children.into_iter().next().ok_or("an empty log")?;
    let mut models = Vec::new();
    root.all("current dm", &mut models);
    let windows = models.iter().any(|model| model.value == "WDDM" || model.value == "TCC");
    Ok(recording(&root, if windows { "windows" } else { "linux" }))
}

fn recording(root: &Node, os: &str) -> Recording {
    let mut host = Recording::new("from nvidia-smi -q");
    host.set(&Question::Os, Ok(Answer::text(os)));
    host.set(&Question::Arch, Ok(Answer::text("x86_64")));
    let gpus: Vec<&Node> = root.children.iter().filter(|node| node.name == "gpu").collect();
    let mut nvml = |question, answer: Result<String, Refusal>| host.set(&Question::Nvml(question), answer.map(Answer::text));
    nvml(NvmlQuestion::Driver, text(root.at(&[&["driver version"]])));
    nvml(NvmlQuestion::Count, Ok(gpus.len().to_string()));
    for (index, gpu) in (0..).zip(&gpus) {
        for (field, answer) in fields(gpu) {
            nvml(NvmlQuestion::Device(index, field), answer);
        }
        let mut parts = Vec::new();
        gpu.all("mig device", &mut parts);
        let place = |part: &&Node| part.at(&[&["index"]]).and_then(|index| index.parse::<u32>().ok());
        let slots = parts.iter().filter_map(place).max().map_or(0, |last| last.saturating_add(1));
        nvml(NvmlQuestion::Device(index, NvmlField::MigSlots), Ok(slots.to_string()));
        for part in &parts {
            let Some(slot) = place(part) else { continue };
            for (field, answer) in part_fields(part) {
                nvml(NvmlQuestion::Slice(index, slot, field), answer);
            }
        }
    }
    host
}

/// What the program says of a device, in the library's words.
fn fields(gpu: &Node) -> Vec<(NvmlField, Result<String, Refusal>)> {
    const POWER: &[&str] = &["gpu power readings", "power readings"];
    const LINK: &[&str] = &["gpu link info", "pci gpu link info"];
    const GENERATION: &[&str] = &["pcie generation", "pcie gen"];
    const WIDTH: &[&str] = &["link width", "link widths"];
    let at = |path: &[&[&str]]| gpu.at(path);
    vec![
        (NvmlField::Name, text(at(&[&["product name"]]))),
        (NvmlField::Uuid, text(at(&[&["gpu uuid", "uuid"]]))),
        (NvmlField::PciAddress, address(&gpu.value)),
        (NvmlField::PciId, text(at(&[&["pci"], &["device id", "pci device id"]])).and_then(|id| pci_id(&id))),
        (NvmlField::MemoryTotal, mebibytes(at(&[&["fb memory usage"], &["total"]]))),
        (NvmlField::MemoryFree, mebibytes(at(&[&["fb memory usage"], &["free"]]))),
        (NvmlField::Bar1, mebibytes(at(&[&["bar1 memory usage"], &["total"]]))),
        (NvmlField::Mig, switch(at(&[&["mig mode"], &["current", "current mig"]]))),
        (NvmlField::PcieGeneration, whole(at(&[&["pci"], LINK, GENERATION, &["max", "max link gen"]]))),
        (NvmlField::PcieGenerationNow, whole(at(&[&["pci"], LINK, GENERATION, &["current", "current link gen"]]))),
        (NvmlField::PcieLanes, whole(at(&[&["pci"], LINK, WIDTH, &["max", "max link width"]]))),
        (NvmlField::PcieLanesNow, whole(at(&[&["pci"], LINK, WIDTH, &["current", "current link width"]]))),
        (NvmlField::SmClockMhz, whole(at(&[&["max clocks"], &["sm", "sm clock"]]))),
        (NvmlField::MemoryClockMhz, whole(at(&[&["max clocks"], &["memory", "mem clock"]]))),
        (NvmlField::Temperature, whole(at(&[&["temperature"], &["gpu current temp", "gpu temp"]]))),
        (NvmlField::Utilisation, whole(at(&[&["utilization"], &["gpu", "gpu util"]]))),
        (NvmlField::PowerLimit, milliwatts(at(&[POWER, &["current power limit", "enforced power limit", "power limit"]]))),
        (NvmlField::PowerDraw, milliwatts(at(&[POWER, &["average power draw", "power draw", "instantaneous power draw"]]))),
        (NvmlField::Throttle, reasons(gpu)),
    ]
}

fn part_fields(part: &Node) -> Vec<(NvmlField, Result<String, Refusal>)> {
    let shared: &[&[&str]] = &[&["device attributes"], &["shared"], &["multiprocessor count"]];
    let memory = |field: &'static [&'static str]| part.at(&[&["fb memory usage"], field]);
    let mib = memory(&["total"]).and_then(|total| total.split_whitespace().next()).unwrap_or("0");
    let attributes = part.at(shared).map(|count| format!("{count} 0 0 {mib}"));
    vec![
        // Not in this output; a place that is taken all the same.
        (NvmlField::Uuid, Err(Refusal::NotSupported)),
        (NvmlField::Attributes, attributes.ok_or(Refusal::NotSupported)),
        (NvmlField::MemoryTotal, mebibytes(memory(&["total"]))),
        (NvmlField::MemoryFree, mebibytes(memory(&["free"]))),
    ]
}

/// The program's words for no answer are the library's refusals.
fn text(value: Option<&str>) -> Result<String, Refusal> {
    match value {
        None => Err(Refusal::NotRecorded),
        Some(value) if value.contains("Insufficient Permissions") => Err(Refusal::Denied),
        Some(value) if value.contains("N/A") || value.contains("Not Supported") || value.contains("deprecated") => {
            Err(Refusal::NotSupported)
        }
        Some(value) if value.contains("Error") => Err(Refusal::Failed(value.to_owned())),
        Some(value) => Ok(value.to_owned()),
    }
}

/// The number before a unit: `16x`, `41 C`, `1980 MHz`.
fn whole(value: Option<&str>) -> Result<String, Refusal> {
    let digits = text(value)?.chars().take_while(char::is_ascii_digit).collect::<String>();
    if digits.is_empty() { Err(Refusal::NotSupported) } else { Ok(digits) }
}

fn mebibytes(value: Option<&str>) -> Result<String, Refusal> {
    let mib: u64 = whole(value)?.parse().map_err(|_| Refusal::NotSupported)?;
    mib.checked_mul(1 << 20).map(|bytes| bytes.to_string()).ok_or(Refusal::NotSupported)
}

fn milliwatts(value: Option<&str>) -> Result<String, Refusal> {
    let watts: f64 = text(value)?.split_whitespace().next().and_then(|number| number.parse().ok()).ok_or(Refusal::NotSupported)?;
    Ok(((watts * 1000.0).round() as u64).to_string())
}

fn switch(value: Option<&str>) -> Result<String, Refusal> {
    Ok(if text(value)? == "Enabled" { "1" } else { "0" }.to_owned())
}

/// `00000000:00:09.0` has eight digits of domain, the library's answer four.
fn address(text: &str) -> Result<String, Refusal> {
    let (domain, rest) = text.split_once(':').ok_or(Refusal::NotSupported)?;
    let domain = u32::from_str_radix(domain, 16).map_err(|_| Refusal::NotSupported)?;
    Ok(format!("{domain:04x}:{}", rest.to_ascii_lowercase()))
}

/// `0x233010DE`: device, then vendor.
fn pci_id(text: &str) -> Result<String, Refusal> {
    let id = u32::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| Refusal::NotSupported)?;
    Ok(format!("{:04x}:{:04x}", id & 0xffff, id >> 16))
}

fn reasons(gpu: &Node) -> Result<String, Refusal> {
    const BITS: [(&str, u64); 8] = [
        ("gpu idle", 0x1),
        ("idle", 0x1),
        ("sw power cap", 0x4),
        ("hw slowdown", 0x8),
        ("sync boost", 0x10),
        ("sw thermal slowdown", 0x20),
        ("hw thermal slowdown", 0x40),
        ("hw power brake slowdown", 0x80),
    ];
    let section = gpu.child(&["clocks event reasons", "clocks throttle reasons"]).ok_or(Refusal::NotRecorded)?;
    let active = |node: &Node| node.value == "Active";
    let bit = |node: &Node| BITS.iter().find(|(name, _)| node.name.ends_with(name)).map_or(0, |(_, bit)| *bit);
    // Two reasons stand below a third in the text.
    let nodes = section.children.iter().flat_map(|node| std::iter::once(node).chain(&node.children));
    Ok(format!("{:x}", nodes.filter(|node| active(node)).fold(0, |bits, node| bits | bit(node))))
}
