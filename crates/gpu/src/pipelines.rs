//! The compiled kernels.

/// A pipeline per kernel; layouts follow from the shaders.
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
        let compiled = |name: &'static str, source: &'static str| {
            let module = device
                .create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(source.into()) });
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: None,
                module: &module,
                entry_point: Some(name),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        };
        Self {
            quantize: compiled("quantize", include_str!("shaders/quantize.wgsl")),
            one: compiled("one", concat!(include_str!("shaders/matrix.wgsl"), include_str!("shaders/one.wgsl"))),
            many: compiled("many", concat!(include_str!("shaders/matrix.wgsl"), include_str!("shaders/many.wgsl"))),
        }
    }
}
