//! What must hold of every prediction, over random machines, models and settings.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use common::{machine, model, native};
use planner::predict::{Forecast, Question, forecast};
use planner::workload::Workload;
use planner::{Prediction, predict};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use roofline::Parameters;
use spec::settings::FlashAttention;
use spec::{Known, Machine, Model, QuantType, Settings, TokensPerSec};
use std::sync::LazyLock;

static MODELS: LazyLock<[Model; 5]> = LazyLock::new(|| {
    [("llama-3.2-1b", "Q4_0"), ("llama-3.1-8b", "Q8_0"), ("qwen3-30b-a3b", "Q4_K_M"), ("gpt-oss-20b", "MXFP4_MOE"), ("gemma3-1b", "Q4_K_M")]
        .map(|(name, ty)| model(name, ty))
});

/// Settings with memory enough for everything, so that nothing but speed differs.
#[derive(Clone, Debug)]
struct Case {
    model: usize,
    layers: u32,
    experts: u32,
    settings: Settings,
    depth: u32,
}

prop_compose! {
    fn case()(
        model in 0..MODELS.len(),
        layers in 0..60_u32,
        experts in 0..50_u32,
        ubatch in prop::sample::select(vec![32_u32, 128, 512, 2048]),
        cache in prop::sample::select(vec![QuantType::F16, QuantType::Q8_0, QuantType::Q4_0]),
        (kv_offload, op_offload) in any::<(bool, bool)>(),
        threads in 1..17_u32,
        depth in 0..16000_u32,
    ) -> Case {
        let settings = Settings {
            n_ctx: 16384, n_batch: ubatch.max(512), n_ubatch: ubatch, cache_type_k: cache, cache_type_v: cache, kv_offload, op_offload,
            flash_attn: FlashAttention::On, threads, threads_batch: threads, ..Settings::default()
        };
        Case { model, layers, experts, settings, depth }
    }
}

fn host(gpus: &str) -> Machine {
    machine(&format!("cores=16,ram=512GiB,bandwidth=80GB/s{gpus}"))
}

impl Case {
    fn model(&self) -> &'static Model {
        &MODELS[self.model]
    }
    fn settings(&self) -> Settings {
        let (all, experts) = (self.model().n_layer_all() + 1, if self.model().has_experts() { self.experts } else { 0 });
        Settings { n_gpu_layers: self.layers.min(all), n_cpu_moe: experts.min(all - 1), ..self.settings.clone() }
    }
    fn on(&self, machine: &Machine, settings: &Settings, depth: u32) -> Prediction {
        let target = native(machine);
        let requirement = footprint::require(self.model(), settings, &target, &footprint::EngineProfile::bundled()).unwrap();
        predict(machine, self.model(), &target, settings, &requirement, depth)
    }
    fn forecast(&self, machine: &Machine, workload: Workload) -> Forecast {
        let (target, settings) = (native(machine), self.settings());
        let requirement = footprint::require(self.model(), &settings, &target, &footprint::EngineProfile::bundled()).unwrap();
        let question = Question { workload, depths: vec![0, 8000], draft: None, margin: None, parameters: Parameters::fitted() };
        forecast(machine, self.model(), &target, &settings, &requirement, &question)
    }
}

fn rate(known: &Known<TokensPerSec>) -> f64 {
    known.get().unwrap().get()
}

/// Rounding in sums of many parts.
const SAME: f64 = 1.0 + 1e-9;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_bandwidth_is_never_slower(case in case(), bandwidth in 100.0..2000.0_f64, more in 1.0..4.0_f64) {
        let at = |bandwidth: f64| case.on(&host(&format!(",gpu=256GiB@{bandwidth:.1}GB/s")), &case.settings(), case.depth);
        let (slow, fast) = (at(bandwidth), at(bandwidth * more));
        prop_assert!(rate(&fast.decode) * SAME >= rate(&slow.decode));
        prop_assert!(rate(&fast.prefill) * SAME >= rate(&slow.prefill));
    }

    #[test]
    fn a_deeper_context_is_never_faster(case in case(), more in 0..16000_u32) {
        let machine = host(",gpu=256GiB@900GB/s");
        let at = |depth| case.on(&machine, &case.settings(), depth);
        prop_assert!(rate(&at(case.depth + more).decode) <= rate(&at(case.depth).decode) * SAME);
    }

    #[test]
    fn more_layers_to_read_are_never_faster(case in case(), more in 1..8_u32) {
        // The first layers of the model as a model of its own.
        let machine = host("");
        let settings = Settings { n_gpu_layers: 0, n_cpu_moe: 0, ..case.settings() };
        let target = native(&machine);
        let cut = |n: u32| {
            let mut model = case.model().clone();
            model.layers.truncate(n as usize);
            model.tensors.retain(|tensor| tensor.layer().is_none_or(|layer| layer < n));
            let requirement = footprint::require(&model, &settings, &target, &footprint::EngineProfile::bundled()).unwrap();
            predict(&machine, &model, &target, &settings, &requirement, case.depth)
        };
        let n = case.model().n_layer_all().saturating_sub(more).max(1);
        let (part, whole) = (cut(n), cut(case.model().n_layer_all()));
        prop_assert!(rate(&whole.decode) <= rate(&part.decode) * SAME);
        prop_assert!(rate(&whole.prefill) <= rate(&part.prefill) * SAME);
    }

    #[test]
    fn a_second_equal_gpu_takes_nothing_off_a_token(case in case()) {
        let settings = Settings { n_gpu_layers: 999, n_cpu_moe: 0, kv_offload: true, ..case.settings() };
        let one = case.on(&host(",gpu=256GiB@900GB/s"), &settings, case.depth);
        let two = case.on(&host(",gpu=256GiB@900GB/s,gpu=256GiB@900GB/s"), &settings, case.depth);
        // Layers follow one another wherever they lie; only experts' blocks that overlap within a processor could differ.
        prop_assert!(rate(&two.decode) <= rate(&one.decode) * 1.001, "{} {}", rate(&two.decode), rate(&one.decode));
        prop_assert!(rate(&two.prefill) <= rate(&one.prefill) * 1.001, "{} {}", rate(&two.prefill), rate(&one.prefill));
    }

    #[test]
    fn intervals_are_in_order_and_requests_grow(
        case in case(), prompt in 1..8000_u32, output in 1..2000_u32, prefix in 0..8000_u32, users in 1..9_u32,
    ) {
        let machine = host(",gpu=256GiB@900GB/s");
        let base = Workload { prompt, output, shared_prefix: prefix.min(prompt), users: 1 };
        let forecast = case.forecast(&machine, base);
        for known in [&forecast.prediction.decode, &forecast.prediction.prefill, &forecast.curve[0].decode, &forecast.curve[1].prefill] {
            let (low, high) = (known.low().unwrap().get(), known.high().unwrap().get());
            prop_assert!(0.0 < low && low < rate(known) && rate(known) < high && high.is_finite());
        }
        let read = &forecast.request.prefill;
        prop_assert_eq!(read.is_unknown(), base.computed() == 0);
        if let Some(read) = read.get() {
            let seconds = f64::from(base.computed()) / read.get();
            prop_assert!(seconds <= forecast.request.first_token.get().unwrap().as_secs_f64() * SAME, "{seconds}");
        }
        let times = |workload| {
            let request = case.forecast(&machine, workload).request;
            (request.first_token.get().unwrap(), request.whole.get().unwrap())
        };
        let (first, whole) = times(base);
        prop_assert!(first <= whole);
        let many = times(Workload { users, ..base });
        prop_assert!(many.0 >= first && many.1 >= whole);
        let longer = times(Workload { prompt: prompt + 1000, ..base });
        prop_assert!(longer.0 >= first && longer.1 >= whole, "{longer:?} {first:?} {whole:?}");
        // Together they gain at least what one does.
        let together = case.forecast(&machine, Workload { users, ..base }).request.together;
        prop_assert!(rate(&together) * SAME >= rate(&forecast.request.decode));
    }
}
