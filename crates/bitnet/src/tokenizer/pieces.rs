//! What each token prints.

use spec::vocabulary::{TokenKind, Vocabulary};
use tokenizers::decoders::DecoderWrapper;

/// The space of SentencePiece.
pub(super) const SPACE: char = '\u{2581}';

/// How tokens spell bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A printable character per byte, as GPT-2 has it.
    ByteLevel,
    /// Text, with [`SPACE`] for spaces, and `<0x0A>` for bytes that no token writes.
    SentencePiece,
}

/// Bytes of all tokens, one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<usize>,
}

impl Pieces {
    pub(super) fn of(vocabulary: &Vocabulary) -> Self {
        let spelling = if vocabulary.model == "gpt2" { Spelling::ByteLevel } else { Spelling::SentencePiece };
        let mut pieces = Self::default();
        for (id, token) in vocabulary.tokens.iter().enumerate() {
            match vocabulary.kind(id) {
                TokenKind::Control | TokenKind::Unknown | TokenKind::Unused => {}
                TokenKind::UserDefined => pieces.bytes.extend(token.as_bytes()),
                TokenKind::Normal | TokenKind::Byte => pieces.spelled(token, spelling),
            }
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    pub(super) fn of_tokenizer(tokenizer: &tokenizers::Tokenizer) -> Self {
        let spelling = match tokenizer.get_decoder() {
            Some(DecoderWrapper::ByteLevel(_)) => Spelling::ByteLevel,
            _ => Spelling::SentencePiece,
        };
        let added = tokenizer.get_added_tokens_decoder();
        // Ids may have gaps: the table goes to the last.
        let last = tokenizer.get_vocab(true).into_values().max();
        let mut pieces = Self::default();
        for id in 0..last.map_or(0, |last| last.saturating_add(1)) {
            match (added.get(&id), tokenizer.id_to_token(id)) {
                (Some(token), _) if token.special => {}
                (Some(token), _) => pieces.bytes.extend(token.content.as_bytes()),
                (None, Some(token)) => pieces.spelled(&token, spelling),
                (None, None) => {}
            }
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    fn spelled(&mut self, token: &str, spelling: Spelling) {
        match (spelling, byte(token)) {
            (Spelling::ByteLevel, _) => {
                for letter in token.chars() {
                    match byte_of(letter) {
                        Some(byte) => self.bytes.push(byte),
                        None => self.bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
            (Spelling::SentencePiece, Some(byte)) => self.bytes.push(byte),
            (Spelling::SentencePiece, None) => self.bytes.extend(token.replace(SPACE, " ").as_bytes()),
        }
    }

    pub(super) fn get(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let start = at.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(usize::MAX));
        self.ends.get(at).and_then(|&end| self.bytes.get(start..end)).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// The byte of `<0x0A>`.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The byte that a character of GPT-2's alphabet stands for: those that print stand for themselves, the others are counted from U+0100.
fn byte_of(letter: char) -> Option<u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(letter) {
        code @ 0..=0xFF => Some(code as u8).filter(|&byte| prints(byte)),
        code => (0..=u8::MAX).filter(|&byte| !prints(byte)).nth((code - 0x100) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn every_byte_has_its_letter() {
        let letters = ByteLevel::alphabet();
        let mut bytes: Vec<u8> = letters.iter().filter_map(|letter| byte_of(*letter)).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        // Ġ is a space and Ċ a new line, as everyone knows them.
        assert_eq!(['Ġ', 'Ċ', 'A', 'é'].map(byte_of), [Some(b' '), Some(b'\n'), Some(b'A'), Some(0xE9)]);
        assert_eq!((byte_of(' '), byte_of('€')), (None, None));
    }

    #[test]
    fn bytes_are_spelled_in_two_digits() {
        assert_eq!(["<0x0A>", "<0xFF>", "<0xF>", "<0x0A", "a"].map(byte), [Some(10), Some(255), None, None, None]);
    }
}
