//! Sliding windows: how wide, and in which layers.

use super::error::DescribeError;
use super::figures::Figures;
use super::keys::Keys;

const WIDTH: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";

/// Which layers slide a window, where the file's own key `attention.sliding_window_pattern` (a list of flags, or a
/// period) does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pattern {
    /// One layer of each `layers` sees everything: the last of them, or the first.
    Period {
        /// Length of the period.
        layers: u32,
        /// True where the first layer of each period is the full one.
        full_first: bool,
    },
    /// Every layer.
    All,
    /// The file must say.
    Listed,
}

/// When an architecture slides a window, and how wide one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// Never, whatever the file says.
    None,
    /// Where the file states a width above zero.
    Optional(Pattern),
    /// Always; the file must state the width.
    Required(Pattern),
    /// Always, by this width where the file states none.
    Default(u32, Pattern),
    /// By this width where the file states any above zero (SmallThinker).
    Fixed(u32, Pattern),
    /// By this width unless the file states zero (Llama 4's chunks).
    UnlessZero(u32, Pattern),
    /// In models of 64 layers only, by this width where the file states none (EXAONE 4).
    With64Layers(u32, Pattern),
}

/// The window of each layer; `None` for layers that see everything.
pub(super) fn windows(keys: &Keys<'_>, figures: &Figures, rule: Rule) -> Result<Vec<Option<u32>>, DescribeError> {
    let stated = keys.count(WIDTH);
    let (width, pattern) = match rule {
        Rule::None => (0, Pattern::All),
        Rule::Optional(pattern) => (stated?.unwrap_or(0), pattern),
        Rule::Required(pattern) => (keys.need(WIDTH)?, pattern),
        Rule::Default(width, pattern) => (stated?.unwrap_or(width), pattern),
        Rule::Fixed(width, pattern) => (if stated?.unwrap_or(0) > 0 { width } else { 0 }, pattern),
        Rule::UnlessZero(width, pattern) => (if stated? == Some(0) { 0 } else { width }, pattern),
        Rule::With64Layers(width, pattern) if figures.n_layer() == 64 => (stated?.unwrap_or(width), pattern),
        Rule::With64Layers(_, pattern) => (0, pattern),
    };
    if width == 0 {
        return Ok(vec![None; figures.n_layer_all as usize]);
    }
    let slides = slides(keys, figures, pattern)?;
    Ok(slides.into_iter().map(|slides| slides.then_some(width)).collect())
}

/// `llama_model_base::load_swa_pattern` and `llama_hparams::set_swa_pattern`.
fn slides(keys: &Keys<'_>, figures: &Figures, pattern: Pattern) -> Result<Vec<bool>, DescribeError> {
    let n = figures.n_layer_all;
    if pattern == Pattern::All {
        return Ok((0..n).map(|layer| layer < figures.n_layer()).collect());
    }
    if let Some(flags) = keys.flags(PATTERN, n)? {
        return Ok(flags);
    }
    let Pattern::Period { layers, full_first } = pattern else {
        return Err(DescribeError::MissingKey { key: keys.full(PATTERN) });
    };
    let period = keys.count(PATTERN)?.unwrap_or(layers);
    let full = |layer: u32| match period {
        0 => false,
        _ if full_first => layer.is_multiple_of(period),
        _ => layer % period == period - 1,
    };
    Ok((0..n).map(|layer| layer < figures.n_layer() && !full(layer)).collect())
}
