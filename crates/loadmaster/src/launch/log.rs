//! An engine's log: what it says about its memory, where it stands, and its last lines.
//!
//! Formats: `llama-model.cpp` (`load_tensors: ... model buffer size`), `llama-kv-cache.cpp`, `llama-context.cpp`
//! (`output`, `compute`) of llama.cpp v0.6.0-dev and 0.7.0; sizes are printed in MiB with two decimals.

use super::Stage;
use serde::{Deserialize, Serialize};
use spec::Bytes;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines kept for error messages.
const TAIL: usize = 40;

/// Lines that wait for somebody to take them; older ones are dropped from the queue, not from the log's facts.
const WAITING: usize = 4096;

/// A longer line is cut.
const MAX_LINE: u64 = 16 << 10;

/// What a buffer is for, as far as engines tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferUse {
    /// Model weights.
    Weights,
    /// KV cache and recurrent state.
    Context,
    /// Compute buffers.
    Compute,
    /// Logits and embeddings for the application.
    Output,
}

/// A buffer that an engine reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedBuffer {
    /// ggml's name of the buffer type: `CPU_Mapped`, `CUDA0`, ...
    pub buffer_type: String,
    /// What it is for.
    pub usage: BufferUse,
    /// Its size.
    pub size: Bytes,
    /// The size may be off by this much, because it was printed rounded.
    pub rounding: Bytes,
}

/// What a log has told so far.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub stage: Option<Stage>,
    pub buffers: Vec<ReportedBuffer>,
    /// Lines seen, to tell a silent engine from a busy one.
    pub lines: u64,
    tail: VecDeque<String>,
    waiting: VecDeque<String>,
}

impl Facts {
    pub(super) fn line(&mut self, line: &str) {
        self.lines += 1;
        if let Some(buffer) = buffer(line) {
            self.add(buffer);
        }
        self.stage = self.stage.max(stage(line));
        push(&mut self.tail, line, TAIL);
        push(&mut self.waiting, line, WAITING);
    }

    /// Caches of several kinds add up; compute and output buffers are made anew and replace each other.
    fn add(&mut self, buffer: ReportedBuffer) {
        let adds = matches!(buffer.usage, BufferUse::Weights | BufferUse::Context);
        match self.buffers.iter_mut().find(|known| known.buffer_type == buffer.buffer_type && known.usage == buffer.usage) {
            Some(known) if adds => {
                known.size += buffer.size;
                known.rounding += buffer.rounding;
            }
            Some(known) => *known = buffer,
            None => self.buffers.push(buffer),
        }
    }

    /// The last lines, oldest first.
    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    /// Lines that nobody has taken yet.
    pub(super) fn take_waiting(&mut self) -> Vec<String> {
        self.waiting.drain(..).collect()
    }
}

fn push(queue: &mut VecDeque<String>, line: &str, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(line.to_owned());
}

/// A log that threads fill while another one looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Facts>>);

impl Log {
    /// Reads a stream to its end in a thread of its own.
    pub(super) fn follow(&self, stream: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            loop {
                let mut line = Vec::new();
                match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                    // An error is an end: the other side of the pipe is gone.
                    Ok(0) | Err(_) => return,
                    Ok(_) => log.facts().line(String::from_utf8_lossy(&line).trim_end()),
                }
            }
        })
    }

    /// What it has told so far.
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        // A poisoned lock means that a reader died between two lines; what it had noted is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `load_tensors:   CPU_Mapped model buffer size =   136.40 MiB`, with any prefix.
fn buffer(line: &str) -> Option<ReportedBuffer> {
    let (left, right) = line.split_once(" buffer size =")?;
    let mut words = left.split_whitespace().rev();
    let usage = match words.next()? {
        "model" => BufferUse::Weights,
        "KV" | "RS" => BufferUse::Context,
        "compute" => BufferUse::Compute,
        "output" => BufferUse::Output,
        _ => return None,
    };
    let buffer_type = words.next()?.to_owned();
    let number = right.trim().strip_suffix("MiB")?.trim();
    let mib: f64 = number.parse().ok().filter(|mib: &f64| mib.is_finite() && *mib >= 0.0)?;
    let decimals = number.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let step = 0.5 / 10f64.powi(i32::try_from(decimals).unwrap_or(0));
    let one = Bytes::from_mib(1);
    Some(ReportedBuffer { buffer_type, usage, size: one.scale(mib), rounding: one.scale(step) })
}

/// The stage that a line announces.
fn stage(line: &str) -> Option<Stage> {
    let has = |text: &str| line.contains(text);
    if has("llama_model_loader: loaded meta data") {
        Some(Stage::ReadingHeader)
    } else if has("load_tensors: loading model tensors") {
        Some(Stage::LoadingWeights)
    } else if has("llama_context: constructing llama_context") {
        Some(Stage::MakingContext)
    } else if has("warming up the model") {
        Some(Stage::WarmingUp)
    } else {
        None
    }
}

/// The line of a log that tells most: the last that speaks of an error, else the last. For the end of a message.
pub(super) fn told(log: &[String]) -> String {
    let speaks = |line: &&String| {
        let lower = line.to_lowercase();
        ["error", "failed", "assert", "abort", "out of memory", "unable", "invalid"].iter().any(|word| lower.contains(word))
    };
    let line = log.iter().rev().find(speaks).or_else(|| log.iter().rev().find(|line| !line.trim().is_empty()));
    line.map_or_else(String::new, |line| format!(": {}", line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(log: &str) -> Facts {
        let mut facts = Facts::default();
        log.lines().for_each(|line| facts.line(line));
        facts
    }

    #[test]
    fn buffers_are_read_from_either_style_of_log() {
        let facts = read(
            "0.00.188.629 I load_tensors:   CPU_Mapped model buffer size =   136.40 MiB\n\
             load_tensors:        CUDA0 model buffer size =  4095.05 MiB\n\
             llama_context:  CUDA_Host  output buffer size =     0.19 MiB\n\
             llama_kv_cache:      CUDA0 KV buffer size =    22.50 MiB\n\
             llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB\n\
             llama_memory_recurrent:        CPU RS buffer size =     1.25 MiB\n\
             sched_reserve:        CPU compute buffer size =    99.00 MiB\n\
             sched_reserve:        CPU compute buffer size =    15.64 MiB\n\
             something else buffer size = 3\nfoo model buffer size = nan MiB\n",
        );
        let sizes: Vec<_> =
            facts.buffers.iter().map(|b| (b.buffer_type.as_str(), b.usage, (b.size.as_mib() * 100.0).round() / 100.0)).collect();
        assert_eq!(
            sizes,
            [
                ("CPU_Mapped", BufferUse::Weights, 136.4),
                ("CUDA0", BufferUse::Weights, 4095.05),
                ("CUDA_Host", BufferUse::Output, 0.19),
                ("CUDA0", BufferUse::Context, 32.5),
                ("CPU", BufferUse::Context, 1.25),
                ("CPU", BufferUse::Compute, 15.64),
            ]
        );
        assert_eq!(facts.buffers[0].rounding, Bytes::new(5242));
    }

    #[test]
    fn stages_only_go_forward() {
        let mut facts = read("I load_tensors: loading model tensors, this can take a while... (load_mode = mmap)");
        assert_eq!(facts.stage, Some(Stage::LoadingWeights));
        facts.line("llama_model_loader: loaded meta data with 27 key-value pairs");
        assert_eq!(facts.stage, Some(Stage::LoadingWeights));
    }

    #[test]
    fn the_line_that_tells_most_is_the_last_error() {
        let log = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            told(&log(&["loading", "E llama_model_load: error loading model: bad magic", "cleaning up", ""])),
            ": E llama_model_load: error loading model: bad magic"
        );
        assert_eq!(told(&log(&["a", "b", " "])), ": b");
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn nothing_grows_without_bound() {
        let mut facts = Facts::default();
        (0..10_000).for_each(|n| facts.line(&n.to_string()));
        assert_eq!((facts.tail().len(), facts.take_waiting().len(), facts.lines), (TAIL, WAITING, 10_000));
        assert!(facts.take_waiting().is_empty());
        let log = Log::default();
        log.follow(std::io::Cursor::new(vec![b'x'; 100_000])).join().unwrap();
        assert!(log.facts().lines >= 6);
    }

    proptest::proptest! {
        #[test]
        fn no_line_breaks_it(line in "\\PC{0,80}( buffer size =)?\\PC{0,20}(MiB)?") {
            Facts::default().line(&line);
        }
    }
}
