//! Probing over engines that are small scripts: right, old, hanging, dying, and no engines at all.
#![cfg(unix)]

use super::*;
use std::os::unix::fs::PermissionsExt;

/// An executable shell script in `folder`.
fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const GOOD: &str = r#"
echo x >> "$0.asked"
case "$1" in
--version) echo 'version: 0.7.0 (build 11669, commit Debian)' >&2; echo 'built with GNU 16.2.0 for Linux x86_64' >&2;;
--help) echo '-m,    --model FNAME                    model path to load'
        echo '-c,    --ctx-size N                     size of the prompt context';;
--list-devices) echo 'Available devices:'; echo '  FAKE0: pretended (8192 MiB, 8000 MiB free)';;
esac"#;

fn times_asked(engine: &Path) -> usize {
    std::fs::read_to_string(format!("{}.asked", engine.display())).map_or(0, |text| text.lines().count())
}

fn fails(body: &str) -> EngineError {
    let folder = tempfile::tempdir().unwrap();
    let path = script(folder.path(), "llama-server", body);
    probe(&path, Tool::Server, Duration::from_millis(300), None).unwrap_err()
}

#[test]
fn an_engine_is_asked_once_per_content() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let path = script(folder.path(), "llama-server", GOOD);
    let probe = || probe(&path, Tool::Server, PROBE_DEADLINE, Some(&cache)).unwrap();
    let first = probe();
    assert_eq!(first.version.build, Some(11669));
    assert!(first.flags.accepts("-c") && !first.flags.accepts("-b"));
    assert!(first.rules().accepted.unwrap().contains("--model"));
    assert_eq!((probe(), times_asked(&path)), (first.clone(), 2));

    // Another time but the same content: known by its hash. Another content: asked again.
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    assert_eq!((probe(), times_asked(&path)), (first.clone(), 2));
    script(folder.path(), "llama-server", &GOOD.replace("11669", "12000"));
    assert_eq!((probe().version.build, times_asked(&path)), (Some(12000), 4));
    assert_ne!(probe().hash, first.hash);
}

#[test]
fn ik_llama_cpp_is_told_by_its_flags() {
    let folder = tempfile::tempdir().unwrap();
    let fork = GOOD.replace("0.7.0 (build 11669, commit Debian)", "3826 (ddceb0a5)");
    let with_flag = fork.replace("echo '-c, ", "echo '-mla,  --mla-use N                      enable MLA'; echo '-c, ");
    let profile = |name, body: &str| probe(&script(folder.path(), name, body), Tool::Server, PROBE_DEADLINE, None).unwrap().profile();
    let ik = profile("llama-server", &with_flag);
    assert_eq!((ik.name.as_str(), ik.rules), ("llama-server of ik_llama.cpp b3826", EngineProfile::of_ik_build(3826).rules));
    assert_eq!(profile("llama-server-2", &fork).rules, EngineProfile::of_build(3826).rules);
}

#[test]
fn a_cache_that_cannot_be_used_is_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = script(folder.path(), "llama-server", GOOD);
    let not_a_folder = folder.path().join("file");
    std::fs::write(&not_a_folder, "x").unwrap();
    assert!(probe(&path, Tool::Server, PROBE_DEADLINE, Some(&not_a_folder)).is_ok());

    let cache = folder.path().join("cache");
    assert!(probe(&path, Tool::Server, PROBE_DEADLINE, Some(&cache)).is_ok());
    for entry in std::fs::read_dir(cache.join("engines")).unwrap() {
        std::fs::write(entry.unwrap().path(), "{ torn").unwrap();
    }
    assert!(probe(&path, Tool::Server, PROBE_DEADLINE, Some(&cache)).is_ok());
}

#[test]
fn what_is_no_engine_is_said_to_be_none() {
    assert!(matches!(fails("sleep 100"), EngineError::Hangs { question: "--version", .. }));
    let hangs_later = "if [ \"$1\" = --help ]; then sleep 100; fi; echo 'version: 1 (a)'; echo 'built with cc'";
    assert!(matches!(fails(hangs_later), EngineError::Hangs { question: "--help", .. }));
    let other = fails("echo 'bash 5.2'");
    assert!(matches!(&other, EngineError::NotLlamaCpp { why, .. } if why.contains("bash 5.2")), "{other}");
    let garbage = "head -c 100000 /dev/zero | tr '\\0' '\\377'";
    assert!(matches!(fails(garbage), EngineError::NotLlamaCpp { .. }));
    assert!(matches!(fails("exit 127"), EngineError::NotLlamaCpp { .. }));
    let aborts = fails("echo 'cannot open libllama.so' >&2; kill -ABRT $$");
    assert!(
        matches!(&aborts, EngineError::Fails { status, said, .. } if status.contains("SIGABRT") && said.contains("libllama")),
        "{aborts}"
    );
    let no_help = fails("echo 'version: 1 (a)'; echo 'built with cc'");
    assert!(matches!(&no_help, EngineError::NotLlamaCpp { why, .. } if why.contains("--model")), "{no_help}");
    for error in [other, aborts, no_help] {
        assert_eq!((error.exit_code(), error.hint().is_some()), (5, true));
    }
}

#[test]
fn a_file_that_cannot_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("llama-server");
    std::fs::write(&path, "text").unwrap();
    let error = probe(&path, Tool::Server, PROBE_DEADLINE, None).unwrap_err();
    assert!(matches!(error, EngineError::CannotRun { .. }) && error.to_string().contains("llama-server"), "{error}");
    assert!(error.hint().unwrap().contains("executable"));
}

#[test]
fn the_user_may_name_a_file_or_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    let path = script(&folder.path().join("bin"), "llama-server", GOOD);
    assert_eq!(locate(Tool::Server, Some(&path)).unwrap(), path);
    assert_eq!(locate(Tool::Server, Some(folder.path())).unwrap(), path);
    assert_eq!(locate(Tool::Server, Some(&folder.path().join("bin"))).unwrap(), path);
    for nothing in [folder.path().join("none"), PathBuf::from("loadmaster-no-such-engine")] {
        let error = locate(Tool::Server, Some(&nothing)).unwrap_err();
        assert!(error.to_string().starts_with("no llama-server at "), "{error}");
        assert!(error.hint().unwrap().contains("llama.cpp"));
    }
    assert!(matches!(locate(Tool::Bench, Some(folder.path())), Err(EngineError::NotThere { .. })));
}

#[test]
fn devices_are_asked_for_only_where_the_engine_can_tell() {
    let folder = tempfile::tempdir().unwrap();
    let path = script(folder.path(), "llama-server", GOOD);
    let engine = probe(&path, Tool::Server, PROBE_DEADLINE, None).unwrap();
    assert!(list_devices(&engine, &[], PROBE_DEADLINE).unwrap().is_empty(), "its help names no --list-devices");
    let more = GOOD.replace("echo '-c,", "echo '--list-devices                          print'; echo '-c,");
    let path = script(folder.path(), "llama-server", &more);
    let engine = probe(&path, Tool::Server, PROBE_DEADLINE, None).unwrap();
    assert_eq!(list_devices(&engine, &[], PROBE_DEADLINE).unwrap().len(), 1);
}
