//! `hardware`: what its three parts print. Figures are those of the stored profiles and change with them: digits are left out.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::Folder;
use insta::assert_snapshot;
use serde_json::Value;

/// The text without its figures, and without the columns and units that they decide.
fn without_figures(text: &str) -> String {
    let masked = common::without_numbers(text).replace("#.#", "#").replace("MiB", "GiB");
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    masked.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn json(line: &str) -> Value {
    serde_json::from_slice(&Folder::new().output(&format!("{line} --json")).stdout).unwrap()
}

#[test]
fn a_list_of_a_family() {
    assert_snapshot!(without_figures(&Folder::new().run("hardware list --family containers")));
}

#[test]
fn the_list_holds_every_family_and_a_filter_leaves_one() {
    let all = json("hardware list");
    let apple = json("hardware list --family apple-silicon --family jetson");
    let (all, apple) = (all["profiles"].as_array().unwrap(), apple["profiles"].as_array().unwrap());
    assert!(all.len() > 200 && apple.len() > 50 && apple.len() < all.len());
    assert!(apple.iter().all(|line| line["family"] == "apple-silicon" || line["family"] == "jetson"));
}

#[test]
fn one_profile_with_every_size() {
    assert_snapshot!(without_figures(&Folder::new().run("hardware show container-4-cpu-8gb")));
}

#[test]
fn another_use_is_planned_when_it_is_asked_for() {
    let context = |line: &str| -> u64 {
        let shown = json(line);
        let settings = shown["sizes"][2]["plan"]["settings"].as_array().unwrap().clone();
        let named = settings.iter().find(|setting| setting["name"] == "n_ctx").unwrap();
        named["value"].as_str().unwrap().parse().unwrap()
    };
    assert!(context("hardware show rtx-4090-24gb --use-case long-context") > context("hardware show rtx-4090-24gb"));
}

#[test]
fn an_id_that_is_none_names_the_nearest() {
    assert_snapshot!(Folder::new().run("hardware show rtx-4090"), @r#"
    exit 2
    --- stderr
    error: no profile of this id: "rtx-4090"
    hint: the nearest are rtx-4090-24gb, rtx-4090x2, rtx-4090-laptop-16gb; `loadmaster hardware list` names all of them
    "#);
    assert_eq!(Folder::new().output("hardware").status.code(), Some(2));
    assert_eq!(Folder::new().output("hardware list --family banana").status.code(), Some(2));
}

#[test]
fn a_machine_that_is_near_a_profile() {
    let told = Folder::new().run("hardware match --machine rtx3060-12gb,ram=16GiB,cpu=core-i5-12400");
    assert_snapshot!(without_figures(&told));
}

#[test]
fn a_machine_that_is_like_none_gets_the_conservative_default() {
    let told = json("hardware match --machine ram=16GiB,cores=8");
    assert_eq!(told["default_because"], "memory bandwidth not known here");
    assert_eq!(told["profile"]["family"], "cpu-only");
    assert!(told["score"].as_f64().unwrap() < 1.0);
    let text = Folder::new().run("hardware match --machine ram=16GiB,cores=8");
    assert!(text.contains("conservative default"), "{text}");
}

#[test]
fn every_profile_matches_itself_on_the_command_line() {
    for line in json("hardware list --family nvidia-laptop")["profiles"].as_array().unwrap() {
        let (id, machine) = (line["id"].as_str().unwrap(), line["machine"].as_str().unwrap());
        let told = json(&format!("hardware match --machine {machine}"));
        assert_eq!((told["profile"]["id"].as_str().unwrap(), &told["default_because"]), (id, &Value::Null));
    }
}
