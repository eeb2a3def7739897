//! Layers of BitNet models on GPUs that this program's own kernels reach: how many a plan puts there.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use footprint::bitnet::{BitNet, Head};
use footprint::{Backend, Device, EngineProfile, Target};
use planner::plan::{Budget, Strategy};
use planner::predict::Basis;
use planner::{GpuSupport, Plan, Request, plan, target};
use spec::settings::Pins;
use spec::{Bytes, Known, Machine, Model};

const ADDRESS: &str = "0000:01:00.0";

fn model() -> Model {
    let file = synthetic::bitnet("bitnet-b1.58-2b-4t").unwrap().unwrap();
    formats::describe(&[formats::gguf::read(&file.header, file.size).unwrap()]).unwrap()
}

/// With its one GPU at [`ADDRESS`].
fn machine(text: &str) -> Machine {
    let mut machine = common::machine(text);
    machine.facts.gpus[0].pci_address = Known::exact(ADDRESS.to_owned(), "test");
    machine
}

fn on(machine: &Machine, backend: Backend, free: Bytes, address: Option<&str>) -> Target {
    let device = Device {
        pci_address: address.map(str::to_owned),
        ..Device::of_its_own(format!("{}0", backend.name), backend, Known::exact(free, "test"))
    };
    Target { devices: vec![device], ..target(machine, &GpuSupport::None) }
}

fn request(n_gpu_layers: Option<u32>) -> Request {
    let profile = EngineProfile::bitnet(BitNet::default().with_head(Head::Q8_0));
    Request { profile, pins: Pins { n_gpu_layers, ..Pins::default() }, ..Request::default() }
}

fn planned(machine: &Machine, target: &Target, n_gpu_layers: Option<u32>) -> Plan {
    plan(machine, &model(), target, &request(n_gpu_layers)).unwrap()
}

/// Layers on the device, the output head counted.
fn layers(plan: &Plan) -> usize {
    plan.requirement.layer_devices.iter().flatten().count()
}

fn cuda() -> Backend {
    Backend::own_cuda(256)
}

#[test]
fn a_fast_gpu_gets_all_layers_or_as_many_as_it_has_room_for() {
    let machine = machine("gpu=24GiB@900GB/s,ram=64GiB,cores=8");
    let mut before = f64::INFINITY;
    for (mib, all) in [(300, false), (1100, false), (1400, false), (3000, true), (20_000, true)] {
        let target = on(&machine, cuda(), Bytes::from_mib(mib), Some(ADDRESS));
        let plan = planned(&machine, &target, None);
        assert_eq!(layers(&plan) == 31, all, "{mib} MiB: {} layers", layers(&plan));
        assert!(plan.budgets.iter().all(Budget::holds), "{mib} MiB: {:?}", plan.budgets);
        // The head is the last of all layers.
        let strategy = match layers(&plan) {
            0 => Strategy::CpuOnly,
            31 => Strategy::GpuOnly,
            _ => Strategy::Hybrid,
        };
        assert_eq!((plan.requirement.layer_devices.last(), plan.strategy), (Some(&(layers(&plan) > 0).then_some(0)), strategy));
        assert!(plan.worth.seconds <= before, "{mib} MiB");
        before = plan.worth.seconds;
        assert_eq!(plan.prediction.basis, Basis::Prior);
    }
}

#[test]
fn the_split_is_the_best_of_all() {
    let mut seen = std::collections::BTreeSet::new();
    for (gpu, cores, mib) in [
        ("24GiB@900GB/s", 8, 1100),
        ("24GiB@900GB/s", 8, 20_000),
        ("8GiB@60GB/s", 16, 4000),
        ("4GiB@20GB/s", 32, 4000),
        ("8GiB@150GB/s", 4, 1400),
    ] {
        let machine = machine(&format!("gpu={gpu},ram=64GiB,cores={cores}"));
        for backend in [cuda(), Backend::wgpu(256, Bytes::from_mib(128))] {
            let target = on(&machine, backend, Bytes::from_mib(mib), Some(ADDRESS));
            let chosen = planned(&machine, &target, None);
            seen.insert(layers(&chosen));
            for n_gpu_layers in 0..=31 {
                let Ok(other) = plan(&machine, &model(), &target, &request(Some(n_gpu_layers))) else { continue };
                assert_eq!(layers(&other), n_gpu_layers as usize);
                let (ours, theirs) = (&chosen.worth, &other.worth);
                assert!(
                    ours.seconds <= theirs.seconds * 1.0001 || ours.behind < theirs.behind,
                    "{gpu}, {mib} MiB: {} layers take {} s, {n_gpu_layers} {} s",
                    layers(&chosen),
                    ours.seconds,
                    theirs.seconds
                );
            }
        }
    }
    assert!(seen.contains(&0) && seen.contains(&31) && seen.len() > 2, "{seen:?}");
}

#[test]
fn a_second_gpu_is_left_alone_and_that_is_said() {
    let machine = machine("gpu=24GiB@900GB/s,ram=64GiB,cores=8");
    let one = on(&machine, cuda(), Bytes::from_gib(20), Some(ADDRESS));
    let second = Device { name: "cuda1".to_owned(), pci_address: None, ..one.devices[0].clone() };
    let two = Target { devices: [one.devices.clone(), vec![second]].concat(), ..one.clone() };
    let plan = planned(&machine, &two, None);
    assert_eq!((layers(&plan), plan.requirement.devices[1].total().get()), (31, Some(Bytes::ZERO)));
    let said = "the BitNet engine uses one GPU: cuda0, and not cuda1";
    assert!(plan.warnings.iter().any(|warning| warning == said), "{:?}", plan.warnings);
}

#[test]
fn what_is_no_gpu_of_the_machine_gets_layers_only_by_hand() {
    let machine = machine("gpu=24GiB@900GB/s,ram=64GiB,cores=8");
    for backend in [cuda(), Backend::wgpu(256, Bytes::from_mib(128))] {
        let target = on(&machine, backend, Bytes::from_gib(20), None);
        let plan = planned(&machine, &target, None);
        assert_eq!(layers(&plan), 0);
        let said =
            |warning: &String| warning.ends_with("is no GPU that is known of this machine, nor its speed: it gets layers only with -ngl");
        assert!(plan.warnings.iter().any(said), "{:?}", plan.warnings);
        assert_eq!(layers(&planned(&machine, &target, Some(7))), 7);
    }
}
