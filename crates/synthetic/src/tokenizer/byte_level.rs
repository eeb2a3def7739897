//! A vocabulary in the layout of Llama 3's byte-level BPE: one token per byte, then pronounceable words that merges make, and the marks at
//! the end of the table. Keys are those of the file of BitNet b1.58 2B-4T, which states neither how texts are cut nor the end of a turn.

use super::{CONTROL, NORMAL, word};
use crate::writer::Value;

/// Marks at the end of the table, of which the first ten have names or numbers of their own.
pub(crate) const MARKS: u64 = 256;
/// A token per byte, some words, and the marks.
pub(crate) const MIN_TOKENS: u64 = 256 + 256 + MARKS;

/// The form of `gpu/tokenizer.py` of microsoft/BitNet.
pub(crate) const CHAT_TEMPLATE: &str = "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}\
    {{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

/// The space in GPT-2's alphabet.
const SPACE: char = '\u{120}';

/// Tokens and merges of a table of `n_vocab` tokens, at least [`MIN_TOKENS`]; the marks are the last [`MARKS`].
pub(crate) fn table(n_vocab: u64) -> (Vec<String>, Vec<String>) {
    let regular = usize::try_from(n_vocab.saturating_sub(MARKS)).unwrap_or(usize::MAX);
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| letter(byte).to_string()).collect();
    let mut merges = Vec::new();
    let mut add = |left: &str, right: &str| {
        tokens.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
        tokens.len() < regular
    };
    // A word is what it was without its last syllable, and that; a syllable is its letters.
    for n in 0.. {
        let text = word(n);
        let cut = if text.len() == 2 { 1 } else { text.len() - 2 };
        let (left, right) = text.split_at(cut);
        if !(add(left, right) && add(&SPACE.to_string(), &text)) {
            break;
        }
    }
    let named = [(0, "<|begin_of_text|>"), (1, "<|end_of_text|>"), (6, "<|start_header_id|>"), (7, "<|end_header_id|>"), (9, "<|eot_id|>")];
    tokens.extend((0..MARKS).map(|mark| match named.iter().find(|(at, _)| *at == mark) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("<|reserved_special_token_{mark}|>"),
    }));
    (tokens, merges)
}

/// The tokenizer section for a table of `n_vocab` tokens, at least [`MIN_TOKENS`].
pub(crate) fn byte_level(n_vocab: u64) -> Vec<(String, Value)> {
    let (tokens, merges) = table(n_vocab);
    let begin = tokens.len().saturating_sub(MARKS as usize) as u32;
    let kinds = Value::array((0..tokens.len()).map(|id| if id < begin as usize { NORMAL } else { CONTROL }));
    let scores = Value::array(tokens.iter().map(|_| 0.0_f32));
    let entries = [
        ("tokenizer.ggml.add_bos_token", Value::from(true)),
        ("tokenizer.ggml.model", "gpt2".into()),
        ("tokenizer.ggml.tokens", Value::array(tokens)),
        ("tokenizer.ggml.scores", scores),
        ("tokenizer.ggml.token_type", kinds),
        ("tokenizer.ggml.merges", Value::array(merges)),
        ("tokenizer.ggml.bos_token_id", begin.into()),
        ("tokenizer.ggml.eos_token_id", (begin + 1).into()),
        ("tokenizer.ggml.padding_token_id", (begin + 1).into()),
        ("tokenizer.chat_template", CHAT_TEMPLATE.into()),
    ];
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}

/// The character of a byte: those that print are themselves, the others are counted from U+0100.
fn letter(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match prints(byte) {
        true => char::from(byte),
        false => char::from_u32(0x100 + (0..byte).filter(|&other| !prints(other)).count() as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_is_full_and_merges_are_pairs_of_tokens_before_them() {
        for n in [MIN_TOKENS, MIN_TOKENS + 1, 40_000] {
            let section = byte_level(n);
            let list = |key: &str| match section.iter().find(|(name, _)| name == key) {
                Some((_, Value::Array { items, .. })) => {
                    items.iter().map(|item| if let Value::Text(text) = item { text.clone() } else { panic!("{item:?}") }).collect()
                }
                other => panic!("{other:?}"),
            };
            let (tokens, merges): (Vec<String>, Vec<String>) = (list("tokenizer.ggml.tokens"), list("tokenizer.ggml.merges"));
            assert_eq!((tokens.len() as u64, merges.len() as u64), (n, n - MARKS - 256));
            assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len() as u64, n);
            let mut known: BTreeSet<&str> = tokens[..256].iter().map(String::as_str).collect();
            for (merge, token) in merges.iter().zip(&tokens[256..]) {
                let (left, right) = merge.split_once(' ').unwrap();
                assert!(known.contains(left) && known.contains(right) && format!("{left}{right}") == *token, "{merge}");
                known.insert(token);
            }
        }
    }

    #[test]
    fn letters_are_those_of_gpt2() {
        assert_eq!([b' ', b'\n', b'A', 0xE9, 0xAD].map(letter), ['Ġ', 'Ċ', 'A', 'é', '\u{143}']);
    }
}
