//! Values and keys of the registry, under `HKEY_LOCAL_MACHINE`, read only.

use super::win32;
use crate::host::Refusal;
use windows::Win32::Foundation::{ERROR_NO_MORE_ITEMS, ERROR_SUCCESS};
use windows::Win32::System::Registry::{
    HKEY, HKEY_LOCAL_MACHINE, KEY_ENUMERATE_SUB_KEYS, REG_BINARY, REG_DWORD, REG_QWORD, REG_SZ, REG_VALUE_TYPE, RRF_RT_ANY, RegCloseKey,
    RegEnumKeyExW, RegGetValueW, RegOpenKeyExW,
};
use windows::core::{HSTRING, PWSTR};

/// Longer than any value that is asked for, in bytes.
const MAX_VALUE: usize = 4096;
/// The longest name of a key, with its end (Windows documentation, "Registry element size limits").
const MAX_NAME: usize = 256;
/// More keys than are ever looked at.
const MAX_KEYS: u32 = 4096;

/// The value at the end of a path.
///
/// # Errors
/// What the system says; [`Refusal::NotSupported`] for types that are neither text nor number.
#[allow(unsafe_code)]
pub(crate) fn value(path: &str) -> Result<String, Refusal> {
    let (key, name) = path.rsplit_once('\\').ok_or(Refusal::NotFound)?;
    let mut bytes = vec![0u8; MAX_VALUE];
    let mut length = MAX_VALUE as u32;
    let mut kind = REG_VALUE_TYPE::default();
    // SAFETY: the buffer has room for `length` bytes; the texts live through the call.
    let result = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            &HSTRING::from(key),
            &HSTRING::from(name),
            RRF_RT_ANY,
            Some(&raw mut kind),
            Some(bytes.as_mut_ptr().cast()),
            Some(&raw mut length),
        )
    };
    if result != ERROR_SUCCESS {
        return Err(win32(result));
    }
    bytes.truncate(usize::try_from(length).unwrap_or(0));
    text(kind, &bytes).ok_or(Refusal::NotSupported)
}

/// Drivers write sizes as numbers or as bytes.
fn text(kind: REG_VALUE_TYPE, bytes: &[u8]) -> Option<String> {
    match kind {
        REG_SZ => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            Some(String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default()))
        }
        REG_DWORD | REG_QWORD | REG_BINARY if (1..=8).contains(&bytes.len()) => {
            Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)).to_string())
        }
        _ => None,
    }
}

/// The names of the keys in a key, sorted.
///
/// # Errors
/// What the system says.
#[allow(unsafe_code)]
pub(crate) fn keys(path: &str) -> Result<Vec<String>, Refusal> {
    let mut key = HKEY::default();
    // SAFETY: the text lives through the call; the pointer is to a local handle.
    let result = unsafe { RegOpenKeyExW(HKEY_LOCAL_MACHINE, &HSTRING::from(path), None, KEY_ENUMERATE_SUB_KEYS, &raw mut key) };
    if result != ERROR_SUCCESS {
        return Err(win32(result));
    }
    let mut names = Vec::new();
    let mut outcome = Ok(());
    for index in 0..MAX_KEYS {
        let mut name = [0u16; MAX_NAME];
        let mut length = MAX_NAME as u32;
        // SAFETY: the key is open; the buffer has room for `length` units.
        let result = unsafe { RegEnumKeyExW(key, index, Some(PWSTR(name.as_mut_ptr())), &raw mut length, None, None, None, None) };
        match result {
            ERROR_SUCCESS => names.push(String::from_utf16_lossy(name.get(..length as usize).unwrap_or_default())),
            ERROR_NO_MORE_ITEMS => break,
            other => {
                outcome = Err(win32(other));
                break;
            }
        }
    }
    // SAFETY: the key was opened above and is not used after.
    let _ = unsafe { RegCloseKey(key) };
    outcome?;
    names.sort();
    Ok(names)
}
