//! Signals that end us, noticed without doing anything in the handler.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The last of SIGINT, SIGTERM and SIGHUP that has come and was not taken yet.
#[derive(Clone, Debug, Default)]
pub struct Interrupts {
    signal: Arc<AtomicUsize>,
    /// One of them was SIGTERM or SIGHUP.
    ending: Arc<AtomicBool>,
}

impl Interrupts {
    /// Notices signals from now on, in place of dying of them.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> io::Result<Self> {
        let interrupts = Self::default();
        #[cfg(unix)]
        for signal in ENDING {
            // Before the number: who takes that must find this set.
            signal_hook::flag::register(signal, Arc::clone(&interrupts.ending))?;
        }
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

    /// Whether a signal has asked for the end of the program, and not only of what it is doing: SIGTERM or SIGHUP. Stays
    /// true after [`Interrupts::take`].
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// As if this signal had come.
    pub fn raise(&self, signal: i32) {
        #[cfg(unix)]
        if ENDING.contains(&signal) {
            self.ending.store(true, Ordering::SeqCst);
        }
        self.signal.store(usize::try_from(signal).unwrap_or_default(), Ordering::SeqCst);
    }
}

/// Signals after which a program should end.
#[cfg(unix)]
const ENDING: [i32; 2] = [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP];

/// The name of a signal: `SIGINT`.
pub(crate) fn name(signal: i32) -> String {
    #[cfg(unix)]
    if let Some(name) = signal_hook::low_level::signal_name(signal) {
        return name.to_owned();
    }
    format!("signal {signal}")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_an_interrupt_leaves_the_program_running() {
        let interrupts = Interrupts::none();
        interrupts.raise(signal_hook::consts::SIGINT);
        assert_eq!((interrupts.take(), interrupts.is_ending()), (Some(signal_hook::consts::SIGINT), false));
        interrupts.raise(signal_hook::consts::SIGTERM);
        assert_eq!((interrupts.take(), interrupts.is_ending()), (Some(signal_hook::consts::SIGTERM), true));
        interrupts.raise(signal_hook::consts::SIGINT);
        assert!(interrupts.is_ending());
    }
}
