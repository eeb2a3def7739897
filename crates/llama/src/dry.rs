//! Memory per device and buffer type without allocating it.

use crate::LlamaError;
use crate::engine::{Context, Model};
use crate::protocol::{Breakdown, PretendedDevice};
use crate::shim;
use llama_cpp_sys_2 as sys;
use spec::Settings;
use std::ffi::CString;
use std::path::PathBuf;
use std::ptr::NonNull;

/// What llama.cpp would allocate, to the byte: it loads the file's header, places every tensor and reserves every graph, all
/// with its own code, but allocates nothing except the buffer of logits.
///
/// `paths` is the file, or every shard in order. `devices` are the GPUs to pretend, numbered from 0; without any the
/// model is placed on the host. `n_outputs` rows of logits are reserved per micro-batch (llama-server reserves one per
/// sequence); 0 reserves one per token of the batch, as llama-bench does.
///
/// Takes 30 to 700 ms, nearly all of it for the vocabulary. Runs the engine in this process, whose assertions end the
/// process: for files that nobody vouches for, ask a child ([`crate::protocol::Request::DryRun`]).
///
/// # Errors
/// The file is no model that the engine can load, or the settings name what it does not have.
pub fn dry_run(paths: &[PathBuf], settings: &Settings, devices: &[PretendedDevice], n_outputs: u32) -> Result<Breakdown, LlamaError> {
    on_pretended(paths, settings, devices, n_outputs, true)
}

/// What llama.cpp has allocated after it has really loaded a model on pretended GPUs, which hold their share in host memory.
///
/// Arguments and answer as for [`dry_run`]; the two differ where reservations for decode, or nodes that a model pins to a
/// device, change a compute buffer. Takes all the memory that the answer states.
///
/// # Errors
/// The file is no model that the engine can load, the settings name what it does not have, or memory does not suffice.
pub fn load_run(paths: &[PathBuf], settings: &Settings, devices: &[PretendedDevice], n_outputs: u32) -> Result<Breakdown, LlamaError> {
    on_pretended(paths, settings, devices, n_outputs, false)
}

fn on_pretended(
    paths: &[PathBuf],
    settings: &Settings,
    devices: &[PretendedDevice],
    n_outputs: u32,
    dry: bool,
) -> Result<Breakdown, LlamaError> {
    crate::engine::start()?;
    let pretended = Pretended::new(devices)?;
    on(paths, settings, &pretended.devices(), n_outputs, dry)
}

/// What llama.cpp would allocate on the GPUs that it was built for and finds, as [`dry_run`] does for pretended ones; on the
/// host alone in a build without.
///
/// # Errors
/// As for [`dry_run`].
pub fn dry_run_here(paths: &[PathBuf], settings: &Settings, n_outputs: u32) -> Result<Breakdown, LlamaError> {
    crate::engine::start()?;
    on(paths, settings, &crate::engine::gpus(), n_outputs, true)
}

/// What llama.cpp has allocated on the GPUs that it was built for and finds, before it has computed anything.
///
/// # Errors
/// As for [`load_run`].
pub fn load_run_here(paths: &[PathBuf], settings: &Settings, n_outputs: u32) -> Result<Breakdown, LlamaError> {
    crate::engine::start()?;
    on(paths, settings, &crate::engine::gpus(), n_outputs, false)
}

fn on(
    paths: &[PathBuf],
    settings: &Settings,
    devices: &[sys::ggml_backend_dev_t],
    n_outputs: u32,
    dry: bool,
) -> Result<Breakdown, LlamaError> {
    let model = Model::load(paths, settings, devices, dry, &mut |_| true)?;
    let context = Context::new(&model, settings, n_outputs, None)?;
    Ok(context.breakdown(&model, settings))
}

/// Devices that are not there. They outlive the model in [`dry_run`] because they are declared first.
struct Pretended {
    set: NonNull<shim::PretendedSet>,
    count: usize,
}

impl Pretended {
    fn new(devices: &[PretendedDevice]) -> Result<Self, LlamaError> {
        let refused = |reason: String| LlamaError::Setting { setting: "devices", reason };
        let mut names = Vec::with_capacity(devices.len());
        for (index, device) in devices.iter().enumerate() {
            let name = device.name.clone().unwrap_or_else(|| format!("GPU{index}"));
            names.push(CString::new(name).map_err(|_| refused("a name contains a zero byte".into()))?);
        }
        let described: Vec<_> = devices
            .iter()
            .zip(&names)
            .map(|(device, name)| shim::Pretended {
                name: name.as_ptr(),
                description: c"pretended GPU".as_ptr(),
                memory: usize::try_from(device.memory.get()).unwrap_or(usize::MAX),
                used: 0,
                integrated: 0,
                pipeline: device.pipeline.into(),
                host_buffer: device.host_buffer.into(),
            })
            .collect();
        // SAFETY: the array has as many entries as is said; names are copied before the call returns.
        let set = unsafe { shim::lm_pretended_new(described.as_ptr(), described.len()) };
        match NonNull::new(set) {
            Some(set) => Ok(Self { set, count: devices.len() }),
            None => Err(refused("out of memory".into())),
        }
    }

    fn devices(&self) -> Vec<sys::ggml_backend_dev_t> {
        // SAFETY: the set is valid and every index is below its count.
        (0..self.count).map(|index| unsafe { shim::lm_pretended_device(self.set.as_ptr(), index) }).collect()
    }
}

impl Drop for Pretended {
    fn drop(&mut self) {
        // SAFETY: valid, freed once, after every model that used it.
        unsafe { shim::lm_pretended_free(self.set.as_ptr()) };
    }
}
