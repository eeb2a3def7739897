//! The tokenizer of a GGUF file's vocabulary.

use super::TokenizerError;
use super::pieces::SPACE;
use spec::vocabulary::{TokenKind, Vocabulary};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// How Llama 3 cuts a text, and BitNet b1.58 2B-4T with it (`gpu/tokenizer.py` of microsoft/BitNet): contractions, words with what stands
/// before them, up to three digits, signs, ends of lines, spaces.
const LLAMA3: &str =
    concat!(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|", r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+");

/// The tokenizer that merges as the vocabulary says.
pub(super) fn tokenizer(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let tokens = vocabulary.tokens.len();
    if tokens == 0 {
        return Err(TokenizerError::NoTokens);
    }
    for (what, found) in [("scores", vocabulary.scores.len()), ("kinds", vocabulary.kinds.len())] {
        if found != 0 && found != tokens {
            return Err(TokenizerError::Length { what, tokens, found });
        }
    }
    let mut tokenizer = match vocabulary.model.as_str() {
        "gpt2" => byte_level(vocabulary)?,
        "llama" => sentencepiece(vocabulary)?,
        other => return Err(TokenizerError::Model(other.to_owned())),
    };
    let of = |kind: TokenKind| {
        let of_kind = vocabulary.tokens.iter().enumerate().filter(move |(id, _)| vocabulary.kind(*id) == kind);
        of_kind.map(move |(_, token)| AddedToken::from(token.as_str(), kind == TokenKind::Control).normalized(false))
    };
    tokenizer.add_special_tokens(&of(TokenKind::Control).collect::<Vec<_>>());
    tokenizer.add_tokens(&of(TokenKind::UserDefined).collect::<Vec<_>>());
    Ok(tokenizer)
}

fn byte_level(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TokenizerError> {
    match vocabulary.pre.as_deref() {
        // The official files state nothing: their model is cut as Llama 3.
        None | Some("llama-bpe" | "llama3" | "llama-v3" | "default") => {}
        Some(other) => return Err(TokenizerError::Pre(other.to_owned())),
    }
    let split = Split::new(SplitPattern::Regex(LLAMA3.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, false, false);
    // A piece that is a token as a whole is not merged: llama3 ranks some of its tokens that no merge makes.
    let model = BPE::builder().vocab_and_merges(ids(vocabulary), merges(vocabulary)?).ignore_merges(true).build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
    tokenizer.with_decoder(Some(bytes));
    Ok(tokenizer)
}

/// SentencePiece joins the two neighbours whose sum has the highest score: every token as the sums that make it, best token first.
fn sentencepiece(vocabulary: &Vocabulary) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let ids = ids(vocabulary);
    let mut sums: Vec<(f32, (String, String))> = Vec::new();
    for (token, &score) in vocabulary.tokens.iter().zip(&vocabulary.scores) {
        let halves = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let known = halves.filter(|(left, right)| ids.contains_key(*left) && ids.contains_key(*right));
        sums.extend(known.map(|(left, right)| (score, (left.to_owned(), right.to_owned()))));
    }
    sums.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut builder = BPE::builder().vocab_and_merges(ids, sums.into_iter().map(|(_, sum)| sum).collect());
    if let Some(unknown) = vocabulary.unknown.and_then(|id| vocabulary.tokens.get(id as usize)) {
        builder = builder.unk_token(unknown.clone());
    }
    let model = builder.byte_fallback(true).fuse_unk(true).build()?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let spaces = Replace::new(" ", SPACE.to_string())?;
    let mut normalizers = vec![spaces.into()];
    if vocabulary.add_space_prefix.unwrap_or(true) {
        normalizers.insert(0, Prepend::new(SPACE.to_string()).into());
    }
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));
    Ok(tokenizer)
}

fn ids(vocabulary: &Vocabulary) -> Vocab {
    // Of tokens that are spelled the same the first counts.
    vocabulary.tokens.iter().enumerate().rev().map(|(id, token)| (token.clone(), id as u32)).collect()
}

fn merges(vocabulary: &Vocabulary) -> Result<Merges, TokenizerError> {
    let pair = |(number, merge): (usize, &String)| {
        let halves = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let halves = halves.map(|(left, right)| (left.to_owned(), right.to_owned()));
        halves.ok_or_else(|| TokenizerError::Merge { number, merge: merge.clone() })
    };
    vocabulary.merges.iter().enumerate().map(pair).collect()
}
