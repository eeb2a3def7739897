//! Files that contradict themselves: found by the fuzz target `bitnet`, each an error that names the tensor.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod models;

use bitnet::{LoadOptions, WeightError, Weights};
use models::{Built, Written, cases};
use spec::model::Tensor;
use spec::{Bytes, QuantType};

/// What loading says of the first case with a tensor changed.
fn error(name: &str, change: impl Fn(&mut Tensor)) -> WeightError {
    let Built { mut model, data } = cases()[0].build(Written::default());
    change(model.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap());
    Weights::load(&model, &[data], &LoadOptions::default()).unwrap_err()
}

#[test]
fn a_norm_with_other_values_than_its_shape_says_is_an_error() {
    let width = cases()[0].n_embd as u64;
    let with =
        |bytes: u64, ty: QuantType| error("blk.1.ffn_norm.weight", |norm| (norm.bytes, norm.ty) = (Bytes::new(bytes), ty)).to_string();
    let said = |values: u64| format!("tensor blk.1.ffn_norm.weight is {values} values, and the metadata makes it {width} values");
    assert_eq!(with(width * 4 - 4, QuantType::F32), said(width - 1));
    assert_eq!(with(width * 4 + 4, QuantType::F32), said(width + 1));
    assert_eq!(with(0, QuantType::F32), said(0));
    // The bytes are those of 32-bit floats, and the type says otherwise.
    assert_eq!(with(width * 4, QuantType::F16), said(width * 2));
    assert_eq!(with(width * 4, QuantType::BF16), said(width * 2));
}

#[test]
fn shapes_whose_product_is_more_than_a_number_holds_are_told() {
    for name in ["token_embd.weight", "blk.0.attn_q.weight", "output_norm.weight"] {
        let error = error(name, |tensor| tensor.shape = [u64::MAX; 4]);
        let WeightError::Shape { name: of, found, .. } = &error else { panic!("{error}") };
        assert_eq!((of.as_str(), found.as_str()), (name, format!("{} × {}", u64::MAX, u64::MAX).as_str()));
    }
}
