//! `rocm-smi --json`: what the program read from the driver's files, put back there.

use probe::{Answer, Question, Recording};
use serde_json::{Map, Value};

/// The recording of the cards in such a text.
pub fn read(text: &str) -> Result<Recording, String> {
    let cards: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut host = Recording::new("from rocm-smi --json");
    host.set(&Question::Os, Ok(Answer::text("linux")));
    host.set(&Question::Arch, Ok(Answer::text("x86_64")));
    let mut addresses = Vec::new();
    for (name, card) in &cards {
        let Some(fields) = card.as_object().filter(|_| name.starts_with("card")) else { continue };
        addresses.extend(self::card(fields, &mut host));
    }
    if addresses.is_empty() {
        return Err("no card with an address on the PCI bus".into());
    }
    addresses.sort();
    host.set(&Question::List("/sys/bus/pci/devices".into()), Ok(Answer::Names(addresses)));
    Ok(host)
}

fn card(fields: &Map<String, Value>, host: &mut Recording) -> Option<String> {
    let get = |names: &[&str]| names.iter().find_map(|name| fields.get(*name)?.as_str()).map(str::trim).filter(|text| *text != "N/A");
    let address = get(&["PCI Bus"])?.to_ascii_lowercase();
    let device = u32::from_str_radix(get(&["Device ID", "GPU ID"])?.trim_start_matches("0x"), 16).ok()?;
    let folder = format!("/sys/bus/pci/devices/{address}");
    let mut put = |file: &str, text: Option<String>| {
        if let Some(text) = text {
            host.set(&Question::Read(format!("{folder}/{file}")), Ok(Answer::text(text)));
        }
    };
    put("modalias", Some(format!("pci:v00001002d{device:08X}sv00001002sd00000000bc03sc80i00")));
    put("uevent", Some(format!("DRIVER=amdgpu\nPCI_SLOT_NAME={address}")));
    put("unique_id", get(&["Unique ID"]).map(|id| id.trim_start_matches("0x").to_owned()));
    // Old versions give ids in the place of names.
    put("product_name", get(&["Card series", "Card Series"]).filter(|name| !name.starts_with("0x")).map(str::to_owned));
    for (file, name) in [
        ("mem_info_vram_total", "VRAM Total Memory (B)"),
        ("mem_info_vram_used", "VRAM Total Used Memory (B)"),
        ("mem_info_vis_vram_total", "VIS_VRAM Total Memory (B)"),
        ("mem_info_gtt_total", "GTT Total Memory (B)"),
        ("mem_info_gtt_used", "GTT Total Used Memory (B)"),
        ("gpu_busy_percent", "GPU use (%)"),
    ] {
        put(file, get(&[name]).map(str::to_owned));
    }
    // "0 (16.0GT/s x16)"
    let link = get(&["pcie clock level"]).and_then(|text| text.split(['(', ')']).nth(1)?.split_once("GT/s x"));
    put("current_link_speed", link.map(|(speed, _)| format!("{speed} GT/s PCIe")));
    put("current_link_width", link.map(|(_, lanes)| lanes.to_owned()));
    // Counted as an unsigned number, -1 is no node.
    let node = get(&["(Topology) Numa Affinity"]).filter(|node| *node != "4294967295");
    put("numa_node", Some(node.unwrap_or("-1").to_owned()));
    let parts = |names: &[&str], unit: f64| {
        let value: f64 = get(names)?.parse().ok()?;
        Some(((value * unit).round() as i64).to_string())
    };
    put("hwmon/hwmon0/temp1_input", parts(&["Temperature (Sensor edge) (C)"], 1e3));
    put("hwmon/hwmon0/power1_cap", parts(&["Max Graphics Package Power (W)"], 1e6));
    put("hwmon/hwmon0/power1_average", parts(&["Average Graphics Package Power (W)"], 1e6));
    host.set(&Question::List(format!("{folder}/hwmon")), Ok(Answer::Names(vec!["hwmon0".into()])));
    Some(address)
}
