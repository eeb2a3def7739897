//! Small vocabularies whose tokens can be checked by hand.

use super::*;
use spec::Utf8Stream;
use spec::vocabulary::TokenKind;

/// A byte-level vocabulary: these pieces, every byte, and two marks.
fn byte_level() -> Vocabulary {
    let mut letters: Vec<char> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let mut tokens: Vec<String> = letters.iter().map(char::to_string).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "12 3", "ð Ł"];
    tokens.extend(merges.map(|merge| merge.replace(' ', "")));
    let mut kinds = vec![TokenKind::Normal; tokens.len()];
    tokens.extend(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "hello there"].map(str::to_owned));
    kinds.extend([TokenKind::Control, TokenKind::Control, TokenKind::Control, TokenKind::UserDefined]);
    let id = |text: &str| tokens.iter().position(|token| token == text).map(|at| at as u32);
    Vocabulary {
        model: "gpt2".into(),
        bos: id("<|begin_of_text|>"),
        eos: id("<|end_of_text|>"),
        merges: merges.map(str::to_owned).into(),
        kinds,
        tokens,
        ..Vocabulary::default()
    }
}

/// A SentencePiece vocabulary: marks, every byte, and pieces, best first.
fn sentencepiece() -> Vocabulary {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    let mut kinds = vec![TokenKind::Unknown, TokenKind::Control, TokenKind::Control];
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), TokenKind::Byte);
    tokens.extend(["\u{2581}", "a", "b", "c", "ab", "bc", "\u{2581}ab", "abc"].map(str::to_owned));
    kinds.resize(tokens.len(), TokenKind::Normal);
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    Vocabulary { model: "llama".into(), bos: Some(1), eos: Some(2), unknown: Some(0), scores, kinds, tokens, ..Vocabulary::default() }
}

fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.spelling(id).unwrap()).collect()
}

fn printed(tokenizer: &Tokenizer, text: &str) -> String {
    let mut stream = Utf8Stream::default();
    let tokens = tokenizer.encode(text).unwrap();
    let mut out: String = tokens.iter().map(|&token| stream.push(tokenizer.piece(token))).collect();
    out.push_str(&stream.finish());
    out
}

#[test]
fn merges_are_taken_in_their_order_within_pieces_of_the_llama3_cut() {
    let tokenizer = Tokenizer::from_vocabulary(&byte_level()).unwrap();
    assert_eq!(spelled(&tokenizer, "hello world"), ["<|begin_of_text|>", "hello", "Ġw", "o", "r", "l", "d"]);
    // Three digits are a piece, so no merge joins the third and the fourth.
    assert_eq!(spelled(&tokenizer, "12312"), ["<|begin_of_text|>", "123", "12"]);
    assert_eq!(spelled(&tokenizer, "he'll"), ["<|begin_of_text|>", "he", "'", "ll"]);
    assert_eq!(spelled(&tokenizer, ""), ["<|begin_of_text|>"]);
}

#[test]
fn marks_are_understood_and_the_beginning_is_written_once() {
    let tokenizer = Tokenizer::from_vocabulary(&byte_level()).unwrap();
    let expected = ["<|begin_of_text|>", "he", "<|eot_id|>", "hello there"];
    assert_eq!(spelled(&tokenizer, "he<|eot_id|>hello there"), expected);
    assert_eq!(spelled(&tokenizer, "<|begin_of_text|>he<|eot_id|>hello there"), expected);
    assert_eq!(printed(&tokenizer, "he<|eot_id|>hello there"), "hehello there", "marks are not printed");
}

#[test]
fn both_ends_stop_a_text_though_the_file_states_one() {
    let vocabulary = byte_level();
    let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
    let ends: Vec<u32> = (0..vocabulary.tokens.len() as u32).filter(|&id| tokenizer.is_end(id)).collect();
    let eos = vocabulary.eos.unwrap();
    assert_eq!(ends, [eos, eos + 1]);
}

#[test]
fn a_character_spread_over_tokens_is_printed_whole() {
    let tokenizer = Tokenizer::from_vocabulary(&byte_level()).unwrap();
    let tokens = tokenizer.encode("a🦙b").unwrap();
    // Two of the four bytes are one token.
    assert_eq!(tokens.len(), 1 + 1 + 3 + 1);
    let mut stream = Utf8Stream::default();
    let pieces: Vec<String> = tokens.iter().map(|&token| stream.push(tokenizer.piece(token))).collect();
    assert_eq!(pieces, ["", "a", "", "", "🦙", "b"]);
}

#[test]
fn scores_decide_what_sentencepiece_joins() {
    let tokenizer = Tokenizer::from_vocabulary(&sentencepiece()).unwrap();
    // "ab" has a better score than "bc", and "▁ab" a better one than "abc".
    assert_eq!(spelled(&tokenizer, "abc"), ["<s>", "\u{2581}ab", "c"]);
    assert_eq!(spelled(&tokenizer, "a bc"), ["<s>", "\u{2581}", "a", "\u{2581}", "bc"]);
    assert_eq!(spelled(&tokenizer, "é"), ["<s>", "\u{2581}", "<0xC3>", "<0xA9>"]);
    assert_eq!(printed(&tokenizer, "abc é\n"), " abc é\n", "the space before a text is printed as any other");
    let plain = Vocabulary { add_space_prefix: Some(false), add_bos: Some(false), ..sentencepiece() };
    assert_eq!(spelled(&Tokenizer::from_vocabulary(&plain).unwrap(), "abc"), ["abc"]);
}

#[test]
fn any_text_comes_back_from_both() {
    for (vocabulary, before) in [(byte_level(), ""), (sentencepiece(), " ")] {
        let tokenizer = Tokenizer::from_vocabulary(&vocabulary).unwrap();
        for text in ["  two  spaces\r\n\n", "naïve — 東京 🦙🏽 ", "'S 1234567 it's", "\u{0}\u{7f}\u{a0}"] {
            assert_eq!(printed(&tokenizer, text), format!("{before}{text}"));
        }
    }
}

#[test]
fn a_tokenizer_json_gives_the_same_tokens() {
    let tokenizer = Tokenizer::from_vocabulary(&byte_level()).unwrap();
    let json = tokenizer.inner.to_string(false).unwrap();
    let again = Tokenizer::from_json(json.as_bytes(), &[]).unwrap();
    for text in ["hello world 12312", "a🦙b<|eot_id|>"] {
        let tokens = again.encode(text).unwrap();
        // Without a rule for single texts nothing comes before them.
        assert_eq!(tokens, tokenizer.encode(text).unwrap()[1..]);
        assert!(tokens.iter().all(|&token| again.piece(token) == tokenizer.piece(token)));
    }
    assert!(again.is_end(byte_level().eos.unwrap()) && again.n_tokens() == tokenizer.n_tokens());
    assert!(Tokenizer::from_json(b"{}", &[]).is_err());
}

#[test]
fn what_is_no_vocabulary_is_refused_by_name() {
    let error = |change: &dyn Fn(&mut Vocabulary)| {
        let mut vocabulary = byte_level();
        change(&mut vocabulary);
        Tokenizer::from_vocabulary(&vocabulary).unwrap_err().to_string()
    };
    assert_eq!(error(&|v| v.tokens.clear()), "the file lists no tokens");
    assert_eq!(error(&|v| v.model = "bert".into()), "vocabularies of this kind are not known (gpt2 and llama are): bert");
    let pre = "texts are cut in a way that is not known (llama-bpe, llama3 and default are): qwen2";
    assert_eq!(error(&|v| v.pre = Some("qwen2".into())), pre);
    assert_eq!(error(&|v| v.kinds.truncate(3)), "kinds for 268 tokens: 3");
    assert_eq!(error(&|v| v.merges[1] = "ll".into()), "merge 1 is no pair of tokens: ll");
    assert_eq!(error(&|v| v.eos = Some(268)), "token 268 is not in a vocabulary of 268");
    let unknown = error(&|v| v.merges[1] = "l €".into());
    assert!(unknown.starts_with("tokenizer: "), "{unknown}");
}
