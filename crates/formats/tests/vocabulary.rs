//! Vocabularies of whole files.

use formats::GgufErrorKind;
use formats::gguf::vocabulary;
use spec::vocabulary::TokenKind;
use synthetic::{FileType, Options, Shape, demo, gguf};

#[allow(clippy::unwrap_used, reason = "a file that cannot be made fails the tests")]
fn header() -> (Vec<u8>, spec::Bytes) {
    let file = gguf(&Shape { n_layer: 1, n_vocab: 300, ..demo() }, FileType::Q8_0, &Options::default()).unwrap();
    (file.header.clone(), file.size)
}

#[test]
fn a_vocabulary_is_read_whole() {
    let (header, size) = header();
    let found = vocabulary(&header, size).unwrap();
    assert_eq!((found.model.as_str(), found.pre.as_deref(), found.tokens.len()), ("llama", Some("default"), 300));
    assert_eq!((found.scores.len(), found.kinds.len(), found.merges.len()), (300, 300, 0));
    assert_eq!((found.bos, found.eos, found.eot, found.unknown, found.add_bos), (Some(1), Some(2), Some(260), Some(0), Some(true)));
    let at = |id: usize| (found.tokens[id].as_str(), found.kind(id));
    assert_eq!((at(0), at(2)), (("<unk>", TokenKind::Unknown), ("</s>", TokenKind::Control)));
    assert_eq!((at(3 + 10), at(261)), (("<0x0A>", TokenKind::Byte), ("\u{2581}", TokenKind::Normal)));
    assert!(found.scores.is_sorted_by(|a, b| *a == 0.0 || *b == 0.0 || a > b));
    assert!(found.chat_template.unwrap().contains("add_generation_prompt"));
}

#[test]
fn a_prefix_of_any_length_asks_for_more_or_has_the_vocabulary() {
    let (header, size) = header();
    let whole = vocabulary(&header, size).unwrap();
    for length in 0..header.len() {
        match vocabulary(&header[..length], size) {
            Ok(found) => assert_eq!(found, whole),
            Err(error) => assert!(matches!(error.kind, GgufErrorKind::NeedMore { .. } | GgufErrorKind::Empty), "{length}: {error}"),
        }
    }
}

#[test]
fn lists_of_other_types_are_refused_with_their_key() {
    let (mut header, size) = header();
    let key = b"tokenizer.ggml.tokens";
    let at = header.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    // Type of the value, then type of its elements: text becomes u32.
    assert_eq!(header[at..at + 8], [9, 0, 0, 0, 8, 0, 0, 0]);
    header[at + 4] = 4;
    let error = vocabulary(&header, size).unwrap_err();
    assert_eq!(error.offset, at as u64 + 4);
    assert_eq!(error.kind.to_string(), "key tokenizer.ggml.tokens cannot be a list of U32");
}
