//! Requirements for a search are those of single configurations.

mod recorded;

use footprint::target::Backend;
use footprint::{Companions, Device, EngineProfile, Requirements, Target, require};
use proptest::prelude::*;
use recorded::{Answer, Case, DRY_RUNS, places};
use spec::settings::{FlashAttention, LoadMode, SplitMode, TensorOverride};
use spec::{Bytes, Known, Model, QuantType, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Whole models: runs of equal layers, patterns of windows, dense layers before experts, compressed caches, state instead of caches.
const NAMES: [&str; 9] = [
    "llama-3.1-8b Q4_K_M",
    "llama-3.1-70b Q4_K_M",
    "qwen3-30b-a3b Q4_K_M",
    "gemma3-1b Q4_K_M",
    "gpt-oss-20b MXFP4_MOE",
    "deepseek-v3 Q4_K_M n_layer=24",
    "deepseek-v4-flash Q4_K_M n_layer=12",
    "mamba-130m Q8_0",
    "bitnet-2b TQ2_0",
];
static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| NAMES.iter().map(|name| recorded::model::model(name)).collect());

fn target(gpus: &[(u64, bool)]) -> Target {
    let device = |(index, &(gib, pretended)): (usize, &(u64, bool))| {
        Device::of_its_own(
            format!("GPU{index}"),
            if pretended { Backend::pretended(true) } else { Backend::cuda(false) },
            Known::exact(Bytes::from_gib(gib), "test"),
        )
    };
    let features = ["avx2", "avx512f"].map(str::to_owned).into();
    Target { devices: gpus.iter().enumerate().map(device).collect(), idle: Vec::new(), cpu_features: features, cpu_arch: "x86_64".into() }
}

prop_compose! {
    /// What a search keeps while it moves layers.
    fn frame()(
        n_ctx in prop_oneof![Just(4096_u32), Just(512), 256_u32..40_000],
        (n_ubatch, n_parallel) in (prop_oneof![Just(512_u32), Just(128), 1_u32..2048], 1_u32..5),
        cache in prop_oneof![4 => Just(QuantType::F16), 2 => Just(QuantType::Q8_0), 1 => Just(QuantType::F32)],
        (flash_attn, load_mode) in ((0..FlashAttention::ALL.len()).prop_map(|i| FlashAttention::ALL[i]), (0..LoadMode::ALL.len()).prop_map(|i| LoadMode::ALL[i])),
        (kv_unified, kv_offload, op_offload, swa_full, repack) in any::<(bool, bool, bool, bool, bool)>(),
    ) -> Settings {
        Settings {
            n_ctx, n_ubatch, n_parallel, cache_type_k: cache, cache_type_v: cache, flash_attn, load_mode, kv_unified, kv_offload, op_offload, swa_full, repack,
            ..Settings::default()
        }
    }
}

/// A type of cache.
fn cached() -> impl Strategy<Value = QuantType> {
    prop_oneof![Just(QuantType::F16), Just(QuantType::BF16), Just(QuantType::Q8_0), Just(QuantType::Q4_0), Just(QuantType::Q5_1)]
}

prop_compose! {
    /// Where a search puts layers.
    fn place()(
        (n_gpu_layers, n_cpu_moe) in (0_u32..90, prop_oneof![2 => Just(0_u32), 3 => 0_u32..70]),
        tensor_split in prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0.0..4.0, 2..4)],
        single in prop::bool::weighted(0.1),
        down in prop::bool::weighted(0.1),
    ) -> Settings {
        let tensor_overrides = if down { vec![TensorOverride { pattern: "ffn_down".into(), buffer: "CPU".into() }] } else { Vec::new() };
        let split_mode = if single { SplitMode::None } else { SplitMode::Layer };
        Settings { n_gpu_layers, n_cpu_moe, tensor_split, split_mode, tensor_overrides, ..Settings::default() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn answers_of_a_search_are_those_of_single_questions(
        model in 0..NAMES.len(),
        gpus in prop::collection::vec((4_u64..48, any::<bool>()), 0..4),
        frames in prop::collection::vec(frame(), 1..3),
        places in prop::collection::vec(place(), 8),
        times in 2_u32..6,
        types in [[cached(), cached()], [cached(), cached()]],
    ) {
        let (model, target, profile, none) = (&MODELS[model], target(&gpus), EngineProfile::server_0_7(), Companions::default());
        let search = Requirements::new(model, &target, &profile, &none);
        // What is known for one length of context and type of cache serves others.
        let longer = frames.first().map(|frame| Settings { n_ctx: frame.n_ctx.saturating_mul(times), ..frame.clone() });
        let typed = longer.iter().flat_map(|frame| types.map(|ty| Settings { cache_type_k: ty[0], cache_type_v: ty[1], ..frame.clone() }));
        for frame in frames.iter().cloned().chain(longer.clone()).chain(typed) {
            for at in &places {
                let Settings { n_gpu_layers, n_cpu_moe, tensor_split, split_mode, tensor_overrides, .. } = at.clone();
                let settings = Settings { n_gpu_layers, n_cpu_moe, tensor_split, split_mode, tensor_overrides, ..frame.clone() };
                let alone = require(model, &settings, &target, &profile);
                prop_assert_eq!(search.require(&settings), alone, "{:?}", settings);
            }
        }
    }
}

/// Shares of rows are no matter of where layers lie: what is known of one placement must not serve another.
#[test]
fn shared_rows_are_counted_for_each_placement() {
    let (model, target, none) = (&MODELS[0], target(&[(24, false), (16, false)]), Companions::default());
    let profile = EngineProfile::named("llama.cpp-2025-09").unwrap();
    let search = Requirements::new(model, &target, &profile, &none);
    for (split_mode, share) in [(SplitMode::Row, 1.0), (SplitMode::Layer, 1.0), (SplitMode::Row, 3.0), (SplitMode::Layer, 3.0)] {
        let settings = Settings { n_gpu_layers: 99, split_mode, tensor_split: vec![share, 1.0], ..Settings::default() };
        let alone = require(model, &settings, &target, &profile);
        assert!(alone.is_ok());
        assert_eq!(search.require(&settings), alone, "{settings:?}");
    }
}

/// The engine's own bytes, out of pieces: a search answers the recorded questions of each model.
#[test]
fn a_search_answers_recorded_questions_to_the_byte() {
    let none = Companions::default();
    let mut asked = 0;
    for recording in recorded::recordings(DRY_RUNS) {
        let mut groups: BTreeMap<(&str, String), Vec<&(Case, Answer)>> = BTreeMap::new();
        for question in &recording.cases {
            let Case { model, devices, pipeline, host_buffer, .. } = &question.0;
            let frame = format!("{devices:?} {pipeline} {host_buffer} {:?}", question.0.settings().1);
            groups.entry((model, frame)).or_default().push(question);
        }
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        for ((name, _), questions) in &groups {
            let model = models.entry(name).or_insert_with(|| recorded::model::model(name));
            let (target, (_, profile)) = (questions[0].0.target(&recording.host), questions[0].0.settings());
            let search = Requirements::new(model, &target, &profile, &none);
            for (case, answer) in questions {
                let Answer::Figures(figures) = answer else { continue };
                let need = search.dry_run(&case.settings().0).unwrap();
                let compute = places::ours(&need).into_iter().map(|[_, _, compute]| compute);
                let ours: Vec<_> = compute.map(|size| size.get().filter(|_| size.is_exact()).map(|size| size.get())).collect();
                let theirs: Vec<_> = places::engines(&target, figures).into_iter().map(|[_, _, compute]| Some(compute)).collect();
                let graph = need.graph.map(|graph| [i64::from(graph.nodes), i64::from(graph.splits)]);
                assert_eq!((ours, graph), (theirs, Some(figures.graph)), "{case:?}");
                asked += 1;
            }
        }
    }
    assert!(asked >= 8_000, "{asked} questions");
}

/// Every recorded model with all its layers, on devices whose backends fuse, cut their buffers or do neither: what a search
/// answers equals the simulation of the whole graph.
#[test]
fn pieces_make_up_whole_graphs_of_every_model() {
    let mut random = Random(20_261_121);
    let (profile, none) = (EngineProfile::server_0_7(), Companions::default());
    let names = recorded::recordings(DRY_RUNS).into_iter().flat_map(|recording| recording.cases).map(|(case, _)| {
        let whole: Vec<&str> = case.model.split(' ').filter(|word| !word.starts_with("n_layer=")).collect();
        whole.join(" ")
    });
    let (mut answers, mut simulations) = (0, 0);
    for name in names.collect::<BTreeSet<String>>() {
        let model = recorded::model::model(&name);
        let target = one_of_each(&mut random);
        let search = Requirements::new(&model, &target, &profile, &none);
        let frame = Settings {
            n_ctx: 512 << random.below(5),
            n_ubatch: 32 << random.below(5),
            n_parallel: 1 + random.below(3),
            flash_attn: FlashAttention::ALL[random.below(3) as usize],
            kv_unified: random.below(2) == 0,
            op_offload: random.below(4) > 0,
            kv_offload: random.below(4) > 0,
            ..Settings::default()
        };
        for question in 0..12 {
            // Lengths and types that are known for one placement serve others.
            let n_ctx = frame.n_ctx << (question % 3);
            let cache = [QuantType::F16, QuantType::Q8_0, QuantType::Q4_0][random.below(3) as usize];
            // Several devices that have all layers are a pipeline.
            let n_gpu_layers = if random.below(4) == 0 { model.n_layer_all() + 1 } else { random.below(model.n_layer_all() + 2) };
            let n_cpu_moe = if model.has_experts() && random.below(2) == 0 { random.below(model.n_layer_all()) } else { 0 };
            let settings = Settings { n_gpu_layers, n_cpu_moe, n_ctx, cache_type_k: cache, cache_type_v: cache, ..frame.clone() };
            assert_eq!(search.require(&settings), require(&model, &settings, &target, &profile), "{name} {settings:?}");
            answers += 1;
        }
        simulations += search.simulations();
    }
    println!("{answers} answers, {simulations} graphs simulated");
    assert!(answers > 1000);
}

/// One or two devices of one backend.
fn one_of_each(random: &mut Random) -> Target {
    let backend =
        [Backend::cuda(false), Backend::vulkan(false, None), Backend::pretended(false), Backend::metal()][random.below(4) as usize].clone();
    let mut target = target(&[(24, true), (16, true)][..1 + random.below(2) as usize]);
    target.devices.iter_mut().for_each(|device| device.backend = backend.clone());
    target
}

/// Numbers that look random, the same in each run (Knuth's linear congruential generator).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}

/// Graphs simulated for `-ngl` 0 to all, each answer being that of a single question; and how many answers there were.
fn simulated_over_layers(name: &str) -> (usize, usize) {
    let (model, target) = (recorded::model::model(name), target(&[(24, false)]));
    let (profile, none) = (EngineProfile::server_0_7(), Companions::default());
    let search = Requirements::new(&model, &target, &profile, &none);
    let answers = 0..=model.n_layer_all() + 1;
    for n_gpu_layers in answers.clone() {
        let settings = Settings { n_gpu_layers, ..Settings::default() };
        assert_eq!(search.require(&settings), require(&model, &settings, &target, &profile), "{name} -ngl {n_gpu_layers}");
    }
    (search.simulations(), answers.count())
}

/// In RWKV 7 every layer mixes in values of the first, so that no piece is like another: each graph (prefill and decode) is
/// simulated whole, but for the two placements that differ in nothing.
#[test]
fn layers_that_reach_beyond_their_neighbours_have_no_pieces() {
    let (whole, answers) = simulated_over_layers("rwkv7-1.5b Q8_0");
    assert!(whole >= 2 * (answers - 1), "{whole} graphs for {answers} answers");
    let (in_pieces, answers) = simulated_over_layers("llama-3.1-70b Q4_K_M");
    assert!(in_pieces < answers / 2, "{in_pieces} graphs for {answers} answers");
}

/// What changes no graph needs no simulation of its own: host caches, threads, repeated questions, and layers that a limit on
/// experts does not reach.
#[test]
fn equal_graphs_are_simulated_once() {
    let (model, target, profile, none) = (&MODELS[5], target(&[(24, false)]), EngineProfile::server_0_7(), Companions::default());
    let search = Requirements::new(model, &target, &profile, &none);
    let first = Settings { n_gpu_layers: 99, n_cpu_moe: 1, ..Settings::default() };
    search.require(&first).unwrap();
    let simulations = search.simulations();
    for (threads, cache_ram_mib) in [(1, 0), (4, 0), (4, 8192)] {
        // The first three layers of DeepSeek have no experts.
        for n_cpu_moe in 1..=3 {
            search.require(&Settings { n_cpu_moe, threads, cache_ram_mib, ..first.clone() }).unwrap();
        }
    }
    assert_eq!(search.simulations(), simulations);
}
