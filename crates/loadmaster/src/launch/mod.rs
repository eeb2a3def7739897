//! LAUNCH: start an engine with a plan, watch it, talk to it, end it, and bring home what it used.
//!
//! * [`bundled`]: the engine inside this program, in a child process of the same executable, so that its aborts become
//!   errors here
//! * [`mod@bitnet`]: our own engine for BitNet models, in this process
//! * [`server`]: an external llama-server
//! * [`supervise`]: the few lines that tie a child's life to ours
//!
//! No child outlives its parent: [`Drop`] and signals end it in order, and the kernel ends it where the parent is killed.

pub mod bitnet;
pub mod bundled;
mod log;
mod memory;
mod port;
pub mod server;
mod signals;
pub mod supervise;

pub use log::{BufferUse, ReportedBuffer};
pub use memory::ProcessMemory;
pub use signals::Interrupts;
pub(crate) use signals::name as signal_name;

use crate::engine::EngineError;
use crate::error::exit;
use spec::TokensPerSec;
use std::path::PathBuf;
use std::time::Duration;

/// What happens while an engine runs, as it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The engine's process is there.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// A new stage of loading has begun.
    Stage(Stage),
    /// How much of what has to be in memory is there, 0 to 1; an estimate for external engines.
    Progress(f32),
    /// A line of the engine's log.
    Log(&'a str),
    /// What is done otherwise than planned, and why.
    Warning(&'a str),
    /// A piece of generated text.
    Text(&'a str),
    /// A server answers at this address.
    Ready {
        /// Address: `http://127.0.0.1:8080`.
        url: &'a str,
    },
}

/// Stages of loading, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The process starts, drivers load.
    Starting,
    /// Metadata and vocabulary are read.
    ReadingHeader,
    /// Weights come into memory.
    LoadingWeights,
    /// Cache and compute buffers are made.
    MakingContext,
    /// A first run over nothing.
    WarmingUp,
    /// It answers.
    Ready,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::ReadingHeader => "reading the header",
            Self::LoadingWeights => "loading weights",
            Self::MakingContext => "making the context",
            Self::WarmingUp => "warming up",
            Self::Ready => "ready",
        })
    }
}

/// Tokens, the time they took, and where in their contexts they stood.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timing {
    /// Tokens computed.
    pub tokens: u64,
    /// Time for all of them.
    pub time: Duration,
    /// Pieces of text that they were of, each one token after another; 0 where that is not known.
    pub pieces: u64,
    /// Tokens before each of them in its context, added up over all of them; of no meaning where `pieces` is 0.
    pub earlier: u64,
}

impl Timing {
    /// One piece of text, behind `past` tokens of its context.
    ///
    /// ```
    /// use loadmaster::launch::Timing;
    /// use std::time::Duration;
    ///
    /// let mut timing = Timing::behind(100, 3, Duration::from_millis(30));
    /// assert_eq!((timing.depth(), timing.length()), (Some(101.0), Some(3.0)));
    /// timing.add(Timing::behind(200, 1, Duration::from_millis(10)));
    /// assert_eq!((timing.depth(), timing.length()), (Some(125.75), Some(2.0)));
    /// ```
    pub fn behind(past: u64, tokens: u64, time: Duration) -> Self {
        let earlier = tokens.saturating_mul(past).saturating_add(tokens.saturating_mul(tokens.saturating_sub(1)) / 2);
        Self { tokens, time, pieces: (tokens > 0).into(), earlier }
    }

    /// Tokens of which nobody says where they stood.
    pub fn somewhere(tokens: u64, time: Duration) -> Self {
        Self { tokens, time, ..Self::default() }
    }

    /// Adds another measurement.
    pub fn add(&mut self, other: Self) {
        let known = |timing: &Self| timing.pieces > 0 || timing.tokens == 0;
        let places = if known(self) && known(&other) {
            (self.pieces.saturating_add(other.pieces), self.earlier.saturating_add(other.earlier))
        } else {
            (0, 0)
        };
        (self.pieces, self.earlier) = places;
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.time = self.time.saturating_add(other.time);
    }
    /// The rate; `None` where nothing was measured.
    pub fn rate(&self) -> Option<TokensPerSec> {
        if self.time.is_zero() {
            return None;
        }
        TokensPerSec::new(self.tokens as f64 / self.time.as_secs_f64())
    }
    /// Tokens before each of these, on average; `None` where that is not known.
    pub fn depth(&self) -> Option<f64> {
        (self.pieces > 0 && self.tokens > 0).then(|| self.earlier as f64 / self.tokens as f64)
    }
    /// Tokens of a piece, on average; `None` where that is not known.
    pub fn length(&self) -> Option<f64> {
        (self.pieces > 0 && self.tokens > 0).then(|| self.tokens as f64 / self.pieces as f64)
    }
}

/// What an engine used and did, from start to end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The engine in its own words.
    pub engine: String,
    /// From start to readiness.
    pub load: Option<Duration>,
    /// What it allocated, as it reports it.
    pub buffers: Vec<ReportedBuffer>,
    /// Its process right after loading.
    pub memory_at_load: ProcessMemory,
    /// Its process when last seen.
    pub memory: ProcessMemory,
    /// Prompt tokens computed.
    pub prefill: Timing,
    /// Tokens generated.
    pub decode: Timing,
    /// Remarks: settings from outside the plan, things that could not be measured.
    pub notes: Vec<String>,
    /// A device of the plan was missing or went away: from then on the CPU computed all layers, and `buffers` are those of the CPU.
    pub without_device: bool,
}

/// Why a launch failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// There is no engine to launch.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The system does not start the program.
    #[error("cannot start {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The port that was asked for is taken, or the address is none of this machine.
    #[error("cannot listen on {host}:{port}: {source}")]
    Port {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The engine ended although nobody told it to.
    #[error("the engine ended while {during}, {status}{}", log::told(log))]
    Ended {
        /// What it was doing.
        during: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The engine shows no sign of life.
    #[error("the engine shows no progress for {} s while {during}{}", silence.as_secs_f64(), log::told(log))]
    Silent {
        /// What it was doing.
        during: String,
        /// How long we waited.
        silence: Duration,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The engine says that it cannot do what was asked.
    #[error("the engine refuses: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
        /// True where memory was refused.
        memory: bool,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The engine says what no engine says.
    #[error("the engine answers against the protocol: {what}")]
    Protocol {
        /// What came.
        what: String,
    },
    /// A signal ended the launch.
    #[error("interrupted by {signal}")]
    Interrupted {
        /// Its name.
        signal: String,
    },
}

impl LaunchError {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Engine(_) => exit::NO_ENGINE,
            Self::Port { .. } => exit::USAGE,
            _ => exit::LAUNCH,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Engine(error) => return error.hint(),
            Self::Port { .. } => "name another port, or none to have a free one chosen".into(),
            Self::Ended { status, .. } if status.contains("SIGKILL") => {
                "the system kills with SIGKILL what takes too much memory: see `dmesg`, plan with a larger margin or a smaller context"
                    .into()
            }
            Self::Ended { status, .. } if status.contains("SIGILL") => {
                "the engine was built for another processor: use another build of it".into()
            }
            Self::Ended { .. } => "-v shows the whole log of the engine".into(),
            Self::Silent { .. } => "a slow disk needs a longer --engine-timeout; -v shows the log of the engine".into(),
            Self::Refused { memory: true, .. } => {
                "other programs may have taken memory since the plan: plan again, or with a larger margin".into()
            }
            _ => return None,
        })
    }

    /// The last lines of the engine's log, oldest first.
    pub fn log(&self) -> &[String] {
        match self {
            Self::Ended { log, .. } | Self::Silent { log, .. } | Self::Refused { log, .. } => log,
            _ => &[],
        }
    }
}

/// How long an engine may show no sign of life while it loads: no line of log, no growth of its memory.
pub const SILENCE: Duration = Duration::from_secs(120);

/// How long an engine may take to end after it was asked to.
pub const GRACE: Duration = Duration::from_secs(10);
