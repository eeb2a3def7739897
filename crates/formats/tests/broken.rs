//! Every way in which a file can be broken that we know of, and what is said about it.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use formats::gguf::{self, GgufError, GgufErrorKind};
use spec::{Bytes, QuantType};
use std::fmt::Write;
use support::{Build, llama};
use synthetic::writer::Value;

fn error(bytes: &[u8], size: u64) -> GgufError {
    gguf::read(bytes, Bytes::new(size)).unwrap_err()
}

fn messages(cases: &[(&str, GgufError)]) -> String {
    cases.iter().fold(String::new(), |mut text, (name, error)| {
        let _ = writeln!(text, "{name}: {error}");
        if let Some(hint) = error.hint() {
            let _ = writeln!(text, "    hint: {hint}");
        }
        text
    })
}

#[test]
fn other_files_are_named() {
    let whole = |bytes: &[u8]| error(bytes, bytes.len() as u64);
    let mut safetensors = 20_u64.to_le_bytes().to_vec();
    safetensors.extend(br#"{"__metadata__":{}} "#);
    let v = |version: u32, tail: &[u8]| [b"GGUF", version.to_le_bytes().as_slice(), tail].concat();
    insta::assert_snapshot!(messages(&[
        ("empty", whole(b"")),
        ("text", whole("Hälft of a poem\n".as_bytes())),
        ("page", whole(b"\n<!DOCTYPE html><title>404</title>")),
        ("git lfs", whole(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")),
        ("safetensors", whole(&safetensors)),
        ("pytorch", whole(b"PK\x03\x04\x00\x00\x08\x08")),
        ("pickle", whole(b"\x80\x02}q\x00.")),
        ("ggjt", whole(b"tjgg\x03\0\0\0")),
        ("gzip", whole(b"\x1f\x8b\x08\0\0\0")),
        ("keras", whole(b"\x89HDF\r\n\x1a\n")),
        ("zeros", whole(&[0; 64])),
        ("noise", whole(&[0xde, 0xad, 0xbe, 0xef])),
        ("one byte", whole(&[0xff])),
        ("version 0", whole(&v(0, &[0; 16]))),
        ("version 1", whole(&v(1, &[0; 8]))),
        ("version 4", whole(&v(4, &[0; 16]))),
        ("big-endian", whole(b"GGUF\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")),
        ("only the magic", whole(b"GGUF")),
        ("half the magic", whole(b"GG")),
    ]), @r"
    empty: byte 0: the file is empty
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    text: byte 0: not a GGUF file: a text file
    page: byte 0: not a GGUF file: a web page
        hint: the download saved a page, often a login or an error, instead of the file
    git lfs: byte 0: not a GGUF file: a Git LFS pointer, the file itself was not fetched
        hint: run git lfs pull in the folder of the file
    safetensors: byte 0: not a GGUF file: safetensors
        hint: convert the model with llama.cpp's convert_hf_to_gguf.py, or fetch its GGUF file
    pytorch: byte 0: not a GGUF file: a ZIP archive or PyTorch checkpoint
        hint: convert the model with llama.cpp's convert_hf_to_gguf.py, or fetch its GGUF file
    pickle: byte 0: not a GGUF file: a Python pickle
        hint: convert the model with llama.cpp's convert_hf_to_gguf.py, or fetch its GGUF file
    ggjt: byte 0: not a GGUF file: a ggml file from before GGUF (2023)
        hint: fetch a GGUF file of the model
    gzip: byte 0: not a GGUF file: a compressed file
        hint: unpack the file first
    keras: byte 0: not a GGUF file: HDF5
        hint: convert the model with llama.cpp's convert_hf_to_gguf.py, or fetch its GGUF file
    zeros: byte 0: not a GGUF file: only zeros
        hint: the download was reserved on disk but not filled: fetch the file again
    noise: byte 0: not a GGUF file: begins with the bytes de ad be ef
    one byte: byte 0: not a GGUF file: begins with the bytes ff 00 00 00
    version 0: byte 4: GGUF version not known (2 and 3 are): 0
        hint: the file may be newer than this program: update it
    version 1: byte 4: GGUF version 1, which no engine reads since 2023
        hint: convert the model again with llama.cpp's convert_hf_to_gguf.py, or fetch a newer file
    version 4: byte 4: GGUF version not known (2 and 3 are): 4
        hint: the file may be newer than this program: update it
    big-endian: byte 4: big-endian GGUF, version 3
        hint: fetch the little-endian file, or turn this one with gguf-py's gguf_convert_endian.py
    only the magic: byte 4: the file ends inside the header: version needs 4 B, left 0 B
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    half the magic: byte 0: the file ends inside the header: magic needs 4 B, left 2 B
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    ");
}

#[test]
fn absurd_counts_and_lengths_are_refused_before_anything_is_allocated() {
    let huge = (1_u64 << 63).to_le_bytes();
    let start = |tensors: u64, pairs: u64| [b"GGUF\x03\0\0\0".as_slice(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat();
    let with = |parts: &[&[u8]]| [start(0, 1).as_slice(), &parts.concat()].concat();
    let key: &[u8] = b"\x01\0\0\0\0\0\0\0k";
    let ty = |id: u32| id.to_le_bytes();
    let long_file = |bytes: &[u8]| error(bytes, 1 << 50);
    insta::assert_snapshot!(messages(&[
        ("tensors 2^63", long_file(&start(1 << 63, 0))),
        ("pairs 2^63", long_file(&start(0, 1 << 63))),
        ("more tensors than fit", error(&start(1000, 0), 100)),
        ("more pairs than fit", error(&start(0, 1000), 100)),
        ("key of 2^63", long_file(&with(&[&huge]))),
        ("key of 2^20", long_file(&with(&[&(1_u64 << 20).to_le_bytes()]))),
        ("string of 2^63", long_file(&with(&[key, &ty(8), &huge]))),
        ("string of 2^39 past the end", error(&with(&[key, &ty(8), &(1_u64 << 39).to_le_bytes()]), 200)),
        ("string of 2^40 past the end", error(&with(&[key, &ty(8), &(1_u64 << 40).to_le_bytes()]), 200)),
        ("string of 2^40", long_file(&with(&[key, &ty(8), &(1_u64 << 40).to_le_bytes()]))),
        ("array of 2^63", long_file(&with(&[key, &ty(9), &ty(4), &huge]))),
        ("array past the end", error(&with(&[key, &ty(9), &ty(10), &100_u64.to_le_bytes()]), 200)),
        ("strings of 2^63", long_file(&with(&[key, &ty(9), &ty(8), &huge]))),
        ("string in array of 2^63", long_file(&with(&[key, &ty(9), &ty(8), &1_u64.to_le_bytes(), &huge]))),
    ]), @r"
    tensors 2^63: byte 8: more tensors than the limit of 1048576: 9223372036854775808
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    pairs 2^63: byte 16: more metadata pairs than the limit of 65536: 9223372036854775808
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    more tensors than fit: byte 8: more tensors stated than fit into the 84 B left of the file: 1000
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    more pairs than fit: byte 16: more metadata pairs stated than fit into the 76 B left of the file: 1000
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    key of 2^63: byte 24: key longer than the 1024.00 TiB left of the file: 9223372036854775808 bytes stated
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    key of 2^20: byte 24: key longer than 65535 bytes: 1048576
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    string of 2^63: byte 37: string longer than the 1024.00 TiB left of the file: 9223372036854775808 bytes stated
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    string of 2^39 past the end: byte 37: string longer than the 155 B left of the file: 549755813888 bytes stated
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    string of 2^40 past the end: byte 37: string longer than the 155 B left of the file: 1099511627776 bytes stated
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    string of 2^40: byte 37: string longer than 1073741824 bytes: 1099511627776
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    array of 2^63: byte 41: more array elements than the limit of 1073741824: 9223372036854775808
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    array past the end: byte 41: more array elements stated than fit into the 151 B left of the file: 100
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    strings of 2^63: byte 41: more array elements than the limit of 1073741824: 9223372036854775808
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    string in array of 2^63: byte 49: string of an array longer than the 1024.00 TiB left of the file: 9223372036854775808 bytes stated
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    ");
}

#[test]
fn metadata_that_breaks_the_format() {
    let whole = |build: &Build| error(&build.bytes(), build.file_size().get());
    let nest = |depth: u32| (0..depth).fold(Value::U8(1), |inner, _| Value::Array { items: vec![inner], empty: 0 });
    let mut unknown = llama().bytes();
    let at = unknown.windows(11).position(|part| part == b"block_count").unwrap() + 11;
    unknown[at] = 13;
    let mut latin1 = llama().bytes();
    latin1[at - 1] = 0xff;
    insta::assert_snapshot!(messages(&[
        ("key twice", whole(&llama().key("block_count", 2_u32))),
        ("empty key", whole(&llama().raw("", 2_u32))),
        ("key in Latin-1", error(&latin1, 1 << 20)),
        ("value type 13", error(&unknown, 1 << 20)),
        ("array elements of type 77", whole(&llama().raw("k", Value::Array { items: Vec::new(), empty: 77 }))),
        ("arrays in arrays", whole(&llama().raw("k", nest(5)))),
        ("alignment 0", whole(&llama().raw("general.alignment", 0_u32))),
        ("alignment 48", whole(&llama().raw("general.alignment", 48_u32))),
        ("alignment in 64 bits", whole(&llama().raw("general.alignment", 32_u64))),
        ("alignment in words", whole(&llama().raw("general.alignment", "wide"))),
    ]), @r#"
    key twice: byte 421: key stands twice: llama.block_count
    empty key: byte 421: empty key
    key in Latin-1: byte 69: key is not UTF-8
    value type 13: byte 94: key llama.block_count has a value of unknown type: 13
    array elements of type 77: byte 434: key k has a value of unknown type: 77
    arrays in arrays: byte 482: key k nests arrays deeper than 4
    alignment 0: byte 421: general.alignment is no power of two in 32 bits: 0
    alignment 48: byte 421: general.alignment is no power of two in 32 bits: 48
    alignment in 64 bits: byte 421: general.alignment is no power of two in 32 bits: 32
    alignment in words: byte 421: general.alignment is no power of two in 32 bits: "wide"
    "#);
    assert!(gguf::read(&llama().raw("k", nest(4)).bytes(), Bytes::from_mib(1)).is_ok());
}

#[test]
fn tensor_tables_that_break_the_format() {
    let whole = |build: &Build| error(&build.bytes(), 1 << 30);
    let last = |change: &dyn Fn(&mut synthetic::writer::TensorEntry)| {
        let mut build = llama();
        change(build.header.tensors.last_mut().unwrap());
        whole(&build)
    };
    let fork = |type_id: u32, architecture: &str, bytes: u64| {
        let mut build = Build::new(architecture).tensor("a", QuantType::F32, &[768, 2]).tensor("b", QuantType::F32, &[8]);
        build.header.tensors[0].type_id = type_id;
        build.header.tensors[1].offset = bytes;
        whole(&build)
    };
    insta::assert_snapshot!(messages(&[
        ("tensor twice", whole(&llama().tensor("token_embd.weight", QuantType::F32, &[1]))),
        ("name of 64 bytes", whole(&llama().tensor(&"n".repeat(64), QuantType::F32, &[1]))),
        ("five dimensions", last(&|entry| entry.shape = vec![1; 5])),
        ("extent 2^63", last(&|entry| entry.shape = vec![1 << 63])),
        ("2^64 elements", last(&|entry| entry.shape = vec![1 << 32, 1 << 32])),
        ("2^63 bytes", last(&|entry| (entry.shape, entry.type_id) = (vec![1 << 32, 1 << 30], 0))),
        ("type 99", last(&|entry| entry.type_id = 99)),
        ("type 4", last(&|entry| entry.type_id = 4)),
        ("type 31", last(&|entry| entry.type_id = 31)),
        ("type 36 of llama.cpp", last(&|entry| entry.type_id = 36)),
        ("i2_s by architecture", fork(36, "bitnet-b1.58", 1)),
        ("i2_s at a wrong place", fork(36, "llama", 768 * 2 / 4 + 64)),
        ("mxfp4 at a wrong place", fork(39, "llama", 4096)),
        ("rows of 100 in blocks", last(&|entry| entry.shape = vec![100, 64])),
        ("a gap before it", last(&|entry| entry.offset += 32)),
        ("an overlap", last(&|entry| entry.offset -= 32)),
    ]), @r"
    tensor twice: byte 598: tensor stands twice: token_embd.weight
    name of 64 bytes: byte 598: tensor name longer than 63 bytes: 64
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    five dimensions: byte 537: tensor blk.0.ffn_down.weight has more than 4 dimensions: 5
    extent 2^63: byte 537: tensor blk.0.ffn_down.weight has a shape without a size: [9223372036854775808, 1, 1, 1]
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    2^64 elements: byte 537: tensor blk.0.ffn_down.weight has a shape without a size: [4294967296, 4294967296, 1, 1]
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    2^63 bytes: byte 537: tensor blk.0.ffn_down.weight has a shape without a size: [4294967296, 1073741824, 1, 1]
        hint: the header is damaged, or was made to mislead: fetch the file again from a source you trust
    type 99: byte 537: tensor blk.0.ffn_down.weight has an unknown type: 99
        hint: the file may come from a fork of llama.cpp, or be newer than this program
    type 4: byte 537: tensor blk.0.ffn_down.weight has type q4_2, which ggml removed: 4
        hint: quantise the model again with a type that exists
    type 31: byte 537: tensor blk.0.ffn_down.weight has type q4_0_4_4, which ggml removed: 31
        hint: quantise again to Q4_0 or IQ4_NL; engines repack these when they load
    type 36 of llama.cpp: byte 537: tensor blk.0.ffn_down.weight has type iq4_nl_4_4, which ggml removed: 36
        hint: quantise again to Q4_0 or IQ4_NL; engines repack these when they load
    i2_s by architecture: byte 117: tensor b should begin at byte 416 of the data, and states 1
    i2_s at a wrong place: byte 69: tensor a has type iq4_nl_4_4, which ggml removed: 36
        hint: quantise again to Q4_0 or IQ4_NL; engines repack these when they load
    mxfp4 at a wrong place: byte 110: tensor b should begin at byte 832 of the data, and states 4096
    rows of 100 in blocks: byte 537: tensor blk.0.ffn_down.weight has rows of 100 elements, no multiple of the 32 in a block of q8_0
    a gap before it: byte 537: tensor blk.0.ffn_down.weight should begin at byte 4736 of the data, and states 4768
    an overlap: byte 537: tensor blk.0.ffn_down.weight should begin at byte 4736 of the data, and states 4704
    ");
}

#[test]
fn truncated_data_names_the_tensor_and_both_sizes() {
    let build = llama();
    let (bytes, size) = (build.bytes(), build.file_size().get());
    let header = bytes.len() as u64;
    insta::assert_snapshot!(messages(&[
        ("last byte missing", error(&bytes, size - 1)),
        ("only the header", error(&bytes, header)),
        ("half the data", error(&bytes, header + (size - header) / 2)),
    ]), @r"
    last byte missing: byte 537: tensor blk.0.ffn_down.weight ends at byte 14048, the file at byte 14047
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    only the header: byte 421: tensor token_embd.weight ends at byte 992, the file at byte 608
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    half the data: byte 537: tensor blk.0.ffn_down.weight ends at byte 14048, the file at byte 7328
        hint: the download looks truncated: compare the size with the source, then fetch the file again
    ");
    assert!(gguf::read(&bytes, Bytes::new(size)).is_ok());
}

#[test]
fn a_header_cut_anywhere_asks_for_more_or_says_truncated() {
    let build = llama();
    let (bytes, size) = (build.bytes(), build.file_size());
    let table_end = build.header.encode_unpadded().len();
    for cut in 0..table_end {
        let part = &bytes[..cut];
        match error(part, size.get()).kind {
            GgufErrorKind::NeedMore { at_least } => {
                assert!((cut as u64 + 1..=table_end as u64).contains(&at_least.get()), "{cut}: {at_least}");
            }
            other => panic!("{cut}: {other}"),
        }
        let whole = error(part, cut as u64);
        assert!(whole.need_more().is_none() && whole.offset <= cut as u64, "{cut}: {whole}");
    }
}

#[test]
fn a_prefix_grows_to_the_header_in_few_steps() {
    let shape = synthetic::preset("llama-3.1-70b").unwrap();
    let file = synthetic::gguf(&shape, synthetic::FileType::Q4_K_M, &synthetic::Options::default()).unwrap();
    let mut length = 1024;
    let mut steps = 0;
    let header = loop {
        match gguf::read(&file.header[..length.min(file.header.len())], file.size) {
            Ok(header) => break header,
            Err(error) => length = (error.need_more().unwrap().get() as usize).max(2 * length),
        }
        steps += 1;
    };
    assert_eq!(header.tensors.len(), file.tensors.len());
    assert!(steps < 16, "{steps}");
}
