//! What there is to do: bytes to read and operations to compute, from the shape of a model.

use crate::conditions::Conditions;

/// Ways of storing weights that engines read at similar speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quant {
    /// Floating point.
    Float,
    /// `Q8_0`.
    Q8,
    /// `Q6_K`.
    Q6,
    /// `Q4_K`, `Q5_K`.
    Q4K,
    /// `Q2_K`, `Q3_K`.
    Q3K,
    /// `Q4_0` and its likes.
    Q4,
    /// Code books.
    Iq,
    /// `MXFP4`.
    Mx,
}

impl Quant {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Q8 => "q8",
            Self::Q6 => "q6",
            Self::Q4K => "q4k",
            Self::Q3K => "q3k",
            Self::Q4 => "q4",
            Self::Iq => "iq",
            Self::Mx => "mx",
        }
    }
}

/// A model as a device sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Bytes of weights that a single token reads, the output matrix included, the embedding table not.
    pub active_bytes: f64,
    /// Bytes of all weights but the embedding table.
    pub all_bytes: f64,
    /// Weights that a single token multiplies with, without the output matrix.
    pub active_elements: f64,
    /// Weights of the output matrix.
    pub output_elements: f64,
    /// How most of them are stored.
    pub quant: Quant,
    /// Layers.
    pub layers: f64,
    /// Width of the residual stream.
    pub width: f64,
    /// Bytes of keys and values per token of context and layer with attention.
    pub cache_bytes: f64,
    /// Layers whose attention reaches over the whole context.
    pub full_layers: f64,
    /// Layers whose attention reaches over `window` tokens.
    pub window_layers: f64,
    /// Tokens in the window.
    pub window: f64,
    /// Query heads × their width.
    pub query_width: f64,
    /// Experts per layer and how many of them a token uses; `None` for dense models.
    pub experts: Option<(f64, f64)>,
}

/// A number of tokens passed through a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The model.
    pub shape: Shape,
    /// Tokens in the context before the first of these.
    pub depth: f64,
    /// Tokens that are generated, or read.
    pub tokens: f64,
    /// Tokens of one micro-batch in prefill.
    pub ubatch: f64,
}

impl Work {
    /// The model as attention meets it: layers with a window read all cells of their cache, and mask what lies outside of the window. llama.cpp
    /// gives such a cache the window and a micro-batch (`llama_kv_cache_iswa` from PR 13194 on); builds before it the whole context.
    pub(crate) fn attended(&self, conditions: &Conditions) -> Shape {
        let whole = conditions.era.as_deref() == Some("early");
        let window = if whole { f64::INFINITY } else { self.shape.window + self.ubatch };
        Shape { window, ..self.shape.clone() }
    }
}

impl Shape {
    /// Bytes of the cache that one token at `depth` reads.
    pub fn cache_read(&self, depth: f64) -> f64 {
        self.cache_bytes * (self.full_layers * depth + self.window_layers * depth.min(self.window))
    }

    /// Bytes of weights that a micro-batch reads: dense ones once, of the experts those that at least one token is routed to,
    /// E·(1 − (1 − k/E)^tokens) of E when routes are independent.
    pub fn batch_bytes(&self, tokens: f64) -> f64 {
        let Some((all, used)) = self.experts.filter(|&(all, used)| all > used && used > 0.0) else { return self.active_bytes };
        // One expert's share of the bytes of all layers: what all experts have beyond those used.
        let one = (self.all_bytes - self.active_bytes).max(0.0) / (all - used);
        let distinct = all * (1.0 - (1.0 - used / all).powf(tokens));
        self.active_bytes + one * (distinct - used).max(0.0)
    }

    /// Weights that a token of a micro-batch of `tokens` multiplies with, counting what kernels compute for nothing: an expert's
    /// tokens are padded to whole tiles, which are as wide as the micro-batch up to `widest` tokens, those of the kernels' widest tile
    /// (`mul_mat_q_case` of llama.cpp's `mmq.cuh` takes the width that needs the fewest tiles for all tokens, whichever expert they go to).
    pub fn padded_elements(&self, tokens: f64, widest: f64) -> f64 {
        let Some((all, used)) = self.experts.filter(|&(all, used)| all > used && used > 0.0) else { return self.active_elements };
        let tokens = tokens.max(1.0);
        let distinct = all * (1.0 - (1.0 - used / all).powf(tokens));
        let (tile, each) = (tokens.min(widest.max(1.0)), tokens * used / distinct);
        // The last tile is half empty on average; one there is at least.
        let padded = (each + (tile - 1.0) / 2.0).max(tile);
        self.active_elements * (1.0 + self.routed() * (padded / each - 1.0).max(0.0))
    }

    /// Bytes of half-precision numbers, written once and read once, of all weights but experts' in a micro-batch.
    pub fn unpacked_bytes(&self) -> f64 {
        4.0 * self.active_elements * (1.0 - self.routed())
    }

    /// Bytes of activations that a token's passage writes and reads: what every product gives, and the residual stream with its norms, all of
    /// four bytes.
    pub fn activation_bytes(&self) -> f64 {
        /// Passes over the residual stream in a layer: two norms, two additions, what goes into attention and out of it.
        const PASSES: f64 = 8.0;
        4.0 * (2.0 * self.active_elements / self.width.max(1.0) + PASSES * self.layers * self.width)
    }

    /// Operations of attention of `tokens` tokens after `depth`: two products of width `query_width` with every earlier token.
    pub fn attention_operations(&self, depth: f64, tokens: f64) -> f64 {
        let mean = depth + tokens / 2.0;
        4.0 * self.query_width * tokens * (self.full_layers * mean + self.window_layers * mean.min(self.window))
    }

    /// Bytes of attention's scores of `tokens` tokens after `depth` where they pass through memory: a number of four bytes per head, token
    /// and earlier token, written by the first product, read and written by the softmax, and read by the second.
    pub fn score_bytes(&self, depth: f64, tokens: f64) -> f64 {
        /// Usual width of a head.
        const HEAD: f64 = 128.0;
        let scores = self.attention_operations(depth, tokens) / (4.0 * HEAD);
        4.0 * 4.0 * scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(experts: Option<(f64, f64)>) -> Shape {
        Shape {
            active_bytes: 2e9,
            all_bytes: if experts.is_some() { 16e9 } else { 2e9 },
            active_elements: 3e9,
            output_elements: 3e8,
            quant: Quant::Q4K,
            layers: 48.0,
            width: 2048.0,
            cache_bytes: 2048.0,
            full_layers: 48.0,
            window_layers: 0.0,
            window: 0.0,
            query_width: 4096.0,
            experts,
        }
    }

    #[test]
    fn tiles_are_padded_for_experts_and_by_less_the_more_tokens_there_are() {
        assert_eq!(shape(None).padded_elements(512.0, 128.0), 3e9);
        let padded = |tokens| shape(Some((128.0, 8.0))).padded_elements(tokens, 128.0) / 3e9;
        assert!((padded(1.0) - 1.0).abs() < 1e-9, "{}", padded(1.0));
        // 32 tokens of 512 go to an expert, which computes 128.
        let routed = shape(Some((128.0, 8.0))).routed();
        assert!((padded(512.0) - (1.0 + 3.0 * routed)).abs() < 1e-6, "{}", padded(512.0));
        assert!(padded(2048.0) < padded(512.0) && padded(1e6) < 1.01, "{} {}", padded(2048.0), padded(1e6));
    }

    #[test]
    fn narrower_tiles_are_padded_less_and_experts_are_not_unpacked_at_once() {
        let padded = |widest| shape(Some((128.0, 8.0))).padded_elements(512.0, widest);
        assert!(padded(32.0) < padded(64.0) && padded(64.0) < padded(128.0) && padded(1.0) == 3e9);
        let unpacked = |experts| shape(experts).unpacked_bytes();
        assert!(unpacked(None) == 12e9 && unpacked(Some((128.0, 8.0))) < 12e9);
    }

    #[test]
    fn activations_grow_with_what_is_computed() {
        let more = Shape { active_elements: 6e9, ..shape(None) };
        assert!(shape(None).activation_bytes() > 4.0 * 2.0 * 3e9 / 2048.0 && more.activation_bytes() > shape(None).activation_bytes());
    }
}
