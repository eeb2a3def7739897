//! From older versions of the format to the present one.

use super::VERSION;
use serde_json::{Map, Value};

/// Version 0 kept its number under this key.
pub(super) const VERSION_KEY_0: &str = "version";

/// Names of settings in version 0, and their names now.
const SETTINGS_0: &[(&str, &str)] = &[("context", "n_ctx"), ("gpu_layers", "n_gpu_layers"), ("batch", "n_batch"), ("ubatch", "n_ubatch")];

/// Version 0, the draft before the first release: the number under `version`, settings in `[pins]`, and short names for
/// some of them. Keys that it does not know are left for the reader to refuse.
pub(super) fn from_0(mut table: Map<String, Value>) -> (Map<String, Value>, Vec<String>) {
    let mut notes = vec![format!("migrated from version 0 to {VERSION}")];
    table.remove(VERSION_KEY_0);
    table.insert("loadmaster".into(), VERSION.into());
    if let Some(mut pins) = table.remove("pins") {
        if let Value::Object(settings) = &mut pins {
            for (old, new) in SETTINGS_0 {
                if let Some(value) = settings.remove(*old) {
                    settings.insert((*new).into(), value);
                    notes.push(format!("pins.{old} is now settings.{new}"));
                }
            }
        }
        table.insert("settings".into(), pins);
    }
    (table, notes)
}
