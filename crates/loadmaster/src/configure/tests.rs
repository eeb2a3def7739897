//! Configurations of simulated machines, the fallback, and corrections under every kind of pressure.

use super::*;
use planner::plan::{DevicePreference, Power, Priority};

const WORKSTATION: &str = "ram=64GiB,free=60GiB,cores=8,threads=16,bandwidth=60GB/s,features=avx2+fma+f16c,gpu=24GiB";

fn on(machine: &str, model: &str, preferences: Preferences) -> DeviceConfig {
    let request = planner::Request { preferences, ..planner::Request::default() };
    device_config(&MachineSource::Description(machine.into()), model.as_ref(), &request)
}

fn seen(machine: &str, model: &str, running: &DeviceConfig, one: Observation, times: usize) -> Adapted {
    let metrics = Metrics { running: running.clone(), observations: vec![one; times] };
    adapt(&MachineSource::Description(machine.into()), model.as_ref(), &metrics)
}

fn pressure(share: f64) -> Observation {
    Observation { memory_pressure: Some(share), ..Observation::default() }
}

#[test]
fn a_plan_is_made_for_many_simulated_machines() {
    for gpu in ["", ",gpu=4GiB", ",gpu=24GiB", ",gpu=24GiB,gpu=8GiB", ",gpu=80GiB"] {
        for (ram, cores) in [(4, 2), (16, 8), (128, 32)] {
            let machine = format!("ram={ram}GiB,cores={cores}{gpu}");
            for model in ["qwen3-0.6b", "llama-3.1-8b", "qwen3-30b-a3b"] {
                let config = on(&machine, model, Preferences::default());
                assert!(config.settings.threads >= 1 && config.settings.threads <= cores, "{machine} {model}");
                if config.fallback.is_none() {
                    let over = config.memory.iter().find(|held| held.fraction.is_some_and(|fraction| fraction > 1.0));
                    assert_eq!(over, None, "{machine} {model}");
                    assert!(config.tier.is_some());
                }
            }
        }
    }
}

#[test]
fn preferences_are_kept() {
    let cpu = on(WORKSTATION, "qwen3-8b", Preferences { device: DevicePreference::Cpu, ..Preferences::default() });
    assert_eq!((cpu.strategy, cpu.settings.n_gpu_layers), (Strategy::CpuOnly, 0));
    let many = on(WORKSTATION, "qwen3-8b", Preferences { priority: Priority::Throughput, ..Preferences::default() });
    assert!(many.settings.n_parallel > 1);
    let saving = on("ram=64GiB,cores=8", "qwen3-8b", Preferences { power: Power::Saver, ..Preferences::default() });
    assert_eq!(saving.settings.threads, 4);
}

#[test]
fn where_nothing_can_be_planned_the_answer_is_conservative() {
    for (machine, model) in [(WORKSTATION, "no-such.gguf"), ("ram=banana", "qwen3-8b"), (WORKSTATION, ""), ("ram=2GiB,cores=2", "kimi-k2")]
    {
        let config = on(machine, model, Preferences { disk: planner::plan::DiskPolicy::Never, ..Preferences::default() });
        assert!(config.fallback.is_some(), "{machine} {model}");
        assert_eq!((config.settings.n_gpu_layers, config.settings.n_ctx, config.strategy), (0, 2048, Strategy::CpuOnly));
        assert!(config.settings.threads >= 1);
    }
}

#[test]
fn memory_pressure_leads_down_the_ladder_and_holds_before_it_does() {
    let running = on(WORKSTATION, "qwen3-14b", Preferences::default());
    assert_eq!(seen(WORKSTATION, "qwen3-14b", &running, pressure(0.95), HOLD - 1).adjustment, Adjustment::Kept, "two are no trend");
    assert_eq!(seen(WORKSTATION, "qwen3-14b", &running, pressure(0.8), 9).adjustment, Adjustment::Kept, "between the limits");
    let once = seen(WORKSTATION, "qwen3-14b", &running, pressure(0.99), 1);
    let held = seen(WORKSTATION, "qwen3-14b", &running, pressure(0.95), HOLD);
    for reduced in [&once, &held] {
        assert_eq!(reduced.adjustment, Adjustment::Reduced, "{:?}", reduced.reasons);
        let total = |config: &DeviceConfig| config.memory.iter().filter_map(|held| held.needed.get()).map(Bytes::get).sum::<u64>();
        assert!(total(&reduced.config) < total(&running), "{:?}", reduced.reasons);
    }
    // Steps end: what comes last is kept.
    let mut config = running;
    for _ in 0..40 {
        config = seen(WORKSTATION, "qwen3-14b", &config, pressure(0.99), 1).config;
    }
    assert!(config.settings.n_ctx >= 256);
}

#[test]
fn idle_memory_is_used_and_not_taken_back() {
    let small = planner::Request { pins: spec::settings::Pins { n_ctx: Some(4096), ..Default::default() }, ..planner::Request::default() };
    let pinned = device_config(&MachineSource::Description(WORKSTATION.into()), "qwen3-8b".as_ref(), &small);
    let fixed = seen(WORKSTATION, "qwen3-8b", &pinned, pressure(0.3), HOLD);
    assert_eq!(fixed.config.settings.n_ctx, 4096, "what is pinned is not enlarged: {:?}", fixed.reasons);
    // The same where nobody asked for so little.
    let running = DeviceConfig { request: planner::Request::default(), ..pinned };
    let larger = seen(WORKSTATION, "qwen3-8b", &running, pressure(0.3), HOLD);
    assert_eq!((larger.adjustment, larger.config.settings.n_ctx), (Adjustment::Enlarged, 8192), "{:?}", larger.reasons);
    assert!(larger.config.memory.iter().all(|held| held.fraction.is_none_or(|fraction| fraction < PRESSED)));
    // It ends: no enlargement passes what would be reduced.
    let mut config = larger.config;
    for _ in 0..20 {
        config = seen(WORKSTATION, "qwen3-8b", &config, pressure(0.3), HOLD).config;
    }
    assert_eq!(seen(WORKSTATION, "qwen3-8b", &config, pressure(0.3), HOLD).adjustment, Adjustment::Kept);
}

#[test]
fn slowness_is_explained_and_crowded_cpus_are_left_room() {
    let cpu = "ram=64GiB,cores=8,threads=8,bandwidth=60GB/s,features=avx2+fma+f16c";
    let running = on(cpu, "qwen3-8b", Preferences { power: Power::Saver, ..Preferences::default() });
    let expected = running.decode.get().unwrap().get();
    let slow = |cpu_utilisation| Observation { tokens_per_s: Some(expected * 0.4), cpu_utilisation, ..Observation::default() };
    let crowded = seen(cpu, "qwen3-8b", &running, slow(Some(1.0)), HOLD);
    assert_eq!((crowded.adjustment, crowded.config.settings.threads), (Adjustment::Corrected, running.settings.threads * 3 / 4));
    assert!(crowded.causes[0].contains("other programs"), "{:?}", crowded.causes);
    let unexplained = seen(cpu, "qwen3-8b", &running, slow(None), HOLD);
    assert_eq!((unexplained.adjustment, &unexplained.config), (Adjustment::Kept, &running));
    assert!(!unexplained.causes.is_empty());
    let fast = Observation { tokens_per_s: Some(expected * 0.7), ..Observation::default() };
    assert!(seen(cpu, "qwen3-8b", &running, fast, HOLD).causes.is_empty());
}

#[test]
fn no_observation_breaks_it() {
    let running = on(WORKSTATION, "qwen3-0.6b", Preferences::default());
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e300] {
        let one = Observation {
            tokens_per_s: Some(value),
            memory_pressure: Some(value),
            gpu_utilisation: Some(value),
            cpu_utilisation: Some(value),
        };
        let adapted = seen(WORKSTATION, "qwen3-0.6b", &running, one, HOLD);
        assert!(adapted.config.settings.threads >= 1, "{value}");
    }
    let guess = on(WORKSTATION, "none.gguf", Preferences::default());
    assert_eq!(seen(WORKSTATION, "none.gguf", &guess, pressure(0.99), HOLD).adjustment, Adjustment::Kept);
    assert_eq!(seen("ram=banana", "qwen3-0.6b", &running, pressure(0.99), HOLD).adjustment, Adjustment::Kept);
    assert_eq!(seen(WORKSTATION, "qwen3-0.6b", &running, Observation::default(), 0).adjustment, Adjustment::Kept);
}

#[test]
fn what_the_user_fixed_is_kept_under_every_pressure() {
    let pins = spec::settings::Pins { n_ctx: Some(8192), threads: Some(3), n_ubatch: Some(256), ..Default::default() };
    let request = planner::Request {
        use_case: planner::UseCase::ALL[0],
        pins: pins.clone(),
        preferences: Preferences { device: DevicePreference::Cpu, ..Preferences::default() },
        ..planner::Request::default()
    };
    let running = device_config(&MachineSource::Description(WORKSTATION.into()), "llama-3.3-70b".as_ref(), &request);
    assert_eq!(running.fallback, None);
    let slow = Observation { tokens_per_s: Some(0.01), cpu_utilisation: Some(1.0), ..Observation::default() };
    for seen_now in [pressure(0.99), pressure(0.95), pressure(0.1), slow] {
        let adapted = seen(WORKSTATION, "llama-3.3-70b", &running, seen_now, HOLD).config;
        let of = |config: &DeviceConfig| {
            (config.settings.n_ctx, config.settings.threads, config.settings.n_ubatch, config.settings.n_gpu_layers)
        };
        assert_eq!(of(&adapted), (8192, 3, 256, 0), "{seen_now:?}");
        assert_eq!((adapted.file_type, &adapted.request), (running.file_type, &request), "{seen_now:?}");
    }
    let guess = device_config(&MachineSource::Description(WORKSTATION.into()), "none.gguf".as_ref(), &request);
    assert_eq!((guess.settings.n_ctx, guess.settings.threads, guess.fallback.is_some()), (8192, 3, true));
}

#[test]
fn a_correction_has_weights_of_the_type_that_runs() {
    let running = on("ram=64GiB,cores=8,gpu=24GiB", "qwen3-32b", Preferences::default());
    assert!(running.file_type.is_some());
    let reduced = seen("ram=64GiB,cores=8,gpu=24GiB", "qwen3-32b", &running, pressure(0.99), 1);
    assert_eq!((reduced.adjustment, reduced.config.file_type), (Adjustment::Reduced, running.file_type), "{:?}", reduced.reasons);
}
