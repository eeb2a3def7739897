//! Every shape and file type against the project's other writer of such files, tensor by tensor.
#![allow(clippy::disallowed_methods, reason = "the cross-check is another program")]

use std::path::Path;
use std::process::Command;
use synthetic::{FileType, Options, Vocabulary, gguf, preset};

const TYPES: [FileType; 14] = [
    FileType::F32,
    FileType::F16,
    FileType::BF16,
    FileType::Q8_0,
    FileType::Q4_0,
    FileType::Q2_K,
    FileType::Q3_K_M,
    FileType::Q4_K_S,
    FileType::Q4_K_M,
    FileType::Q5_K_M,
    FileType::Q6_K,
    FileType::IQ4_XS,
    FileType::IQ2_M,
    FileType::MXFP4_MOE,
];

/// Prints `> shape type` and then name, type and bytes of each tensor.
const SCRIPT: &str = r#"
import sys
sys.path.insert(0, sys.argv[1])
import make_gguf as other
for name, shape in other.PRESETS.items():
    _, tensors = other.describe(shape)
    for file_type in sys.argv[2].split(","):
        print(">", name, file_type)
        for (tensor, extents, _), ty in zip(tensors, other.choose_types(shape, tensors, file_type)):
            print(tensor, ty, other.tensor_bytes(ty, extents))
"#;

#[test]
fn every_shape_and_type_has_the_same_tensors_to_the_byte() {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/tools");
    if !tools.join("make_gguf.py").exists() {
        println!("SKIPPED: no cross-check, ../shared/tools/make_gguf.py is not there");
        return;
    }
    let types = TYPES.map(FileType::name).join(",");
    let output = Command::new("python3").args(["-B", "-c", SCRIPT]).arg(&tools).arg(&types).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let options = Options { vocabulary: Vocabulary::None, ..Options::default() };
    let mut compared = 0;
    for section in text.split("> ").skip(1) {
        let (title, expected) = section.split_once('\n').unwrap();
        let (name, file_type) = title.split_once(' ').unwrap();
        let shape = preset(name).unwrap_or_else(|| panic!("no shape {name}"));
        let file = gguf(&shape, file_type.parse().unwrap(), &options).unwrap();
        let mut ours: Vec<String> =
            file.tensors.iter().map(|tensor| format!("{} {} {}", tensor.name, tensor.ty, tensor.bytes.get())).collect();
        let mut theirs: Vec<String> = expected.lines().map(str::to_owned).collect();
        ours.sort();
        theirs.sort();
        let different: Vec<_> = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs).take(5).collect();
        assert!(ours == theirs, "{title}: {different:?}");
        compared += 1;
    }
    assert!(compared >= 42 * TYPES.len(), "only {compared} compared");
}
