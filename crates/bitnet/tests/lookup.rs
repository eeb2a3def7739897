//! Models in TL1 and TL2, whose tiles stand beside the file: the same bits as in I2_S. (That the packers are microsoft/BitNet's is a test of
//! `kernels`.)
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::memory::requirement;
use bitnet::{CacheType, LoadOptions, Options, Session, ShapeTiles, WeightError, Weights, computes};
use kernels::{LookUp, MatrixError, Tiles};
use models::{Built, Case, Written, cases, tiles};
use spec::{Bytes, QuantType};
use std::sync::Arc;

const KINDS: [(QuantType, LookUp); 2] = [(QuantType::TL1, LookUp::Tl1), (QuantType::TL2, LookUp::Tl2)];

/// The cases that tiles of a kind divide: pairs for the last 256 columns are reserved in TL2.
fn tiled_cases(kind: LookUp) -> impl Iterator<Item = Case> {
    cases().into_iter().filter(move |case| kind == LookUp::Tl1 || case.n_embd >= 256)
}

/// What the `kernel_config.ini` of a build for the case says.
fn config(case: &Case, kind: LookUp) -> String {
    let (e, q, kv, ff) = (case.n_embd, case.n_head * case.head_dim, case.n_head_kv * case.head_dim, case.n_ff);
    let section = |(i, (m, k)): (usize, (usize, usize))| {
        let Tiles { bm, bk, bmm } = tiles(kind, m, k);
        format!("[Kernels_{i}]\nm = {m}\nk = {k}\nbm = {bm}\nbk = {bk}\nbmm = {bmm}\n\n")
    };
    [(q, e), (kv, e), (e, q), (ff, e), (e, ff)].into_iter().enumerate().map(section).collect()
}

fn written(ternary: QuantType) -> Written {
    Written { ternary, ..Written::default() }
}

fn logits(case: &Case, built: &Built, load: &LoadOptions<'_>) -> Vec<Vec<f32>> {
    let weights = Arc::new(Weights::load(&built.model, std::slice::from_ref(&built.data), load).unwrap());
    let mut session = Session::new(weights, Options { n_ctx: 40, n_ubatch: 5, cache: CacheType::F32, threads: 1 }).unwrap();
    case.tokens.iter().map(|token| session.extend(&[*token]).unwrap().to_vec()).collect()
}

#[test]
fn logits_are_those_of_the_same_model_in_i2_s() {
    for (ty, kind) in KINDS {
        let mut compared = 0;
        for case in tiled_cases(kind) {
            let tiles = ShapeTiles::of_config(&config(&case, kind)).unwrap();
            let built = case.build(written(ty));
            assert!(computes(&built.model));
            let expected = logits(&case, &case.build(Written::default()), &LoadOptions::default());
            for threads in [1, 3] {
                let load = LoadOptions { tiles: &tiles, threads, ..LoadOptions::default() };
                assert_eq!(logits(&case, &built, &load), expected, "{ty}, seed {}", case.seed);
            }
            compared += 1;
        }
        assert!(compared >= 1, "{ty}");
    }
}

/// Files whose tensors have the tail that their type has room for: the scale stands there.
#[test]
fn a_scale_in_the_tail_counts_where_no_tensor_has_it() {
    for (ty, kind) in KINDS {
        let case = tiled_cases(kind).next().unwrap();
        let tiles = ShapeTiles::of_config(&config(&case, kind)).unwrap();
        let load = LoadOptions { tiles: &tiles, ..LoadOptions::default() };
        let Built { mut model, data } = case.build(written(ty));
        // In these files the scale follows its matrix at once, so that the tail is what the scale was.
        model.tensors.retain(|tensor| !tensor.name.ends_with("_scale"));
        let named = Weights::load(&model, std::slice::from_ref(&data), &load).unwrap_err();
        assert_eq!(named, WeightError::Missing("blk.0.attn_q.weight_scale".into()));
        for tensor in model.tensors.iter_mut().filter(|tensor| tensor.ty == ty) {
            tensor.bytes = ty.tensor_bytes(tensor.shape).unwrap();
        }
        let expected = logits(&case, &case.build(Written::default()), &LoadOptions::default());
        assert_eq!(logits(&case, &Built { model, data }, &load), expected, "{ty}");
    }
}

#[test]
fn copies_take_what_is_predicted() {
    for (ty, kind) in KINDS {
        for case in tiled_cases(kind) {
            let tiles = ShapeTiles::of_config(&config(&case, kind)).unwrap();
            let load = LoadOptions { tiles: &tiles, ..LoadOptions::default() };
            let built = case.build(written(ty));
            let predicted = requirement(&built.model, &load, &Options::default()).unwrap().weights_copied.get();
            let mut loaded = None;
            let counted = allocation_counter::measure(|| {
                loaded = Some(Weights::load(&built.model, std::slice::from_ref(&built.data), &load).unwrap());
            });
            assert_eq!(loaded.unwrap().copied_bytes(), predicted, "{ty}, seed {}", case.seed);
            // Lists and handles; at the peak a row's codes and the places of a row's groups.
            let (structures, row) = (built.model.tensors.len() as u64 * 512, case.n_ff as u64 * 64);
            assert!(counted.bytes_current as u64 - predicted <= structures, "{ty}, seed {}: {}", case.seed, counted.bytes_current);
            assert!(counted.bytes_max - predicted <= structures + row, "{ty}, seed {}: {}", case.seed, counted.bytes_max);
        }
    }
}

#[test]
fn what_is_not_known_of_tiles_is_named() {
    for (ty, kind) in KINDS {
        let case = tiled_cases(kind).next().unwrap();
        let Built { model, data } = case.build(written(ty));
        let (rows, columns) = (case.n_head * case.head_dim, case.n_embd);
        let error = |tiles: &[ShapeTiles], cut: Option<u64>| {
            let mut model = model.clone();
            let first = model.tensors.iter_mut().find(|tensor| tensor.ty == ty).unwrap();
            first.bytes = cut.map_or(first.bytes, Bytes::new);
            Weights::load(&model, std::slice::from_ref(&data), &LoadOptions { tiles, ..LoadOptions::default() }).unwrap_err()
        };
        let expected = format!(
            "tensor blk.0.attn_q.weight is {ty}, whose tiles no model file states: they stand in the kernel_config.ini of the build that it \
             was made for, where a section with m = {rows} and k = {columns} is needed"
        );
        assert_eq!(error(&[], None).to_string(), expected);
        let mut tiles = ShapeTiles::of_config(&config(&case, kind)).unwrap();
        assert!(matches!(error(&tiles, Some(64)), WeightError::Matrix { error: MatrixError::Length { found: 64, .. }, .. }));
        tiles[0].tiles.bm = rows + 32;
        assert!(matches!(error(&tiles, None), WeightError::Matrix { error: MatrixError::Tiles { .. }, .. }));
    }
}

/// Tiles of another build that divide the shapes, too, are wrong weights, which nothing in the file shows: why they are never guessed.
#[test]
fn other_tiles_are_another_model() {
    let case = tiled_cases(LookUp::Tl1).next().unwrap();
    let mut tiles = ShapeTiles::of_config(&config(&case, LookUp::Tl1)).unwrap();
    let built = case.build(written(QuantType::TL1));
    let right = logits(&case, &built, &LoadOptions { tiles: &tiles, ..LoadOptions::default() });
    tiles.iter_mut().for_each(|shape| shape.tiles.bk /= 2);
    let wrong = logits(&case, &built, &LoadOptions { tiles: &tiles, ..LoadOptions::default() });
    let worst = right.iter().flatten().zip(wrong.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst > 1e-2, "{worst}");
}
