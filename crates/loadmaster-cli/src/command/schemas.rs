//! `schemas`: the published schemas of all outputs, out of the types that are printed.

use super::{Shared, failure};
use crate::args::SchemasArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::view;
use loadmaster::store;

/// Writes one file per schema.
pub fn schemas(shared: &Shared, args: &SchemasArgs) -> Outcome {
    std::fs::create_dir_all(&args.folder).map_err(|error| Failure::output(args.folder.display(), &error))?;
    for (name, schema) in view::schemas() {
        let path = args.folder.join(format!("{name}.json"));
        store::write_atomically(&path, text(&schema)?.as_bytes()).map_err(|error| failure(&error.into()))?;
    }
    shared.output.say(format_args!("wrote the schemas to {}", args.folder.display()));
    Ok(Exit::Done)
}

/// A schema as it is published.
fn text(schema: &serde_json::Value) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(schema).map_err(|error| Failure::new(Exit::File, error))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_published_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        for (name, schema) in view::schemas() {
            let published = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap_or_default();
            assert!(published == text(&schema).unwrap(), "schemas/{name}.json is stale: run `loadmaster schemas schemas`");
        }
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, view::schemas().len(), "a file in schemas/ belongs to no output");
    }
}
