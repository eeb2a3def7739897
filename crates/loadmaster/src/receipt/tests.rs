//! Receipts of launches that held, took less, and took more than their plan.

use super::*;
use crate::advise::{Advice, EngineChoice, Request, survey};
use crate::launch::{BufferUse, Outcome, ProcessMemory, ReportedBuffer, Timing};
use crate::machine::MachineSource;
use spec::Bytes;
use std::time::Duration;

/// A plan for a small model on a described machine; the folder keeps the model.
fn advice(machine: &str) -> (tempfile::TempDir, Advice) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let shape = synthetic::preset("smollm2-135m").unwrap();
    let file = synthetic::gguf(&shape, synthetic::FileType::Q8_0, &synthetic::Options::default()).unwrap();
    std::fs::write(&path, &file.header).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(file.size.get()).unwrap();
    let request = Request { machine: MachineSource::Description(machine.into()), engine: EngineChoice::Bundled, ..Request::new(path) };
    let advice = survey(&request).unwrap().advise(&request.plan).unwrap();
    (folder, advice)
}

/// What an engine would report that takes exactly what was planned, times a factor.
fn outcome(advice: &Advice, factor: f64) -> Outcome {
    let requirement = &advice.plan.plan().requirement;
    let buffer = |buffer_type: &str, usage, size: &spec::Known<Bytes>| ReportedBuffer {
        buffer_type: buffer_type.to_owned(),
        usage,
        size: size.get().unwrap().scale(factor),
        rounding: Bytes::ZERO,
    };
    let host = &requirement.host;
    let mut buffers = vec![
        buffer("CPU_Mapped", BufferUse::Weights, &host.mapped_span),
        buffer("CPU", BufferUse::Weights, &host.weights_anonymous),
        buffer("CPU_REPACK", BufferUse::Weights, &host.weights_repacked),
        buffer("CPU", BufferUse::Context, &host.kv_cache),
        buffer("CPU", BufferUse::Compute, &host.compute),
        buffer("CPU", BufferUse::Output, &host.output),
    ];
    for device in &requirement.devices {
        buffers.push(buffer(&device.name, BufferUse::Weights, &device.weights));
        buffers.push(buffer(&device.name, BufferUse::Context, &device.kv_cache));
        buffers.push(buffer(&device.name, BufferUse::Compute, &device.compute));
    }
    let anonymous = host.anonymous().get().map(|size| size.scale(factor));
    let memory = ProcessMemory { anonymous, mapped: host.mapped_touched.get(), peak: anonymous, anonymous_peak: anonymous };
    Outcome {
        engine: "test".into(),
        load: Some(Duration::from_millis(1500)),
        buffers,
        memory_at_load: memory,
        memory,
        prefill: Timing::somewhere(100, Duration::from_secs(1)),
        decode: Timing::default(),
        notes: vec!["a note".into()],
        without_device: false,
    }
}

#[test]
fn a_plan_that_held_has_no_error_and_exit_code_0() {
    for machine in ["ram=16GiB,cores=4", "ram=16GiB,cores=4,gpu=8GiB"] {
        let (_folder, advice) = advice(machine);
        let receipt = receipt(&advice, &outcome(&advice, 1.0));
        assert_eq!((receipt.exit_code(), receipt.disagreements.as_slice()), (0, [].as_slice()));
        for place in &receipt.places {
            assert_eq!(place.total.planned.as_ref().map(|planned| planned.value), place.total.reported, "{}", place.name);
            assert!(place.total.relative_error.is_none_or(|error| error == 0.0));
        }
        assert_eq!(receipt.places.last().unwrap().name, "host");
        assert_eq!((receipt.load_ms, receipt.prefill.measured, receipt.decode.measured), (Some(1500.0), Some(100.0), None));
        assert_eq!(receipt.settings.len(), spec::settings::Pins::from(spec::Settings::default()).names().len());
    }
}

#[test]
fn more_than_planned_is_a_disagreement_and_less_is_none() {
    let (_folder, advice) = advice("ram=16GiB,cores=4,gpu=8GiB");
    assert_eq!(receipt(&advice, &outcome(&advice, 0.5)).exit_code(), 0);
    let over = receipt(&advice, &outcome(&advice, 2.0));
    assert_eq!(over.exit_code(), 6);
    let places: Vec<_> = over.disagreements.iter().map(|found| (found.place.as_str(), found.kind)).collect();
    assert!(places.contains(&("CUDA0", DisagreementKind::OverPlan)), "{places:?}");
    assert!(places.contains(&("host", DisagreementKind::OverPlan)), "{places:?}");
    assert!(over.disagreements[0].to_string().contains("planned at most"));
    let beyond = receipt(&advice, &outcome(&advice, 1000.0));
    assert!(beyond.disagreements.iter().any(|found| found.kind == DisagreementKind::OverLimit));
    assert!(beyond.disagreements.iter().any(|found| found.place == "process"));
}

#[test]
fn a_short_prompt_touches_part_of_the_compute_buffer() {
    let (_folder, advice) = advice("ram=16GiB,cores=4");
    let requirement = &advice.plan.plan().requirement;
    let planned = |tokens| {
        let outcome = Outcome { prefill: Timing::somewhere(tokens, Duration::from_secs(1)), ..outcome(&advice, 1.0) };
        receipt(&advice, &outcome).process.anonymous.planned.unwrap()
    };
    let n_ubatch = u64::from(requirement.context.n_ubatch);
    let in_use = requirement.host.in_use.get().unwrap();
    assert_eq!(planned(n_ubatch), planned(7 * n_ubatch));
    assert_eq!(planned(n_ubatch).value - planned(n_ubatch / 2).value, in_use.scale(0.5).get());
    assert_eq!(planned(1).high, planned(n_ubatch).high);
    assert!(planned(1).low < planned(n_ubatch).low);
}

#[test]
fn a_run_far_below_the_prediction_is_flagged_with_probable_causes() {
    for machine in ["ram=16GiB,cores=4,features=sse4_2", "ram=16GiB,cores=4,gpu=8GiB"] {
        let (_folder, advice) = advice(machine);
        let predicted = advice.plan.plan().prediction.decode.get().unwrap().get();
        let of = |share: f64, tokens: u64| {
            let decode = Timing::somewhere(tokens, Duration::from_secs_f64(tokens as f64 / (predicted * share)));
            receipt(&advice, &Outcome { decode, ..outcome(&advice, 1.0) })
        };
        let slow = of(0.5, 64);
        assert!(slow.decode.anomaly.len() > 1, "{:?}", slow.decode.anomaly);
        assert_eq!(of(0.5, 4).decode.anomaly, [] as [&str; 0], "too few tokens tell nothing");
        assert_eq!(of(0.7, 64).decode.anomaly, [] as [&str; 0]);
        if machine.contains("sse4_2") {
            assert!(slow.decode.anomaly[0].contains("AVX2"), "what is known comes first: {:?}", slow.decode.anomaly);
        }
    }
}

#[test]
fn what_was_not_reported_is_unknown_and_not_zero() {
    let (_folder, advice) = advice("ram=16GiB,cores=4");
    let receipt = receipt(&advice, &Outcome::default());
    assert_eq!(receipt.exit_code(), 0);
    for line in receipt.places.iter().flat_map(|place| &place.parts) {
        assert_eq!((line.reported, line.relative_error), (None, None), "{}", line.component);
    }
    assert_eq!((receipt.process.anonymous.reported, receipt.load_ms, receipt.decode.within), (None, None, None));
}

#[test]
fn it_is_written_whole_and_read_again() {
    let (folder, advice) = advice("ram=16GiB,cores=4");
    let receipt = receipt(&advice, &outcome(&advice, 1.0));
    let path = folder.path().join("receipt.json");
    receipt.save(&path).unwrap();
    let again: Receipt = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(again, receipt);
    assert_eq!(again.schema_version, SCHEMA_VERSION);
    assert!(receipt.save(&folder.path().join("no/receipt.json")).is_err());
}

#[test]
fn the_schema_names_every_field() {
    let (_folder, advice) = advice("ram=16GiB,cores=4");
    let receipt = serde_json::to_value(receipt(&advice, &outcome(&advice, 1.0))).unwrap();
    let schema = schema();
    for key in receipt.as_object().unwrap().keys() {
        assert!(schema.pointer(&format!("/properties/{key}")).is_some(), "{key}");
    }
}

#[test]
fn a_prompt_and_an_answer_are_compared_with_speeds_where_they_stood() {
    let (_folder, advice) = advice("ram=16GiB,cores=4");
    let time = Duration::from_secs(1);
    let of = |prefill: Timing, decode: Timing| receipt(&advice, &Outcome { prefill, decode, ..outcome(&advice, 1.0) });
    let known = |past: u64, tokens: u64| of(Timing::behind(past, tokens, time), Timing::behind(past + tokens, 50, time));
    let (short, long) = (known(0, 100), known(0, 3000));
    assert_eq!((short.prefill.depth, short.decode.depth, long.decode.depth), (Some(49.5), Some(124.5), Some(3024.5)));
    assert!(long.decode.predicted < short.decode.predicted && long.prefill.predicted < known(0, 1024).prefill.predicted);
    // The rest of a long prompt, whose start is in the cache, stands as deep as its tokens do.
    assert!(known(2900, 100).prefill.predicted < short.prefill.predicted);
    // Several are as one at their middle.
    let mut two = Timing::behind(2500, 500, time);
    two.add(Timing::behind(0, 500, time));
    assert_eq!(of(two, two).prefill.predicted, of(Timing::behind(1250, 500, time), two).prefill.predicted);
    // Where nobody says, they are those of the plan.
    let plan = &advice.plan.plan().prediction;
    let unknown = of(Timing::somewhere(3000, time), Timing::somewhere(50, time));
    assert_eq!((unknown.prefill.depth, unknown.decode.depth), (None, None));
    assert_eq!(unknown.prefill.predicted, plan.prefill.get().map(|rate| rate.get()));
    assert_eq!(unknown.decode.predicted, plan.decode.get().map(|rate| rate.get()));
}
