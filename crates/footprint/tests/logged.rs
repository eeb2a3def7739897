//! Buffers that real runs on real devices logged, recomputed.
//!
//! Each row is a log that its owner published; sizes are MiB with two decimals, as the engine prints them. Builds differ, so
//! only what has not changed between them is compared: weights and caches.

mod logged_rows;
mod recorded;

use footprint::target::Backend;
use footprint::{Device, EngineProfile, Target, require};
use logged_rows::{Component, Summary, median};
use spec::settings::FlashAttention;
use spec::{Bytes, Known, Settings};

struct Run {
    source: &'static str,
    model: &'static str,
    backend: fn() -> Backend,
    n_ctx: u32,
    flash_attn: FlashAttention,
    /// Weights on the host, in the mapped file.
    host: &'static str,
    /// Weights and cache of each device.
    devices: &'static [(&'static str, &'static str)],
}

const RUNS: &[Run] = &[
    Run {
        source: "https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference/blob/HEAD/LLaMA%203/Gaming%20GPUs/3070_v3.ipynb",
        model: "llama-3.1-8b Q4_K_M rope_freqs=false",
        backend: || Backend::cuda(false),
        n_ctx: 8192,
        flash_attn: FlashAttention::Off,
        host: "281.81",
        devices: &[("4403.49", "1024.00")],
    },
    Run {
        source: "https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference/blob/HEAD/LLaMA%203/Gaming%20GPUs/3090_2_v3.ipynb",
        model: "llama-3.1-8b Q4_K_M rope_freqs=false",
        backend: || Backend::cuda(false),
        n_ctx: 8192,
        flash_attn: FlashAttention::Off,
        host: "281.81",
        devices: &[("2113.28", "544.00"), ("2290.21", "480.00")],
    },
    Run {
        source: "https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference/blob/HEAD/LLaMA%203/Gaming%20GPUs/3090_4_v3.ipynb",
        model: "llama-3.1-8b Q4_K_M rope_freqs=false",
        backend: || Backend::cuda(false),
        n_ctx: 8192,
        flash_attn: FlashAttention::Off,
        host: "281.81",
        devices: &[("1130.62", "288.00"), ("982.66", "256.00"), ("982.66", "256.00"), ("1307.55", "224.00")],
    },
    Run {
        source: "https://github.com/HilbertraumAI/HilbertRaum/blob/HEAD/eval/results/hardware/i9-9900x-rtx-3090-24gb-128gb/issue399-arch-sweep-qwen3-8b-instruct-q4.stderr.log",
        model: "qwen3-8b Q4_K_M",
        backend: || Backend::vulkan(false, None),
        n_ctx: 8192,
        flash_attn: FlashAttention::Auto,
        host: "333.84",
        devices: &[("4455.34", "1152.00")],
    },
    Run {
        source: "https://github.com/intel-analytics/ipex-llm/blob/HEAD/docs/mddocs/Quickstart/llama_cpp_quickstart.md (SYCL on Arc; alignment as CUDA)",
        model: "mistral-7b Q4_K_M n_vocab=32000",
        backend: || Backend::cuda(false),
        n_ctx: 512,
        flash_attn: FlashAttention::Off,
        host: "70.31",
        devices: &[("4095.05", "64.00")],
    },
];

fn mib(size: &Known<Bytes>) -> String {
    size.get().map_or_else(|| "unknown".to_owned(), |size| format!("{:.2}", size.as_mib()))
}

#[test]
fn weights_and_caches_are_those_that_real_runs_logged() {
    for run in RUNS {
        let model = recorded::model::model(run.model);
        let memory = || Known::exact(Bytes::from_gib(24), "equal cards");
        let device = |index| Device::of_its_own(format!("GPU{index}"), (run.backend)(), memory());
        let target = Target {
            devices: (0..run.devices.len()).map(device).collect(),
            idle: Vec::new(),
            cpu_features: ["avx2".to_owned()].into(),
            cpu_arch: "x86_64".into(),
        };
        let settings = Settings { n_ctx: run.n_ctx, n_gpu_layers: 999, flash_attn: run.flash_attn, ..Settings::default() };
        let need = require(&model, &settings, &target, &EngineProfile::bundled()).unwrap();
        let devices: Vec<_> = need.devices.iter().map(|d| (mib(&d.weights), mib(&d.kv_cache))).collect();
        let logged: Vec<_> = run.devices.iter().map(|&(weights, cache)| (weights.to_owned(), cache.to_owned())).collect();
        assert_eq!((mib(&need.host.weights_mapped), devices), (run.host.to_owned(), logged), "{}", run.source);
    }
}

/// The whole table of logged runs, where it lies beside the workspace.
#[test]
fn logged_runs_of_every_age_are_recomputed() {
    let Some(rows) = logged_rows::rows() else {
        println!("SKIPPED: shared/data/memory/logged_buffers.csv is not beside the workspace");
        return;
    };
    let mainline = Summary::of(rows.iter().filter(|row| row.is_mainline()));
    let totals = mainline.totals();
    assert!(totals.len() >= 30, "only {} rows of llama.cpp are recomputed", totals.len());
    let middle = median(totals.iter().map(|(error, _)| error.abs()).collect());
    assert!(middle <= 0.01, "the median of totals is off by {:.2} %", 100.0 * middle);
    for (age, lines) in mainline.by_age() {
        for line in lines.into_iter().filter(|line| matches!(line.component, Component::KvCache | Component::State | Component::Output)) {
            assert_eq!((line.rows, line.worst), (line.equal, (0.0, line.worst.1)), "{age}: {}", line.component.name());
        }
    }
}

/// Runs of ik_llama.cpp whose flags are stated: caches equal, and the middle of what is computed.
#[test]
fn logged_runs_of_ik_llama_cpp_are_recomputed() {
    let Some(rows) = logged_rows::rows() else {
        println!("SKIPPED: shared/data/memory/logged_buffers.csv is not beside the workspace");
        return;
    };
    let summary = Summary::of(rows.iter().filter(|row| !row.is_mainline()));
    let totals = summary.totals();
    assert!(totals.len() >= 50, "only {} rows are recomputed", totals.len());
    let middle = median(totals.iter().map(|(error, _)| error.abs()).collect());
    assert!(middle <= 0.01, "the median of totals is off by {:.2} %", 100.0 * middle);
    for line in summary.by_age().into_values().flatten().filter(|line| line.component == Component::KvCache) {
        assert_eq!((line.rows, line.worst), (line.equal, (0.0, line.worst.1)));
    }
}

/// What the driver showed beyond the engine's buffers lies in the intervals that stand for it.
#[test]
fn drivers_figures_are_inside_their_intervals() {
    let Some(rows) = logged_rows::rows() else {
        println!("SKIPPED: shared/data/memory/logged_buffers.csv is not beside the workspace");
        return;
    };
    let summary = Summary::of(rows.iter().filter(|row| row.is_mainline()));
    let drivers = summary.drivers();
    assert!(drivers.len() >= 6, "only {} figures", drivers.len());
    for (row, part) in drivers {
        println!("row {}: {} measured {:.0} MiB, predicted {:.0}", row.id(), part.component.name(), part.logged, part.predicted);
        assert!(part.inside, "row {}: {} of {:.0} MiB", row.id(), part.component.name(), part.logged);
    }
}
