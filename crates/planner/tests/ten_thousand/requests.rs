//! Requests at random: use cases, preferences, engines, and pins alone and together.

use super::draw::Draw;
use footprint::EngineProfile;
use planner::emit::ALL;
use planner::plan::{DevicePreference, DiskPolicy, Margin, Power, Preferences, Priority};
use planner::{Request, UseCase};
use spec::Bytes;
use spec::settings::{CACHE_TYPES, Devices, FlashAttention, LoadMode, Numa, Pins, SplitMode, TensorOverride};

/// A request at random; half of them pin nothing.
pub fn request(draw: &mut Draw) -> Request {
    let margin = match draw.below(6) {
        0 => Some(Margin::Fraction(draw.below(60) as f64 / 100.0)),
        1 => Some(Margin::Size(Bytes::from_mib(draw.below(6000) as u64))),
        _ => None,
    };
    let preferences = Preferences {
        device: draw.of(DevicePreference::ALL),
        margin,
        priority: draw.of(Priority::ALL),
        power: draw.of(Power::ALL),
        disk: draw.of(DiskPolicy::ALL),
    };
    let preferences = if draw.percent(50) { Preferences::default() } else { preferences };
    let profile = if draw.percent(50) { EngineProfile::bundled() } else { EngineProfile::server_0_7() };
    let pins = if draw.percent(50) { Pins::default() } else { pins(draw) };
    Request { use_case: draw.of(UseCase::ALL), preferences, pins, profile, ..Request::default() }
}

fn pins(draw: &mut Draw) -> Pins {
    let mut pins = Pins::default();
    for _ in 0..=draw.below(3) {
        pin(&mut pins, draw);
    }
    pins
}

fn pin(pins: &mut Pins, draw: &mut Draw) {
    let off_or_on = draw.percent(50);
    match draw.below(22) {
        0 | 1 => pins.n_ctx = Some(draw.of(&[0, 1, 300, 2048, 4096, 20_000, 131_072, 10_000_000])),
        2 | 3 => pins.n_gpu_layers = Some(draw.of(&[0, 1, 5, 17, 40, 100, ALL])),
        4 => pins.n_cpu_moe = Some(draw.of(&[0, 1, 8, 30, ALL])),
        5 => pins.n_ubatch = Some(draw.of(&[1, 32, 128, 1024, 4096])),
        6 => pins.n_batch = Some(draw.of(&[1, 64, 512, 4096])),
        7 => pins.n_parallel = Some(draw.of(&[1, 2, 3, 8, 64])),
        8 => pins.kv_unified = Some(off_or_on),
        9 => pins.cache_type_k = Some(draw.of(CACHE_TYPES)),
        10 => {
            let ty = draw.of(CACHE_TYPES);
            (pins.cache_type_k, pins.cache_type_v) = (Some(ty), Some(ty));
        }
        11 => pins.flash_attn = Some(draw.of(FlashAttention::ALL)),
        12 => pins.split_mode = Some(draw.of(SplitMode::ALL)),
        13 => pins.tensor_split = Some(draw.of::<&[f64]>(&[&[1.0], &[3.0, 1.0], &[0.0, 1.0], &[1.0, 2.0, 3.0, 4.0]]).to_vec()),
        14 => pins.main_gpu = Some(draw.of(&[0, 1, 3])),
        15 => {
            let pattern = draw.of(&["ffn_.*_exps", r"blk\.[0-3]\.", "attn", "no_such_tensor", "output"]);
            pins.tensor_overrides = Some(vec![TensorOverride { pattern: pattern.into(), buffer: draw.of(&["CPU", "CUDA0"]).into() }]);
        }
        16 => pins.kv_offload = Some(off_or_on),
        17 => pins.op_offload = Some(off_or_on),
        18 => pins.swa_full = Some(off_or_on),
        19 => pins.repack = Some(off_or_on),
        20 => pins.load_mode = Some(draw.of(LoadMode::ALL)),
        _ => match draw.below(6) {
            0 => pins.devices = Some(Devices::Only(Vec::new())),
            1 => pins.devices = Some(Devices::Only(vec![draw.of(&["CUDA0", "CUDA1", "ROCm0", "Vulkan0"]).into()])),
            2 => pins.threads = Some(draw.of(&[1, 3, 64])),
            4 => pins.numa = Some(draw.of(Numa::ALL)),
            3 => pins.cpu_mask = draw.of(&["0-3", "0xff00", "none", "8-"]).parse().ok(),
            _ => pins.cache_ram_mib = Some(draw.of(&[0, 512, ALL])),
        },
    }
}
