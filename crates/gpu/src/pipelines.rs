//! The compiled kernels.

use kernels::DenseType;

/// A kernel after the declarations that it shares with others.
macro_rules! shader {
    ($($name:literal),*) => {
        concat!(include_str!("shaders/width.wgsl"), $(include_str!(concat!("shaders/", $name, ".wgsl"))),*)
    };
}

/// Those of any linear layer.
#[derive(Debug)]
pub(crate) struct Pipelines {
    pub(crate) quantize: wgpu::ComputePipeline,
    /// One token.
    pub(crate) one: wgpu::ComputePipeline,
    /// Many tokens.
    pub(crate) many: wgpu::ComputePipeline,
}

impl Pipelines {
    pub(crate) fn new(device: &wgpu::Device) -> Self {
        Self {
            quantize: compiled(device, "quantize", shader!("batch", "shape", "reduce", "plain", "quantize"), &[]),
            one: compiled(device, "one", shader!("shape", "matrix", "one"), &[]),
            many: compiled(device, "many", shader!("batch", "shape", "matrix", "many"), &[]),
        }
    }
}

/// What the kernels of whole layers are compiled for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constants {
    pub(crate) heads: usize,
    pub(crate) key_heads: usize,
    pub(crate) head: usize,
    pub(crate) ff: usize,
    pub(crate) eps: f32,
    pub(crate) silu: bool,
    /// Keys and values in 16 bits, else in 32.
    pub(crate) halves: bool,
}

/// Those of whole layers of a model.
#[derive(Debug)]
pub(crate) struct LayerPipelines {
    /// RMS norm, and tokens in 8 bits.
    pub(crate) norm: wgpu::ComputePipeline,
    pub(crate) turn: wgpu::ComputePipeline,
    pub(crate) attend: wgpu::ComputePipeline,
    pub(crate) gated: wgpu::ComputePipeline,
}

impl LayerPipelines {
    pub(crate) fn new(device: &wgpu::Device, constants: &Constants) -> Self {
        let Constants { heads, key_heads, head, ff, eps, silu, halves } = *constants;
        let heads = [("HEADS", heads as f64), ("KEY_HEADS", key_heads as f64), ("HEAD", head as f64)];
        let (turn, attend) = if halves {
            (shader!("batch", "kept_f16", "heads", "turn"), shader!("batch", "kept_f16", "heads", "reduce", "exponential", "attention"))
        } else {
            (shader!("batch", "kept_f32", "heads", "turn"), shader!("batch", "kept_f32", "heads", "reduce", "exponential", "attention"))
        };
        let gated = shader!("exponential", "gated");
        Self {
            norm: compiled(device, "quantize", shader!("batch", "shape", "reduce", "norm", "quantize"), &[("EPS", f64::from(eps))]),
            turn: compiled(device, "turn", turn, &heads),
            attend: compiled(device, "attend", attend, &heads),
            gated: compiled(device, "gated", gated, &[("SILU", f64::from(u8::from(silu))), ("FF", ff as f64)]),
        }
    }
}

/// Those of the output head.
#[derive(Debug)]
pub(crate) struct HeadPipelines {
    /// The last token after the norm.
    pub(crate) last: wgpu::ComputePipeline,
    pub(crate) logits: wgpu::ComputePipeline,
}

impl HeadPipelines {
    pub(crate) fn new(device: &wgpu::Device, ty: DenseType, columns: usize, eps: f32) -> Self {
        let logits = match ty {
            DenseType::F32 => shader!("head", "head_f32", "logits"),
            DenseType::F16 => shader!("head", "head_f16", "logits"),
            DenseType::Bf16 => shader!("head", "head_bf16", "logits"),
            DenseType::Q8_0 => shader!("head", "head_q8_0", "logits"),
        };
        let constants = [("EPS", f64::from(eps)), ("COLUMNS", columns as f64)];
        Self {
            last: compiled(device, "last", shader!("batch", "reduce", "last"), &constants),
            logits: compiled(device, "logits_of", logits, &[]),
        }
    }
}

/// The function of that name; layouts follow from the shader. What the driver refuses is told by [`crate::Gpu::working`].
fn compiled(device: &wgpu::Device, name: &'static str, source: &'static str, constants: &[(&str, f64)]) -> wgpu::ComputePipeline {
    let module =
        device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(source.into()) });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: None,
        module: &module,
        entry_point: Some(name),
        compilation_options: wgpu::PipelineCompilationOptions { constants, ..wgpu::PipelineCompilationOptions::default() },
        cache: None,
    })
}
