//! A context: tokens in, logits out.

use crate::cache::{Cache, CacheType};
use crate::layer::{Buffers, Pass};
use crate::rope::Rope;
use crate::stack::{Stack, StackError};
use crate::weights::Weights;
use kernels::{DenseScratch, Pool};
use std::sync::Arc;

/// Longest context: beyond any model's, and products of sizes stay far from overflow.
pub(crate) const MAX_CTX: usize = 1 << 24;

/// Sizes of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Tokens that it holds at most; 2²⁴ at most.
    pub n_ctx: usize,
    /// Tokens of a prompt that are computed together.
    pub n_ubatch: usize,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Threads, the caller's included.
    pub threads: usize,
}

impl Default for Options {
    /// 4096 tokens, 32 at a time, 16-bit keys and values, one thread.
    fn default() -> Self {
        Self { n_ctx: 4096, n_ubatch: 32, cache: CacheType::F16, threads: 1 }
    }
}

/// What a context cannot do.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// More tokens than it holds.
    #[error("{tokens} tokens after {past} are more than the context of {n_ctx} holds")]
    Full {
        /// Tokens that were to be added.
        tokens: usize,
        /// Tokens there are.
        past: usize,
        /// Tokens it holds.
        n_ctx: usize,
    },
    /// No token at all.
    #[error("no tokens to compute")]
    Empty,
    /// A token that is not in the vocabulary.
    #[error("token {token} is not in a vocabulary of {n_vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Tokens of the vocabulary.
        n_vocab: usize,
    },
    /// Sizes of zero, or longer than 2²⁴ tokens.
    #[error("a context of {n_ctx} tokens, {n_ubatch} at a time, cannot be")]
    Sizes {
        /// Tokens it would hold.
        n_ctx: usize,
        /// Tokens of a micro-batch.
        n_ubatch: usize,
    },
    /// A type of cache that cannot hold heads of this width.
    #[error("a cache in {cache:?} takes heads of a multiple of 32, not of {head_dim}")]
    Cache {
        /// The type.
        cache: CacheType,
        /// Width of a head.
        head_dim: usize,
    },
    /// A device with other layers than the last of this model.
    #[error("a device with {on_device} layers of a model of {n_layer}")]
    Layers {
        /// Its layers.
        on_device: usize,
        /// Those of the model.
        n_layer: usize,
    },
    /// The device that computes layers.
    #[error("layers on a device: {0}")]
    Device(StackError),
    /// The system starts no thread.
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A context of one sequence.
#[derive(Debug)]
pub struct Session {
    weights: Arc<Weights>,
    options: Options,
    cache: Cache,
    rope: Rope,
    buffers: Buffers,
    /// Computes the last layers, and logits if it has the head.
    device: Option<Box<dyn Stack>>,
    /// The last token's stream, normalised.
    last: Vec<f32>,
    /// The same as the head takes it.
    head_input: DenseScratch,
    logits: Vec<f32>,
    pool: Pool,
    past: usize,
}

impl Session {
    /// With all its memory: nothing is allocated later.
    ///
    /// # Errors
    /// Sizes that cannot be, or no thread.
    pub fn new(weights: Arc<Weights>, options: Options) -> Result<Self, SessionError> {
        Self::with_device(weights, options, None)
    }

    /// With the last layers on a device, whose context holds as many tokens: keys and values are kept here of the other layers only.
    ///
    /// # Errors
    /// As [`Session::new`], or more layers than the model has.
    pub fn with_device(weights: Arc<Weights>, options: Options, device: Option<Box<dyn Stack>>) -> Result<Self, SessionError> {
        let config = weights.config();
        let on_device = device.as_ref().map_or(0, |device| device.n_layer());
        let Some(n_layer) = config.n_layer.checked_sub(on_device) else {
            return Err(SessionError::Layers { on_device, n_layer: config.n_layer });
        };
        let Options { n_ctx, n_ubatch, cache, threads } = options;
        if n_ctx == 0 || n_ubatch == 0 || n_ctx > MAX_CTX {
            return Err(SessionError::Sizes { n_ctx, n_ubatch });
        }
        if !cache.takes(config.head_dim) {
            return Err(SessionError::Cache { cache, head_dim: config.head_dim });
        }
        Ok(Self {
            options,
            cache: Cache::new(cache, n_layer, n_ctx, config.kv_width()),
            device,
            rope: Rope::new(n_ubatch.min(n_ctx), config.head_dim, config.rope_base),
            buffers: Buffers::new(config, n_ubatch.min(n_ctx)),
            last: vec![0.0; config.n_embd],
            head_input: weights.head().scratch(),
            logits: vec![0.0; config.n_vocab],
            pool: Pool::new(threads)?,
            past: 0,
            weights,
        })
    }

    /// The sizes.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Tokens so far.
    pub fn past(&self) -> usize {
        self.past
    }

    /// Forgets the tokens from `past` on.
    pub fn rewind(&mut self, past: usize) {
        self.past = self.past.min(past);
    }

    /// Adds tokens, and returns the logits of the one that follows the last of them. Logits of the others are not computed.
    ///
    /// # Errors
    /// No tokens, one that does not exist, or more than the context holds: then none was added. A device that fails.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<&[f32], SessionError> {
        self.read_batches(tokens, true)?;
        if self.device.as_ref().is_some_and(|device| device.has_head()) {
            return Ok(&self.logits);
        }
        let width = self.weights.config.n_embd;
        let count = (tokens.len() - 1) % self.micro_batch() + 1;
        let stream = &self.buffers.x[(count - 1) * width..count * width];
        self.weights.kernel.rms_norm(stream, &self.weights.output_norm, self.weights.config.rms_eps, &mut self.last);
        self.weights.head().multiply(&self.last, &mut self.head_input, self.weights.kernel, &mut self.pool, &mut self.logits);
        Ok(&self.logits)
    }

    /// Adds tokens without asking what follows them.
    ///
    /// # Errors
    /// As [`Session::extend`].
    pub fn read(&mut self, tokens: &[u32]) -> Result<(), SessionError> {
        self.read_batches(tokens, false)
    }

    /// A micro-batch at a time; `asks` for the logits behind the last token of a device that computes them.
    fn read_batches(&mut self, tokens: &[u32], asks: bool) -> Result<(), SessionError> {
        let (past, n_ctx, n_vocab) = (self.past, self.options.n_ctx, self.weights.config.n_vocab);
        if tokens.is_empty() {
            return Err(SessionError::Empty);
        }
        if tokens.len() > n_ctx - past {
            return Err(SessionError::Full { tokens: tokens.len(), past, n_ctx });
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= n_vocab) {
            return Err(SessionError::Token { token, n_vocab });
        }
        let mut batches = tokens.chunks(self.micro_batch()).peekable();
        while let Some(batch) = batches.next() {
            self.batch(batch, asks && batches.peek().is_none())?;
        }
        Ok(())
    }

    /// What [`Session::extend`] returned last; zeros before that.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Tokens that are computed together.
    pub fn micro_batch(&self) -> usize {
        self.options.n_ubatch.min(self.options.n_ctx)
    }

    fn batch(&mut self, tokens: &[u32], asks: bool) -> Result<(), SessionError> {
        let weights = Arc::clone(&self.weights);
        let width = weights.config.n_embd;
        for (token, x) in tokens.iter().zip(self.buffers.x.chunks_exact_mut(width)) {
            weights.embedding.row(*token as usize, x);
        }
        self.rope.go_to(self.past, tokens.len());
        let mut pass = Pass {
            config: &weights.config,
            rope: &self.rope,
            cache: &mut self.cache,
            pool: &mut self.pool,
            start: self.past,
            tokens: tokens.len(),
            kernel: weights.kernel,
        };
        let here = weights.layers.len() - self.device.as_ref().map_or(0, |device| device.n_layer());
        for (i, layer) in weights.layers.iter().take(here).enumerate() {
            pass.layer(i, layer, &mut self.buffers);
        }
        if let Some(device) = &mut self.device {
            let x = &mut self.buffers.x[..tokens.len() * width];
            let asks = asks && device.has_head();
            let added = if asks { device.add_and_tell(self.past, x, &mut self.logits) } else { device.add(self.past, x) };
            added.map_err(SessionError::Device)?;
        }
        self.past += tokens.len();
        Ok(())
    }
}
