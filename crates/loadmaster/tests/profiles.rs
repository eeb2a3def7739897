//! Hardware profiles: what is stored is what the planner says, and how machines are matched with them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot be set up has failed; what is missing is told")]

#[path = "../examples/profiles/coverage.rs"]
mod coverage;
#[path = "../examples/profiles/pages.rs"]
mod pages;

use loadmaster::planner::UseCase;
use loadmaster::probe::describe;
use loadmaster::profiles::{
    Archetype, CLASSES, Family, Fit, NEAR, archetype, archetypes, generate, match_machine, profiles, read, recommend, score, table,
};
use loadmaster::spec::{Bytes, Known, Machine};
use proptest::prelude::*;
use std::path::Path;

const AGAIN: &str = "run `cargo run --release -p loadmaster --example profiles`";

#[test]
fn what_is_stored_is_what_the_planner_says_now() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/profiles.csv");
    let stored = std::fs::read_to_string(path).unwrap();
    let now = table(archetypes(), &generate(archetypes(), UseCase::General));
    if stored != now {
        let differs = stored.lines().zip(now.lines()).filter(|(stored, now)| stored != now).count();
        let first = stored.lines().zip(now.lines()).find(|(stored, now)| stored != now);
        panic!("{differs} rows of data/profiles.csv are stale: {AGAIN}\nstored and now, first difference: {first:#?}");
    }
    assert!(stored.len() < 300_000, "{} bytes", stored.len());
}

#[test]
fn the_stored_table_reads_back_as_it_was_written() {
    let profiles = profiles();
    assert_eq!(profiles.len(), archetypes().len());
    assert!(profiles.iter().all(|profile| profile.entries.iter().map(|entry| entry.class.id).eq(CLASSES.map(|class| class.id))));
    let (rows, entries): (Vec<Archetype>, Vec<_>) =
        profiles.iter().map(|profile| (profile.archetype.clone(), profile.entries.clone())).unzip();
    let stored = include_str!("../data/profiles.csv");
    assert_eq!(table(&rows, &entries), stored);
    assert_eq!(read(stored).unwrap(), profiles);
}

#[test]
fn nothing_that_is_not_known_is_stored_as_nothing() {
    for profile in profiles() {
        for entry in &profile.entries {
            let id = format!("{} {}", profile.archetype.id, entry.class.id);
            match &entry.plan {
                None => assert!(entry.fit == Fit::Refused && !entry.notes.is_empty(), "{id}"),
                Some(plan) => {
                    let (low, mid, high) =
                        (plan.decode.low().unwrap().get(), plan.decode.get().unwrap().get(), plan.decode.high().unwrap().get());
                    assert!(low > 0.0 && low <= mid && mid <= high, "{id}: {low} {mid} {high}");
                    assert!(plan.host.get().is_none_or(|bytes| !bytes.is_zero()), "{id}");
                    assert!(
                        plan.settings.n_ctx.is_some() && plan.settings.n_gpu_layers.is_some() && plan.settings.threads.is_some(),
                        "{id}"
                    );
                    assert_eq!(entry.fit == Fit::Downgraded, !entry.notes.is_empty(), "{id}: {}", entry.notes);
                }
            }
        }
    }
}

/// Graphs are shared between archetypes; a machine alone has the same plan.
#[test]
fn a_profile_does_not_depend_on_its_neighbours() {
    for id in ["rtx-3060-12gb", "rtx-3090x2", "rx-7900-xtx-24gb", "laptop-16gb", "container-4-cpu-8gb"] {
        let alone = recommend(&archetype(id).unwrap().machine().unwrap(), UseCase::General);
        let row = archetypes().iter().position(|row| row.id == id).unwrap();
        let stored = &profiles()[row].entries;
        assert_eq!(table(&archetypes()[row..=row], &[alone]), table(&archetypes()[row..=row], std::slice::from_ref(stored)), "{id}");
    }
}

#[test]
fn every_archetype_is_nearest_to_itself() {
    for row in archetypes() {
        let matching = match_machine(&row.machine().unwrap()).unwrap();
        assert_eq!(matching.chosen.archetype.id, row.id);
        assert!(
            matching.chosen.score > 0.999 && matching.default_because.is_none() && matching.chosen.differences.is_empty(),
            "{}",
            row.id
        );
        let second = matching.others.first().map_or(0.0, |other| other.score);
        assert!(second < matching.chosen.score, "{} and {}", row.id, matching.others[0].archetype.id);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// The further a quantity is from the archetype's, the lower the score.
    #[test]
    fn the_score_falls_as_a_machine_moves_away(row in 0..archetypes().len(), near in 1.0..3.0_f64, more in 1.0..3.0_f64, up in any::<bool>(), which in 0..3) {
        let row = &archetypes()[row];
        let moved = |factor: f64| {
            let mut machine = row.machine().unwrap();
            let factor = if up { factor } else { 1.0 / factor };
            match which {
                0 => scale(&mut machine.facts.memory.total, factor),
                1 => machine.facts.gpus.iter_mut().for_each(|gpu| scale(&mut gpu.memory_total, factor)),
                _ => {
                    let threads = (f64::from(machine.effective_cores()) * factor).max(1.0) as u32;
                    machine.limits.allowed_physical_cores = Known::exact(threads, "test");
                    machine.limits.allowed_cpus = Known::exact((0..threads).collect(), "test");
                    machine.limits.cpu_quota = Known::unknown("test");
                }
            }
            score(&machine, row).unwrap()
        };
        let (close, far) = (moved(near), moved(near * more));
        prop_assert!(far <= close + 1e-12, "{}: {far} > {close}", row.id);
        prop_assert!((0.0..=1.0 + 1e-12).contains(&close));
    }

    /// Whatever the machine, there is a profile, and a default promises no more memory than there is.
    #[test]
    fn every_machine_has_a_profile(ram in 1_u64..3000, cores in 1_u32..200, gpu in prop::option::of(1_u64..300), bandwidth in prop::option::of(5_u32..2000)) {
        let mut text = format!("ram={ram}GiB,cores={cores}");
        if let Some(gpu) = gpu { text.push_str(&format!(",gpu={gpu}GiB")); }
        if let Some(bandwidth) = bandwidth { text.push_str(&format!(",bandwidth={bandwidth}GB/s")); }
        let matching = match_machine(&describe(&text).unwrap()).unwrap();
        if matching.default_because.is_some() {
            let chosen = matching.chosen.archetype.machine().unwrap();
            let promised = chosen.effective_memory_total().get().unwrap();
            prop_assert!(promised.scale(0.9) <= Bytes::from_gib(ram).max(Bytes::from_gib(2)), "{text}: {}", matching.chosen.archetype.id);
        } else {
            prop_assert!(matching.chosen.score >= NEAR);
        }
    }
}

fn scale(bytes: &mut Known<Bytes>, factor: f64) {
    *bytes = bytes.clone().map(|bytes| bytes.scale(factor));
}

/// A machine as a line: which profile, and what differs.
fn line(machine: &Machine) -> String {
    let matching = match_machine(machine).unwrap();
    let default = matching.default_because.map_or_else(String::new, |why| format!(" DEFAULT: {why}"));
    let mut text = format!("{}: {} {:.0} %{default}", machine.origin, matching.chosen.archetype.id, 100.0 * matching.chosen.score);
    for difference in &matching.chosen.differences {
        text.push_str(&format!("\n    {}", difference.told()));
        difference.follows().iter().for_each(|follows| text.push_str(&format!(": {follows}")));
    }
    text
}

#[test]
fn machines_that_are_none_of_them() {
    let lines: Vec<String> = [
        "rtx4070,ram=64GiB,cpu=core-i7-12700k",
        "rtx4090x3,ram=256GiB,cpu=epyc-7543",
        "gtx-970,ram=16GiB,cpu=core-i5-4570",
        "m2-8c-16gb",
        "cpu=ryzen-7-7840hs,ram=16GiB",
        "cpu=xeon-gold-6130x2,ram=192GiB",
        "ram=64GiB,cores=8,gpu=24GiB",
        "ram=16GiB,cores=8,gpu=24GiB,gpu=24GiB",
        "ram=16GiB,cores=8",
        "ram=1GiB,cores=1",
        "cores=8",
        "arc-b390,ram=32GiB,cores=16",
    ]
    .map(|text| line(&describe(text).unwrap()))
    .into();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_a_smaller_machine_has_no_room_for_is_named() {
    let too_large = |text: &str| -> (String, Vec<&str>) {
        let machine = describe(text).unwrap();
        let matching = match_machine(&machine).unwrap();
        (matching.chosen.archetype.id.clone(), matching.too_large(&machine).iter().map(|class| class.id).collect())
    };
    assert_eq!(too_large("rtx3060-12gb,ram=32GiB,cpu=ryzen-7-7700"), ("rtx-3060-12gb".into(), vec![]));
    let (id, sizes) = too_large("rtx3060-12gb,ram=12GiB,cpu=ryzen-7-7700");
    assert!(id == "rtx-3060-12gb" && sizes.contains(&"32b") && !sizes.contains(&"8b"), "{sizes:?}");
    for row in archetypes() {
        let machine = row.machine().unwrap();
        assert_eq!(match_machine(&machine).unwrap().too_large(&machine), [] as [&_; 0], "{}", row.id);
    }
}

#[test]
fn every_family_has_profiles_and_every_profile_runs_something() {
    for family in Family::ALL {
        assert!(profiles().iter().filter(|profile| profile.archetype.family == *family).count() >= 5, "{family}");
    }
    for profile in profiles() {
        assert!(profile.entries[0].plan.is_some(), "{} runs nothing", profile.archetype.id);
    }
}

/// What is asked for: the least of a survey's answers that are near a profile. The goal is 95 %.
const LEAST: f64 = 0.80;

#[test]
fn what_people_have_is_near_a_profile() {
    for covered in coverage::surveys() {
        println!("{}: {:.1} % near a profile; missing {:?}", covered.survey, 100.0 * covered.part(), covered.missing);
        assert!(covered.all > 80.0 && covered.part() >= LEAST, "{}: {}", covered.survey, covered.part());
    }
}

#[test]
fn the_pages_show_what_is_stored() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/quick-start");
    for family in Family::ALL {
        assert!(folder.join(format!("{family}.md")).exists(), "{family} has no page");
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(page == pages::fill(&page, profiles()).unwrap(), "{} is stale: {AGAIN}", path.display());
    }
    assert!(pages::fill("<!-- generated: banana -->\n<!-- end -->", profiles()).is_err());
    assert!(pages::fill("<!-- generated: classes -->\n", profiles()).is_err());
}
