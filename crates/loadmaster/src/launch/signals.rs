//! Signals that end us, noticed without doing anything in the handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The last of SIGINT, SIGTERM and SIGHUP that has come and was not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Interrupts {
    signal: Arc<AtomicUsize>,
}

impl Interrupts {
    /// Notices signals from now on, in place of dying of them.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let interrupts = Self::default();
        #[cfg(unix)]
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&interrupts.signal), number)?;
        }
        Ok(interrupts)
    }

    /// One that never sees a signal by itself; [`Interrupts::raise`] still works.
    pub fn none() -> Self {
        Self::default()
    }

    /// The signal that has come, once.
    pub fn take(&self) -> Option<i32> {
        match self.signal.swap(0, Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }

    /// As if this signal had come.
    pub fn raise(&self, signal: i32) {
        self.signal.store(usize::try_from(signal).unwrap_or_default(), Ordering::SeqCst);
    }
}

/// The name of a signal: `SIGINT`.
pub(crate) fn name(signal: i32) -> String {
    #[cfg(unix)]
    if let Some(name) = signal_hook::low_level::signal_name(signal) {
        return name.to_owned();
    }
    format!("signal {signal}")
}
