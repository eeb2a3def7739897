//! A vocabulary in SentencePiece's layout that llama.cpp loads and that can write any text: control tokens, one token
//! per byte, printable ASCII, then pronounceable words to fill the table.

pub(crate) mod byte_level;

use crate::writer::Value;

/// Token types of `llama_token_type` (`include/llama.h`).
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

const BOS: u32 = 1;
const EOS: u32 = 2;
/// Control tokens and bytes come first; a smaller table could not write every text.
pub(crate) const MIN_TOKENS: u64 = 3 + 256 + 2;

/// Turns between the marks of ChatML.
const CHAT_TEMPLATE: &str = "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The tokenizer section for a table of `n_vocab` tokens, at least [`MIN_TOKENS`].
pub(crate) fn sentencepiece(n_vocab: u64) -> Vec<(String, Value)> {
    let mut tokens: Vec<(String, i32)> = vec![("<unk>".into(), UNKNOWN), ("<s>".into(), CONTROL), ("</s>".into(), CONTROL)];
    tokens.extend((0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
    tokens.extend(["<|im_start|>", "<|im_end|>"].map(|mark| (mark.to_owned(), CONTROL)));
    let end_of_turn = tokens.len() as u32 - 1;
    let ascii = (b'!'..=b'~').map(|byte| char::from(byte).to_string());
    let pieces = std::iter::once("\u{2581}".to_owned()).chain(ascii).chain((0..).map(|n| format!("\u{2581}{}", word(n))));
    let n_vocab = usize::try_from(n_vocab).unwrap_or(usize::MAX);
    let missing = n_vocab.saturating_sub(tokens.len());
    tokens.extend(pieces.take(missing).map(|piece| (piece, NORMAL)));
    tokens.truncate(n_vocab);

    // SentencePiece merges the pair with the highest score first: earlier pieces win.
    let scores = tokens.iter().enumerate().map(|(id, (_, kind))| if *kind == NORMAL { -(id as f32) } else { 0.0 });
    let scores = Value::array(scores);
    let kinds = Value::array(tokens.iter().map(|(_, kind)| *kind));
    let entries = [
        ("tokenizer.ggml.model", Value::from("llama")),
        ("tokenizer.ggml.pre", "default".into()),
        ("tokenizer.ggml.tokens", Value::array(tokens.into_iter().map(|(token, _)| token))),
        ("tokenizer.ggml.scores", scores),
        ("tokenizer.ggml.token_type", kinds),
        ("tokenizer.ggml.bos_token_id", BOS.into()),
        ("tokenizer.ggml.eos_token_id", EOS.into()),
        ("tokenizer.ggml.eot_token_id", end_of_turn.into()),
        ("tokenizer.ggml.unknown_token_id", 0_u32.into()),
        ("tokenizer.ggml.add_bos_token", true.into()),
        ("tokenizer.ggml.add_eos_token", false.into()),
        ("tokenizer.chat_template", CHAT_TEMPLATE.into()),
    ];
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}

/// No tokenizer: tokens are numbers.
pub(crate) fn none() -> Vec<(String, Value)> {
    vec![("tokenizer.ggml.model".to_owned(), "no_vocab".into())]
}

/// The n-th word, all different: syllables as the digits of a bijective number.
fn word(n: u64) -> String {
    const CONSONANTS: &[u8; 16] = b"bdfgjklmnprstvwz";
    const VOWELS: &[u8; 5] = b"aeiou";
    const SYLLABLES: u64 = (CONSONANTS.len() * VOWELS.len()) as u64;
    let mut word = Vec::new();
    let mut rest = n + 1;
    while rest > 0 {
        let digit = (rest - 1) % SYLLABLES;
        rest = (rest - 1) / SYLLABLES;
        word.push(VOWELS[digit as usize % VOWELS.len()]);
        word.push(CONSONANTS[digit as usize / VOWELS.len()]);
    }
    word.iter().rev().map(|&letter| char::from(letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn tokens(n: u64) -> Vec<String> {
        let section = sentencepiece(n);
        let Some((_, Value::Array { items, .. })) = section.iter().find(|(key, _)| key == "tokenizer.ggml.tokens") else {
            panic!("no tokens");
        };
        items.iter().map(|item| if let Value::Text(text) = item { text.clone() } else { panic!("{item:?}") }).collect()
    }

    #[test]
    fn the_table_is_full_and_every_token_is_different() {
        for n in [MIN_TOKENS, MIN_TOKENS + 1, 512, 40000] {
            let tokens = tokens(n);
            assert_eq!(tokens.len() as u64, n);
            assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len() as u64, n);
        }
        assert_eq!(tokens(512)[3 + 10], "<0x0A>");
    }

    #[test]
    fn words_can_be_spoken() {
        assert_eq!([0, 1, 79, 80, 6480].map(word), ["ba", "be", "zu", "baba", "bababa"]);
    }
}
