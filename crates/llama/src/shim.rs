//! The functions of `shim/shim.h`, declared by hand: seven of them, and no second run of bindgen.

use llama_cpp_sys_2 as sys;
use std::ffi::c_char;

/// `lm_buffer`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Buffer {
    pub buffer_type: sys::ggml_backend_buffer_type_t,
    pub model: usize,
    pub context: usize,
    pub compute: usize,
}

/// `lm_pretended`.
#[repr(C)]
pub(crate) struct Pretended {
    pub name: *const c_char,
    pub description: *const c_char,
    pub memory: usize,
    pub used: usize,
    pub integrated: u8,
    pub pipeline: u8,
    pub host_buffer: u8,
}

/// `lm_pretended_set`, only ever behind a pointer.
#[repr(C)]
pub(crate) struct PretendedSet {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    pub(crate) fn lm_memory_breakdown(context: *const sys::llama_context, out: *mut Buffer, capacity: i32) -> i32;
    pub(crate) fn lm_model_expert_count(model: *const sys::llama_model) -> i32;
    pub(crate) fn lm_model_device_count(model: *const sys::llama_model) -> i32;
    pub(crate) fn lm_model_device(model: *const sys::llama_model, index: i32) -> sys::ggml_backend_dev_t;
    pub(crate) fn lm_decode(context: *mut sys::llama_context, tokens: *mut i32, count: i32, error: *mut c_char, error_size: usize) -> i32;
    pub(crate) fn lm_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        length: i32,
        tokens: *mut i32,
        capacity: i32,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(crate) fn lm_pretended_new(devices: *const Pretended, count: usize) -> *mut PretendedSet;
    pub(crate) fn lm_pretended_device(set: *mut PretendedSet, index: usize) -> sys::ggml_backend_dev_t;
    pub(crate) fn lm_pretended_free(set: *mut PretendedSet);
}
