//! Compute buffers and graphs equal the engine's to the byte: its dry run over all recorded cases, and real loads.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test reads its recordings, shows what is wrong, and fails")]

mod recorded;

use footprint::compute::{ComputeBuffers, dry_run};
use footprint::target::Backend;
use footprint::{Device, EngineProfile, ResolvedContext, Target, context, placement, require};
use recorded::{Answer, Case, DRY_RUNS, Figures, LOADS, each, each_changed, places, recordings};
use spec::{Bytes, Known, Model, Settings};

/// Context, placement and the simulated dry run of a case.
fn simulate(model: &Model, settings: &Settings, target: &Target, profile: &EngineProfile) -> (ResolvedContext, ComputeBuffers) {
    let context = context::resolve(model, settings, profile).unwrap();
    let place = placement::place(model, settings, target, profile).unwrap();
    let buffers = dry_run(model, settings, target, &place, &context);
    (context, buffers)
}

/// Our figure and the engine's: the host's, then each device's.
fn paired<'a>(ours: &'a ComputeBuffers, target: &Target, figures: &Figures) -> Vec<(&'a Known<Bytes>, Bytes)> {
    let theirs = places::engines(target, figures).into_iter().map(|[.., compute]| Bytes::new(compute));
    std::iter::once(&ours.host).chain(&ours.devices).zip(theirs).collect()
}

#[test]
fn the_dry_run_is_the_engines_to_the_byte() {
    let (mut asked, mut wrong) = (0, Vec::new());
    each(DRY_RUNS, |case, host, model, answer| {
        let Answer::Figures(figures) = answer else { return };
        let target = case.target(host);
        let (settings, profile) = case.settings();
        let (_, ours) = simulate(model, &settings, &target, &profile);
        asked += 1;
        for (buffer, (ours, theirs)) in paired(&ours, &target, figures).into_iter().enumerate() {
            if !ours.is_exact() || ours.get() != Some(theirs) {
                wrong.push(format!("{case:?}\n    buffer {buffer}: {ours} instead of {theirs}"));
            }
        }
        let graph = ours.graph.map(|graph| [i64::from(graph.nodes), i64::from(graph.splits)]);
        if graph != Some(figures.graph) {
            wrong.push(format!("{case:?}\n    nodes and splits: {graph:?} instead of {:?}", figures.graph));
        }
    });
    assert!(asked >= 1900, "{asked} cases");
    assert!(wrong.is_empty(), "{} differences in {asked} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// Compute bytes after real loads of a tiny model (oracle program, `--mode load`): the host, then each pretended GPU.
const TINY_LOADS: &[(&str, u64, bool, &[u64])] = &[
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 0", 0, false, &[2183712]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 0", 1, false, &[954912, 2327552]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 3", 1, false, &[954912, 2327552]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 99", 1, false, &[856608, 2035328]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 3", 2, false, &[954912, 2327552, 129152]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 99", 2, false, &[856608, 2035200, 1886848]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 99", 2, true, &[2541696, 4601856, 3123712]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa on --ngl 99 --kv-offload 0", 2, true, &[856608, 2213376, 2032128]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 0", 0, false, &[4853280]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 0", 1, false, &[1412640, 5882880]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 3", 1, false, &[1412640, 5882880]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 99", 1, false, &[1412640, 4704896]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 3", 2, false, &[1412640, 5882880, 129152]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 99", 2, false, &[1412640, 4704768, 4556416]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 99", 2, true, &[4765824, 8939520, 7608832]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 1 --outputs 1 --fa off --ngl 99 --kv-offload 0", 2, true, &[4558368, 1771008, 1622528]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 0", 0, false, &[1026336]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 0", 1, false, &[590592, 2867712]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 3", 1, false, &[411936, 2867712]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 99", 1, false, &[362784, 952192]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 3", 2, false, &[411936, 2867712, 516608]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 99", 2, false, &[362784, 952064, 877952]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 99", 2, true, &[1008768, 2038784, 1299968]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa on --ngl 99 --kv-offload 0", 2, true, &[362784, 2802432, 2720000]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 0", 0, false, &[1509152]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 0", 1, false, &[624416, 3719680]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 3", 1, false, &[624416, 3719680]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 99", 1, false, &[575264, 1435008]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 3", 2, false, &[624416, 3719680, 516608]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 99", 2, false, &[575264, 1434880, 1360768]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 99", 2, true, &[1858688, 3159040, 2493952]),
    ("--ctx 2048 --batch 512 --ubatch 64 --seqs 4 --outputs 4 --fa off --ngl 99 --kv-offload 0", 2, true, &[1361696, 885504, 811264]),
    ("--ctx 1024 --batch 512 --ubatch 128 --seqs 4 --kv-unified 1 --outputs 4 --fa auto --ngl 99", 2, true, &[2541696, 4601856, 3123712]),
    ("--ctx 512 --batch 512 --ubatch 1 --seqs 8 --outputs 8 --fa on --ngl 2", 1, false, &[124224, 1033216]),
];

#[test]
fn a_load_is_the_engines_to_the_byte() {
    let host = recordings(DRY_RUNS).remove(0).host;
    for &(args, gpus, pipeline, theirs) in TINY_LOADS {
        let devices = vec![24576; gpus as usize];
        let case = Case { model: "stories15m Q4_K_M".into(), devices, pipeline, host_buffer: false, backend: None, args: args.into() };
        let (settings, profile) = case.settings();
        let need = require(&recorded::model::model(&case.model), &settings, &case.target(&host), &profile).unwrap();
        let ours: Vec<_> = std::iter::once(&need.host.compute).chain(need.devices.iter().map(|device| &device.compute)).collect();
        assert!(ours.iter().all(|size| size.is_exact()), "{args}");
        let ours: Vec<u64> = ours.into_iter().filter_map(|size| size.get()).map(Bytes::get).collect();
        assert_eq!(ours, theirs, "{args}, {gpus} GPUs, pipeline {pipeline}");
    }
}

/// What llama-fit-params 0.7.0 said of models on one pretended GPU with a context of 4096: nodes and splits, and the compute buffers of
/// host and GPU in whole MiB, rounded down (`llama-fit-params -c 4096 --fit-print on -v`).
const OF_0_7: &[(&str, [u32; 2], [u64; 2])] = &[
    ("qwen3.5-2b Q4_K_M n_layer=4", [249, 2], [20, 505]),
    ("qwen3.5-35b-a3b Q4_K_M n_layer=4", [318, 2], [16, 501]),
    ("qwen3-next-80b Q4_K_M n_layer=4", [434, 2], [20, 316]),
    ("gpt-oss-20b MXFP4_MOE n_layer=4", [233, 2], [27, 420]),
    ("gemma4-e2b Q4_K_M", [1501, 2], [34, 546]),
    ("nemotron-h-8b Q4_K_M", [1515, 2], [36, 292]),
    ("step-3.5-flash Q4_K_M n_layer=4", [208, 2], [37, 288]),
    ("hy3 Q4_K_M n_layer=4", [184, 2], [36, 272]),
    ("cohere2moe-like Q4_K_M n_layer=4", [179, 2], [56, 568]),
    ("gemma4-26b-a4b Q4_K_M n_layer=6", [540, 2], [27, 539]),
    ("llama-3.2-1b Q4_0 n_layer=4", [133, 2], [20, 270]),
    ("glm-4.5-air Q4_K_M n_layer=4", [179, 2], [36, 332]),
    ("mimo-v2-flash Q4_K_M n_layer=4", [216, 2], [36, 334]),
];

#[test]
fn graphs_of_0_7_have_the_nodes_and_buffers_that_it_prints() {
    let host = recordings(DRY_RUNS).remove(0).host;
    let mut wrong = Vec::new();
    for &(name, graph, theirs) in OF_0_7 {
        let case = Case {
            backend: None,
            model: name.into(),
            devices: vec![24576],
            pipeline: false,
            host_buffer: false,
            args: "--ctx 4096 --ngl 999".into(),
        };
        let (settings, _) = case.settings();
        let target = case.target(&host);
        let (_, ours) = simulate(&recorded::model::model(name), &settings, &target, &EngineProfile::fit_params_0_7());
        let found = ours.graph.map(|graph| [graph.nodes, graph.splits]);
        let mib: Vec<u64> = std::iter::once(&ours.host).chain(&ours.devices).filter_map(|size| Some(size.get()?.get() >> 20)).collect();
        if found != Some(graph) || mib != theirs {
            wrong.push(format!("{name}: {found:?} {mib:?} instead of {graph:?} {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Host compute buffers in MiB and nodes that llama-server 0.7.0 logged with `--embedding` over Qwen3-0.6B of four layers.
const POOLED: &[(&str, f64, u32)] = &[
    ("--ctx 2048 --seqs 1 --outputs 1 --embeddings 1 --pooling none", 310.7695, 149),
    ("--ctx 2048 --seqs 4 --kv-unified 1 --outputs 4 --ubatch 1024 --embeddings 1 --pooling last", 60.0391, 149),
    ("--ctx 2048 --seqs 2 --outputs 2 --embeddings 1 --pooling mean", 29.02, 159),
];

#[test]
fn a_server_of_embeddings_takes_what_it_logged() {
    let host = recordings(DRY_RUNS).remove(0).host;
    for &(args, mib, nodes) in POOLED {
        let case = Case {
            backend: None,
            model: "qwen3-0.6b Q8_0 n_layer=4".into(),
            devices: vec![],
            pipeline: false,
            host_buffer: false,
            args: args.into(),
        };
        let (settings, _) = case.settings();
        let need = require(&recorded::model::model(&case.model), &settings, &case.target(&host), &EngineProfile::server_0_7()).unwrap();
        assert!((need.host.compute.get().unwrap().as_mib() - mib).abs() < 0.006, "{args}: {} instead of {mib}", need.host.compute);
        assert_eq!(need.graph.unwrap().nodes, nodes, "{args}");
        assert_eq!(need.context.n_batch, need.context.n_ubatch, "{args}");
    }
}

/// Weights, caches, state and compute after the recorded real loads: each buffer of every place.
#[test]
fn loads_take_what_is_required() {
    let (mut asked, mut wrong) = (0, Vec::new());
    each(LOADS, |case, host, model, answer| {
        let Answer::Figures(figures) = answer else { return };
        let target = case.target(host);
        let (settings, profile) = case.settings();
        let need = require(model, &settings, &target, &profile).unwrap();
        for (place, (ours, theirs)) in places::ours(&need).iter().zip(places::engines(&target, figures)).enumerate() {
            asked += 1;
            let ours = ours.each_ref().map(|size| size.get().filter(|_| size.is_exact()).map(|size| size.get()));
            if ours != theirs.map(Some) {
                wrong.push(format!("{case:?}\n    place {place}: {ours:?} instead of {theirs:?}"));
            }
        }
    });
    println!("{asked} places");
    assert!(asked >= 90, "{asked} places");
    assert!(wrong.is_empty(), "{} differences in {asked} places:\n{}", wrong.len(), wrong.join("\n"));
}

/// The same model under a name that nobody has declared.
fn undeclared(model: &Model) -> Model {
    Model { architecture: "undeclared".into(), ..model.clone() }
}

/// The same with a norm under another name, so that no known graph fits.
fn strange(model: &Model) -> Model {
    let mut model = undeclared(model);
    for tensor in &mut model.tensors {
        tensor.name = tensor.name.replace("output_norm.", "strange_norm.");
    }
    model
}

/// The share of buffers outside the interval of their estimate.
fn outside(change: fn(&Model) -> Model) -> f64 {
    let (mut asked, mut outside) = (0, Vec::new());
    each_changed(
        DRY_RUNS,
        |model| change(&model),
        |case, host, model, answer| {
            let Answer::Figures(figures) = answer else { return };
            let target = case.target(host);
            let (settings, profile) = case.settings();
            let (_, ours) = simulate(model, &settings, &target, &profile);
            assert_eq!(ours.graph, None);
            for (ours, theirs) in paired(&ours, &target, figures) {
                asked += 1;
                if !ours.low().zip(ours.high()).is_some_and(|(low, high)| (*low..=*high).contains(&theirs)) {
                    outside.push(format!("{ours} instead of {theirs}: {case:?}"));
                }
            }
        },
    );
    println!("{} of {asked} outside\n{}", outside.len(), outside.join("\n"));
    outside.len() as f64 / f64::from(asked)
}

#[test]
fn estimates_hold_what_declared_graphs_take() {
    let stand_in = outside(undeclared);
    assert!(stand_in < 0.05, "Llama's graph: {:.1} %", stand_in * 100.0);
    let closed_forms = outside(strange);
    assert!(closed_forms < 0.05, "closed forms: {:.1} %", closed_forms * 100.0);
}

/// Compute buffers of CUDA devices in MiB: with the fusions of experts that the backend's source describes, and in brackets
/// what they are between with and without them.
#[test]
fn fusions_of_experts_keep_tensors_longer() {
    let device = |index: usize| Device::of_its_own(format!("CUDA{index}"), Backend::cuda(false), Known::exact(Bytes::from_gib(80), "test"));
    let target = |devices: usize| Target {
        devices: (0..devices).map(device).collect(),
        idle: Vec::new(),
        cpu_features: ["avx2".to_owned()].into(),
        cpu_arch: "x86_64".into(),
    };
    let models = ["qwen3-30b-a3b", "mixtral-8x7b", "gpt-oss-20b", "deepseek-v3", "glm-4.5-air", "gemma4-26b-a4b", "qwen1.5-moe"];
    let mib = |size: Option<&Bytes>| size.map_or_else(|| "unknown".to_owned(), |size| format!("{:.2}", size.as_mib()));
    let mut lines = Vec::new();
    for model in models {
        let shape = recorded::model::model(&format!("{model} Q4_K_M n_layer=6"));
        for (devices, n_cpu_moe) in [(1, 0), (1, 99), (2, 0)] {
            let settings = Settings { n_ctx: 8192, n_gpu_layers: 999, n_cpu_moe, ..Settings::default() };
            let need = require(&shape, &settings, &target(devices), &EngineProfile::bundled()).unwrap();
            let size = |known: &Known<Bytes>| format!("{} [{}, {}]", mib(known.get().as_ref()), mib(known.low()), mib(known.high()));
            let sizes: Vec<String> = need.devices.iter().map(|device| size(&device.compute)).collect();
            let experts = if n_cpu_moe > 0 { ", experts on the CPU" } else { "" };
            lines.push(format!("{model}, {devices} GPUs{experts}: {}", sizes.join(", ")));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_recorded_model_is_described_by_its_own_rules() {
    for recording in recordings(DRY_RUNS) {
        for name in recording.cases.iter().map(|(case, _)| &case.model).collect::<std::collections::BTreeSet<_>>() {
            assert_eq!(recorded::model::model(name).support, spec::model::Support::Described, "{name}");
        }
    }
}

/// Where the engine's scheduler has no room for the graph it aborts (`ggml-impl.h:330`): seen with these and with one layer
/// or one sequence fewer not.
#[test]
fn a_graph_without_room_is_refused() {
    let room = |n_layer: u32, n_parallel: u32| {
        let model = recorded::model::model(&format!("phi-4 Q4_K_M n_layer={n_layer}"));
        let (cache_type_k, cache_type_v) = (spec::QuantType::Q8_0, spec::QuantType::Q8_0);
        let settings = Settings { n_ctx: 2048, n_parallel, cache_type_k, cache_type_v, ..Settings::default() };
        let target = Target { devices: Vec::new(), idle: Vec::new(), cpu_features: Default::default(), cpu_arch: "x86_64".into() };
        require(&model, &settings, &target, &EngineProfile::bundled()).map(|_| ()).map_err(|error| error.to_string())
    };
    let aborts = |tensors: u32, most: u32| {
        Err(format!(
            "the engine aborts: its graph would have {tensors} tensors and its scheduler has room for {most}; share the cache (--kv-unified), serve one sequence, or keep the cache in f16"
        ))
    };
    assert_eq!((room(40, 1), room(39, 2), room(19, 2), room(20, 1)), (Ok(()), Ok(()), Ok(()), Ok(())));
    assert_eq!((room(40, 2), room(20, 2)), (aborts(2064, 2053), aborts(1044, 1031)));
}
