//! "No" as a value: what was tried, what ruled each candidate out, and the nearest change that would fit.

use super::verdict::Pool;
use spec::{Bytes, Known, Settings, TokensPerSec};
use std::fmt;

/// No plan exists.
#[derive(Clone, Debug, PartialEq)]
pub struct NoPlan {
    /// Candidates, with the first rule that ruled each out.
    pub tried: Vec<Rejected>,
    /// Changes that would make a plan possible, nearest first.
    pub nearest: Vec<NearestChange>,
    /// Pins without which a plan exists; empty where the pins are not to blame.
    pub pins: Vec<&'static str>,
}

impl NoPlan {
    /// True where the engine refuses the settings whatever memory there is: nothing was too large or too slow.
    pub fn is_of_settings(&self) -> bool {
        !self.tried.is_empty() && self.tried.iter().all(|tried| matches!(tried.rejection, Rejection::NotPossible(_)))
    }

    /// True where smaller weights would be refused for the same: settings, or a context that the model was not trained for.
    pub fn is_of_any_weights(&self) -> bool {
        let same = |tried: &Rejected| matches!(tried.rejection, Rejection::NotPossible(_) | Rejection::ContextTooShort { .. });
        !self.tried.is_empty() && self.tried.iter().all(same)
    }
}

/// A candidate that is no plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// What was tried: `CPU only, 8192 tokens, KV cache in f16`.
    pub what: String,
    /// Its settings.
    pub settings: Settings,
    /// What ruled it out.
    pub rejection: Rejection,
}

/// What ruled a candidate out.
#[derive(Clone, Debug, PartialEq)]
pub enum Rejection {
    /// It needs more memory than there is.
    DoesNotFit {
        /// Where.
        pool: Pool,
        /// Upper end of what it needs.
        needs: Bytes,
        /// What may be used.
        limit: Bytes,
        /// Further memories that are too small, each with the same.
        others: Vec<(Pool, Bytes, Bytes)>,
    },
    /// Weights would be read from disk at a speed of no use.
    TooSlow {
        /// Upper end of the predicted decode speed.
        at_most: TokensPerSec,
    },
    /// The engine would not accept it, or its memory is not known.
    NotPossible(String),
    /// More tokens of one sequence are asked for than its context may hold.
    ContextTooShort {
        /// Tokens that it may hold.
        holds: u32,
        /// True where that is pinned; else it is what the model was trained for.
        pinned: bool,
    },
}

impl Rejection {
    /// The memory that is too small; `None` where something else is in the way.
    pub(crate) fn place(&self) -> Option<&Pool> {
        if let Self::DoesNotFit { pool, .. } = self { Some(pool) } else { None }
    }
    /// Bytes that are missing; nothing where something else is in the way.
    pub(crate) fn missing(&self) -> Bytes {
        let Self::DoesNotFit { needs, limit, others, .. } = self else { return Bytes::ZERO };
        others.iter().map(|(_, needs, limit)| needs.saturating_sub(*limit)).sum::<Bytes>() + needs.saturating_sub(*limit)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoesNotFit { pool, needs, limit, others } => {
                write!(f, "needs {needs} on {pool}, where {limit} may be used")?;
                others.iter().try_for_each(|(pool, needs, limit)| write!(f, ", and {needs} on {pool}, where {limit} may be used"))
            }
            Self::TooSlow { at_most } => write!(f, "would read its weights from disk for every token: {at_most} at best"),
            Self::NotPossible(why) => f.write_str(why),
            Self::ContextTooShort { holds, pinned: true } => {
                write!(f, "more than the {holds} that the pinned context has for each sequence")
            }
            Self::ContextTooShort { holds, pinned: false } => write!(f, "more than the {holds} that the model was trained for"),
        }
    }
}

/// A memory that has too little.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// Where.
    pub pool: Pool,
    /// Free memory that would do.
    pub free: Bytes,
    /// Free memory there is.
    pub have: Bytes,
}

/// A change that would make a plan possible, computed.
#[derive(Clone, Debug, PartialEq)]
pub enum NearestChange {
    /// More memory, in each of these.
    MoreMemory(Vec<Short>),
    /// Without a pin.
    Unpin {
        /// The pinned setting.
        setting: &'static str,
        /// The pinned value.
        pinned: String,
        /// The value that the plan would have.
        instead: String,
    },
    /// Weights read from disk for every token, if that is wanted ([`super::DiskPolicy::Allow`]).
    FromDisk {
        /// Decode speed then.
        decode: Known<TokensPerSec>,
    },
    /// A file of at most this size: a smaller quantisation of the same model.
    SmallerFile {
        /// Largest size of the tensors that would do.
        at_most: Bytes,
        /// Their size now.
        have: Bytes,
    },
    /// A lower floor under the context.
    LowerFloor {
        /// Tokens of a sequence.
        at_most: u32,
        /// What was asked for.
        asked: u32,
    },
    /// Requests with a shorter prompt.
    ShorterPrompt {
        /// Its tokens.
        at_most: u32,
        /// What was asked for.
        asked: u32,
    },
    /// A pinned context beyond the trained one.
    BeyondTrained {
        /// The context over all slots.
        n_ctx: u32,
    },
}

impl fmt::Display for NearestChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MoreMemory(short) => short.iter().enumerate().try_for_each(|(i, Short { pool, free, have })| {
                let and = if i > 0 { " and " } else { "" };
                write!(f, "{and}{free} free on {pool} instead of {have}")
            }),
            Self::Unpin { setting, pinned, instead } => write!(f, "{setting} {instead} instead of the pinned {pinned}"),
            Self::FromDisk { decode } => write!(f, "weights read from disk for every token, at {decode}, if you allow it"),
            Self::SmallerFile { at_most, have } => {
                write!(
                    f,
                    "a smaller quantisation: {at_most} of tensors instead of {have} ({:.0} %)",
                    at_most.as_f64() / have.as_f64() * 100.0
                )
            }
            Self::LowerFloor { at_most, asked } => write!(f, "a floor of {at_most} tokens under the context instead of {asked}"),
            Self::ShorterPrompt { at_most, asked } => write!(f, "prompts of {at_most} tokens instead of {asked}"),
            Self::BeyondTrained { n_ctx } => write!(f, "a pinned context of {n_ctx}, past the trained one, where text degrades"),
        }
    }
}

impl fmt::Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tried.last() {
            Some(last) => write!(f, "no plan: {}: {}", last.what, last.rejection)?,
            None => f.write_str("no plan: nothing to try")?,
        }
        if !self.pins.is_empty() {
            write!(f, "; would fit without the pinned {}", self.pins.join(", "))?;
        }
        for change in &self.nearest {
            write!(f, "; would fit with {change}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoPlan {}
