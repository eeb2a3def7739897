//! Questions to a driver's library asked in a process of their own: one that crashes ends there, one that hangs is killed.
//!
//! The protocol is that of a recording, a line for each: the question as its key in, `answer ` and the answer as its JSON out. Lines
//! without that word are what the library itself says, and are passed over.

use super::resident::Ask;
use crate::ffi;
use crate::host::{Answer, NvmlField, NvmlQuestion, Question, Refusal};
use crate::recording;
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ANSWER: &str = "answer ";

/// A longer line is no answer of a library.
const MAX_LINE: u64 = 1 << 20;

/// How long the end of a killed child is waited for.
const PATIENCE: Duration = Duration::from_millis(20);

/// The child, where both the thread that asks it and the owner that ends it find it.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Child>>>);

impl Slot {
    /// Ends the child, whatever it does.
    pub(super) fn end(&self) {
        if let Some(child) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // Fails where it has ended already.
            let _ = child.kill();
            // One that sleeps in the kernel ends when the kernel lets it, which is not waited for.
            for _ in 0..PATIENCE.as_millis() {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// How the child ended, in words.
    fn end_of_child(&self) -> String {
        let child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match child.map(|mut child| child.wait()) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => error.to_string(),
            None => "it was not started".to_owned(),
        }
    }
}

/// True where something speaks for a GPU of NVIDIA: its driver, Windows' driver under WSL, a Jetson's, or a device on the bus whose
/// driver starts on demand. Neither a thread nor a child that would find nothing is worth its start.
pub(super) fn nvidia_may_be_here() -> bool {
    const SIGNS: [&str; 6] = ["/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu", "/dev/nvmap"];
    let on_the_bus = |address: &String| {
        super::read(&format!("/sys/bus/pci/devices/{address}/modalias")).is_ok_and(|alias| alias.starts_with("pci:v000010DE"))
    };
    !cfg!(target_os = "linux")
        || SIGNS.iter().any(|path| std::path::Path::new(path).exists())
        || super::list("/sys/bus/pci/devices").unwrap_or_default().iter().any(on_the_bus)
}

/// A library behind a child that starts with the first question.
pub(super) fn open(command: Vec<OsString>) -> (impl Fn() -> Result<Ask<Question>, Refusal> + Send + Sync + 'static, Slot) {
    let slot = Slot::default();
    let shared = slot.clone();
    let open = move || {
        let pipes = RefCell::new(Ok(start(&command, &shared)?));
        let slot = shared.clone();
        let ask = move |question: Question| {
            let mut pipes = pipes.borrow_mut();
            let answer = match &mut *pipes {
                Ok(pipes) => exchange(pipes, &question),
                Err(refusal) => return Err(Refusal::clone(refusal)),
            };
            answer.unwrap_or_else(|| {
                // It does not start again: what crashed once does so with the same question.
                let refusal = Refusal::Failed(format!("the driver's library ended the process that asked it ({})", slot.end_of_child()));
                *pipes = Err(refusal.clone());
                Err(refusal)
            })
        };
        Ok(Box::new(ask) as Ask<Question>)
    };
    (open, slot)
}

struct Pipes {
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

fn start(command: &[OsString], slot: &Slot) -> Result<Pipes, Refusal> {
    let (program, arguments) = command.split_first().ok_or(Refusal::NotSupported)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Refusal::Failed(format!("cannot start the process that asks drivers: {error}")))?;
    let pipes = child.stdin.take().zip(child.stdout.take());
    *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    let (questions, answers) = pipes.ok_or(Refusal::NotSupported)?;
    Ok(Pipes { questions, answers: BufReader::new(answers) })
}

/// The answer to a question; `None` where the child has ended.
fn exchange(pipes: &mut Pipes, question: &Question) -> Option<Result<String, Refusal>> {
    writeln!(pipes.questions, "{question}").and_then(|()| pipes.questions.flush()).ok()?;
    loop {
        let mut line = String::new();
        let length = std::io::Read::take(&mut pipes.answers, MAX_LINE).read_line(&mut line).ok()?;
        if length == 0 {
            return None;
        }
        if let Some(answer) = line.strip_prefix(ANSWER) {
            return Some(match recording::parse_answer(answer.trim_end()) {
                Some(Ok(Answer::Text(text))) => Ok(text),
                Some(Err(refusal)) => Err(refusal),
                _ => Err(Refusal::NotSupported),
            });
        }
    }
}

/// The child's side: answers questions to drivers' libraries, one on each line of `input`, until it ends. For a hidden command of the
/// program that [`Live::with_child`](super::Live::with_child) names. Under Linux the process ends with its parent.
///
/// # Errors
/// Reading a question or writing an answer fails.
pub fn serve(input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    answer(input, &mut output, &ffi::nvml::LIBRARIES)
}

fn answer(input: impl BufRead, output: &mut impl Write, libraries: &'static [&'static str]) -> std::io::Result<()> {
    let libraries = super::nvml(libraries);
    let mut nvml = None;
    for line in input.lines() {
        let answer = match parse(line?.trim()) {
            Some(question @ Question::Nvml(_)) => match nvml.get_or_insert_with(&libraries) {
                Ok(ask) => ask(question),
                Err(refusal) => Err(refusal.clone()),
            },
            Some(Question::Vulkan) => ffi::vulkan::devices(&ffi::vulkan::LIBRARIES),
            _ => Err(Refusal::NotSupported),
        };
        // A line of its own, also where a library has left one open.
        writeln!(output, "\n{ANSWER}{}", recording::answer_text(&answer.map(Answer::text)))?;
        output.flush()?;
    }
    Ok(())
}

/// A question to a driver by its key; `None` for any other.
fn parse(key: &str) -> Option<Question> {
    let mut words = key.split(' ');
    match (words.next()?, words.next(), words.next()) {
        ("vulkan", None, None) => Some(Question::Vulkan),
        ("nvml", Some("driver"), None) => Some(Question::Nvml(NvmlQuestion::Driver)),
        ("nvml", Some("count"), None) => Some(Question::Nvml(NvmlQuestion::Count)),
        ("nvml", Some(device), Some(field)) => {
            let field = NvmlField::ALL.into_iter().find(|known| known.name() == field)?;
            Some(Question::Nvml(match device.split_once('/') {
                None => NvmlQuestion::Device(device.parse().ok()?, field),
                Some((device, slot)) => NvmlQuestion::Slice(device.parse().ok()?, slot.parse().ok()?, field),
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let mut questions = vec![Question::Vulkan, Question::Nvml(NvmlQuestion::Driver), Question::Nvml(NvmlQuestion::Count)];
        for field in NvmlField::ALL {
            questions.push(Question::Nvml(NvmlQuestion::Device(3, field)));
            questions.push(Question::Nvml(NvmlQuestion::Slice(1, 6, field)));
        }
        for question in questions {
            assert_eq!(parse(&question.to_string()), Some(question));
        }
        for key in ["os", "nvml", "nvml x name", "nvml 0 nothing", "read /etc/passwd", "vulkan 1", ""] {
            assert_eq!(parse(key), None);
        }
    }

    /// Names the library that the child of a test loads in the place of NVIDIA's.
    const FAKE: &str = "PROBE_TEST_LIBRARY";

    /// In the child of a test: what `serve` does, with another library.
    #[test]
    fn serves() {
        if let Ok(library) = std::env::var(FAKE) {
            let libraries: &'static [&'static str] = Box::leak(Box::new([&*Box::leak(library.into_boxed_str())]));
            answer(std::io::stdin().lock(), &mut std::io::stdout(), libraries).unwrap();
        }
    }

    /// The same, whether or not there is a sign of NVIDIA here.
    #[cfg(target_os = "linux")]
    fn asking(mut live: super::super::Live) -> super::super::Live {
        live.nvidia = || true;
        live
    }

    /// This machine, with a library built from `code` in the place of NVIDIA's, in a child.
    #[cfg(target_os = "linux")]
    fn live(folder: &std::path::Path, code: &str, deadline: Duration) -> Option<super::super::Live> {
        let (source, library) = (folder.join("fake.c"), folder.join("libfake.so"));
        std::fs::write(&source, code).unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).args([&library, &source]).status();
        if !built.is_ok_and(|status| status.success()) {
            println!("SKIPPED: no C compiler to build a library in the place of NVIDIA's");
            return None;
        }
        let own = std::env::current_exe().unwrap();
        let named = format!("{FAKE}={}", library.display());
        let words = ["env", &named, own.to_str().unwrap(), "--exact", "live::child::tests::serves", "--nocapture"];
        Some(asking(super::super::Live::with_deadline(deadline).with_child(words.map(OsString::from).into())))
    }

    #[cfg(target_os = "linux")]
    fn name(live: &super::super::Live, index: u32) -> Result<String, Refusal> {
        let host: &dyn crate::Host = live;
        host.text(&Question::Nvml(NvmlQuestion::Device(index, NvmlField::Name)))
    }

    /// Device 0 has a name, device 1 prints and aborts, device 2 never returns.
    #[cfg(target_os = "linux")]
    const BROKEN: &str = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        int nvmlInit_v2(void) { printf("a driver that talks"); fflush(stdout); return 0; }
        int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(long)(i + 1); return 0; }
        int nvmlDeviceGetName(void *d, char *text, unsigned n) {
            if (d == (void *)2) abort();
            if (d == (void *)3) for (;;) sleep(1000);
            strncpy(text, "NVIDIA Test GPU", n);
            return 0;
        }
    "#;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_aborts_takes_its_child_along_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let Some(live) = live(folder.path(), BROKEN, Duration::from_secs(30)) else { return };
        assert_eq!(name(&live, 0).as_deref(), Ok("NVIDIA Test GPU"));
        let ended = name(&live, 1).unwrap_err().to_string();
        assert!(ended.starts_with("the driver's library ended the process that asked it (signal: 6"), "{ended}");
        // Nothing is started again.
        assert_eq!(name(&live, 0).unwrap_err().to_string(), ended);
        let machine = crate::detect(&live).unwrap();
        assert!(machine.warnings.iter().any(|warning| warning.contains("signal: 6")), "{:?}", machine.warnings);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_hangs_costs_one_deadline_and_its_child_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let Some(live) = live(folder.path(), BROKEN, Duration::from_secs(5)) else { return };
        assert_eq!(name(&live, 0).as_deref(), Ok("NVIDIA Test GPU"));
        assert_eq!(name(&live, 2), Err(Refusal::TimedOut));
        assert_eq!(name(&live, 0), Err(Refusal::TimedOut));
        let slot = live.children[0].clone();
        let child = slot.0.lock().unwrap().as_ref().unwrap().id();
        drop(live);
        let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_that_is_not_there_is_a_refusal() {
        let live = asking(super::super::Live::new().with_child(vec!["/nowhere/program".into()]));
        assert!(name(&live, 0).unwrap_err().to_string().contains("cannot start"));
        let live = asking(super::super::Live::new().with_child(Vec::new()));
        assert_eq!(name(&live, 0), Err(Refusal::NotSupported));
    }
}
