//! Operations that the engine computes as one only where each of them runs on its layer's own device: it looks at the graph of
//! one token per sequence, operation by operation, and spells out those that would not (`resolve_fused_ops`,
//! llama-context.cpp:500-590).

/// One of these operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fusion {
    /// Softmax attention; only where flash attention is `auto`.
    Attention,
    /// What a block reads of several streams.
    StreamsRead,
    /// How streams are mixed.
    StreamsMixed,
    /// What a block writes to several streams.
    StreamsWritten,
}

impl Fusion {
    /// In the engine's order.
    pub(super) const ALL: [Self; 4] = [Self::Attention, Self::StreamsRead, Self::StreamsMixed, Self::StreamsWritten];
}

/// Some of these operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fusions(u8);

impl Fusions {
    /// All of them.
    pub(super) const ALL: Self = Self(0b1111);
    /// None of them.
    pub(super) const NONE: Self = Self(0);

    /// True where this one is among them.
    pub(super) const fn has(self, fusion: Fusion) -> bool {
        self.0 & 1 << fusion as u8 != 0
    }
    /// These and one more.
    pub(super) const fn with(self, fusion: Fusion) -> Self {
        Self(self.0 | 1 << fusion as u8)
    }
    /// These but for one.
    pub(super) const fn without(self, fusion: Fusion) -> Self {
        Self(self.0 & !(1 << fusion as u8))
    }
    /// These and those.
    pub(super) const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}
