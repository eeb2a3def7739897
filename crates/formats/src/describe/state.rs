//! The state that a recurrent layer keeps per sequence.
//!
//! Mirrors `llama_hparams::n_embd_r` and `n_embd_s` of `src/llama-hparams.cpp:208-270` (llama.cpp v0.6.0-dev, crate
//! llama-cpp-sys-2 0.1.161).

use super::error::DescribeError;
use super::figures::Figures;
use super::keys::Keys;
use spec::model::Recurrent;

/// The state of the architecture's recurrent layers; an error names the key without which there is none.
pub(super) fn need(keys: &Keys<'_>, figures: &Figures) -> Result<Recurrent, DescribeError> {
    let key = match keys.architecture.as_str() {
        "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => "wkv.head_size",
        "lfm2" | "lfm2moe" => "shortconv.l_cache",
        "kimi-linear" => {
            keys.need("ssm.conv_kernel")?;
            "kda.head_dim"
        }
        "minimax-01" => return Ok(linear_attention(figures)),
        _ => {
            for key in ["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"] {
                keys.need(key)?;
            }
            "ssm.time_step_rank"
        }
    };
    keys.need(key)?;
    let missing = || DescribeError::MissingKey { key: keys.full(key) };
    state(keys, figures)?.ok_or_else(missing)
}

/// The state that the file's keys describe, by whichever kind they belong to.
pub(super) fn state(keys: &Keys<'_>, figures: &Figures) -> Result<Option<Recurrent>, DescribeError> {
    let n_embd = u64::from(figures.n_embd);
    let n_head = u64::from(figures.n_head_first());
    let count = |key: &str| keys.count(key).map(|count| u64::from(count.unwrap_or(0)));
    let (kernel, inner, state) = (count("ssm.conv_kernel")?, count("ssm.inner_size")?, count("ssm.state_size")?);
    let recurrent = |kind: &str, r_elements: u64, s_elements: u64| Some(Recurrent { kind: kind.to_owned(), r_elements, s_elements });

    let wkv = count("wkv.head_size")?;
    if wkv > 0 {
        let shift = u64::from(keys.count("token_shift_count")?.unwrap_or(2));
        return Ok(recurrent("rwkv", shift.saturating_mul(n_embd), n_embd.saturating_mul(wkv)));
    }
    let short = count("shortconv.l_cache")?;
    if short > 0 {
        return Ok(recurrent("short-conv", n_embd.saturating_mul(short - 1), state.saturating_mul(inner)));
    }
    let kda = count("kda.head_dim")?;
    if kda > 0 {
        let width = if kernel > 0 { kernel - 1 } else { 3 };
        let r = [3, width, n_head, kda].iter().fold(1, |product: u64, &factor| product.saturating_mul(factor));
        return Ok(recurrent("kda", r, kda.saturating_mul(kda).saturating_mul(n_head)));
    }
    if inner == 0 {
        return Ok(None);
    }
    let groups = count("ssm.group_count")?;
    let columns = inner.saturating_add(groups.saturating_mul(state).saturating_mul(2));
    let kind = match keys.architecture.as_str() {
        "qwen3next" | "qwen35" | "qwen35moe" => "gated-delta-net",
        "plamo2" => "plamo2-mamba",
        _ if groups > 0 => "mamba2",
        _ => "mamba",
    };
    Ok(recurrent(kind, kernel.saturating_sub(1).saturating_mul(columns), state.saturating_mul(inner)))
}

fn linear_attention(figures: &Figures) -> Recurrent {
    let width = u64::from(figures.head_full.0);
    let s_elements = width.saturating_mul(width).saturating_mul(figures.n_head_first().into());
    Recurrent { kind: "linear-attention".to_owned(), r_elements: 0, s_elements }
}
