//! The engine's log: caught per thread, and handed to one sink.
//!
//! llama.cpp has one log callback per process and writes lines in pieces. Lines are put together per thread, because a load
//! logs from its caller's thread only.

use crate::protocol::LogLevel;
use llama_cpp_sys_2 as sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, Once, PoisonError};

type Sink = Box<dyn Fn(LogLevel, &str) + Send>;

static SINK: Mutex<Option<Sink>> = Mutex::new(None);
static INSTALL: Once = Once::new();

#[derive(Default)]
struct Thread {
    captured: Option<Vec<Line>>,
    level: Option<LogLevel>,
    partial: String,
}

thread_local! {
    static THREAD: RefCell<Thread> = RefCell::new(Thread::default());
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub level: LogLevel,
    pub text: String,
}

/// Lines caught while something ran.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(pub Vec<Line>);

impl Log {
    /// The last line that contains `mark`, from there on.
    pub fn after(&self, mark: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|line| line.text.split_once(mark).map(|(_, rest)| rest))
    }

    /// What went wrong, in the engine's words: its errors without the names of its functions; else its warnings.
    pub fn complaint(&self) -> String {
        for level in [LogLevel::Error, LogLevel::Warn] {
            let found: Vec<_> = self.0.iter().filter(|line| line.level == level).map(|line| plain(&line.text)).collect();
            if !found.is_empty() {
                return found.join("; ");
            }
        }
        "the engine gave no reason".to_owned()
    }
}

/// A line without the name of the function that wrote it.
fn plain(text: &str) -> &str {
    match text.split_once(": ") {
        Some((name, rest)) if !name.contains(' ') => rest.trim(),
        _ => text.trim(),
    }
}

/// Sends every line to `sink` from now on.
pub(crate) fn send_to(sink: impl Fn(LogLevel, &str) + Send + 'static) {
    *SINK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(sink));
    install();
}

/// Runs `work` and returns with its result what the engine logged meanwhile from this thread.
pub(crate) fn capture<T>(work: impl FnOnce() -> T) -> (T, Log) {
    install();
    THREAD.with_borrow_mut(|thread| thread.captured = Some(Vec::new()));
    let result = work();
    let lines = THREAD.with_borrow_mut(|thread| {
        end_line(thread);
        thread.captured.take()
    });
    (result, Log(lines.unwrap_or_default()))
}

/// Makes this module the engine's log; once per process.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        // SAFETY: `on_log` is a function of the required signature that lives as long as the process and needs no data.
        unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
    });
}

extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: the engine passes a terminated string that lives until this function returns.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // `try_with`: a thread that ends may log after its locals are gone; its last words are lost.
    let _ = THREAD.try_with(|thread| {
        let Ok(mut thread) = thread.try_borrow_mut() else { return };
        if level != sys::GGML_LOG_LEVEL_CONT {
            end_line(&mut thread);
            thread.level = level_of(level);
        }
        let mut pieces = text.split('\n');
        thread.partial.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let level = thread.level;
            end_line(&mut thread);
            thread.level = level;
            thread.partial.push_str(piece);
        }
    });
}

fn end_line(thread: &mut Thread) {
    let text = std::mem::take(&mut thread.partial);
    let Some(level) = thread.level.take() else { return };
    if text.trim().is_empty() {
        return;
    }
    if let Some(sink) = SINK.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        sink(level, &text);
    }
    if let Some(captured) = &mut thread.captured {
        captured.push(Line { level, text });
    }
}

fn level_of(level: sys::ggml_log_level) -> Option<LogLevel> {
    match level {
        sys::GGML_LOG_LEVEL_DEBUG => Some(LogLevel::Debug),
        sys::GGML_LOG_LEVEL_WARN => Some(LogLevel::Warn),
        sys::GGML_LOG_LEVEL_ERROR => Some(LogLevel::Error),
        sys::GGML_LOG_LEVEL_INFO => Some(LogLevel::Info),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    fn say(level: sys::ggml_log_level, text: &str) {
        let text = CString::new(text).unwrap();
        on_log(level, text.as_ptr(), std::ptr::null_mut());
    }

    #[test]
    fn pieces_become_lines_and_errors_lose_their_function() {
        let ((), log) = capture(|| {
            say(sys::GGML_LOG_LEVEL_INFO, "load: nodes = 9, ");
            say(sys::GGML_LOG_LEVEL_CONT, "splits = 2 / 1\n");
            say(sys::GGML_LOG_LEVEL_ERROR, "load: no such\tfile\nload: gave up");
            say(sys::GGML_LOG_LEVEL_WARN, "\n");
        });
        let lines: Vec<_> = log.0.iter().map(|line| (line.level, line.text.as_str())).collect();
        assert_eq!(
            lines,
            [
                (LogLevel::Info, "load: nodes = 9, splits = 2 / 1"),
                (LogLevel::Error, "load: no such\tfile"),
                (LogLevel::Error, "load: gave up"),
            ]
        );
        assert_eq!(log.after("splits = "), Some("2 / 1"));
        assert_eq!(log.complaint(), "no such\tfile; gave up");
    }
}
