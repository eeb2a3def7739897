//! Kernels with what they are given: a list of them is what a device computes.

use crate::device::Gpu;
use crate::linear::{ROWS, TILE};

/// Invocations of a workgroup, as the shaders have it.
const WIDTH: u32 = 64;

/// For which batches a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tokens {
    Any,
    One,
    More,
}

/// The workgroups of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// One per token.
    Tokens,
    /// One per so many rows of one token.
    Rows(u32),
    /// One per tile of rows and tokens.
    Tiles(u32),
    /// So many heads of each token.
    Heads(u32),
    /// So many columns of each token.
    Columns(u32),
}

/// A kernel with what it is given.
#[derive(Debug)]
pub(crate) struct Step {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    work: Work,
    tokens: Tokens,
}

impl Step {
    /// With what the kernel's bindings are from number `first` on: layouts hold only what a kernel uses.
    pub(crate) fn new(
        gpu: &Gpu,
        pipeline: &wgpu::ComputePipeline,
        first: u32,
        resources: &[wgpu::BindingResource<'_>],
        work: Work,
        tokens: Tokens,
    ) -> Self {
        let entries: Vec<wgpu::BindGroupEntry<'_>> =
            resources.iter().zip(first..).map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource: resource.clone() }).collect();
        let layout = &pipeline.get_bind_group_layout(0);
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
        Self { pipeline: pipeline.clone(), group, work, tokens }
    }

    /// Workgroups in two directions.
    fn groups(&self, tokens: u32, most: u32) -> (u32, u32) {
        match self.work {
            Work::Tokens => spread(tokens, most),
            Work::Rows(rows) => spread(rows.div_ceil(ROWS), most),
            Work::Tiles(rows) => (rows.div_ceil(TILE), tokens.div_ceil(TILE)),
            Work::Heads(heads) => (heads, tokens),
            Work::Columns(columns) => (columns.div_ceil(WIDTH), tokens),
        }
    }
}

/// Puts the steps for so many tokens into a pass; each sees what those before it wrote.
pub(crate) fn encode(gpu: &Gpu, steps: &[Step], tokens: usize, commands: &mut wgpu::CommandEncoder) {
    let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    let is_for = |step: &&Step| step.tokens == Tokens::Any || (step.tokens == Tokens::One) == (tokens == 1);
    for step in steps.iter().filter(is_for) {
        pass.set_pipeline(&step.pipeline);
        pass.set_bind_group(0, &step.group, &[]);
        let (x, y) = step.groups(tokens as u32, gpu.most_groups());
        pass.dispatch_workgroups(x, y, 1);
    }
}

/// So many workgroups over two directions, of which each has a limit: the product may be larger.
fn spread(groups: u32, most: u32) -> (u32, u32) {
    let y = groups.div_ceil(most.max(1)).max(1);
    (groups.div_ceil(y), y)
}
